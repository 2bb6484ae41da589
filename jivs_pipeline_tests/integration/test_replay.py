"""Rows in quarantine are tried again after a fix: read anew, loaded once, forgotten; the engine without the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.errors import JivsError, SpecError
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.file_sources import write
from jivs_pipeline_tests.fix_case import MakeCase
from jivs_pipeline_tests.sqlite_files import change, make_file

SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000)
INSERT INTO t SELECT i, i * 2, printf('%020d', i) FROM c;
UPDATE t SET n = 'bad ' || n WHERE id % 1000 = 0;
UPDATE t SET s = 'x' || char(0) WHERE id = 1;
"""


@pytest.mark.parametrize("mode", ["create", "truncate", "append"])
def test_replay_after_a_fix_of_the_source(make_case: MakeCase, tmp_path: Path, mode: str) -> None:
    """What was corrected goes in, once; the rest stays, with its reason; verify agrees at every step; rollback empties all."""
    source = make_file(tmp_path / "a.db", SCRIPT)
    before = (
        ""
        if mode == "create"
        else "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, s text); INSERT INTO t VALUES (9999999, 1, 'old')"
    )
    case = make_case(f"sqlite:///{source}", before, on_existing="fail" if mode == "create" else mode)
    old = 1 if mode == "append" else 0
    told = case.run()["public.t"]
    assert (told["source_rows"], told["target_rows"], told["quarantined_rows"]) == (6000, 5993, 7)
    assert told["verified"]
    assert told["chunks"] > 2
    assert case.replay().document("k")["stayed"] == 7
    change(source, "UPDATE t SET n = 7 WHERE id IN (1000, 2000, 3000)", "DELETE FROM t WHERE id = 6000")
    assert case.verify()["equal"]  # what is corrected is in quarantine until it is replayed
    outcome = case.replay()
    assert outcome.went_in == {"public.t": 3}
    assert sum(outcome.stay.values()) == 4
    assert ((6000,), None, "the source has no such row any more") in case.kept()
    assert case.all("SELECT count(*), count(*) FILTER (WHERE n = 7 AND id % 1000 = 0) FROM t") == [
        (5996 + old, 3)
    ]
    assert case.verify()["equal"]
    change(source, "UPDATE t SET n = 8 WHERE typeof(n) = 'text'", "UPDATE t SET s = 'good' WHERE id = 1")
    assert case.replay().went_in == {"public.t": 3}
    assert case.replay().went_in == {}
    assert len(case.kept()) == 1
    assert case.all("SELECT count(*) FROM t") == [(5999 + old,)]
    again = case.run()["public.t"]
    assert (again["target_rows"], again["quarantined_rows"]) == (5999, 1)
    with Runtime.from_environment(environment=case.environment) as runtime:
        assert runtime.control.migration(case.spec.key)["quarantined"] == 1
        rollback(runtime.services(), case.spec.key, "rollback")
        assert runtime.control.migration(case.spec.key)["quarantined"] == 0
    assert case.kept() == []
    if mode == "create":
        assert case.all("SELECT count(*) FROM pg_tables WHERE tablename = 't'") == [(0,)]
    else:
        assert case.all("SELECT id, n, s FROM t") == [(9999999, 1, "old")]


def test_nulls_in_a_primary_key(make_case: MakeCase, tmp_path: Path) -> None:
    """SQLite takes them where the key is no rowid: named, refused without a budget, told apart by their rowids with one."""
    script = """CREATE TABLE t (code TEXT, part INT, v TEXT, PRIMARY KEY (code, part));
        INSERT INTO t VALUES (NULL, 1, 'a'), (NULL, 1, 'a'), ('k', 1, 'b'), ('k', NULL, 'c')"""
    source = f"sqlite:///{make_file(tmp_path / 'a.db', script)}"
    said = "NULL in this column of the primary key, which PostgreSQL does not take"
    (table,) = (without := make_case(source, quarantine={"max_rows": 0})).plan().tables
    assert table.refused == f"2 rows have {said}"
    with pytest.raises(JivsError, match=said):
        without.run()
    assert without.all("SELECT count(*) FROM pg_tables WHERE tablename = 't'") == [(0,)]
    # Nobody asks for the key without one of its columns.
    rules = {"t": {"columns": {"code": {"drop": True}, "part": {"drop": True}}}}
    assert make_case(source, quarantine={"max_rows": 0}, rules=rules).run()["public.t"]["verified"]
    case = make_case(source)
    assert {(w.column, w.reason.partition(";")[0]) for w in case.plan().warnings} == {
        ("code", f"2 rows have {said}"),
        ("part", f"1 row has {said}"),
    }
    assert case.run()["public.t"]["quarantined_rows"] == 3
    assert {key for key, *_ in case.kept()} == {(None, 1, 1), (None, 1, 2), ("k", None, 4)}
    change(tmp_path / "a.db", "UPDATE t SET code = 'c' WHERE rowid = 2")
    assert case.replay().went_in == {"public.t": 1}
    assert sorted(case.all("SELECT code, part, v FROM t")) == [("c", 1, "a"), ("k", 1, "b")]
    assert case.verify()["equal"]


def test_what_the_target_refuses_stays_alone(make_case: MakeCase, tmp_path: Path) -> None:
    """Of rows that are good in the source, those go in that the target takes, whatever stands beside them."""
    source = make_file(tmp_path / "a.db", SCRIPT)
    case = make_case(f"sqlite:///{source}")
    case.run()
    change(source, "UPDATE t SET n = -id WHERE typeof(n) = 'text'", "UPDATE t SET s = 'good' WHERE id = 1")
    with psycopg.connect(case.target) as db:
        db.execute("ALTER TABLE t ADD CONSTRAINT small CHECK (n > -3000)")
        db.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        db.execute("CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()")
    outcome = case.replay()
    assert outcome.went_in == {"public.t": 3}
    assert [(key, "small" in reason) for key, _, reason in case.kept()] == [
        ((i,), True) for i in (3000, 4000, 5000, 6000)
    ]
    with psycopg.connect(case.target) as db:
        db.execute("ALTER TABLE t DROP CONSTRAINT small")
    assert case.replay().went_in == {"public.t": 4}
    assert case.verify()["equal"]
    assert case.all("SELECT count(*) FROM t") == [(6000,)]


def test_replay_of_csv(make_case: MakeCase, tmp_path: Path) -> None:
    """By key where the schema file has one, else by line as long as nothing else has changed."""
    keyed = [f"{i},{i},some text to fill chunks {i}" for i in range(6000)]
    plain = [f"{i},text {i}" for i in range(100)]
    bad_keyed = {5: "5,five,x", 3000: "3000,no,x", 5999: "5999,,x,y"}
    bad_plain = {50: "50", 99: "99,a,b"}

    def put(keyed_fixed: dict[int, str], plain_fixed: dict[int, str]) -> None:
        one = [(bad_keyed | keyed_fixed).get(i, line) for i, line in enumerate(keyed)]
        two = [(bad_plain | plain_fixed).get(i, line) for i, line in enumerate(plain)]
        write(tmp_path / "files", {
            "keyed.csv": "\n".join(["id,n,s", *one]), "plain.csv": "\n".join(["a,b", *two, ""]),
            "schema.yaml": "tables: {keyed: {key: id, columns: {id: bigint, n: bigint}}}",
        })  # fmt: skip

    put({}, {})
    case = make_case(f"csv:///{tmp_path / 'files'}")
    told = case.run()
    assert {t: (e["source_rows"], e["quarantined_rows"]) for t, e in told.items()} == {
        "public.keyed": (6000, 3), "public.plain": (100, 2),
    }  # fmt: skip
    assert case.verify()["equal"]
    put({5: keyed[5], 3000: "3000,77,longer than it was"}, {50: plain[50]})
    outcome = case.replay()
    assert outcome.went_in == {"public.keyed": 2, "public.plain": 1}
    assert sum(outcome.stay.values()) == 2
    assert case.verify()["equal"]
    # By line: only while all other lines are what was loaded.
    put({**{i: keyed[i] for i in bad_keyed}, 3000: "3000,78,x"}, {i: plain[i] for i in bad_plain})
    assert case.replay().went_in == {"public.plain": 1}
    put(
        {**{i: keyed[i] for i in bad_keyed}, 3000: "3000,77,longer than it was"},
        {i: plain[i] for i in bad_plain},
    )
    assert case.replay().went_in == {"public.keyed": 1}
    assert case.kept() == []
    assert case.verify()["equal"]
    assert case.all("SELECT count(*), sum(id), max(n) FROM keyed") == [(6000, sum(range(6000)), 5999)]
    assert case.all("SELECT count(*) FROM plain") == [(100,)]


RULED = """
CREATE TABLE code (id INTEGER PRIMARY KEY, label TEXT);
INSERT INTO code VALUES (1, 'one'), (2, 'two');
CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, m INTEGER, s TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000)
INSERT INTO t SELECT i, i * 2, i % 3, printf('%020d', i) FROM c;
UPDATE t SET n = 'bad ' || n WHERE id % 1000 = 0;
UPDATE t SET m = 'bad' WHERE id IN (1, 1001);
"""


def _rules(expression: str, **more: Any) -> dict[str, Any]:
    columns = {"n": {"expression": expression}, "s": {"mask": "sha256"}, "label": {"lookup": LABEL}, **more}
    return {"t": {"columns": columns}}


LABEL = {"table": "code", "key": "id", "value": "label", "by": "m"}


def test_rules_that_are_others_make_the_rows_that_those_before_reject(
    make_case: MakeCase, tmp_path: Path
) -> None:
    """A row is made by the first rules that take it, and `jivs verify` knows; nothing else of a spec may change."""
    source = make_file(tmp_path / "a.db", RULED)
    case = make_case(f"sqlite:///{source}", rules=_rules("CAST(n AS BIGINT)"))
    told = case.run()["public.t"]
    assert (told["source_rows"], told["target_rows"], told["quarantined_rows"]) == (6000, 5992, 8)
    for given, said in (
        (case.changed(rules=_rules("n")), "column public.t.n would be n text"),
        (case.changed(rules=_rules("CAST(n AS BIGINT)"), target_schema="other"), "another 'target_schema'"),
        (case.changed(rules=_rules("CAST(n AS BIGINT)", m={"drop": True})), "column public.t.m would be s text"),
        (case.changed(rules={**_rules("CAST(n AS BIGINT)"), "code": {"columns": {"label": {"default": ""}}}}), "none of its rows"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=said):
            case.replay(given)
    # The target does not take one that the new rules do: it stays, and is no difference.
    with psycopg.connect(case.target) as db:
        db.execute("ALTER TABLE t ADD CONSTRAINT young CHECK (id < 6000)")
    given = case.changed(rules=_rules("coalesce(TRY_CAST(n AS BIGINT) + 1, -1)"))
    outcome = case.replay(given)
    assert (outcome.went_in, sum(outcome.stay.values())) == ({"public.t": 5}, 3)
    made = "SELECT count(*), count(*) FILTER (WHERE n = -1 AND id % 1000 = 0), count(*) FILTER (WHERE n = id * 2) FROM t"
    assert case.all(made) == [(5997, 5, 5992)]
    again = next(t for t in case.verify()["tables"] if t["target_table"] == "public.t")
    assert (again["equal"], again["source_rows"], again["quarantined_rows"]) == (True, 6000, 3)
    with psycopg.connect(case.target) as db:
        db.execute("ALTER TABLE t DROP CONSTRAINT young")
        db.execute("UPDATE t SET n = -2 WHERE id = 3000")
    assert not case.verify()["equal"]
    with psycopg.connect(case.target) as db:
        db.execute("UPDATE t SET n = -1 WHERE id = 3000")
    # What was bad in the source goes through the rules, too: by those of the run where they take it.
    change(source, "UPDATE t SET m = 2 WHERE id IN (1, 1001)", "UPDATE t SET n = 'worse' WHERE id = 1001")
    assert case.verify()["equal"]
    assert case.replay().went_in == {"public.t": 3}
    assert case.all("SELECT id, n, label FROM t WHERE id IN (1, 1001, 6000) ORDER BY 1") == [
        (1, 2, "two"), (1001, -1, "two"), (6000, -1, None),
    ]  # fmt: skip
    assert case.replay(given).document("k")["tables"] == []
    assert case.verify()["equal"]
    told = case.run()["public.t"]
    assert (told["target_rows"], told["quarantined_rows"], told["verified"]) == (6000, 0, True)
