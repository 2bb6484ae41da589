"""Rows that only the target finds bad: its keys and conditions refuse them, on real servers; the engine without the command."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.fix_case import MakeCase
from jivs_pipeline_tests.sqlite_files import change, make_file

# 1 to 2,000; n is 1 less than 0, s is missing once, code comes twice twice, up refers in vain once and in a chain.
ROWS = """
CREATE TABLE t (id integer PRIMARY KEY, n integer, s text, code text, up integer);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)
INSERT INTO t SELECT i, i, 'text ' || i, 'c' || i, NULL FROM c;
UPDATE t SET n = -5 WHERE id = 10;
UPDATE t SET s = NULL WHERE id = 20;
UPDATE t SET code = 'C9' WHERE id = 30;
UPDATE t SET code = 'c40' WHERE id = 41;
UPDATE t SET up = 5000 WHERE id = 50;
UPDATE t SET up = 50 WHERE id = 60;
UPDATE t SET up = 60 WHERE id = 5;
UPDATE t SET up = 1 WHERE id = 6;
"""
EXISTING = """
CREATE TABLE t (id bigint PRIMARY KEY, n bigint, s text NOT NULL, code text, up bigint REFERENCES t (id),
    twice bigint GENERATED ALWAYS AS (n * 2) STORED, made bigint GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT sensible CHECK (n > 0 AND twice > 0), CHECK (made > 0));
CREATE UNIQUE INDEX by_code ON t (lower(code)) WHERE n < 1500;
"""
OLD = "INSERT INTO t (id, n, s, code) VALUES (77, 1, 'old', 'x'), (9001, 2, 'old', 'C1400'), (9002, 3, 'old', 'c1700');"


def _file(directory: Path, script: str = ROWS) -> str:
    directory.mkdir(exist_ok=True)
    return f"sqlite:///{make_file(directory / 'a.db', script)}"


def _copied(url: str, script: str) -> str:
    with psycopg.connect(url) as db:
        db.execute(script.encode())
    return url


@pytest.mark.parametrize("mode", ["append", "truncate"])
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_a_table_that_was_there_takes_all_rows_that_it_can(
    make_case: MakeCase, make_target: Callable[[], str], tmp_path: Path, mode: str, dialect: str
) -> None:
    """By both lanes, with its generated columns, expressions and predicates; each row with its reason and its value."""
    source = _file(tmp_path) if dialect == "sqlite" else _copied(make_target(), ROWS)
    case = make_case(source, EXISTING + OLD, on_existing=mode)
    bad = {10: "n", 20: "s", 30: "code", 41: "code", 50: "up", 60: "up", 5: "up"}
    if mode == "append":
        bad |= {77: "id", 1400: "code"}
    told = case.run()["public.t"]
    assert (told["source_rows"], told["target_rows"]) == (2000, 2000 - len(bad))
    assert told["quarantined_rows"] == len(bad)
    assert told["verified"]
    kept = {key[0]: (column, reason) for key, column, reason in case.kept()}
    assert {int(k): c for k, (c, _) in kept.items()} | {10: "n"} == bad
    assert kept["10"][1] == "does not pass the target's CHECK sensible"
    assert kept["20"] == ("s", "NULL in a column that the target has as NOT NULL")
    assert kept["41"] == ("code", "duplicate in index by_code")
    assert kept["60"][1].startswith("breaks foreign key (up)")
    there = {i for (i,) in case.all("SELECT id FROM t WHERE s <> 'old'")}
    assert there == set(range(1, 2001)) - set(bad)
    assert case.verify()["equal"]
    assert case.replay().document("k")["stayed"] == len(bad)
    with Runtime.from_environment(environment=case.environment) as runtime:
        rows = {int(r["key"]["id"]): r for r in runtime.control.quarantine.listed(case.spec.key)}
        assert rows[41]["value"] == "c40"
        rollback(runtime.services(), case.spec.key, "rollback")
    assert case.kept() == []
    assert sorted(case.all("SELECT id, code FROM t")) == [(77, "x"), (9001, "C1400"), (9002, "c1700")]


def test_without_a_budget_and_beyond_it(make_case: MakeCase, tmp_path: Path) -> None:
    """One sentence, and the table is as it was; with a budget that is too small others that are made finish."""
    source = _file(tmp_path, f"{ROWS} CREATE TABLE u (id integer PRIMARY KEY); INSERT INTO u VALUES (1)")
    case = make_case(source, EXISTING + OLD, on_existing="append", quarantine={"max_rows": 0})
    with pytest.raises(JivsError, match=r"two rows have the same key|NULL in a NOT NULL|CHECK"):
        case.run()
    case.spec = case.changed(quarantine={"max_rows": 3})
    with pytest.raises(JivsError, match=r"main\.t has more bad rows than quarantine\.max_rows allows"):
        case.run()
    assert case.all("SELECT id FROM t ORDER BY 1") == [(77,), (9001,), (9002,)]
    assert case.all("SELECT id FROM u") == [(1,)]


CHECKED = """
CREATE TABLE p (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0), s TEXT, CHECK (length(s) < 9));
CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id) ON DELETE CASCADE);
CREATE TABLE d (id INTEGER PRIMARY KEY, c INTEGER REFERENCES c (id) ON DELETE CASCADE);
"""


def test_checks_that_sqlite_did_not_enforce(make_case: MakeCase, tmp_path: Path) -> None:
    """With what refers to such rows, along a chain: nothing goes by an action of a key."""
    source = _file(tmp_path, CHECKED)
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.executemany("INSERT INTO p VALUES (?, ?, ?)", [(i, i, "fine") for i in range(1, 500)])
        db.executemany("INSERT INTO p VALUES (?, ?, ?)", [(500, 0, "fine"), (501, 1, "far too long")])
        db.executemany("INSERT INTO c VALUES (?, ?)", [(1, 1), (2, 500), (3, 501)])
        db.executemany("INSERT INTO d VALUES (?, ?)", [(1, 1), (2, 2)])
    case = make_case(source)
    tables = case.run()
    counted = {
        n.removeprefix("public."): (t["target_rows"], t["quarantined_rows"]) for n, t in tables.items()
    }
    assert counted == {"p": (499, 2), "c": (1, 2), "d": (1, 1)}
    assert all(t["verified"] for t in tables.values())
    assert case.all(
        "SELECT count(*) FROM pg_constraint WHERE contype IN ('c', 'f') AND conrelid::regclass::text IN ('p', 'c', 'd')"
    ) == [(4,)]
    assert case.verify()["equal"]
    with pytest.raises(JivsError, match="a row violates a CHECK constraint"):
        make_case(source, quarantine={"max_rows": 0}).run()


MERGED = """
CREATE TABLE t (id bigint PRIMARY KEY, mail text UNIQUE, n bigint CHECK (n > 0));
INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 1), (900, 'mine', 1);
"""
MAILS = """
CREATE TABLE t (id integer, mail text, n integer);
INSERT INTO t VALUES (1, 'first', 1), (2, 'two', 2), (3, 'mine', 1), (4, 'four', 0), (5, 'one', 1), (6, 'six', 1), (6, 'six', 2);
"""


def test_rows_that_take_the_place_of_others(make_case: MakeCase, tmp_path: Path) -> None:
    """What another row is to lose is free for them; what it keeps is not."""
    case = make_case(_file(tmp_path, MAILS), MERGED, on_existing="append", rules={"t": {"load": "upsert"}})
    told = case.run()["public.t"]
    assert (told["quarantined_rows"], told["verified"]) == (3, True)
    assert case.all("SELECT id, mail, n FROM t ORDER BY 1") == [
        (1, "first", 1), (2, "two", 2), (5, "one", 1), (6, "six", 1), (900, "mine", 1),
    ]  # fmt: skip
    assert sorted(key[0] for key, *_ in case.kept()) == ["3", "4", "6"]


@pytest.mark.parametrize("mode", ["append", "truncate"])
def test_rows_go_in_when_the_target_takes_them(make_case: MakeCase, tmp_path: Path, mode: str) -> None:
    """A replay tries them as they are kept, once; counts, verify and rollback know."""
    case = make_case(_file(tmp_path), EXISTING, on_existing=mode)
    assert case.run()["public.t"]["quarantined_rows"] == 7
    with psycopg.connect(case.target) as db:
        db.execute(
            "ALTER TABLE t DROP CONSTRAINT sensible; INSERT INTO t (id, n, s) VALUES (5000, 1600, 'old')"
        )
    # 60 goes by 50, and 5 by 60, in whatever order they are tried.
    assert case.replay().went_in == {"public.t": 4}
    assert case.all("SELECT id, n, up FROM t WHERE id IN (5, 10, 50, 60) ORDER BY 1") == [
        (5, 5, 60), (10, -5, None), (50, 50, 5000), (60, 60, 50),
    ]  # fmt: skip
    assert {key for key, *_ in case.kept()} == {("20",), ("30",), ("41",)}
    assert case.replay().went_in == {}
    told = case.run()["public.t"]
    assert (told["target_rows"], told["quarantined_rows"]) == (1997, 3)
    with psycopg.connect(case.target) as db:
        db.execute("UPDATE t SET up = NULL WHERE up = 5000; DELETE FROM t WHERE id = 5000")
    if mode == "truncate":
        (table,) = case.verify(narrow=True)["tables"]
        assert [(d["kind"], d["key"]) for d in table["differences"]] == [("changed", {"id": "50"})]
        assert (table["source_rows"], table["quarantined_rows"]) == (2000, 3)
    with Runtime.from_environment(environment=case.environment) as runtime:
        rollback(runtime.services(), case.spec.key, "rollback")
    assert case.all("SELECT count(*) FROM t") == [(0,)]


def test_tables_that_refer_to_each_other_in_the_target_alone(make_case: MakeCase, tmp_path: Path) -> None:
    """Parents come first although the source knows no keys, and what refers to a refused row goes with it."""
    script = """CREATE TABLE a (id integer, b integer); CREATE TABLE b (id integer, c integer); CREATE TABLE c (id integer, n integer);
        INSERT INTO c VALUES (1, 1), (2, 0); INSERT INTO b VALUES (1, 1), (2, 2), (3, 50); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)"""
    existing = """CREATE TABLE c (id bigint PRIMARY KEY, n bigint CHECK (n > 0)); CREATE TABLE b (id bigint PRIMARY KEY, c bigint REFERENCES c);
        CREATE TABLE a (id bigint PRIMARY KEY, b bigint REFERENCES b); INSERT INTO c VALUES (50, 1)"""
    for mode, refused in (("append", 1), ("truncate", 2)):
        case = make_case(_file(tmp_path / mode, script), existing, on_existing=mode)
        told = case.run()
        assert {n: t["quarantined_rows"] for n, t in told.items()} == {
            "public.a": refused, "public.b": refused, "public.c": 1,
        }  # fmt: skip
        assert all(t["verified"] for t in told.values())
    fine = script.replace("(2, 0)", "(2, 1)").replace("(3, 50)", "(3, 1)")
    case = make_case(
        _file(tmp_path / "fine", fine), existing, on_existing="append", quarantine={"max_rows": 0}
    )
    assert all(t["verified"] for t in case.run().values())


@pytest.mark.parametrize("existing", ["CREATE TABLE p (id bigint PRIMARY KEY, n bigint CHECK (n > 0))", ""])
def test_an_answer_that_was_lost(make_case: MakeCase, tmp_path: Path, existing: str) -> None:
    """The rows are out and nobody was told: the next attempt finds it in the ledger, and verify expects them no more."""
    source = _file(tmp_path, "CREATE TABLE p (id INTEGER PRIMARY KEY, n INTEGER CHECK (n > 0))")
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as db, db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.executemany("INSERT INTO p VALUES (?, ?)", [(1, 1), (2, 0), (3, 3)])
    case = make_case(source, existing, on_existing="truncate" if existing else "fail")
    case.environment["JIVS_FAILPOINT"] = "refused_after_commit:error"
    told = case.run()["public.p"]
    assert (told["target_rows"], told["quarantined_rows"], told["verified"]) == (2, 1, True)


def test_a_bad_row_keeps_no_other_out(make_case: MakeCase, tmp_path: Path) -> None:
    """Of rows with one key the first goes by its CHECK, so the second stays; twice of the same is one of them."""
    script = "CREATE TABLE t (id integer, n integer); INSERT INTO t VALUES (1, 0), (1, 1), (2, 1), (2, 1), (3, NULL)"
    existing = "CREATE TABLE t (id bigint UNIQUE NULLS NOT DISTINCT, n bigint CHECK (n > 0))"
    case = make_case(_file(tmp_path, script), existing, on_existing="truncate")
    assert case.run()["public.t"]["verified"]
    assert case.all("SELECT id, n FROM t ORDER BY 1") == [(1, 1), (2, 1), (3, None)]
    assert sorted(key for key, *_ in case.kept()) == [("0", "1"), ("1", "2")]  # n, id


def test_a_table_that_is_updated_tries_them_again(make_case: MakeCase, tmp_path: Path) -> None:
    """With each run; those that the target takes by then come, and verify finds what is wrong beside them."""
    source = make_file(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1"
        " FROM c WHERE i < 9000) INSERT INTO t SELECT i, i FROM c; UPDATE t SET n = 4 WHERE id = 5; UPDATE t SET n = 0"
        " WHERE id = 8000",
    )
    existing = "CREATE TABLE t (id bigint PRIMARY KEY, n bigint UNIQUE CHECK (n > 0))"
    case = make_case(f"sqlite:///{source}", existing, type="incremental")
    told = case.run()["public.t"]
    assert (told["target_rows"], told["quarantined_rows"], told["verified"]) == (8998, 2, True)
    assert case.verify()["equal"]
    change(source, "UPDATE t SET n = 70000 WHERE id = 5", "UPDATE t SET n = 70001 WHERE id = 6000")
    told = case.run()["public.t"]
    assert (told["target_rows"], told["quarantined_rows"], told["verified"]) == (8999, 1, True)
    assert [key for key, *_ in case.kept()] == [("8000",)]
    with psycopg.connect(case.target) as db:
        db.execute("UPDATE t SET n = 70002 WHERE id = 7000")
    (found,) = case.verify(narrow=True)["tables"]
    assert [(d["kind"], d["key"]) for d in found["differences"]] == [("changed", {"id": "7000"})]
