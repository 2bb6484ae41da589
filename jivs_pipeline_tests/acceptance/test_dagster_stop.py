"""Stopping, killing and repeating runs in a worker of `jivs up`, by the web UI's mutations and by the command line."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.infra.embedded.postgres import CONTROL
from jivs_pipeline_tests.acceptance.rows import assert_same_table, ledger, tables_of
from jivs_pipeline_tests.fix_cli import with_parts
from jivs_pipeline_tests.fix_stack import Stack, countries_and_towns, processes_of
from jivs_pipeline_tests.gate import closed_gate, gated_stack, wait_at_gate


@pytest.fixture(scope="module")
def stack(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with gated_stack(jivs_home, tmp_path_factory.mktemp("stop"), countries_and_towns()) as stack:
        yield stack


def begin(stack: Stack) -> tuple[str, str, str]:
    """Launch a migration and wait until it stands at the gate: key, schema, run."""
    key = f"k-{uuid4().hex[:12]}"
    schema = key.replace("-", "_")
    run_id = stack.migrate(key, target_schema=schema, chunk_bytes=65536)
    wait_at_gate(stack, run_id)
    return key, schema, run_id


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


def runs_of(stack: Stack, key: str) -> dict[str, str]:
    """Run -> status, of a migration."""
    found = stack.ask(
        "query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId status } } } }",
        filter={"tags": [{"key": "jivs/migration_key", "value": key}]},
    )["runsOrError"]["results"]
    return {r["runId"]: r["status"] for r in found}


def finish(stack: Stack, key: str, schema: str) -> None:
    """Launch it again; it completes with the exact rows."""
    run_id = stack.launch(key, None)
    assert stack.wait(run_id)["status"] == "SUCCESS", stack.story(run_id)
    assert_exact(stack, key, schema)


def assert_exact(stack: Stack, key: str, schema: str) -> None:
    for table in ("countries", "towns"):
        assert_same_table(stack.source, stack.target, table, schema=schema)
    assert stack.status(key) == "completed"


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
        assert stack.status(key) == "cancelled"
        assert f"Migration '{key}' was terminated in Dagster" in stack.story(run_id)
    assert "dagster/will_retry" not in stack.tags(run_id)
    assert not stack.jivs.staged
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
    assert stack.status(key) == ends
    assert f"Migration '{key}' was {ends}" in stack.story(run_id)
    assert "dagster/will_retry" not in stack.tags(run_id)
    finish(stack, key, schema)


def test_the_jobs_steer(stack: Stack) -> None:
    """Pause, then cancel with rollback, while the run holds its key; the target is as before."""
    with closed_gate(stack) as open_gate:
        key, schema, run_id = begin(stack)
        pausing = stack.steer("pause", key=key)
        wait_until_asked(stack, key)
        open_gate()
        assert stack.wait(pausing)["status"] == "SUCCESS", stack.story(pausing)
        assert stack.wait(run_id)["status"] == "CANCELED", stack.story(run_id)
    assert stack.status(key) == "paused"
    cancelling = stack.steer("cancel", key=key, rollback=True)
    assert stack.wait(cancelling)["status"] == "SUCCESS", stack.story(cancelling)
    assert stack.status(key) == "rolled_back"
    with psycopg.connect(stack.target) as db:
        assert not tables_of(db, schema)
    finish(stack, key, schema)
    taking_back = stack.steer("rollback", key=key)
    assert stack.wait(taking_back)["status"] == "SUCCESS", stack.story(taking_back)
    assert stack.status(key) == "rolled_back"
    again = stack.steer("pause", key=key)
    assert stack.wait(again)["status"] == "FAILURE"
    assert "so there is nothing to pause" in stack.story(again)
    assert stack.tags(again)["dagster/max_retries"] == "0"


def test_a_killed_worker_is_replaced(stack: Stack) -> None:
    """kill -9: the run fails, the daemon launches another one, which goes on."""
    with closed_gate(stack):
        key, schema, run_id = begin(stack)
        os.kill(int(stack.tags(run_id)["jivs/worker"].split()[1]), signal.SIGKILL)
        assert stack.wait(run_id, 60)["status"] == "FAILURE"
        deadline = time.monotonic() + 60
        while len(runs := runs_of(stack, key)) == 1:
            assert time.monotonic() < deadline, runs
            time.sleep(0.3)
        (second,) = set(runs) - {run_id}
        wait_at_gate(stack, second)
    assert stack.wait(second)["status"] == "SUCCESS", stack.story(second)
    assert_exact(stack, key, schema)
    tags = stack.tags(second)
    assert (tags["dagster/retry_number"], tags["dagster/parent_run_id"]) == ("1", run_id)
    assert tags["jivs/worker"].split()[0] == second


def test_a_run_that_begins_at_verify_loads_what_is_missing(stack: Stack) -> None:
    """ "Re-execute from selected" on a run that was stopped in its load; and all of a completed one again."""
    with closed_gate(stack):
        key, schema, first = begin(stack)
        stack.jivs("cancel", key, code=0)
        assert stack.wait(first, 30)["status"] == "CANCELED"
    second = stack.reexecute_steps(first, key, ["verify", "finish"])
    assert stack.wait(second)["status"] == "SUCCESS", stack.story(second)
    assert_exact(stack, key, schema)
    chunks = ledger(stack.target, key)
    third = stack.reexecute(second, "ALL_STEPS")
    assert stack.wait(third)["status"] == "SUCCESS", stack.story(third)
    assert ledger(stack.target, key) == chunks


def test_some_ops_alone_do_not_succeed(stack: Stack) -> None:
    """A run without `finish` would end green with nothing loaded."""
    with closed_gate(stack):
        key, _, first = begin(stack)
        stack.jivs("cancel", key, code=0)
        assert stack.wait(first, 30)["status"] == "CANCELED"
    second = stack.reexecute_steps(first, key, ["plan", "extract"])
    assert stack.wait(second)["status"] == "FAILURE"
    assert "finish" in stack.story(second)
    assert stack.status(key) == "cancelled"


def test_the_end_of_the_stack_pauses(stack: Stack) -> None:
    """Ctrl-C of `jivs up` with a run inside of its load; the last test of the module."""
    with closed_gate(stack):
        key, _, _ = begin(stack)
        pressed = time.monotonic()
        stack.stop()
        took = time.monotonic() - pressed
    assert took < 10, f"took {took:.1f} s"
    assert stack.status(key) == "paused"
    left = {pid: c for pid, c in processes_of(stack.jivs.home).items() if pid != os.getpid()}
    assert not left, left
