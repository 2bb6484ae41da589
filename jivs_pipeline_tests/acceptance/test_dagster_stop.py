"""Stopping, killing and repeating runs in a worker of `jivs up`, by the web UI's mutations and by the command line."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.infra.embedded.postgres import CONTROL
from jivs_pipeline_tests.acceptance.rows import assert_same_table, ledger, tables_of
from jivs_pipeline_tests.fix_cli import Jivs, with_parts
from jivs_pipeline_tests.fix_stack import RUN, SELECTOR, Stack, processes_of, stack_up
from jivs_pipeline_tests.sqlite_files import make_file

SOURCE = """
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE towns (id INTEGER PRIMARY KEY, country TEXT REFERENCES countries (code), name TEXT);
INSERT INTO countries VALUES ('is', 'Ísland'), ('no', 'Norge');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO towns SELECT i, iif(i % 2, 'is', 'no'), printf('%0120d', i) FROM n;
"""

GATE = """
CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'k_%.towns') THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
    END IF;
END $$;
CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION gate();
"""
"""While a test holds the lock, every load stands still where it creates the table of towns."""


@pytest.fixture(scope="module")
def stack(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home, server = jivs_home
    directory = tmp_path_factory.mktemp("stop")
    source = make_file(directory / "towns.sqlite", SOURCE)
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    target = with_parts(server, database=name)
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(GATE)  # pyright: ignore[reportArgumentType]
    try:
        # The gate may be closed for longer than a database may usually be silent.
        patient = {"JIVS_IO_TIMEOUT_SECONDS": "120"}
        with stack_up(Jivs(home, directory, server), source, target, patient) as stack:
            yield stack
    finally:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def closed_gate(stack: Stack) -> Iterator[Callable[[], None]]:
    """No load gets on until the given function is called, or the block ends."""
    with psycopg.connect(stack.target, autocommit=True) as db:
        db.execute("SELECT pg_advisory_lock(4711)")
        yield lambda: db.execute("SELECT pg_advisory_unlock_all()") and None


def begin(stack: Stack) -> tuple[str, str, str]:
    """Launch a migration and wait until it stands at the gate: key, schema, run."""
    key = f"k-{uuid4().hex[:12]}"
    schema = key.replace("-", "_")
    stack.add_partition(key)
    spec = {
        "key": key, "source": "legacy", "target": "warehouse", "target_schema": schema, "chunk_bytes": 65536,
    }  # fmt: skip
    run_id = stack.launch(key, spec)
    wait_at_gate(stack, run_id)
    return key, schema, run_id


def wait_at_gate(stack: Stack, run_id: str) -> None:
    deadline = time.monotonic() + 90
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
    with psycopg.connect(stack.target, autocommit=True) as db:
        while db.execute(query).fetchone() == (0,):
            assert time.monotonic() < deadline, stack.story(run_id)
            time.sleep(0.1)


def wait_until_asked(stack: Stack, key: str) -> None:
    deadline = time.monotonic() + 60
    with psycopg.connect(with_parts(stack.jivs.server, database=CONTROL), autocommit=True) as db:
        while db.execute("SELECT requested FROM jivs.migrations WHERE key = %s", (key,)).fetchone() == (
            None,
        ):
            assert time.monotonic() < deadline, f"nobody has asked {key} to stop"
            time.sleep(0.1)
    # The run learns of it at its next heartbeat, within a second.
    time.sleep(2)


def tags_of(stack: Stack, run_id: str) -> dict[str, str]:
    return {t["key"]: t["value"] for t in stack.ask(RUN, id=run_id)["runOrError"]["tags"]}


def runs_of(stack: Stack, key: str) -> dict[str, str]:
    """Run -> status, of a migration."""
    found = stack.ask(
        "query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }",
        filter={"tags": [{"key": "jivs/migration_key", "value": key}]},
    )["runsOrError"]["results"]
    return {r["runId"]: r["status"] for r in found}


def state(stack: Stack, key: str) -> str:
    return stack.jivs("status", key, "--json", code=0).document["status"]


def finish(stack: Stack, key: str, schema: str) -> None:
    """Launch it again; it completes with the exact rows."""
    run_id = stack.launch(key, None)
    assert stack.wait(run_id)["status"] == "SUCCESS", stack.story(run_id)
    assert_exact(stack, key, schema)


def assert_exact(stack: Stack, key: str, schema: str) -> None:
    for table in ("countries", "towns"):
        assert_same_table(stack.source, stack.target, table, schema=schema)
    assert state(stack, key) == "completed"


def steer(stack: Stack, job: str, **config: Any) -> str:
    """Launch one of the steering jobs."""
    found = stack.ask(
        """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
             __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
             ... on RunConfigValidationInvalid { errors { message } } } }""",
        parameters={
            "selector": {**SELECTOR, "jobName": job},
            "runConfigData": {"ops": {f"{job}_migration": {"config": config}}},
        },
    )["launchRun"]
    assert found["__typename"] == "LaunchRunSuccess", found
    return found["run"]["runId"]


def test_terminate_cancels(stack: Stack) -> None:
    """The button of the run page: run CANCELED, migration cancelled, nothing staged, and not retried."""
    with closed_gate(stack):
        key, schema, run_id = begin(stack)
        found = stack.ask(
            """mutation ($id: String!) { terminateRun(runId: $id) { __typename
                 ... on TerminateRunFailure { message } ... on PythonError { message } } }""",
            id=run_id,
        )["terminateRun"]
        assert found["__typename"] == "TerminateRunSuccess", found
        assert stack.wait(run_id, 20)["status"] == "CANCELED"
        assert state(stack, key) == "cancelled"
        assert f"Migration '{key}' was terminated in Dagster" in stack.story(run_id)
    assert "dagster/will_retry" not in tags_of(stack, run_id)
    staging = stack.jivs.home / "staging" / key
    assert not [p for p in staging.rglob("*") if p.is_file()]
    assert list(runs_of(stack, key)) == [run_id]
    finish(stack, key, schema)


@pytest.mark.parametrize(("verb", "ends"), [("pause", "paused"), ("cancel", "cancelled")])
def test_the_command_line_stops_a_worker(stack: Stack, verb: str, ends: str) -> None:
    """Run CANCELED and not FAILURE, so that nobody launches it again."""
    with closed_gate(stack) as open_gate:
        key, schema, run_id = begin(stack)
        stack.jivs(verb, key, "--no-wait", code=0)
        if verb == "pause":
            wait_until_asked(stack, key)
            open_gate()
        assert stack.wait(run_id, 30)["status"] == "CANCELED", stack.story(run_id)
    assert state(stack, key) == ends
    assert f"Migration '{key}' was {ends}" in stack.story(run_id)
    assert "dagster/will_retry" not in tags_of(stack, run_id)
    finish(stack, key, schema)


def test_the_jobs_steer(stack: Stack) -> None:
    """Pause, then cancel with rollback, while the run holds its key; the target is as before."""
    with closed_gate(stack) as open_gate:
        key, schema, run_id = begin(stack)
        pausing = steer(stack, "pause", key=key)
        wait_until_asked(stack, key)
        open_gate()
        assert stack.wait(pausing)["status"] == "SUCCESS", stack.story(pausing)
        assert stack.wait(run_id)["status"] == "CANCELED", stack.story(run_id)
    assert state(stack, key) == "paused"
    cancelling = steer(stack, "cancel", key=key, rollback=True)
    assert stack.wait(cancelling)["status"] == "SUCCESS", stack.story(cancelling)
    assert state(stack, key) == "rolled_back"
    with psycopg.connect(stack.target) as db:
        assert not tables_of(db, schema)
    finish(stack, key, schema)
    taking_back = steer(stack, "rollback", key=key)
    assert stack.wait(taking_back)["status"] == "SUCCESS", stack.story(taking_back)
    assert state(stack, key) == "rolled_back"
    again = steer(stack, "pause", key=key)
    assert stack.wait(again)["status"] == "FAILURE"
    assert "so there is nothing to pause" in stack.story(again)
    assert tags_of(stack, again)["dagster/max_retries"] == "0"


def test_a_killed_worker_is_replaced(stack: Stack) -> None:
    """kill -9: the run fails, the daemon launches another one, which goes on."""
    with closed_gate(stack):
        key, schema, run_id = begin(stack)
        os.kill(int(tags_of(stack, run_id)["jivs/worker"].split()[1]), signal.SIGKILL)
        assert stack.wait(run_id, 60)["status"] == "FAILURE"
        deadline = time.monotonic() + 60
        while len(runs := runs_of(stack, key)) == 1:
            assert time.monotonic() < deadline, runs
            time.sleep(0.3)
        (second,) = set(runs) - {run_id}
        wait_at_gate(stack, second)
    assert stack.wait(second)["status"] == "SUCCESS", stack.story(second)
    assert_exact(stack, key, schema)
    tags = tags_of(stack, second)
    assert (tags["dagster/retry_number"], tags["dagster/parent_run_id"]) == ("1", run_id)
    assert tags["jivs/worker"].split()[0] == second


def test_a_run_that_begins_at_verify_loads_what_is_missing(stack: Stack) -> None:
    """ "Re-execute from selected" on a run that was stopped in its load; and all of a completed one again."""
    with closed_gate(stack):
        key, schema, first = begin(stack)
        stack.jivs("cancel", key, code=0)
        assert stack.wait(first, 30)["status"] == "CANCELED"
    mutation = """mutation ($a: ExecutionParams, $b: ReexecutionParams) {
        launchRunReexecution(executionParams: $a, reexecutionParams: $b) {
          __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
    metadata = {
        "parentRunId": first,
        "rootRunId": first,
        "tags": [{"key": "dagster/partition", "value": key}],
    }
    chosen: dict[str, Any] = {
        "selector": {**SELECTOR, "jobName": "migration"},
        "stepKeys": ["verify", "finish"],
        "executionMetadata": metadata,
    }
    found = stack.ask(mutation, a=chosen)["launchRunReexecution"]
    assert found["__typename"] == "LaunchRunSuccess", found
    second = found["run"]["runId"]
    assert stack.wait(second)["status"] == "SUCCESS", stack.story(second)
    assert_exact(stack, key, schema)
    chunks = ledger(stack.target, key)
    found = stack.ask(mutation, b={"parentRunId": second, "strategy": "ALL_STEPS"})["launchRunReexecution"]
    assert found["__typename"] == "LaunchRunSuccess", found
    third = found["run"]["runId"]
    assert stack.wait(third)["status"] == "SUCCESS", stack.story(third)
    assert ledger(stack.target, key) == chunks


def test_some_ops_alone_do_not_succeed(stack: Stack) -> None:
    """A run without `finish` would end green with nothing loaded."""
    with closed_gate(stack):
        key, _, first = begin(stack)
        stack.jivs("cancel", key, code=0)
        assert stack.wait(first, 30)["status"] == "CANCELED"
    found = stack.ask(
        """mutation ($a: ExecutionParams) { launchRunReexecution(executionParams: $a) {
             __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
        a={
            "selector": {**SELECTOR, "jobName": "migration"},
            "stepKeys": ["plan", "extract"],
            "executionMetadata": {
                "parentRunId": first,
                "rootRunId": first,
                "tags": [{"key": "dagster/partition", "value": key}],
            },
        },
    )["launchRunReexecution"]
    second = found["run"]["runId"]
    assert stack.wait(second)["status"] == "FAILURE"
    assert "finish" in stack.story(second)
    assert state(stack, key) == "cancelled"


def test_the_end_of_the_stack_pauses(stack: Stack) -> None:
    """Ctrl-C of `jivs up` with a run inside of its load; the last test of the module."""
    with closed_gate(stack):
        key, _, _ = begin(stack)
        pressed = time.monotonic()
        stack.stop()
        took = time.monotonic() - pressed
    assert took < 10, f"took {took:.1f} s"
    assert state(stack, key) == "paused"
    left = {pid: c for pid, c in processes_of(stack.jivs.home).items() if pid != os.getpid()}
    assert not left, left
