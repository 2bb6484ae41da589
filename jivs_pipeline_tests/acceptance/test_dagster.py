"""The job in Dagster, as a user of the web UI or a GraphQL client drives it: `jivs up`, and nothing but HTTP.

One stack for the module; it shares the worker's home, so its servers are warm.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import PHASES
from jivs_pipeline_tests.acceptance.rows import assert_same_table, ledger, tables_of
from jivs_pipeline_tests.fix_cli import password_of
from jivs_pipeline_tests.fix_stack import RUN, SELECTOR, Stack, countries_and_towns, processes_of, stack_of


@pytest.fixture(scope="module")
def stack(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(jivs_home, tmp_path_factory.mktemp("stack"), countries_and_towns()) as stack:
        yield stack


@pytest.fixture(scope="module")
def finished(stack: Stack) -> tuple[str, str]:
    """A migration that a GraphQL client launched with its spec: its key and its run."""
    key = f"k-{uuid4().hex[:12]}"
    run_id = stack.migrate(key, target_schema="towns", chunk_bytes=65536)
    run = stack.wait(run_id)
    assert run["status"] == "SUCCESS", stack.story(run_id)
    return key, run_id


def test_a_launch_with_a_spec_migrates(stack: Stack, finished: tuple[str, str]) -> None:
    """Exact rows, and the command line sees the same migration."""
    key, run_id = finished
    with psycopg.connect(stack.target) as db:
        assert tables_of(db, "towns") == ["countries", "towns"]
    for table in ("countries", "towns"):
        assert_same_table(stack.source, stack.target, table, schema="towns")
    status = stack.jivs("status", key, "--json", code=0).document
    assert (status["status"], status["run_id"]) == ("completed", run_id)


def test_the_log_that_the_page_shows_of_a_run_names_its_migration(
    stack: Stack, finished: tuple[str, str]
) -> None:
    key, run_id = finished
    (log,) = (stack.jivs.home / "dagster" / "storage" / run_id / "compute_logs").glob("*.err")
    lines = [line for line in log.read_text().splitlines() if f"key={key} run_id={run_id}" in line]
    assert len([line for line in lines if "Phase begins" in line]) == len(PHASES)
    assert "Ended as completed" in lines[-1]


def test_the_job_has_seven_ops_and_the_run_its_tags(stack: Stack, finished: tuple[str, str]) -> None:
    key, run_id = finished
    job = stack.ask(
        """query ($selector: PipelineSelector!) { pipelineOrError(params: $selector) { __typename
             ... on Pipeline { name isJob solidHandles { handleID } } } }""",
        selector={**SELECTOR, "pipelineName": "migration"},
    )["pipelineOrError"]
    assert sorted(h["handleID"] for h in job["solidHandles"]) == sorted(PHASES)
    run = stack.ask(RUN, id=run_id)["runOrError"]
    assert run["jobName"] == "migration"
    assert [s["stepKey"] for s in run["stepStats"]] == PHASES
    assert {s["status"] for s in run["stepStats"]} == {"SUCCESS"}
    tags = {t["key"]: t["value"] for t in run["tags"]}
    assert tags["jivs/migration_key"] == key
    assert tags["dagster/partition"] == key


def test_tables_are_assets_with_numbers_and_checks(stack: Stack, finished: tuple[str, str]) -> None:
    key, run_id = finished
    events = stack.logs(run_id)
    made = {tuple(e["assetKey"]["path"]): e for e in events if e["__typename"] == "MaterializationEvent"}
    chunks = ledger(stack.target, key)
    for table, rows in (("countries", 2), ("towns", 2000)):
        event = made["warehouse", "towns", table]
        assert event["stepKey"] == "finish"
        values = {
            m["label"]: m.get("intValue", m.get("floatValue", m.get("text")))
            for m in event["metadataEntries"]
        }
        assert values["rows"] == rows
        assert values["bytes"] > 0
        assert values["rows/s"] > 0
        assert values["chunks"] == len(chunks[f"towns.{table}"])
        assert len(values["digest"]) == 32
        assert values["epoch"] >= 1
    assert made["jivs", "migration"]["partition"] == key
    evaluated = {
        tuple(e["evaluation"]["assetKey"]["path"]): e["evaluation"]
        for e in events
        if e["__typename"] == "AssetCheckEvaluationEvent"
    }
    assert {k: v["success"] for k, v in evaluated.items()} == {
        ("warehouse", "towns", t): True for t in ("countries", "towns")
    }
    # The catalog learns of the tables when the code location is loaded again, which `jivs up` does by itself.
    deadline = time.monotonic() + 30
    while True:
        nodes = stack.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
        known = {tuple(n["assetKey"]["path"]) for n in nodes}
        if {("warehouse", "towns", "countries"), ("warehouse", "towns", "towns")} <= known:
            break
        assert time.monotonic() < deadline, known
        time.sleep(0.5)


def test_a_relaunch_of_a_finished_migration_does_nothing(stack: Stack, finished: tuple[str, str]) -> None:
    """The partition alone is enough: the spec is known. Success, and no chunk is loaded again."""
    key, first = finished
    before = ledger(stack.target, key)
    run_id = stack.launch(key, None)
    assert stack.wait(run_id)["status"] == "SUCCESS", stack.story(run_id)
    assert ledger(stack.target, key) == before
    said = stack.story(run_id)
    assert "already completed" in said
    tags = stack.tags(run_id)
    assert tags["jivs/migration_key"] == key
    assert stack.jivs("status", key, "--json", code=0).document["run_id"] == first


def test_a_partition_without_a_migration_fails_with_a_sentence(stack: Stack) -> None:
    key = f"unknown-{uuid4().hex[:8]}"
    stack.add_partition(key)
    run_id = stack.launch(key, None)
    assert stack.wait(run_id)["status"] == "FAILURE"
    failures = [e for e in stack.logs(run_id) if e["__typename"] == "ExecutionStepFailureEvent"]
    assert failures[0]["stepKey"] == "plan"
    said = json.dumps(failures[0], ensure_ascii=False)
    assert f"There is no migration '{key}'" in said, said


FORBID = """
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = '{name}') THEN
        RAISE EXCEPTION 'not allowed here';
    END IF;
END $$;
CREATE EVENT TRIGGER forbid ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'CREATE SCHEMA') EXECUTE FUNCTION forbid();
"""


def _fail_and_reexecute(stack: Stack, schema: str, forbidden: str) -> tuple[str, dict[str, Any], str]:
    """Launch where the target forbids to create something; allow it, and press "re-execute from failure"."""
    key = f"k-{uuid4().hex[:12]}"
    with psycopg.connect(stack.target) as db:
        db.execute(FORBID.replace("{name}", forbidden))  # pyright: ignore[reportArgumentType]
    first = stack.migrate(key, target_schema=schema, chunk_bytes=65536)
    ended = stack.wait(first)
    with psycopg.connect(stack.target) as db:
        db.execute("DROP EVENT TRIGGER forbid; DROP FUNCTION forbid")
    assert ended["status"] == "FAILURE"
    assert stack.status(key) == "failed"
    # Trying the same again cannot help, so the daemon does not.
    tags = stack.tags(first)
    assert (tags["dagster/max_retries"], tags["dagster/will_retry"]) == ("3", "false")
    second = stack.reexecute(first, "FROM_FAILURE")
    assert stack.wait(second)["status"] == "SUCCESS", stack.story(second)
    for table in ("countries", "towns"):
        assert_same_table(stack.source, stack.target, table, schema=schema)
    assert stack.status(key) == "completed"
    return key, ended, second


def test_reexecution_from_failure_converges(stack: Stack) -> None:
    """A run that failed in load goes on from there, with the rows that are staged."""
    _, first, second = _fail_and_reexecute(stack, "again", "again")
    assert {s["stepKey"]: s["status"] for s in first["stepStats"]}["load"] == "FAILURE"
    steps = [s["stepKey"] for s in stack.ask(RUN, id=second)["runOrError"]["stepStats"]]
    assert steps == ["load", "verify", "finish"]


def test_reexecution_after_one_table_failed_converges(stack: Stack) -> None:
    """The button of the run page repairs the table that failed, and leaves the others."""
    _fail_and_reexecute(stack, "once_more", "once_more.towns")


def test_no_secret_is_anywhere_in_dagster(stack: Stack, finished: tuple[str, str]) -> None:
    """No password and no URL in run config, tags, events or in the arguments of a process."""
    key = f"k-{uuid4().hex[:12]}"
    broken = stack.migrate(key, source="absent")
    assert stack.wait(broken)["status"] == "FAILURE"
    assert "absent" in stack.story(broken)
    secret = password_of(stack.target)
    assert len(secret) > 10
    for run_id in (finished[1], broken):
        told = json.dumps([stack.ask(RUN, id=run_id), stack.logs(run_id)])
        assert secret not in told
        for url in ("postgresql://", f"sqlite:///{stack.source}", f"sqlite:///{stack.source.parent}"):
            assert url not in told, told[max(0, told.index(url) - 300) :][:600]
    runs = stack.ask(
        "{ runsOrError(limit: 100) { ... on Runs { results { runConfigYaml tags { key value } } } } }"
    )
    assert secret not in json.dumps(runs)
    assert not [c for c in processes_of(stack.jivs.home).values() if secret in c]
    for log in (stack.jivs.home / "dagster").glob("*.log"):
        assert secret not in log.read_text(), log


def test_the_stack_stops_within_ten_seconds(stack: Stack) -> None:
    """Ctrl-C ends every process of it; the last test of the module."""
    assert stack.started.process.poll() is None
    before = processes_of(stack.jivs.home)
    assert any("dagster" in c for c in before.values()), before
    pressed = time.monotonic()
    stack.started.signal(signal.SIGINT)
    ended = stack.started.wait(30)
    took = time.monotonic() - pressed
    assert took < 10, f"took {took:.1f} s"
    assert ended.code in {0, 130}, ended
    assert "Traceback" not in ended.stderr, ended
    left = {pid: c for pid, c in processes_of(stack.jivs.home).items() if pid != os.getpid()}
    assert not left, left
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", stack.port)) != 0
