"""Rows in quarantine are tried again after a fix: read anew, loaded once, forgotten; the engine without the command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.core.errors import ConfigError, MismatchError, SpecError, TerminalError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.replay import Outcome, replay
from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.faults.worker import migrate
from jivs_pipeline_tests.file_sources import write
from jivs_pipeline_tests.sqlite_files import change, make_file


class Case:
    """One migration with a budget."""

    def __init__(
        self, home: Path, control: str, target: str, source: str, directory: Path, **more: Any
    ) -> None:
        self.target = target
        self.environment = {
            "JIVS_HOME": str(home), "JIVS_CONTROL_URL": control, "JIVS_STAGING_URL": str(directory / "staging"),
            "JIVS_CONNECTION_LEGACY": source, "JIVS_CONNECTION_WAREHOUSE": target,
        }  # fmt: skip
        spec = {
            "key": f"k-{uuid4().hex[:12]}",
            "source": "legacy",
            "target": "warehouse",
            "chunk_bytes": 65536,
        }
        self.spec = Spec.model_validate({**spec, "quarantine": {"max_rows": 50}, **more})

    def run(self) -> dict[str, dict[str, Any]]:
        """A run; its tables by name."""
        return {t["target_table"]: t for t in migrate(self.environment, self.spec)["tables"]}

    def replay(self, given: Spec | None = None) -> Outcome:
        with Runtime.from_environment(environment=self.environment) as runtime:
            return replay(runtime.services(), self.spec.key, "replay", given)

    def changed(self, **changes: Any) -> Spec:
        """The spec with other keys."""
        return Spec.model_validate({**self.spec.model_dump(), **changes})

    def verify(self) -> dict[str, Any]:
        with Runtime.from_environment(environment=self.environment) as runtime:
            return reverify(runtime.services(), runtime.control.migration(self.spec.key), None)

    def kept(self) -> list[tuple[Any, ...]]:
        """Key, column and reason of what is in quarantine."""
        with Runtime.from_environment(environment=self.environment) as runtime:
            rows = runtime.control.quarantine.listed(self.spec.key)
            return [(tuple(r["key"].values()), r["column"], r["reason"]) for r in rows]

    def all(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.target) as db:
            return db.execute(query.encode()).fetchall()


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path) -> MakeCase:
    """Migrations of their own control database and target."""

    def make(source: str, before: str = "", **more: Any) -> Case:
        target = make_target()
        with psycopg.connect(target) as db:
            db.execute(before.encode())
        return Case(jivs_home[0], make_target(), target, source, tmp_path, **more)

    return make


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


CHANGING = """
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TABLE u (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE w (k TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000) INSERT INTO t SELECT i, i FROM c;
INSERT INTO u SELECT id, n FROM t WHERE id < 900;
INSERT INTO w SELECT 'k' || id, n FROM t WHERE id < 900;
"""
SPOILED = (
    "UPDATE t SET n = 'bad' WHERE id = 10", "INSERT INTO t VALUES (7000, 'bad')", "UPDATE t SET n = -1 WHERE id IN (11, 2000)",
    "UPDATE u SET v = 'bad' WHERE id IN (5, 6)", "DELETE FROM u WHERE id = 7",
    "UPDATE w SET n = 'bad' WHERE k = 'k3'", "INSERT INTO w VALUES ('new', 1)",
)  # fmt: skip


def test_incremental_runs_keep_bad_rows_apart(make_case: MakeCase, tmp_path: Path) -> None:
    """Rows that cannot be carried, or that rules reject, are apart once, whatever round it is; repaired ones come back."""
    source = make_file(tmp_path / "a.db", CHANGING)
    rules = {"u": {"columns": {"v": {"expression": "CAST(v AS BIGINT)"}}}}
    case = make_case(f"sqlite:///{source}", rules=rules)
    case.run()
    change(source, *SPOILED)
    bad = [((10,), "n"), ((7000,), "n"), (("5",), "v"), (("6",), "v"), (("k3",), "n")]
    case.spec = case.changed(type="incremental", quarantine={"max_rows": 1})
    with pytest.raises(TerminalError, match=r"2 of 3 tables failed \(public.t, public.u\)"):
        case.run()
    case.spec = case.changed(quarantine={"max_rows": 2})
    for _ in range(2):
        told = case.run()
        found = {n: (t["source_rows"], t["target_rows"], t["quarantined_rows"]) for n, t in told.items()}
        assert found == {"public.t": (3001, 2999, 2), "public.u": (898, 896, 2), "public.w": (900, 899, 1)}
        assert all(t["verified"] for t in told.values())
        assert sorted(map(repr, ((key, column) for key, column, _ in case.kept()))) == sorted(map(repr, bad))
        assert case.verify()["equal"]
    assert case.all("SELECT count(*) FROM t WHERE id = 10 OR n = -1") == [(2,)]
    with pytest.raises(ConfigError, match="is incremental"):
        case.replay()
    change(source, "UPDATE t SET n = 0 WHERE typeof(n) = 'text'", "UPDATE u SET v = 0 WHERE v = 'bad'", "UPDATE w SET n = 3 WHERE k = 'k3'")  # fmt: skip
    told = case.run()
    assert {n: (t["target_rows"], t["verified"]) for n, t in told.items()} == {
        "public.t": (3001, True), "public.u": (898, True), "public.w": (900, True),
    }  # fmt: skip
    assert case.kept() == []
    assert case.all("SELECT id FROM t WHERE n = 0 UNION ALL SELECT id FROM u WHERE v = 0 ORDER BY 1") == [
        (5,), (6,), (10,), (7000,),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_watermark_that_lies_hides_nothing(
    make_case: MakeCase, make_target: Callable[[], str], tmp_path: Path, kind: str
) -> None:
    """What a column says is new is found by it; what changed or went without touching it is found by the digests."""
    script = (
        'CREATE TABLE t (id integer PRIMARY KEY, n integer, "when" timestamp);'
        "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)"
        " SELECT i, i, '2024-01-01 10:00:00' FROM c;"
    )
    changes = (
        "UPDATE t SET n = -1, \"when\" = '2024-01-02 00:00:00.5' WHERE id IN (3, 1500)",
        "UPDATE t SET n = -2 WHERE id = 700", "UPDATE t SET n = -3, \"when\" = '2023-01-01 00:00:00' WHERE id = 900",
        "DELETE FROM t WHERE id = 1000", "INSERT INTO t VALUES (5000, -4, '2024-01-02 00:00:00')",
    )  # fmt: skip
    if kind == "sqlite":
        file = make_file(tmp_path / "a.db", script)
        url = f"sqlite:///{file}"
    else:
        url = make_target()
        with psycopg.connect(url) as db:
            db.execute(script.replace("'2024-01-01 10:00:00'", "timestamp '2024-01-01 10:00:00'").encode())
    case = make_case(url, rules={"t": {"watermark": "when"}}, quarantine={})
    case.run()
    if kind == "sqlite":
        change(file, *changes)  # pyright: ignore[reportPossiblyUnboundVariable]
    else:
        with psycopg.connect(url) as db:
            for one in changes:
                db.execute(one.encode())
    case.spec = case.changed(type="incremental")
    told = case.run()["public.t"]
    assert (told["source_rows"], told["verified"]) == (2000, True)
    assert (told["inserted"], told["updated"], told["deleted"]) == (1, 4, 1)
    assert case.all("SELECT id, n FROM t WHERE n < 0 ORDER BY id") == [
        (3, -1), (700, -2), (900, -3), (1500, -1), (5000, -4),
    ]  # fmt: skip
    with Runtime.from_environment(environment=case.environment) as runtime:
        plan = runtime.control.migration(case.spec.key)["plan"]
    assert plan["tables"][0]["watermark"] == '"when"', plan["warnings"]


def test_what_is_loaded_already_can_still_be_looked_into(make_case: MakeCase, tmp_path: Path) -> None:
    """A table that failed goes on when those that it looks into, or is checked against, are not staged any more."""
    script = """
    CREATE TABLE code (id INTEGER PRIMARY KEY, label TEXT);
    INSERT INTO code VALUES (1, 'one'), (2, 'two');
    CREATE TABLE p (id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO p VALUES (1, 'a'), (2, 'b');
    CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, p_id INTEGER, m INTEGER);
    INSERT INTO t VALUES (1, '1', 1, 1), (2, 'bad', 2, 2), (3, '3', 7, 3);
    """
    source = make_file(tmp_path / "a.db", script)
    check = {
        "kind": "referential",
        "table": "t",
        "column": "p_id",
        "references": {"table": "p", "columns": ["id"]},
    }
    columns = {"n": {"expression": "CAST(n AS BIGINT)"}, "label": {"lookup": LABEL}}
    case = make_case(
        f"sqlite:///{source}", rules={"t": {"columns": columns}}, validation=[{**check, "severity": "critical"}], quarantine={}
    )  # fmt: skip
    with pytest.raises(TerminalError, match="1 of 3 tables failed"):
        case.run()
    shutil.rmtree(case.environment["JIVS_STAGING_URL"])
    change(source, "UPDATE t SET n = '2' WHERE id = 2")
    with pytest.raises(MismatchError, match="referential"):
        case.run()
    change(source, "UPDATE t SET p_id = 1 WHERE id = 3")
    assert case.run()["public.t"]["verified"]
    assert case.all("SELECT id, n, label FROM t ORDER BY 1") == [(1, 1, "one"), (2, 2, "two"), (3, 3, None)]
    assert not [path for path in Path(case.environment["JIVS_STAGING_URL"]).rglob("*") if path.is_file()]
