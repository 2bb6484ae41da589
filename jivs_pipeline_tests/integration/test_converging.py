"""Incremental runs against changes of the source: what converges, whatever is bad or lies; the engine without the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline.core.errors import ConfigError, TerminalError
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.fix_case import MakeCase
from jivs_pipeline_tests.sqlite_files import change, make_file

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
