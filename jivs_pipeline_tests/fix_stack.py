"""`jivs up` as a user of the web UI or a GraphQL client drives it: nothing but HTTP.

What belongs here: starting the stack, asking it, and which processes work for it. What does not: what the answers
must be.
"""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jivs_pipeline_tests.fix_cli import Jivs, Started

SELECTOR = {"repositoryLocationName": "jivs_pipeline", "repositoryName": "__repository__"}


@dataclass
class Stack:
    """`jivs up`, and what its connections lead to."""

    jivs: Jivs
    started: Started
    port: int
    source: Path
    target: str

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer's data; GraphQL errors fail."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def add_partition(self, key: str) -> None:
        found = self.ask(
            """mutation ($selector: RepositorySelector!, $key: String!) {
                 addDynamicPartition(repositorySelector: $selector, partitionsDefName: "migrations", partitionKey: $key) {
                   __typename ... on UnauthorizedError { message } ... on PythonError { message } } }""",
            selector=SELECTOR, key=key,
        )["addDynamicPartition"]  # fmt: skip
        assert found["__typename"] == "AddDynamicPartitionSuccess", found

    def launch(self, key: str, spec: dict[str, Any] | None) -> str:
        """Launch the job on a partition; returns the run's id."""
        config: dict[str, Any] = {"ops": {"plan": {"config": {"spec": spec}}}} if spec else {}
        found = self.ask(
            """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on RunConfigValidationInvalid { errors { message } } } }""",
            parameters={
                "selector": {**SELECTOR, "jobName": "migration"},
                "runConfigData": config,
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": key}]},
            },
        )["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        return found["run"]["runId"]

    def wait(self, run_id: str, seconds: float = 90) -> dict[str, Any]:
        """Until the run has ended."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.ask(RUN, id=run_id)["runOrError"]
            if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"}:
                return run
            assert time.monotonic() < deadline, f"run {run_id} is {run['status']} after {seconds:g} s"
            time.sleep(0.3)

    def stop(self) -> None:
        """Ctrl-C, where it still runs."""
        if self.started.process.poll() is None:
            self.started.signal(signal.SIGINT)
        self.started.wait(30)

    def logs(self, run_id: str) -> list[dict[str, Any]]:
        found = self.ask(LOGS, id=run_id)["logsForRun"]
        assert found["__typename"] == "EventConnection", found
        return found["events"]

    def story(self, run_id: str) -> str:
        """What a person reads when a run failed."""
        told: list[str] = []
        for event in self.logs(run_id):
            if event.get("level") in {"ERROR", "INFO"} and event.get("message"):
                told.append(event["message"])
            if event["__typename"] == "ExecutionStepFailureEvent":
                told += [event["error"]["message"], (event["failureMetadata"] or {}).get("description") or ""]
        return "\n".join(told)[-4000:]


RUN = """query ($id: ID!) { runOrError(runId: $id) { __typename
    ... on Run { status jobName runConfigYaml tags { key value } stepStats { stepKey status } } } }"""

LOGS = """query ($id: ID!) { logsForRun(runId: $id, limit: 2000) { __typename ... on EventConnection { events {
    __typename
    ... on MessageEvent { message level }
    ... on ExecutionStepFailureEvent { stepKey error { message stack } failureMetadata { description metadataEntries { label description ... on TextMetadataEntry { text } } } }
    ... on MaterializationEvent { stepKey assetKey { path } partition metadataEntries { label __typename
        ... on IntMetadataEntry { intValue } ... on FloatMetadataEntry { floatValue } ... on TextMetadataEntry { text }
        ... on MarkdownMetadataEntry { mdStr } ... on PathMetadataEntry { path } } }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success assetKey { path } metadataEntries { label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } } } }
    ... on ExecutionStepOutputEvent { metadataEntries { label ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } } }
    } } } }"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(home: Path) -> dict[int, str]:
    """Command lines of all processes that work for a home, its servers not counted."""
    found: dict[int, str] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"JIVS_HOME={home}".encode() in environment and command:
            found[int(directory.name)] = command
    return found


@contextmanager
def stack_up(jivs: Jivs, source: Path, target: str, env: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """`jivs up` with the connections `legacy`, `warehouse` and one that leads nowhere; stopped at the end."""
    started, port = start_stack(jivs, source, target, env)
    stack = Stack(jivs, started, port, source, target)
    try:
        started.wait_for("Dagster UI", 120)
        yield stack
    finally:
        stack.stop()


def start_stack(
    jivs: Jivs, source: Path, target: str, env: Mapping[str, str] | None = None
) -> tuple[Started, int]:
    port = free_port()
    ports = {"JIVS_UI_PORT": str(port), "JIVS_METRICS_PORT": str(free_port())}
    absent = f"sqlite:///{jivs.directory}/absent.sqlite"
    connections = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target, absent=absent)
    return jivs.start("up", env={**ports, **connections, **(env or {})}), port
