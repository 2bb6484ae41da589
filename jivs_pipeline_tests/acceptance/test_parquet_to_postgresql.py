"""`jivs run` from a directory of Parquet files to PostgreSQL: what arrives is compared without the product."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import ledger
from jivs_pipeline_tests.fix_cli import Jivs


def test_tables_of_all_types(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """In binary and, with a uint64 among them, as text; a column of durations fails its table only."""
    n = 3_000
    moment = dt.datetime(2024, 2, 29, 23, 59, 59, 123456)  # noqa: DTZ001
    columns = {
        "id": pa.array(range(n), pa.int64()),
        "ok": pa.array([None if i % 3 == 0 else i % 2 == 0 for i in range(n)]),
        "f": pa.array([0.1 * i for i in range(n)], pa.float64()),
        "d": pa.array([Decimal(i) / 100 for i in range(n)], pa.decimal128(10, 2)),
        "day": pa.array([dt.date(1, 1, 1) + dt.timedelta(i) for i in range(n)]),
        "at": pa.array([moment + dt.timedelta(seconds=i) for i in range(n)], pa.timestamp("us")),
        "seen": pa.array([1_709_251_199_123 + i for i in range(n)], pa.timestamp("ms", "UTC")),
        "t": pa.array([dt.time(i % 24, 1, 2, 3) for i in range(n)], pa.time64("us")),
        "s": pa.array([None if i % 7 == 0 else f'ä🦆\n"{i}' for i in range(n)]).dictionary_encode(),
        "b": pa.array([bytes([i % 256, 0]) for i in range(n)]),
    }
    pq.write_table(pa.table(columns), tmp_path / "plain.parquet", row_group_size=500)
    more = {"u": pa.array([2**64 - 1] * n, pa.uint64()), "g": pa.array([bytes(16)] * n, pa.uuid()),
            "w": pa.array([Decimal("9" * 76)] * n, pa.decimal256(76, 0))}  # fmt: skip
    pq.write_table(pa.table({**columns, **more}), tmp_path / "wide.parquet")
    pq.write_table(pa.table({"l": pa.array([1], pa.duration("s"))}), tmp_path / "durations.parquet")
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65_536)
    env = jivs.connections(legacy=f"parquet:///{tmp_path}", warehouse=target)
    document = jivs("run", spec, "--json", code=1, env=env).document
    check_run(document, "failed")
    assert {t["source_table"] for t in document["tables"] if t["error"]} == {"files.durations"}
    (tmp_path / "durations.parquet").unlink()
    expected = [tuple(row) for row in zip(*(c.to_pylist() for c in columns.values()), strict=True)]
    rest = (Decimal(2**64 - 1), UUID(int=0), Decimal("9" * 76))
    with psycopg.connect(target) as db:
        db.execute("SET TimeZone = 'UTC'")
        assert db.execute("SELECT * FROM plain ORDER BY id").fetchall() == expected
        assert db.execute("SELECT * FROM wide ORDER BY id").fetchall() == [(*row, *rest) for row in expected]
    assert len(ledger(target, key)["public.plain"]) > 1


def test_lists_are_arrays(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Over borders of row groups, with NULLs, empty lists, NaN and what an array's text has to quote."""
    n = 2_000
    odd = ['a"b', "", " ", "NULL", "{,}", "\\", None, "ä🦆\n", "'"]
    nan = float("nan")
    columns = {
        "id": pa.array(range(n), pa.int64()),
        "i": pa.array(
            [None if i % 5 == 0 else [i, None, -i][: i % 4] for i in range(n)], pa.list_(pa.int32())
        ),
        "s": pa.array([odd[: i % 10] for i in range(n)], pa.list_(pa.string())),
        "f": pa.array([[i / 3, nan if i % 2 else None, -0.0] for i in range(n)], pa.list_(pa.float64())),
        "d": pa.array([[Decimal(i) / 100] for i in range(n)], pa.list_(pa.decimal128(10, 2))),
        "at": pa.array([[dt.datetime(2020, 1, 1, microsecond=i), None] for i in range(n)]),  # noqa: DTZ001
        "b": pa.array([[bytes([i % 256]), b""] for i in range(n)], pa.list_(pa.binary())),
        "ok": pa.array([[True, False, None] for _ in range(n)]),
    }
    pq.write_table(pa.table(columns), tmp_path / "lists.parquet", row_group_size=300)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65_536)
    env = jivs.connections(legacy=f"parquet:///{tmp_path}", warehouse=target)
    check_run(jivs("run", spec, "--json", code=0, env=env).document)
    expected = [tuple(row) for row in zip(*(c.to_pylist() for c in columns.values()), strict=True)]
    with psycopg.connect(target) as db:
        found = db.execute("SELECT * FROM lists ORDER BY id").fetchall()
        assert str(found) == str(expected)  # NaN is not equal to itself
        types = db.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'lists'::regclass AND attnum > 0"
        ).fetchall()
    assert dict(types)["d"] == "numeric(10,2)[]"
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]


def test_structs_maps_and_lists_of_lists_are_jsonb(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Every value as Python's own json reads it from PostgreSQL, and both digests are of what PostgreSQL prints."""
    texts = ['a"b', "", "\\", "\x01\t\b\x7f\u2028", "ä🦆\n", None]
    shape = pa.struct(
        [
            ("zz", pa.list_(pa.list_(pa.int64()))),
            ("a", pa.string()),
            ("ä", pa.map_(pa.string(), pa.float64())),
            ("deep", pa.struct([("n", pa.decimal128(20, 4)), ("b", pa.bool_())])),
        ]
    )
    values = [
        None
        if n % 7 == 0
        else {
            "zz": [[n, None], [], None][: n % 4],
            "a": texts[n % 6],
            "ä": None if n % 5 == 0 else [(f"{t}{n}", n / 3 * 10.0 ** (n % 60 - 30)) for t in texts[: n % 6]],
            "deep": None if n % 3 == 0 else {"n": Decimal(n) / 16, "b": n % 2 == 0},
        }
        for n in range(1200)
    ]
    columns = {"id": pa.array(range(1200)), "v": pa.array(values, shape)}
    pq.write_table(pa.table(columns), tmp_path / "nested.parquet", row_group_size=300)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65_536)
    env = jivs.connections(legacy=f"parquet:///{tmp_path}", warehouse=target)
    check_run(jivs("run", spec, "--json", code=0, env=env).document)
    expected = [v and {**v, "ä": v["ä"] if v["ä"] is None else dict(v["ä"])} for v in values]
    with psycopg.connect(target) as db:
        found = db.execute("SELECT v::text FROM nested ORDER BY id").fetchall()
        assert db.execute("SELECT pg_typeof(v)::text FROM nested LIMIT 1").fetchone() == ("jsonb",)
    loaded = [t and json.loads(t, parse_float=Decimal) for (t,) in found]
    for there, here in zip(expected, loaded, strict=True):
        if there is not None and there["ä"] is not None:
            here["ä"] = {k: float(v) for k, v in here["ä"].items()}
        assert here == there
