#!/usr/bin/env python3
"""Drive migrations over Dagster's GraphQL API. Copy this file; it needs nothing but Python 3.11.

    python graphql_client.py migrate spec.json      # add the partition, launch with the spec, wait
    python graphql_client.py launch KEY             # once more, with the spec that is stored
    python graphql_client.py again RUN [--all]      # repeat a run from where it failed, or from its first op
    python graphql_client.py terminate RUN          # cancels the migration
    python graphql_client.py pause KEY              # so do: cancel KEY [--rollback], rollback KEY

The server is http://127.0.0.1:3000, or what `--url` says. Exit code 0: the last run succeeded; 1: it did not; 2: it was
refused, with one sentence on stderr. docs/graphql.md explains each call.
"""

import argparse
import json
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

REPOSITORY = {"repositoryLocationName": "jivs_pipeline", "repositoryName": "__repository__"}
PARTITION = "dagster/partition"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}

# Why something was not done; every query ends with it.
WHY = "fragment why on Error { message ... on PythonError { causes { message } } }"

ADD_PARTITION = """
mutation ($repository: RepositorySelector!, $key: String!) {
  answer: addDynamicPartition(repositorySelector: $repository, partitionsDefName: "migrations", partitionKey: $key) {
    __typename ...why } }"""

LAUNCH_RUN = """
mutation ($params: ExecutionParams!) { answer: launchRun(executionParams: $params) {
    __typename ...why
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } } } }"""

REEXECUTE = """
mutation ($params: ReexecutionParams!) { answer: launchRunReexecution(reexecutionParams: $params) {
    __typename ...why
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } } } }"""

TERMINATE = """
mutation ($id: String!) { answer: terminateRun(runId: $id) {
    __typename ...why
    ... on TerminateRunFailure { message } } }"""

RUN = """
query ($id: ID!) { answer: runOrError(runId: $id) {
    __typename ...why
    ... on Run { status tags { key value } } } }"""

FAILURES = """
query ($id: ID!, $after: String) { answer: logsForRun(runId: $id, afterCursor: $after, limit: 1000) {
    __typename ...why
    ... on EventConnection { cursor hasMore events {
        ... on RunFailureEvent { message }
        ... on ExecutionStepFailureEvent { failureMetadata { description } error { message } } } } } }"""

SENTENCES = {
    "UnauthorizedError": "The server does not allow this: it is read-only, or its code location has no such partitions",
    "PipelineNotFoundError": "The server has no such job: check that the code location jivs_pipeline is loaded",
    "RunNotFoundError": "The server has no such run",
    "ConflictingExecutionParamsError": "The launch names a preset and a run config: leave the preset out",
    "InvalidSubsetError": "The launch chooses ops that the job does not have",
    "InvalidStepError": "The run that is repeated has no such step",
    "RunConflict": "There is a run of this id already",
}


class Refused(Exception):
    """The server did not do what it was asked for; the text is one sentence."""


class Dagster:
    """One server. Every method is one or two calls."""

    def __init__(self, url: str = "http://127.0.0.1:3000") -> None:
        self.url = url.rstrip("/") + "/graphql"

    def add_partition(self, key: str) -> None:
        """Make the migration's key a partition of the job; one that is there already is fine."""
        self._ask(ADD_PARTITION, accept="DuplicateDynamicPartitionError", repository=REPOSITORY, key=key)

    def launch(self, key: str, spec: dict[str, Any] | None = None) -> str:
        """Launch the migration of a partition; returns the run's id. Without a spec, the stored one counts."""
        config = {"ops": {"plan": {"config": {"spec": spec}}}} if spec is not None else {}
        return self._launch("migration", config, [{"key": PARTITION, "value": key}])

    def steer(self, verb: str, key: str, **config: Any) -> str:
        """Launch the job pause, cancel (rollback=True as well) or rollback; returns its run's id.

        Without a partition: it would queue behind the run that it is to stop.
        """
        return self._launch(verb, {"ops": {f"{verb}_migration": {"config": {"key": key, **config}}}}, [])

    def reexecute(self, run_id: str, *, everything: bool = False) -> str:
        """Repeat a run from where it failed, or from its first op; returns the new run's id."""
        strategy = "ALL_STEPS" if everything else "FROM_FAILURE"
        answer = self._ask(REEXECUTE, params={"parentRunId": run_id, "strategy": strategy})
        return answer["run"]["runId"]

    def terminate(self, run_id: str) -> None:
        """Cancel the migration that this run works on."""
        self._ask(TERMINATE, id=run_id)

    def run(self, run_id: str) -> tuple[str, dict[str, str]]:
        """The run's status and its tags."""
        found = self._ask(RUN, id=run_id)
        return found["status"], {tag["key"]: tag["value"] for tag in found["tags"]}

    def wait(self, run_id: str, *, seconds: float | None = None, poll: float = 1.0) -> tuple[str, str]:
        """Until the run, and those that Dagster launches after it by itself, have ended: last run's id and status."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            status, tags = self.run(run_id)
            retry = tags.get("dagster/auto_retry_run_id")
            if status == "FAILURE" and retry:
                run_id = retry
                continue
            # The tag comes right after the status; without it, it is not decided yet.
            follows = tags.get("dagster/will_retry", "true") == "true" or tags.get("jivs/retry") in {
                "waiting",
                "asked",
            }
            if status in ENDED and not (status == "FAILURE" and follows):
                return run_id, status
            if deadline is not None and time.monotonic() > deadline:
                raise Refused(f"Run {run_id} is still {status} after {seconds:g} seconds")
            time.sleep(poll)

    def why(self, run_id: str) -> str:
        """Why a run failed, in one sentence; empty where it did not."""
        cursor: str | None = None
        told: list[str | None] = []
        while True:
            found = self._ask(FAILURES, id=run_id, after=cursor)
            for event in found["events"]:
                described = (event.get("failureMetadata") or {}).get("description")
                told.append(described or (event.get("error") or event).get("message"))
            if not found["hasMore"]:
                return next(filter(None, told), "")
            cursor = found["cursor"]

    def _launch(self, job: str, config: dict[str, Any], tags: list[dict[str, str]]) -> str:
        params = {
            "selector": {**REPOSITORY, "jobName": job},
            "runConfigData": config,
            "executionMetadata": {"tags": tags},
        }
        return self._ask(LAUNCH_RUN, params=params)["run"]["runId"]

    def _ask(self, query: str, *, accept: str = "", **variables: Any) -> dict[str, Any]:
        """The answer, unless it is an error; `accept` is the name of one that is none."""
        body = json.dumps({"query": query + WHY, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                document = json.load(response)
        except urllib.error.HTTPError as error:
            try:
                document = json.load(error)
            except ValueError:
                raise Refused(f"{self.url} answered {error.code} {error.reason}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Refused(
                f"{self.url} does not answer ({reason}): start it with jivs up, or check the URL"
            ) from None
        if document.get("errors"):
            raise Refused(f"The server did not understand the call: {document['errors'][0]['message']}")
        answer = document["data"]["answer"]
        name = answer["__typename"]
        if name != accept and (name.endswith(("Error", "Invalid", "Conflict", "Failure"))):
            raise Refused(_sentence(name, answer))
        return answer


def _sentence(name: str, answer: dict[str, Any]) -> str:
    """One sentence for an error of the server."""
    if name == "RunConfigValidationInvalid":
        return f"The run config is wrong: {answer['errors'][0]['message']}"
    if name == "PythonError":
        # The first cause is what went wrong; around it is who noticed.
        first = [answer, *answer["causes"]][-1]["message"].strip()
        return re.sub(r"^[\w.]+: ", "", first.splitlines()[0])
    if name in SENTENCES:
        return SENTENCES[name]
    return f"{name}: {answer.get('message') or 'no message'}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Drive migrations over Dagster's GraphQL API.")
    parser.add_argument("--url", default="http://127.0.0.1:3000", help="of the Dagster web server")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("migrate").add_argument("spec", type=Path, help="a spec as JSON")
    verbs.add_parser("launch").add_argument("key")
    again = verbs.add_parser("again")
    again.add_argument("run")
    again.add_argument("--all", action="store_true", help="from the first op")
    verbs.add_parser("terminate").add_argument("run")
    verbs.add_parser("pause").add_argument("key")
    cancel = verbs.add_parser("cancel")
    cancel.add_argument("key")
    cancel.add_argument("--rollback", action="store_true", help="take back what was loaded")
    verbs.add_parser("rollback").add_argument("key")
    said = parser.parse_args()
    try:
        return act(Dagster(said.url), said)
    except Refused as error:
        print(error, file=sys.stderr)
        return 2


def act(dagster: Dagster, said: argparse.Namespace) -> int:
    """One verb of the command line, from the call to the end of its last run."""
    if said.verb == "terminate":
        dagster.terminate(said.run)
        run_id = said.run
    elif said.verb == "again":
        run_id = dagster.reexecute(said.run, everything=said.all)
    elif said.verb == "migrate":
        spec = json.loads(said.spec.read_text(encoding="utf-8"))
        dagster.add_partition(spec["key"])
        run_id = dagster.launch(spec["key"], spec)
    elif said.verb == "launch":
        run_id = dagster.launch(said.key)
    else:
        config = {"rollback": True} if getattr(said, "rollback", False) else {}
        run_id = dagster.steer(said.verb, said.key, **config)
    print(f"run {run_id}", flush=True)
    run_id, status = dagster.wait(run_id)
    print(f"run {run_id} {status}")
    if status == "FAILURE":
        print(dagster.why(run_id), file=sys.stderr)
    return 0 if status == "SUCCESS" or (said.verb == "terminate" and status == "CANCELED") else 1


if __name__ == "__main__":
    sys.exit(main())
