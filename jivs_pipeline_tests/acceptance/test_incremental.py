"""`type: incremental`, as a user types it: what is moved, what is left alone, what is refused, what comes back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import (
    assert_same_database,
    assert_same_table,
    constraints,
    fingerprints,
    next_value,
)
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.sqlite_files import make_file

SOURCE = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parents (id) ON DELETE CASCADE, v TEXT);
CREATE TABLE plain (a INTEGER, b TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO parents SELECT i, 'parent ' || i FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO children SELECT i, i % 500 + 1, printf('%080d', i) FROM n;
INSERT INTO plain VALUES (1, 'x'), (1, 'x'), (NULL, '');
"""
CHANGES = """
UPDATE children SET v = 'changed' WHERE id = 20000;
DELETE FROM children WHERE id = 7;
INSERT INTO children VALUES (40001, 1, 'new'), (-5, NULL, 'new');
UPDATE parents SET name = 'for now' WHERE id = 1;
UPDATE parents SET name = 'parent 1x' WHERE id = 3;
UPDATE parents SET name = 'parent 1' WHERE id = 2;
UPDATE parents SET name = 'parent 2' WHERE id = 1;
DELETE FROM plain WHERE rowid = 1;
CREATE TABLE later (id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO later VALUES (1, 'a');
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_file(tmp_path / "source.sqlite", SOURCE)


@pytest.fixture
def env(jivs: Jivs, source: Path, target: str) -> dict[str, str]:
    return jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)


def change(source: Path, statements: str) -> None:
    with closing(sqlite3.connect(source)) as lite:
        lite.executescript(statements)


def execute(target: str, statements: str) -> None:
    with psycopg.connect(target) as db:
        db.execute(statements)  # pyright: ignore[reportArgumentType, reportCallIssue]


def counted(document: Any) -> dict[str, tuple[int, int, int]]:
    return {
        t["target_table"].removeprefix("public."): (t["inserted"], t["updated"], t["deleted"])
        for t in document["tables"]
        if "inserted" in t
    }


def test_what_changed_is_moved_and_nothing_else(
    jivs: Jivs, source: Path, target: str, key: str, env: dict[str, str]
) -> None:
    """The same key goes on from its full run; triggers sleep; what others have changed in the target is put right."""
    full = jivs.spec(key=key, source="legacy", target="warehouse")
    first = jivs("run", full, "--json", code=0, env=env).document
    execute(
        target,
        "CREATE TABLE fired (what text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NULL; END $$;"
        " CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON children FOR EACH ROW EXECUTE FUNCTION tell();"
        " CREATE TABLE bystander (id integer)",
    )
    references = references_of(target)
    change(source, CHANGES)
    path = jivs.spec(key=key, source="legacy", target="warehouse", type="incremental")
    plan = jivs("plan", path, "--json", code=0, env=env).document
    assert {t["target_table"]: t["mode"] for t in plan["tables"]} == {
        "public.parents": "update", "public.children": "update", "public.plain": "update", "public.later": "create",
    }  # fmt: skip
    left = {w["table"] for w in plan["warnings"] if "left alone" in w["reason"]}
    assert left == {"public.bystander", "public.fired"}
    document = jivs("run", path, "--json", code=0, env=env).document
    check_run(document)
    for table in ("parents", "children", "plain", "later"):
        assert_same_table(source, target, table)
    assert counted(document) == {"parents": (0, 3, 0), "children": (2, 1, 1), "plain": (0, 0, 1)}
    moved = {t["target_table"]: t["moved_rows"] for t in document["tables"] if "moved_rows" in t}
    assert moved["public.children"] < 4 * 257
    assert document["bytes"] < first["bytes"] / 10
    assert references_of(target) == references
    with psycopg.connect(target) as db:
        assert db.execute("SELECT count(*) FROM fired").fetchone() == (0,)
        assert next_value(db, "children", "id") == 40002
        db.execute("UPDATE children SET v = 'by hand' WHERE id = 100; DELETE FROM children WHERE id = 200")
        assert db.execute("SELECT count(*) FROM fired").fetchone() == (2,), "the trigger was not woken"
    assert jivs("verify", key, "--json", code=4, env=env).document["equal"] is False
    again = jivs("run", path, "--json", code=0, env=env).document
    check_run(again)
    assert counted(again) == {
        "parents": (0, 0, 0),
        "children": (1, 1, 0),
        "plain": (0, 0, 0),
        "later": (0, 0, 0),
    }
    assert_same_table(source, target, "children")
    assert jivs("verify", key, "--json", "--level", "rows", code=0, env=env).document["equal"] is True


def references_of(target: str) -> Any:
    with psycopg.connect(target) as db:
        return constraints(db, "f")


def test_rollback_takes_back_the_last_load_only(
    jivs: Jivs, source: Path, target: str, key: str, env: dict[str, str]
) -> None:
    jivs("run", jivs.spec(key=key, source="legacy", target="warehouse"), code=0, env=env)
    path = jivs.spec(key=f"{key}-more", source="legacy", target="warehouse", type="incremental")
    change(source, "UPDATE children SET v = 'one' WHERE id < 10")
    jivs("run", path, code=0, env=env)
    before = fingerprints(target)
    change(
        source,
        "UPDATE children SET v = 'two', parent_id = NULL WHERE id < 20; DELETE FROM parents WHERE id > 490",
    )
    change(source, "DELETE FROM children WHERE parent_id > 490; INSERT INTO plain VALUES (1, 'x')")
    jivs("run", path, code=0, env=env)
    assert_same_database(source, target)
    jivs("rollback", f"{key}-more", code=0, env=env)
    assert fingerprints(target) == before


def test_rules_apply_to_what_is_compared(
    jivs: Jivs, source: Path, target: str, key: str, env: dict[str, str]
) -> None:
    """The expectation is what the rules make of the source; rows that a filter takes out go."""
    rules = {
        "children": {"where": "id % 2 = 0", "columns": {"v": {"expression": "upper(v) || '!'"}}},
        "parents": {"rename": "people", "columns": {"name": {"mask": "sha256"}}},
    }
    values = {"key": key, "source": "legacy", "target": "warehouse", "rules": rules}
    jivs("run", jivs.spec(**values), code=0, env=env)
    change(
        source,
        "UPDATE children SET v = 'abc' WHERE id IN (500, 501); UPDATE parents SET name = 'x' WHERE id = 9",
    )
    path = jivs.spec(**values, type="incremental")
    document = jivs("run", path, "--json", code=0, env=env).document
    check_run(document)
    assert counted(document) == {"people": (0, 1, 0), "children": (0, 1, 0), "plain": (0, 0, 0)}
    with psycopg.connect(target) as db:
        assert db.execute("SELECT v FROM children WHERE id = 500").fetchone() == ("ABC!",)
        digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        assert db.execute("SELECT name FROM people WHERE id = 9").fetchone() == (digest,)
    rules["children"]["where"] = "id % 4 = 0"
    document = jivs("run", jivs.spec(**values, type="incremental"), "--json", code=0, env=env).document
    assert counted(document)["children"] == (0, 0, 10_000)
    with psycopg.connect(target) as db:
        assert db.execute("SELECT count(*) FROM children WHERE id % 4 <> 0").fetchone() == (0,)


def test_a_table_that_does_not_fit_is_refused_and_the_others_go_on(
    jivs: Jivs, source: Path, target: str, key: str, env: dict[str, str]
) -> None:
    jivs("run", jivs.spec(key=key, source="legacy", target="warehouse"), code=0, env=env)
    change(source, "ALTER TABLE plain ADD COLUMN more TEXT; INSERT INTO parents VALUES (1000, 'new')")
    path = jivs.spec(key=key, source="legacy", target="warehouse", type="incremental")
    document = jivs("run", path, "--json", code=1, env=env).document
    errors = {t["target_table"]: t["error"] for t in document["tables"]}
    assert "no column 'more'" in errors["public.plain"]["message"]
    assert_same_table(source, target, "parents")
