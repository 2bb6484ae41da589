"""Columns whose type is a table's row type, from PostgreSQL to PostgreSQL; the engine without the command."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.fix_case import MakeCase

ROWS = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE "Address" (gone integer, street text, "No" integer, m mood DEFAULT 'sad'); ALTER TABLE "Address" DROP COLUMN gone;
CREATE TABLE aaa (id integer PRIMARY KEY, home "Address", others "Address"[], CHECK ((home)."No" > 0));
CREATE TABLE aa (id integer, who aaa, many aaa[]);
INSERT INTO "Address" VALUES ('a "b", (c)', 1, 'happy'), (NULL, NULL, NULL);
INSERT INTO aaa VALUES (1, ROW('x, y', 2, 'happy'), ARRAY[ROW('', NULL, NULL), NULL]::"Address"[]), (2, NULL, '{}');
INSERT INTO aa SELECT id, a, ARRAY[a, a] FROM aaa a;
CREATE FUNCTION street("Address") RETURNS text LANGUAGE sql AS 'SELECT $1.street';
CREATE VIEW streets AS SELECT street(home) AS street, (home)."No" AS no FROM aaa;
"""


def _texts(url: str, schema: str) -> list[list[tuple[str, ...]]]:
    with psycopg.connect(url) as db:
        db.execute(f"SET search_path TO {schema}")  # pyright: ignore[reportCallIssue, reportArgumentType]
        return [
            db.execute(f"SELECT t::text FROM {name} t ORDER BY 1").fetchall()  # pyright: ignore[reportCallIssue, reportArgumentType]
            for name in ('"Address"', "aaa", "aa", "streets")
        ]


def test_rows_of_other_tables_in_columns(make_case: MakeCase, make_target: Callable[[], str]) -> None:
    """Those tables are made first; also when a run is killed and all of it is read anew; a rollback leaves nothing."""
    source = make_target()
    with psycopg.connect(source) as db:
        db.execute(ROWS.encode())
    case = make_case(source, target_schema="other")
    assert [(w.table, w.reason) for w in case.plan().warnings] == []
    assert {t.target: t.after for t in case.plan().tables} == {
        "other.Address": (), "other.aaa": ("other.Address",), "other.aa": ("other.aaa",),
    }  # fmt: skip
    with psycopg.connect(source) as db:
        db.execute("CREATE TABLE odd (d pg_ndistinct)")
    with pytest.raises(JivsError, match=r"1 of 4 tables failed"):
        case.run()
    # One of them is lost: what has its rows in columns is made anew with it, and nothing else.
    oids = "SELECT 'other.\"Address\"'::regclass::oid, 'other.aa'::regclass::oid"
    ((address, aa),) = case.all(oids)
    with psycopg.connect(source) as db, psycopg.connect(case.target) as there:
        db.execute("DROP TABLE odd")
        there.execute("DELETE FROM jivs_ledger.chunks WHERE \"table\" = 'other.aaa'")
    assert all(t["verified"] for t in case.run().values())
    ((same, other),) = case.all(oids)
    assert (same == address, other == aa) == (True, False)
    assert _texts(case.target, "other") == _texts(source, "public")
    assert case.verify()["equal"]
    with Runtime.from_environment(environment=case.environment) as runtime:
        rollback(runtime.services(), case.spec.key, "rollback")
    assert case.all("SELECT count(*) FROM pg_namespace WHERE nspname = 'other'") == [(0,)]


@pytest.mark.parametrize(
    ("more", "refused", "reason"),
    [
        ({"tables": {"exclude": ["Address"]}}, {"aaa", "aa"}, "is not carried"),
        ({"rules": {"Address": {"rename": "a"}}}, {"aaa", "aa"}, "is another in the target by its rules"),
        ({"rules": {"aaa": {"columns": {"others": {"drop": True}}}}}, {"aa"}, "is another in the target by its rules"),
    ],
)  # fmt: skip
def test_rows_of_tables_that_are_others(
    make_case: MakeCase,
    make_target: Callable[[], str],
    more: dict[str, object],
    refused: set[str],
    reason: str,
) -> None:
    """Refused by name; all other tables are carried."""
    source = make_target()
    with psycopg.connect(source) as db:
        db.execute(ROWS.encode())
    case = make_case(source, **more)
    found = {t.source_table: t.refused for t in case.plan().tables if t.refused}
    assert found.keys() == refused
    assert any(reason in why for name, why in found.items() if name in refused), found
    with pytest.raises(JivsError, match="tables failed"):
        case.run()
