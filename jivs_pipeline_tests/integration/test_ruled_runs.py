"""Whole runs with rules: which rows they reject, and going on after a failure; the engine without the command."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from jivs_pipeline.core.errors import MismatchError, TerminalError
from jivs_pipeline_tests.fix_case import MakeCase
from jivs_pipeline_tests.sqlite_files import change, make_file

LABEL = {"table": "code", "key": "id", "value": "label", "by": "m"}


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


_SLOW = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("rows", [20_000, pytest.param(1_000_000, marks=_SLOW)])
def test_bad_rows_of_rules_are_taken_out_and_no_others(
    make_case: MakeCase, tmp_path: Path, rows: int
) -> None:
    """37 of them, some on the borders of chunks: a budget of 36 fails their table only, one of 37 loads all others."""
    script = f"""
    CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows})
    INSERT INTO t SELECT i, printf('%012d', i) FROM c;
    CREATE TABLE u (id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO u VALUES (1, 'x');
    """
    source = make_file(tmp_path / "a.db", script)
    rules = {"t": {"columns": {"v": {"expression": "CAST(v AS BIGINT)"}}}}
    case = make_case(
        f"sqlite:///{source}", rules=rules, chunk_bytes=1 << (16 if rows < 1_000_000 else 20),
        quarantine={"max_rows": 36},
    )  # fmt: skip
    bounds = [int(c.lower[0]) for c in case.plan().table("public.t").chunks if c.lower]
    assert len(bounds) > 3
    bad = {1, rows, *bounds[:8], *(b - 1 for b in bounds[:8])}
    rng = random.Random(37)
    while len(bad) < 37:
        bad.add(rng.randint(1, rows))
    # As long as before, so that the chunks stay where they are.
    change(source, f"UPDATE t SET v = 'x' || substr(v, 2) WHERE id IN ({', '.join(map(str, bad))})")
    with pytest.raises(
        TerminalError, match=r"1 of 2 tables failed \(public.t\): .* 37 were found and 36 are"
    ):
        case.run()
    assert case.all("SELECT v FROM u") == [("x",)]
    case.spec = case.changed(quarantine={"max_rows": 37})
    told = case.run()
    table = told["public.t"]
    assert (table["source_rows"], table["target_rows"], table["quarantined_rows"]) == (rows, rows - 37, 37)
    assert all(t["verified"] for t in told.values())
    assert sorted(int(key[0]) for key, *_ in case.kept()) == sorted(bad)
    counted = "SELECT count(*), sum(v), count(*) FILTER (WHERE v <> id) FROM t"
    assert case.all(counted) == [(rows - 37, rows * (rows + 1) // 2 - sum(bad), 0)]
    change(source, "UPDATE t SET v = '0' || substr(v, 2) WHERE v LIKE 'x%'")
    assert case.replay().document("k")["replayed"] == 37
    assert (case.all(counted), case.kept()) == ([(rows, rows * (rows + 1) // 2, 0)], [])
    assert case.verify()["equal"]
