"""`jivs up` as a user of the web UI or a GraphQL client drives it: nothing but HTTP.

What belongs here: starting the stack, asking it, which processes work for it, and the source that most of its tests
migrate. What does not: what the answers must be.
"""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jivs_pipeline_tests.fix_cli import Jivs, Started, new_database
from jivs_pipeline_tests.sqlite_files import make_file

SELECTOR = {"repositoryLocationName": "jivs_pipeline", "repositoryName": "__repository__"}


@dataclass
class Stack:
    """`jivs up`, and what its connections lead to: `legacy`, `warehouse`, and `absent`, which leads nowhere."""

    jivs: Jivs
    source: Path
    target: str
    env: Mapping[str, str] = field(default_factory=dict)
    started: Started = field(init=False)
    port: int = field(init=False)

    def start(self) -> None:
        """Also once more, on another port."""
        self.port = free_port()
        ports = {"JIVS_UI_PORT": str(self.port), "JIVS_METRICS_PORT": str(free_port())}
        absent = f"sqlite:///{self.jivs.directory}/absent.sqlite"
        connections = self.jivs.connections(
            legacy=f"sqlite:///{self.source}", warehouse=self.target, absent=absent
        )
        self.started = self.jivs.start("up", env={**ports, **connections, **self.env})

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
        # Who asks once more because the answer was lost finds it there.
        assert found["__typename"] in {"AddDynamicPartitionSuccess", "DuplicateDynamicPartitionError"}, found

    def launch(self, key: str, spec: dict[str, Any] | None) -> str:
        """Launch the job on a partition; returns the run's id."""
        config: dict[str, Any] = {"ops": {"plan": {"config": {"spec": spec}}}} if spec else {}
        return self._launch("migration", config, [{"key": "dagster/partition", "value": key}])

    def migrate(self, key: str, **options: Any) -> str:
        """Launch a new migration from `legacy` to `warehouse`; returns the run's id."""
        self.add_partition(key)
        return self.launch(key, {"key": key, "source": "legacy", "target": "warehouse", **options})

    def steer(self, job: str, **config: Any) -> str:
        """Launch one of the steering jobs."""
        return self._launch(job, {"ops": {f"{job}_migration": {"config": config}}}, [])

    def _launch(self, job: str, config: dict[str, Any], tags: list[dict[str, str]]) -> str:
        found = self.ask(
            """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on RunConfigValidationInvalid { errors { message } } } }""",
            parameters={
                "selector": {**SELECTOR, "jobName": job},
                "runConfigData": config,
                "executionMetadata": {"tags": tags},
            },
        )["launchRun"]
        return _launched(found)

    def reexecute(self, run_id: str, strategy: str) -> str:
        """The button of the run page: `FROM_FAILURE` or `ALL_STEPS`."""
        return self._reexecute(reexecution={"parentRunId": run_id, "strategy": strategy})

    def reexecute_steps(self, run_id: str, key: str, steps: list[str]) -> str:
        """ "Re-execute from selected" on the first run of a migration."""
        metadata = {
            "parentRunId": run_id,
            "rootRunId": run_id,
            "tags": [{"key": "dagster/partition", "value": key}],
        }
        selector = {**SELECTOR, "jobName": "migration"}
        return self._reexecute(
            execution={"selector": selector, "stepKeys": steps, "executionMetadata": metadata}
        )

    def _reexecute(self, **parameters: Any) -> str:
        found = self.ask(
            """mutation ($execution: ExecutionParams, $reexecution: ReexecutionParams) {
                 launchRunReexecution(executionParams: $execution, reexecutionParams: $reexecution) {
                   __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            **parameters,
        )["launchRunReexecution"]
        return _launched(found)

    def wait(self, run_id: str, seconds: float = 90) -> dict[str, Any]:
        """Until the run has ended."""
        deadline = time.monotonic() + seconds
        while True:
            run = self.ask(RUN, id=run_id)["runOrError"]
            if run["status"] in {"SUCCESS", "FAILURE", "CANCELED"}:
                return run
            assert time.monotonic() < deadline, f"run {run_id} is {run['status']} after {seconds:g} s"
            time.sleep(0.3)

    def last_words(self, keys: list[str]) -> list[str]:
        """For whoever has to understand a failure: what `jivs up` said, its processes, and the runs of migrations."""
        process, home = self.started.process, self.jivs.home
        said = (self.started.out.read_text() + self.started.err.read_text())[-3000:]
        told = [f"jivs up: exit code {process.poll()}\n{said}", *map(str, processes_of(home).items())]
        logs = sorted(home.glob("dagster/*.log"))
        told += [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs]
        with suppress(OSError, AssertionError):
            tags = [{"key": "jivs/migration_key", "value": key} for key in keys]
            told += [str(self.ask(RUNS, filter={"tags": [tag]})["runsOrError"]) for tag in tags]
            told.append(str(self.ask(TICKS, selector=SELECTOR)["sensorsOrError"]))
        return told

    def stop(self) -> None:
        """Ctrl-C, where it still runs."""
        if self.started.process.poll() is None:
            self.started.signal(signal.SIGINT)
        self.started.wait(30)

    def tags(self, run_id: str) -> dict[str, str]:
        return {t["key"]: t["value"] for t in self.ask(RUN, id=run_id)["runOrError"]["tags"]}

    def status(self, key: str) -> str:
        """Of a migration, as the command line says it."""
        return self.jivs("status", key, "--json", code=0).document["status"]

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

RUNS = """query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results {
    runId status parentRunId creationTime tags { key value } } } } }"""

TICKS = """query ($selector: RepositorySelector!) { sensorsOrError(repositorySelector: $selector) { ... on Sensors { results {
    name sensorState { status ticks(limit: 2) { status timestamp skipReason error { message } } } } } } }"""

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


def _launched(found: Any) -> str:
    assert found["__typename"] == "LaunchRunSuccess", found
    return found["run"]["runId"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def processes_of(home: Path) -> dict[int, str]:
    """Command lines of all processes that work for a home, its servers and this worker's zygotes not counted."""
    found: dict[int, str] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        ours = "-m jivs_pipeline_tests." in command
        if f"JIVS_HOME={home}".encode() in environment and command and not ours:
            found[int(directory.name)] = command
    return found


@contextmanager
def stack_up(jivs: Jivs, source: Path, target: str, env: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """`jivs up`, stopped at the end."""
    stack = Stack(jivs, source, target, env or {})
    stack.start()
    try:
        stack.started.wait_for("Dagster UI", 120)
        yield stack
    finally:
        stack.stop()


@contextmanager
def stack_of(
    jivs_home: tuple[Path, str], directory: Path, script: str, env: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """`jivs up` in a home, from a SQLite file that a script makes to an empty database of the home's server."""
    home, server = jivs_home
    source = make_file(directory / "towns.sqlite", script)
    with (
        new_database(server) as target,
        stack_up(Jivs(home, directory, server), source, target, env) as stack,
    ):
        yield stack


def countries_and_towns(towns: int = 2000, width: int = 120) -> str:
    """Script of two tables, one of which refers to the other; names have `width` characters."""
    return f"""
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE towns (id INTEGER PRIMARY KEY, country TEXT REFERENCES countries (code), name TEXT);
INSERT INTO countries VALUES ('is', 'Ísland'), ('no', 'Norge');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {towns})
INSERT INTO towns SELECT i, iif(i % 2, 'is', 'no'), printf('%0{width}d', i) FROM n;
"""
