"""Bad rows of Parquet files, as a user types it: by file, row group and row; replay after the file was made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from jivs_pipeline_tests.acceptance.test_quarantine import spec_of
from jivs_pipeline_tests.fix_cli import Jivs

_ROWS = 5_000


def _texts(bad: dict[int, bytes]) -> Any:
    values = [bad.get(i, f"text {i}".encode()) for i in range(_ROWS)]
    return pa.Array.from_buffers(pa.string(), _ROWS, pa.array(values, pa.binary()).buffers())


def _file(path: Path, texts: dict[int, bytes], moments: dict[int, int]) -> None:
    """Rows of which some hold a text or a moment that PostgreSQL cannot."""
    nanos = np.arange(_ROWS, dtype=np.int64) * 1_000
    for row, value in moments.items():
        nanos[row] = value
    table = pa.table(
        {
            "id": pa.array(range(_ROWS), pa.int64()),
            "s": _texts(texts),
            "at": pa.array(nanos).view(pa.timestamp("ns")),
            "day": pa.array([2**31 - 1 if i == 77 else i for i in range(_ROWS)], pa.int32()).view(
                pa.date32()
            ),
        }
    )
    pq.write_table(table, path, row_group_size=700)


def _all(target: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target) as db:
        return db.execute(query.encode()).fetchall()


def test_bad_rows_of_parquet(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "t").mkdir()
    texts = {0: b"a\0b", 699: b"\xff\xfe", 700: b"a\0", 4_999: b"x\xffy"}
    moments = {1: 1_234, 699: 5, 3_500: 1}
    _file(files / "t" / "a.parquet", texts, moments)
    _file(files / "t" / "b.parquet", {}, {})
    pq.write_table(pa.table({"v": ["fine"]}), files / "fine.parquet")
    env = jivs.connections(legacy=f"parquet:///{files}", warehouse=target)
    tight = spec_of(tmp_path / "tight.json", f"{key}-7", 7, target_schema="tight")
    failed = jivs("run", tight, "--json", env=env, code=1).document
    errors = {t["source_table"]: t["error"] for t in failed["tables"]}
    assert errors["files.fine"] is None
    assert "8 rows are bad and quarantine.max_rows is 7" in errors["files.t"]["message"]
    spec = spec_of(tmp_path / "spec.json", key, 8, chunk_bytes=65_536)
    document = jivs("run", spec, "--json", env=env, code=0).document
    table = next(t for t in document["tables"] if t["source_table"] == "files.t")
    assert (table["source_rows"], table["target_rows"], table["quarantined_rows"]) == (10_000, 9_992, 8)
    assert table["verified"]
    assert table["planned_chunks"] > 2
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    assert [
        (*(r["key"][name] for name in ("file", "row group", "row")), r["column"], r["value"]) for r in rows
    ] == [
        ("t/a.parquet", 0, 0, "s", "\\x610062"),
        ("t/a.parquet", 0, 1, "at", "1970-01-01 00:00:00.000001234"),
        ("t/a.parquet", 0, 77, "day", str(2**31 - 1)),
        ("t/a.parquet", 0, 699, "s", "\\xfffe"),
        ("t/a.parquet", 1, 0, "s", "\\x6100"),
        ("t/a.parquet", 5, 0, "at", "1970-01-01 00:00:00.000000001"),
        ("t/a.parquet", 7, 99, "s", "\\x78ff79"),
        ("t/b.parquet", 0, 77, "day", str(2**31 - 1)),
    ]
    gone = {*texts, *moments, 77}
    assert _all(target, "SELECT count(*), sum(id) FROM t") == [
        (9_992, 2 * sum(range(_ROWS)) - sum(gone) - 77)
    ]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    # Four are put right; the file is written anew.
    _file(files / "t" / "a.parquet", {4_999: b"x\xffy"}, {699: 5})
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (again["replayed"], again["stayed"]) == (4, 4)
    assert _all(
        target, "SELECT s FROM t WHERE id IN (0, 700) AND at < '1970-01-01 00:00:00.000701' ORDER BY 1"
    )
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    # Another row was changed, too: nobody can tell any more which is which.
    _file(files / "t" / "a.parquet", {5: b"other"}, {})
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (again["replayed"], again["stayed"]) == (0, 4)
    assert any("nobody can tell" in r["reason"] for r in again["reasons"])
