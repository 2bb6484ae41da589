"""The GraphQL client that users copy, on a real stack: every call of it, and what becomes of launches that are wrong.

What belongs here: `examples/graphql_client.py` and the sentences that its user reads. What does not: the job's work
(`test_dagster.py`) and how runs stop (`test_dagster_stop.py`).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.infra.embedded.postgres import DAGSTER
from jivs_pipeline_tests.acceptance.rows import assert_same_table, tables_of
from jivs_pipeline_tests.fix_cli import with_parts
from jivs_pipeline_tests.fix_stack import Stack, free_port
from jivs_pipeline_tests.gate import closed_gate, forbid, gated_stack, wait_at_gate

CLIENT = Path(__file__).parents[2] / "examples" / "graphql_client.py"
SOURCE = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO towns SELECT i, printf('%0120d', i) FROM n;
"""
_loaded = importlib.util.spec_from_file_location("graphql_client", CLIENT)
assert _loaded is not None
assert _loaded.loader is not None
client = importlib.util.module_from_spec(_loaded)
_loaded.loader.exec_module(client)
Refused = client.Refused


@pytest.fixture(scope="module")
def stack(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with gated_stack(jivs_home, tmp_path_factory.mktemp("graphql"), SOURCE) as stack:
        yield stack


@pytest.fixture(scope="module")
def dagster(stack: Stack) -> Any:
    return client.Dagster(f"http://127.0.0.1:{stack.port}")


def spec_of(key: str, **more: Any) -> dict[str, Any]:
    schema = key.replace("-", "_")
    return {"key": key, "source": "legacy", "target": "warehouse", "target_schema": schema, **more}


def schema_of(key: str) -> str:
    return key.replace("-", "_")


def wait(dagster: Any, run_id: str) -> str:
    return dagster.wait(run_id, seconds=200, poll=0.3)[1]


def command(stack: Stack, *argv: str) -> subprocess.CompletedProcess[str]:
    """The client as a program."""
    return subprocess.run(
        [sys.executable, str(CLIENT), "--url", f"http://127.0.0.1:{stack.port}", *argv],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def test_migrate_and_launch_again(stack: Stack, key: str, tmp_path: Path) -> None:
    """As a program: the partition, the launch with a spec, the wait; then without a spec, which does nothing."""
    (spec := tmp_path / "spec.json").write_text(json.dumps(spec_of(key)))
    done = command(stack, "migrate", str(spec))
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.endswith(" SUCCESS\n")
    assert_same_table(stack.source, stack.target, "towns", schema=schema_of(key))
    again = command(stack, "launch", key)
    assert (again.returncode, again.stderr) == (0, ""), again
    assert stack.status(key) == "completed"


def test_a_partition_may_be_there_already(dagster: Any, key: str) -> None:
    dagster.add_partition(key)
    dagster.add_partition(key)


def test_reexecution(stack: Stack, dagster: Any, key: str) -> None:
    """From the op that failed, and from the first one; with the reason of the failure in one sentence."""
    dagster.add_partition(key)
    forbid(stack, forbidden=True)
    try:
        failed = dagster.launch(key, spec_of(key))
        assert wait(dagster, failed) == "FAILURE"
    finally:
        forbid(stack, forbidden=False)
    assert dagster.why(failed).startswith("1 of 1 tables failed")
    repaired = dagster.reexecute(failed)
    assert wait(dagster, repaired) == "SUCCESS", stack.story(repaired)
    steps = [s["stepKey"] for s in stack.ask(STEPS, id=repaired)["runOrError"]["stepStats"]]
    # With one table failed the run came to its end: that is what is repeated, and it loads what is missing.
    assert steps == ["finish"]
    assert_same_table(stack.source, stack.target, "towns", schema=schema_of(key))
    whole = dagster.reexecute(failed, everything=True)
    assert wait(dagster, whole) == "SUCCESS", stack.story(whole)
    assert len(stack.ask(STEPS, id=whole)["runOrError"]["stepStats"]) == 7
    assert dagster.why(whole) == ""


STEPS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { stepKey } } } }"


def test_terminate(stack: Stack, dagster: Any, key: str) -> None:
    dagster.add_partition(key)
    with closed_gate(stack):
        run_id = dagster.launch(key, spec_of(key))
        wait_at_gate(stack, run_id)
        done = command(stack, "terminate", run_id)
        assert (done.returncode, done.stdout.split()[-1]) == (0, "CANCELED"), done
    assert stack.status(key) == "cancelled"
    with pytest.raises(Refused, match="could not be terminated"):
        dagster.terminate(run_id)


def test_steering(stack: Stack, dagster: Any, key: str) -> None:
    """Pause a run, cancel what is left with a rollback, migrate anew, roll back."""
    dagster.add_partition(key)
    with closed_gate(stack) as open_gate:
        run_id = dagster.launch(key, spec_of(key))
        wait_at_gate(stack, run_id)
        pausing = dagster.steer("pause", key)
        deadline = time.monotonic() + 60
        while dagster.run(pausing)[0] != "STARTED":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(3)
        open_gate()
        assert wait(dagster, pausing) == "SUCCESS", stack.story(pausing)
        assert wait(dagster, run_id) == "CANCELED"
    assert stack.status(key) == "paused"
    assert wait(dagster, dagster.steer("cancel", key, rollback=True)) == "SUCCESS"
    assert stack.status(key) == "rolled_back"
    assert wait(dagster, dagster.launch(key)) == "SUCCESS"
    assert wait(dagster, dagster.steer("rollback", key)) == "SUCCESS"
    with psycopg.connect(stack.target) as db:
        assert not tables_of(db, schema_of(key))
    missing = command(stack, "pause", "nobody")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1), missing
    assert "There is no migration 'nobody'" in missing.stderr


WRONG: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    "another key": (
        lambda key: spec_of(f"{key}-x"),
        "The spec's key is '{key}-x', and the partition is '{key}'",
    ),
    "an unknown key": (lambda key: spec_of(key, parallel=2), "The spec has the unknown key 'parallel'"),
    "a missing key": (lambda key: {"key": key, "source": "legacy"}, "The spec lacks the key 'target'"),
    "a wrong value": (lambda key: spec_of(key, verify="maybe"), "The spec's 'verify' is wrong"),
    "an empty one": (lambda _: {}, "There is no migration '{key}'"),
    "an unknown connection": (
        lambda key: spec_of(key, target="nowhere"),
        "There is no connection called 'nowhere'",
    ),
}


def test_wrong_launches_fail_with_one_sentence(stack: Stack, dagster: Any) -> None:
    """In the first op, without a retry; a wrong spec, and a partition that nobody has added or named."""
    launched: dict[str, str] = {}
    for make, sentence in WRONG.values():
        key = f"k-{uuid4().hex[:12]}"
        dagster.add_partition(key)
        launched[dagster.launch(key, make(key))] = sentence.format(key=key)
    unknown, nobody = (f"k-{uuid4().hex[:12]}" for _ in range(2))
    repeated = dagster.launch(unknown, spec_of(unknown))
    launched[repeated] = f"There is no partition '{unknown}' among the migrations. Add it with"
    config = {"ops": {"plan": {"config": {"spec": spec_of(nobody)}}}}
    launched[dagster._launch("migration", config, [])] = (
        "The run has no partition, so it is not known which migration it is for. Launch it with"
    )
    for run_id, sentence in launched.items():
        assert wait(dagster, run_id) == "FAILURE"
        why = dagster.why(run_id)
        assert why.startswith(sentence), why
        assert "\n" not in why
        assert dagster.run(run_id)[1]["dagster/will_retry"] == "false"
    with psycopg.connect(stack.target) as db:
        assert not tables_of(db, schema_of(unknown))
        assert not tables_of(db, schema_of(nobody))
    # Once there is the partition, the run itself can be repeated.
    dagster.add_partition(unknown)
    again = dagster.reexecute(repeated, everything=True)
    assert wait(dagster, again) == "SUCCESS", stack.story(again)


def test_refusals_are_one_sentence(stack: Stack, dagster: Any, key: str) -> None:
    """What Dagster itself answers."""
    with pytest.raises(Refused, match="The server has no such job"):
        dagster.steer("stop", key)
    with pytest.raises(Refused, match=r'^The run config is wrong: Received unexpected config entry "force"'):
        dagster.steer("pause", key, force=True)
    nobody = str(uuid4())
    for call in (dagster.run, dagster.terminate, dagster.why):
        with pytest.raises(Refused, match=r"^The server has no such run$"):
            call(nobody)
    with pytest.raises(
        Refused, match=f"^Expected non-None value: Could not find parent run with id: {nobody}"
    ):
        dagster.reexecute(nobody)
    # Dagster answers Unauthorized for partitions that no asset uses.
    query = client.ADD_PARTITION.replace('"migrations"', '"others"')
    with pytest.raises(Refused, match=r"^The server does not allow this"):
        dagster._ask(query, repository=client.REPOSITORY, key=key)
    params = {
        "selector": {**client.REPOSITORY, "jobName": "pause"},
        "preset": "p",
        "runConfigData": {"ops": {}},
    }
    with pytest.raises(Refused, match=r"^The launch names a preset and a run config"):
        dagster._ask(client.LAUNCH_RUN, params=params)
    with pytest.raises(Refused, match=r"^The server did not understand the call"):
        dagster._ask("query { answer: nothing { __typename ...why } }")
    silent = client.Dagster(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Refused, match=r"does not answer .*: start it with jivs up"):
        silent.add_partition(key)
    slow = dagster.launch(key)
    with pytest.raises(Refused, match="is still "):
        dagster.wait(slow, seconds=0)


SECRET = "c4nary-s3cret"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"source": f"postgresql://me:{SECRET}@old.example/shop"}, "The spec's 'source' is not the name of a connection"),
        ({"target": {"url": f"postgresql://{SECRET}"}}, "The spec's 'target' is not the name of a connection"),
        ({"connections": {"old": f"mysql://me:{SECRET}@old.example/shop"}}, "The spec holds a URL with a password"),
        ({"old": f"postgresql://old.example/shop?user=me&password={SECRET}"}, "The spec holds a URL with a password"),
    ],
)  # fmt: skip
def test_a_url_is_refused_before_there_is_a_run(
    stack: Stack, dagster: Any, key: str, where: dict[str, Any], said: str
) -> None:
    """Dagster keeps a run's config for good, so there must not be a run; the secret is nowhere."""
    dagster.add_partition(key)
    with pytest.raises(Refused) as refused:
        dagster.launch(key, {**spec_of(key), **where})
    assert str(refused.value).startswith(said), refused.value
    assert "JIVS_CONNECTION_<NAME>" in str(refused.value)
    assert "\n" not in str(refused.value)
    runs = stack.ask(RUNS, filter={"tags": [{"key": "dagster/partition", "value": key}]})
    assert runs["runsOrError"]["results"] == []
    assert not _found(stack, SECRET)


RUNS = "query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { runId } } } }"


def test_what_is_searched_for_would_be_found(stack: Stack, dagster: Any, key: str) -> None:
    """Text of a run config is in Dagster's database; else the test before would prove nothing."""
    dagster.add_partition(key)
    run_id = dagster.launch(key, {**spec_of(key), "n0t-secret-at-all": True})
    assert wait(dagster, run_id) == "FAILURE"
    assert "runs" in _found(stack, "n0t-secret-at-all")


def _found(stack: Stack, text: str) -> list[str]:
    """Tables of Dagster's database, and files of the stack, that hold a text."""
    found: list[str] = []
    with psycopg.connect(with_parts(stack.jivs.server, database=DAGSTER), autocommit=True) as db:
        names = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(names) > 20
        for (name,) in names:
            query = sql.SQL("SELECT count(*) FROM {} t WHERE position(%s IN t::text) > 0")
            row = db.execute(query.format(sql.Identifier(name)), (text,)).fetchone()
            if row != (0,):
                found.append(name)
    files = [p for p in stack.jivs.home.glob("dagster/**/*") if p.is_file()]
    assert files
    return found + [str(path) for path in files if text.encode() in path.read_bytes()]
