"""Cancelling and rolling back: what a user gets back, what stays, and who loses a race."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run, check_status
from jivs_pipeline_tests.acceptance.rows import assert_same_database, assert_same_table, catalog
from jivs_pipeline_tests.acceptance.test_on_existing import EXISTING, SOURCE, one, prepare
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.sqlite_files import change, make_file

HELD = "after_ledger_before_copy@2:sleep=12"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_file(tmp_path / "source.sqlite", SOURCE)


def theirs(target: str) -> dict[str, Any]:
    """Everything in the target that is not the ledger."""
    found = catalog(target)
    ours = "jivs_ledger"
    return {
        "objects": [o for o in found["objects"] if o[0] != ours],
        "schemas": [s for s in found["schemas"] if s[0] != ours],
        "columns": [c for c in found["columns"] if not c[0].startswith(ours)],
        "keys": [k for k in found["keys"] if k[0] not in _ledger_keys(target)],
        "triggers": found["triggers"],
        "rows": [r for r in found["rows"] if r[0][0] != ours],
    }


def _ledger_keys(target: str) -> set[str]:
    with psycopg.connect(target) as db:
        found = db.execute(
            "SELECT conname FROM pg_constraint WHERE connamespace = to_regnamespace('jivs_ledger')"
        ).fetchall()
    return {name for (name,) in found}


def begin(jivs: Jivs, key: str, source: Path, target: str, **options: Any) -> tuple[Path, dict[str, str]]:
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(
        key=key, source="legacy", target="warehouse", chunk_bytes=65536, parallelism=1, **options
    )
    return spec, env


def test_cancel_ends_a_run_inside_of_a_chunk(jivs: Jivs, target: str, key: str, source: Path) -> None:
    """Exit 130, no staged row left; what was loaded stays and a run goes on with it."""
    spec, env = begin(jivs, key, source, target)
    started = jivs.start("run", spec, "--json", env={**env, "JIVS_FAILPOINT": HELD})
    started.wait_for("load")
    document = jivs("cancel", key, "--json", code=0, env=env).document
    check_status(document)
    assert document["status"] == "cancelled"
    ended = started.wait(20)
    assert ended.code == 130, ended
    check_run(ended.document, "cancelled")
    assert not jivs.staged
    assert "cancelled" in jivs("cancel", key, code=3, env=env).stderr
    assert jivs("resume", key, "--json", code=0, env=env).document["status"] == "completed"
    assert_same_database(source, target)
    types = [e["type"] for e in jivs("events", key, "--json", code=0).document["events"]]
    assert types.index("migration.cancelled") < types.index("migration.resumed")


def test_cancel_with_rollback_leaves_the_target_as_it_was(
    jivs: Jivs, target: str, key: str, source: Path
) -> None:
    before = catalog(target)["objects"]
    spec, env = begin(jivs, key, source, target, target_schema="fresh")
    started = jivs.start("run", spec, "--json", env={**env, "JIVS_FAILPOINT": "inside_step@5:sleep=12"})
    started.wait_for("load")
    assert jivs("cancel", key, "--rollback", "--json", code=0, env=env).document["status"] == "rolled_back"
    assert started.wait(20).code == 130
    assert theirs(target)["objects"] == before
    assert theirs(target)["schemas"] == [("information_schema",), ("pg_catalog",), ("public",)]
    # The key begins anew.
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert document["resumed"] is False
    with psycopg.connect(target) as db:
        assert db.execute("SELECT count(*) FROM fresh.children").fetchone() == (4000,)


@pytest.mark.parametrize("on_existing", ["replace", "truncate", "append"])
def test_rollback_of_a_finished_migration_gives_the_old_tables_back(
    jivs: Jivs, target: str, key: str, source: Path, on_existing: str
) -> None:
    """Rows, keys, triggers, sequences and the tables' own identities are those of before."""
    prepare(
        target,
        EXISTING + "ALTER TABLE parents ALTER id SET GENERATED ALWAYS; SELECT setval('parents_id_seq', 77)",
    )
    before, oid = theirs(target), one(target, "SELECT 'children'::regclass::oid")
    spec, env = begin(jivs, key, source, target, on_existing=on_existing)
    check_run(jivs("run", spec, "--json", code=0, env=env).document)
    rows = 4020 if on_existing == "append" else 4000
    assert one(target, "SELECT count(*) FROM children") == rows
    assert jivs("rollback", key, "--json", code=0, env=env).document["status"] == "rolled_back"
    after = theirs(target)
    if on_existing != "replace":
        # Emptied and filled again, so the files behind the tables are others; nothing else is.
        for state in (before, after):
            state["objects"] = [(*o[:3], *o[4:]) for o in state["objects"]]
    assert after == before
    assert one(target, "SELECT 'children'::regclass::oid") == oid
    assert one(target, "SELECT count(*) FROM fired") == 0
    assert one(target, "SELECT last_value FROM parents_id_seq") == 77
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'jivs_ledger'::regnamespace AND relname ~ '^(side|kept|numbers)_'"
    assert one(target, left) == 0
    assert one(target, "SELECT count(*) FROM jivs_ledger.chunks") == 0
    assert "rolled_back" in jivs("rollback", key, code=3, env=env).stderr
    check_run(jivs("run", spec, "--json", code=0, env=env).document)
    assert one(target, "SELECT count(*) FROM children") == rows


def test_rollback_stops_at_what_others_have_built(jivs: Jivs, target: str, key: str, source: Path) -> None:
    """A view that came since is nobody's of ours: one sentence names it, and nothing of it is touched."""
    spec, env = begin(jivs, key, source, target)
    jivs("run", spec, code=0, env=env)
    prepare(target, "CREATE VIEW report AS SELECT count(*) FROM children")
    refused = jivs("rollback", key, code=1, env=env)
    assert "view public.report depends on" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert one(target, "SELECT * FROM report") == 4000
    prepare(target, "DROP VIEW report")
    jivs("rollback", key, code=0, env=env)
    assert theirs(target)["objects"] == []


def test_rows_appended_without_a_key_are_not_taken_back(
    jivs: Jivs, target: str, key: str, source: Path
) -> None:
    """The plan says so before, and a rollback refuses instead of guessing."""
    prepare(target, "CREATE TABLE parents (id bigint, name text); INSERT INTO parents VALUES (1, 'parent 1')")
    spec, env = begin(jivs, key, source, target, on_existing="append", tables={"include": ["parents"]})
    plan = jivs("plan", spec, "--json", code=0, env=env).document
    assert any("no rollback" in w["reason"] for w in plan["warnings"])
    jivs("run", spec, code=0, env=env)
    assert "no key" in jivs("rollback", key, code=3, env=env).stderr
    assert one(target, "SELECT count(*) FROM parents") == 501
    assert jivs("status", key, "--json", code=0).document["status"] == "completed"


def test_what_came_since_is_not_touched_by_a_rollback_of_appended_rows(
    jivs: Jivs, target: str, key: str, source: Path
) -> None:
    prepare(target)
    spec, env = begin(jivs, key, source, target, on_existing="append")
    jivs("run", spec, code=0, env=env)
    prepare(target, "INSERT INTO parents (name) VALUES ('since')")
    jivs("rollback", key, code=0, env=env)
    assert one(target, "SELECT count(*) FROM parents WHERE name = 'since'") == 1
    assert one(target, "SELECT count(*) FROM parents") == 21
    # The number of the new row is not given out twice.
    prepare(target, "INSERT INTO parents (name) VALUES ('later')")


def test_a_rollback_that_was_killed_goes_on(jivs: Jivs, target: str, key: str, source: Path) -> None:
    """Also as a run, which then loads again what is gone already."""
    prepare(target)
    before = theirs(target)
    spec, env = begin(jivs, key, source, target, on_existing="replace")
    jivs("run", spec, code=0, env=env)
    for place in ("inside_undo@2:kill", "after_commit@3:kill"):
        killed = jivs("rollback", key, env={**env, "JIVS_FAILPOINT": place})
        assert killed.code == -signal.SIGKILL, killed
    assert jivs("status", key, "--json", code=0).document["status"] == "completed"
    jivs("rollback", key, code=0, env=env)
    assert theirs(target) == before


def test_cancel_and_pause_of_what_does_not_run(jivs: Jivs, target: str, key: str, source: Path) -> None:
    spec, env = begin(jivs, key, source, target)
    killed = jivs("run", spec, env={**env, "JIVS_FAILPOINT": "after_copy_before_commit@2:kill"})
    assert killed.code == -signal.SIGKILL
    # Its run is gone: the state is set in its place.
    assert jivs("cancel", key, "--json", code=0, env=env).document["status"] == "cancelled"
    assert not jivs.staged
    jivs("pause", key, code=3, env=env)
    jivs("run", spec, code=0, env=env)
    assert "completed" in jivs("cancel", key, code=3, env=env).stderr
    assert_same_table(source, target, "children")
    for command in ("cancel", "rollback"):
        assert "absent" in jivs(command, "absent", code=2).stderr


def test_a_running_migration_is_not_rolled_back(
    jivs: Jivs, target: str, key: str, source: Path, make_target: Callable[[], str]
) -> None:
    """Whoever wants that cancels it first; until then the conflict names the run."""
    spec, env = begin(jivs, key, source, target)
    started = jivs.start("run", spec, "--json", env={**env, "JIVS_FAILPOINT": HELD.replace("60", "6")})
    started.wait_for("load")
    refused = jivs("rollback", key, code=3, env=env)
    assert f"held by process {started.process.pid}" in refused.stderr
    assert started.wait().code == 0
    assert_same_database(source, target)


def test_a_failure_is_rolled_back_where_the_spec_says_so(
    jivs: Jivs, target: str, key: str, source: Path
) -> None:
    """Exit 1 with the reason, and a target as it was; corrected, the key begins anew."""
    change(source, "CREATE TABLE mixed (a INTEGER)", "INSERT INTO mixed VALUES (1), ('x')")
    prepare(target)
    before = theirs(target)
    options = {"on_existing": "replace", "on_failure": "rollback"}
    spec, env = begin(jivs, key, source, target, **options)
    ended = jivs("run", spec, "--json", code=1, env=env)
    check_run(ended.document, "failed")
    assert "mixed" in ended.document["error"]["message"]
    assert theirs(target) == before
    assert jivs("status", key, "--json", code=0).document["status"] == "rolled_back"
    spec, env = begin(jivs, key, source, target, **options, tables={"exclude": ["mixed"]})
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert document["resumed"] is False
    assert_same_table(source, target, "children")
