"""Parquet as a source: types, values that do not fit, both readers. Real files, some of them damaged or changing."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError, ConnectionFailed, DataError, SpecError
from jivs_pipeline.core.plan import Wire
from jivs_pipeline.infra.sources import parquet_snapshot
from jivs_pipeline.infra.sources.parquet_files import ParquetSource
from jivs_pipeline_tests.file_sources import (
    connection_to,
    digest_of,
    expected,
    plan_of,
    read,
    refusals,
    rows_of,
    survey,
)
from jivs_pipeline_tests.row_hashes import reference


def make(directory: Path, rows_in_group: int = 1 << 20, /, **columns: Any) -> ParquetSource:
    """A source with table `t`."""
    pq.write_table(pa.table(columns), directory / "t.parquet", row_group_size=rows_in_group)
    return ParquetSource(connection_to(directory, "parquet"))


D = Decimal
_NAN = "7ff8000000000000"
TYPES: list[tuple[str, Any, str, list[str | None]]] = [
    ("bool", pa.array([True, False, None]), "boolean", ["1", "0", None]),
    ("int8", pa.array([-128, 127, None], pa.int8()), "smallint", ["-128", "127", None]),
    ("uint8", pa.array([255, 0, None], pa.uint8()), "smallint", ["255", "0", None]),
    ("uint16", pa.array([65535, 0, None], pa.uint16()), "integer", ["65535", "0", None]),
    ("uint32", pa.array([2**32 - 1, 0, None], pa.uint32()), "bigint", [str(2**32 - 1), "0", None]),
    ("int64", pa.array([-(2**63), 2**53 + 1], pa.int64()), "bigint", [str(-(2**63)), str(2**53 + 1)]),
    ("uint64", pa.array([2**64 - 1, 0, None], pa.uint64()), "numeric(20)", [str(2**64 - 1), "0", None]),
    (
        "float16", pa.array(np.array([1.5, -0.0, np.nan], np.float16)), "real",
        ["3ff8000000000000", "8000000000000000", _NAN],
    ),
    ("float", pa.array([-np.inf, 1e-45, None], pa.float32()), "real", ["fff0000000000000", "36a0000000000000", None]),
    ("double", pa.array([5e-324, -np.nan, -0.0]), "double precision", [f"{1:016x}", _NAN, "8000000000000000"]),
    ("decimal", pa.array([D("1.50"), D("-9999999.99")], pa.decimal128(9, 2)), "numeric(9,2)", ["1.5", "-9999999.99"]),
    ("decimal38", pa.array([D("9" * 38), D("-1")], pa.decimal128(38, 0)), "numeric(38,0)", ["9" * 38, "-1"]),
    ("small", pa.array([D("1e-30"), None], pa.decimal128(38, 38)), "numeric(38,38)", ["0." + "0" * 29 + "1", None]),
    ("decimal76", pa.array([D("9" * 76), D("-1")], pa.decimal256(76, 0)), "numeric(76,0)", ["9" * 76, "-1"]),
    ("date", pa.array([19782, -719528, 2932897, None], pa.date32()), "date",
     ["2024-02-29", "0001-01-01 BC", "10000-01-01", None]),
    ("date edges", pa.array([-2440588, 2145042905], pa.date32()), "date", ["4714-11-24 BC", "5874897-12-31"]),
    ("date64", pa.array([dt.date(2024, 2, 29), None], pa.date64()), "date", ["2024-02-29", None]),
    ("time", pa.array([dt.time(1, 2, 3), dt.time(23, 59, 59, 999000)], pa.time32("ms")), "time", ["01:02:03", "23:59:59.999"]),
    ("time ns", pa.array([1000, None], pa.time64("ns")), "time", ["00:00:00.000001", None]),
    ("timestamp s", pa.array([0, -1], pa.timestamp("s")), "timestamp", ["1970-01-01 00:00:00", "1969-12-31 23:59:59"]),
    ("timestamp us", pa.array([-1, 100_000], pa.timestamp("us")), "timestamp",
     ["1969-12-31 23:59:59.999999", "1970-01-01 00:00:00.1"]),
    ("timestamp ns", pa.array([-1000, None], pa.timestamp("ns")), "timestamp", ["1969-12-31 23:59:59.999999", None]),
    ("timestamp BC", pa.array([-62_167_219_200_000_000, 9223372036854775000], pa.timestamp("us")), "timestamp",
     ["0001-01-01 00:00:00 BC", "294247-01-10 04:00:54.775"]),
    ("timestamptz", pa.array([0, 1_500_000], pa.timestamp("us", "Asia/Tokyo")), "timestamptz",
     ["1970-01-01 00:00:00+00", "1970-01-01 00:00:01.5+00"]),
    ("timestamptz ns", pa.array([1000, None], pa.timestamp("ns", "UTC")), "timestamptz",
     ["1970-01-01 00:00:00.000001+00", None]),
    ("string", pa.array(["a", "", "🦆\r\n", None]), "text", ["a", "", "🦆\r\n", None]),
    ("large_string", pa.array(["a", "", None], pa.large_string()), "text", ["a", "", None]),
    ("string_view", pa.array(["a", "b" * 20, None], pa.string_view()), "text", ["a", "b" * 20, None]),
    ("dictionary", pa.array(["a", "", None]).dictionary_encode(), "text", ["a", "", None]),
    ("binary", pa.array([b"a\0", b"", None]), "bytea", ["6100", "", None]),
    ("fixed", pa.array([b"ab", None], pa.binary(2)), "bytea", ["6162", None]),
    ("uuid", pa.array([bytes(range(16)), None], pa.uuid()), "uuid", ["00010203-0405-0607-0809-0a0b0c0d0e0f", None]),
    ("json", pa.array(['{"a":  1}', None], pa.json_()), "json", ['{"a":  1}', None]),
    ("null", pa.nulls(2), "text", [None, None]),
    ("list", pa.array([[1, None, -3], [], None, [None]], pa.list_(pa.int64())), "bigint[]", ["{1,NULL,-3}", "{}", None, "{NULL}"]),
    ("list text", pa.array([["a", "", "null", "N ULL", None], ['q"\\', "{x}", "a,b", "\t", "🦆"], []]), "text[]",
     ['{a,"","null","N ULL",NULL}', '{"q\\"\\\\","{x}","a,b","\t",🦆}', "{}"]),
    ("list double", pa.array([[0.1, None, float("nan")], [-0.0, float("inf")], None]), "double precision[]",
     ["{3fb999999999999a,NULL,7ff8000000000000}", "{8000000000000000,7ff0000000000000}", None]),
    ("list float16", pa.array([np.array([1.5], np.float16), None], pa.list_(pa.float16())), "real[]", ["{3ff8000000000000}", None]),
    ("list decimal", pa.array([[D("1.50"), None], [D("-0.01")]], pa.list_(pa.decimal128(9, 2))), "numeric(9,2)[]",
     ["{1.50,NULL}", "{-0.01}"]),
    ("list uint64", pa.array([[2**64 - 1], []], pa.list_(pa.uint64())), "numeric(20)[]", ["{18446744073709551615}", "{}"]),
    ("list bool", pa.array([[True, False, None], None]), "boolean[]", ["{t,f,NULL}", None]),
    ("list date", pa.array([[dt.date(2024, 2, 29), None], []], pa.list_(pa.date32())), "date[]", ["{2024-02-29,NULL}", "{}"]),
    ("list timestamp", pa.array([[0, 1_500], None], pa.list_(pa.timestamp("ms"))), "timestamp[]",
     ['{"1970-01-01 00:00:00","1970-01-01 00:00:01.5"}', None]),
    ("list timestamptz", pa.array([[0], []], pa.list_(pa.timestamp("us", "UTC"))), "timestamptz[]",
     ['{"1970-01-01 00:00:00+00"}', "{}"]),
    ("list binary", pa.array([[b"a\0", b"", None], []], pa.list_(pa.binary())), "bytea[]", ['{"\\\\x6100","\\\\x",NULL}', "{}"]),
    ("list fixed", pa.array([[1, 2], None], pa.list_(pa.int32(), 2)), "integer[]", ["{1,2}", None]),
    ("list list", pa.array([[[1, None], None, []], None, []], pa.list_(pa.list_(pa.int64()))), "jsonb", ["[[1, null], null, []]", None, "[]"]),
    ("struct", pa.array([{"bb": 1.50, "a": 'x\n"\\\x01ä🦆', "c": None}, None, {"bb": None, "a": None, "c": True}],
                        pa.struct([("bb", pa.float64()), ("a", pa.string()), ("c", pa.bool_())])), "jsonb",
     ['{"a": "x\\n\\"\\\\\\u0001ä🦆", "c": null, "bb": 1.5}', None, '{"a": null, "c": true, "bb": null}']),
    ("struct odd", pa.array([{"d": dt.date(2024, 2, 29), "n": D("1.50"), "b": b"\0\xff", "t": 0, "l": [{"f": -0.0}, None, {"f": 1e20}, {"f": float("nan")}]}],
                            pa.struct([("d", pa.date32()), ("n", pa.decimal128(9, 2)), ("b", pa.binary()), ("t", pa.timestamp("us", "UTC")),
                                       ("l", pa.list_(pa.struct([("f", pa.float64())])))])), "jsonb",
     ['{"b": "\\\\x00ff", "d": "2024-02-29", "l": [{"f": "-0"}, null, {"f": 100000000000000000000}, {"f": "NaN"}], "n": 1.50, "t": "1970-01-01 00:00:00+00"}']),
    ("map", pa.array([[("long", 1), ("b", None), ("", 2**62)], None, []], pa.map_(pa.string(), pa.int64())), "jsonb",
     ['{"": 4611686018427387904, "b": null, "long": 1}', None, "{}"]),
    ("map of int", pa.array([[(10, [1]), (9, None)]], pa.map_(pa.int32(), pa.list_(pa.int8()))), "jsonb", ['{"9": null, "10": [1]}']),
    ("list large", pa.array([["x"], None], pa.large_list(pa.large_string())), "text[]", ["{x}", None]),
]  # fmt: skip


@pytest.mark.parametrize(("array", "target", "texts"), [t[1:] for t in TYPES], ids=[t[0] for t in TYPES])
@pytest.mark.parametrize("more", [False, True], ids=["binary", "text"])
def test_types(tmp_path: Path, array: Any, target: str, texts: list[str | None], more: bool) -> None:
    """Every type has its PostgreSQL type, its values are spelled as PostgreSQL spells them, by both readers."""
    columns: dict[str, Any] = {"v": array}
    if more:
        # A column that has to travel as text takes the others with it, and one that DuckDB cannot read, too.
        columns["big"] = pa.array([D(7)] * len(array), pa.decimal256(50, 0))
    source = make(tmp_path, 2, **columns)
    seen = survey(source, "t", 1)
    assert seen.refused == ()
    assert seen.columns[0].target_type == target
    assert seen.rows == len(array)
    assert len(seen.chunks) == -(-len(array) // 2)
    rows = [(t, "7") if more else (t,) for t in texts]
    assert digest_of(source, "t", 1) == expected(source, "t", rows)
    plan = plan_of(source, "t", 1)
    with source.snapshot(1) as snapshot:
        # Python's dates do not reach as far as PostgreSQL's.
        assert sum(b.num_rows for c in plan.chunks for b in snapshot.batches(plan, c)) == len(array)
    if more:
        assert seen.wire is Wire.CSV


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.array([1, 1000, 1001, None], pa.timestamp("ns")), "2 values with nanoseconds"),
        (pa.array([1001, None], pa.time64("ns")), "1 value with nanoseconds"),
        (pa.array([2**31 - 1, -(2**31), 0], pa.date32()), "2 dates that PostgreSQL's date does not reach"),
        (
            pa.array([-(2**62), 2**62], pa.timestamp("ms")),
            "2 moments that PostgreSQL's timestamp does not reach",
        ),
        (pa.array([-(2**63) + 1], pa.timestamp("us", "UTC")), "1 moment that"),
        (pa.array([86_400_000_000, -1], pa.time64("us")), "2 times outside"),
        (pa.array(["a\0b", "\0", None, "a"]), "2 texts with a NUL character"),
        (pa.array([b"\xff", b"a", None]).view(pa.string()), "1 text of invalid UTF-8"),
        (
            pa.array([[{"a": [1]}]], pa.list_(pa.struct([("a", pa.list_(pa.duration("us")))]))),
            "its type duration",
        ),
        (
            pa.array([[[1]], None, [[1000], [7]]], pa.list_(pa.list_(pa.timestamp("ns")))),
            "2 values with nanoseconds",
        ),
        (pa.array([{"a": {"b": "\0"}}, {"a": {"b": ""}}]), "1 text with a NUL"),
        (pa.array([["a\0b"], None, ["a", "\0"], []]), "2 lists with texts with a NUL"),
        (
            pa.array([[1], [1000, None], None], pa.list_(pa.timestamp("ns"))),
            "1 list with values with nanoseconds",
        ),
        (
            pa.array([[("a", 1), ("a", 2)], [("a", 1)], None], pa.map_(pa.string(), pa.int64())),
            "1 map with a key twice",
        ),
        (pa.array([1], pa.duration("us")), "its type duration"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_count(tmp_path: Path, array: Any, reason: str) -> None:
    """Never cut, clamped or rounded; column and row group are named."""
    ((column, found), *_) = refusals(make(tmp_path, v=array), "t")
    assert column == "v"
    assert reason in found


@settings(max_examples=60, deadline=None)
@given(data=st.data(), group=st.integers(1, 7))
def test_both_readers_agree_on_any_values(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, group: int
) -> None:
    """pyarrow's rows are what was written, DuckDB's digest that of their texts."""
    rows = data.draw(
        st.lists(
            st.tuples(
                st.none() | st.integers(-(2**63), 2**63 - 1),
                st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
                st.none()
                | st.decimals(
                    places=3, allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9
                ),
                st.none() | st.datetimes(),
                st.none() | st.binary(max_size=6),
            ),
            max_size=20,
        )
    )
    types = [pa.int64(), pa.string(), pa.decimal128(20, 3), pa.timestamp("us"), pa.binary()]
    arrays = {f"c{n}": pa.array([r[n] for r in rows], t) for n, t in enumerate(types)}
    source = make(tmp_path_factory.mktemp("p"), group, **arrays)
    assert read(source, "t", 1) == rows
    spelled = [(_of(a), b, _number(c), _moment(d), None if e is None else e.hex()) for a, b, c, d, e in rows]
    assert digest_of(source, "t", 1) == expected(source, "t", spelled)


def _of(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: Decimal | None) -> str | None:
    if value is None:
        return None
    text = f"{value:f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _moment(value: dt.datetime | None) -> str | None:
    if value is None:
        return None
    text = value.isoformat(sep=" ")
    return text.rstrip("0").rstrip(".") if "." in text else text


def test_duckdb_is_the_second_reader_where_it_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the file's name looks like a pattern; names that differ in case only go to pyarrow."""
    asked: list[int] = []
    real = parquet_snapshot._duckdb

    def noted(*arguments: Any) -> Any:
        asked.append(1)
        return real(*arguments)

    monkeypatch.setattr(parquet_snapshot, "_duckdb", noted)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x[1]*?.parquet")
    pq.write_table(pa.table({"a": [2]}), tmp_path / "x1yz.parquet")
    pq.write_table(pa.table({"a": [1], "A": [2]}), tmp_path / "case.parquet")
    pq.write_table(pa.table({"file_row_number": [5], 'q"': ["x"]}), tmp_path / "ours.parquet")
    source = ParquetSource(connection_to(tmp_path, "parquet"))
    assert digest_of(source, "x[1]*?") == expected(source, "x[1]*?", [("1",)])
    assert asked == [1]
    assert digest_of(source, "case") == expected(source, "case", [("1", "2")])
    assert digest_of(source, "ours") == expected(source, "ours", [("5", "x")])
    assert asked == [1]


def test_a_directory_of_files_is_one_table(tmp_path: Path) -> None:
    """Of equal schema; others, and partitions, are refused."""
    for name, table in {
        "t/b": {"a": [3]}, "t/a": {"a": [1, 2]}, "u/a": {"a": [1]}, "u/b": {"a": ["x"]}, "p/k=1/a": {"a": [1]},
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    (tmp_path / "t/_SUCCESS").write_text("")
    source = ParquetSource(connection_to(tmp_path, "parquet"))
    assert read(source, "t") == [(1,), (2,), (3,)]
    assert digest_of(source, "t") == expected(source, "t", [("1",), ("2",), ("3",)])
    left = {o.name: o.reason for o in source.catalog(None).left_out if o.holds_rows}
    assert left == {
        "files.p": "p/k=1 is a directory in a table's directory; partitions are not read",
        "files.u": "u/b.parquet: its schema is not that of u/a.parquet",
    }


def test_no_rows_and_1600_columns(tmp_path: Path) -> None:
    source = make(tmp_path, **{f"c{n}": pa.array([], pa.int64()) for n in range(1600)})
    assert read(source, "t") == []
    assert digest_of(source, "t") == Digest()
    assert len(plan_of(source, "t").chunks) == 1


def test_required_columns_stay_required(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.int64())])
    pq.write_table(pa.table({"a": [1], "b": [2]}, schema=schema), tmp_path / "t.parquet")
    found = ParquetSource(connection_to(tmp_path, "parquet")).catalog("files").table("t")
    assert found is not None
    assert [c.nullable for c in found.columns] == [False, True]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"name,price\n" * 100, b"PAR1" + b"\xff" * 200 + b"PAR1"])
def test_what_is_no_parquet_fails_alone(tmp_path: Path, content: bytes) -> None:
    make(tmp_path, a=[1])
    (tmp_path / "bad.parquet").write_bytes(content)
    (left,) = ParquetSource(connection_to(tmp_path, "parquet")).catalog(None).left_out
    assert left.name == "files.bad"
    assert "bad.parquet of connection 'legacy' is damaged or no Parquet file" in left.reason


def test_damaged_pages_are_refused(tmp_path: Path) -> None:
    """The footer is right, a page is not: found by the survey, which reads texts, or by either reader."""
    source = make(tmp_path, s=pa.array([f"text {n}" for n in range(1000)]), n=pa.array(range(1000)))
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[4:400] = b"\xff" * 396
    (tmp_path / "t.parquet").write_bytes(data)
    assert "t.parquet of connection 'legacy' is damaged" in refusals(source, "t")[0][1]


def test_directories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="does not exist"):
        ParquetSource(connection_to(tmp_path / "no", "parquet"))
    with pytest.raises(ConnectionFailed, match=r"has no \.parquet"):
        ParquetSource(connection_to(tmp_path, "parquet"))


def test_no_where_and_no_other_schema(tmp_path: Path) -> None:
    source = make(tmp_path, a=[1])
    found = source.catalog(None).table("t")
    assert found is not None
    with pytest.raises(SpecError, match=r"rules\.t\.where"):
        source.survey(found, found.columns, "a = 1", 100)
    with pytest.raises(ConfigError, match="no schema 'main'"):
        source.catalog("main")


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changed_is_refused(tmp_path: Path, when: str) -> None:
    """Before a chunk, or while it is read: other rows are not taken for those of the plan."""
    source = make(tmp_path, 100_000, a=pa.array(range(300_000)))
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        batches = snapshot.batches(plan, plan.chunks[0])
        if when == "while":
            next(batches)
        # Another file of that name, as writers of Parquet make it.
        pq.write_table(pa.table({"a": pa.array(range(1, 300_001))}), tmp_path / "new", row_group_size=100_000)
        (tmp_path / "new").rename(tmp_path / "t.parquet")
        with pytest.raises(DataError, match="changed after the plan was made"):
            list(batches)
        with pytest.raises(DataError, match="changed after the plan was made"):
            snapshot.digest(plan, plan.chunks[0])
        with pytest.raises(DataError, match="changed after the plan was made"):
            snapshot.count(plan, plan.chunks[0])


def test_columns_in_the_plans_order(tmp_path: Path) -> None:
    """A plan may leave columns out."""
    source = make(tmp_path, a=[1], b=[2], c=[3])
    plan = plan_of(source, "t")
    plan = plan.model_copy(update={"columns": (plan.columns[2], plan.columns[0])})
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan) == [(3, 1)]
        assert snapshot.digest(plan, plan.chunks[0]) == reference(
            [("3", "1")], [c.canon for c in plan.columns]
        )
