"""Arrow files as COPY streams, byte for byte. What PostgreSQL makes of them is tested with PostgreSQL."""

# ruff: noqa: DTZ001 - timestamps without a zone are what is encoded

from __future__ import annotations

import csv
import datetime as dt
import io
import struct
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.plan import ColumnPlan, Wire
from jivs_pipeline.core.types import SQLITE_TYPES
from jivs_pipeline.engine.arrow_types import arrow_schema, arrow_type
from jivs_pipeline.engine.encode import encode

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)


def field(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def row(*fields: bytes) -> bytes:
    return struct.pack(">h", len(fields)) + b"".join(fields)


def write(path: Path, columns: dict[str, pa.Array], batches: int = 1) -> Path:
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.ipc.new_file(path, batch.schema) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return path


def binary(path: Path) -> bytes:
    return b"".join(encode(path, Wire.BINARY))


def text(path: Path) -> bytes:
    return b"".join(encode(path, Wire.CSV))


def numeric(*digits: int, weight: int, scale: int, negative: bool = False) -> bytes:
    """PostgreSQL's numeric: count, weight, sign, scale, then digits to base 10,000."""
    return struct.pack(f">hhHh{len(digits)}h", len(digits), weight, 0x4000 if negative else 0, scale, *digits)


EXACT = [
    ("bool", True, b"\x01"),
    ("bool", False, b"\x00"),
    ("int64", 1, b"\0\0\0\0\0\0\0\x01"),
    ("int64", -(2**63), b"\x80" + b"\0" * 7),
    ("int64", 2**63 - 1, b"\x7f" + b"\xff" * 7),
    ("double", 1.0, bytes.fromhex("3ff0000000000000")),
    ("double", -0.0, bytes.fromhex("8000000000000000")),
    ("double", 5e-324, bytes.fromhex("0000000000000001")),
    ("double", float("inf"), bytes.fromhex("7ff0000000000000")),
    ("decimal128(10,2)", Decimal("12.34"), numeric(12, 3400, weight=0, scale=2)),
    ("decimal128(10,2)", Decimal("-10000.05"), numeric(1, 0, 500, weight=1, scale=2, negative=True)),
    ("decimal128(4,4)", Decimal("0.0001"), numeric(1, weight=-1, scale=4)),
    ("decimal128(38,0)", Decimal(10**38 - 1), numeric(99, *[9999] * 9, weight=9, scale=0)),
    ("date32", dt.date(2000, 1, 1), b"\0\0\0\0"),
    ("date32", dt.date(1999, 12, 31), b"\xff\xff\xff\xff"),
    ("date32", dt.date(1, 1, 1), struct.pack(">i", -730119)),
    ("date32", dt.date(9999, 12, 31), struct.pack(">i", 2921939)),
    ("time64[us]", dt.time(0, 0, 1), struct.pack(">q", 1_000_000)),
    ("time64[us]", dt.time(23, 59, 59, 999999), struct.pack(">q", 86_399_999_999)),
    ("timestamp[us]", dt.datetime(2000, 1, 1, 0, 0, 0, 1), struct.pack(">q", 1)),
    ("timestamp[us]", dt.datetime(1999, 12, 31, 23, 59, 59), struct.pack(">q", -1_000_000)),
    (
        "timestamp[us]",
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
        struct.pack(">q", 252_455_615_999_999_999),
    ),
    ("string", "", b""),
    ("string", "a\n\r\"'\\,\té😀", "a\n\r\"'\\,\té😀".encode()),
    ("binary", b"", b""),
    ("binary", b"\0\xff\n\\", b"\0\xff\n\\"),
]


@pytest.mark.parametrize(
    ("type_", "value", "wire"), EXACT, ids=[f"{t}-{n}" for n, (t, _, _) in enumerate(EXACT)]
)
def test_a_value_has_postgresqls_binary_form(tmp_path, type_, value, wire):
    path = write(tmp_path / "f", {"c": pa.array([value, None], arrow_type(type_))})
    assert binary(path) == HEADER + row(field(wire)) + row(NULL) + TRAILER


def test_zero_has_no_digits_but_its_scale(tmp_path):
    path = write(tmp_path / "f", {"c": pa.array([Decimal("0.00")], arrow_type("decimal128(10,2)"))})
    assert binary(path) in {
        HEADER + row(field(numeric(weight=weight, scale=2))) + TRAILER for weight in (0, -1)
    } | {HEADER + row(field(numeric(0, weight=0, scale=2))) + TRAILER}


def test_every_type_of_the_type_gate_is_tested_here():
    def family(type_: str) -> str:
        return type_.partition("(")[0]

    assert {family(m.arrow) for m in SQLITE_TYPES} == {family(t) for t, _, _ in EXACT}


def test_columns_and_rows_stay_in_order_over_batches(tmp_path):
    path = write(tmp_path / "f", {"n": pa.array([1, 2]), "t": pa.array(["x", None])}, batches=2)
    rows = row(field(struct.pack(">q", 1)), field(b"x")) + row(field(struct.pack(">q", 2)), NULL)
    assert binary(path) == HEADER + rows * 2 + TRAILER


def test_a_file_without_rows_is_still_a_stream(tmp_path):
    schema = arrow_schema(
        [ColumnPlan(source="a", target="b", source_type="TEXT", target_type="text", arrow="string")]
    )
    assert schema.names == ["b"]
    with pa.ipc.new_file(tmp_path / "f", schema):
        pass
    assert binary(tmp_path / "f") == HEADER + TRAILER
    assert text(tmp_path / "f") == b""


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, b"\n"),
        ("", b'""\n'),
        ("a", b'"a"\n'),
        ("NULL", b'"NULL"\n'),
        ("\\N", b'"\\N"\n'),
        ("\\.", b'"\\."\n'),
        ("a\nb\r\nc", b'"a\nb\r\nc"\n'),
        ('say "x"', b'"say ""x"""\n'),
        ("back\\slash", b'"back\\slash"\n'),
        ("a,b;c\t", b'"a,b;c\t"\n'),
        (" padded ", b'" padded "\n'),
        ("é😀", '"é😀"\n'.encode()),
        ("1e+20", b'"1e+20"\n'),
    ],
)
def test_csv_quotes_every_text_and_no_null(tmp_path, value, wire):
    assert text(write(tmp_path / "f", {"c": pa.array([value], pa.string())})) == wire


def test_csv_has_no_header_and_tells_the_empty_text_from_null(tmp_path):
    path = write(tmp_path / "f", {"a": pa.array(["", None]), "b": pa.array([None, ""])}, batches=2)
    assert text(path) == b'"",\n,""\n' * 2


@given(
    st.lists(
        st.tuples(
            *[st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))] * 2
        ),
        min_size=1,
    )
)
def test_any_text_survives_csv_as_postgresql_reads_it(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "f"
    columns = {name: pa.array([r[i] for r in rows], pa.string()) for i, name in enumerate("ab")}
    written = text(write(path, columns)).decode()
    # Without NULLs the csv module reads what PostgreSQL reads; NULL is the one field without quotes.
    read = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert read == [[v or "" for v in r] for r in rows]
    assert written.count('"') == sum(2 + v.count('"') * 2 for r in rows for v in r if v is not None)


@pytest.mark.parametrize("start", ["", "é"])
def test_a_long_row_goes_piece_by_piece(tmp_path: Path, start: str) -> None:
    """It reads as pyarrow writes it, quotes at the ends of pieces and characters across them included."""
    long = start + ('"' * 3 + "é,\n\\" * 3) * 700_000
    columns = {
        "a": pa.array([None, "x", None], pa.string()),
        "b": pa.array(["", long, "z"], pa.string()),
        "c": pa.array([1, -2, None], pa.int32()),
        "d": pa.array(["", 'q"', None], pa.string()),
        "e": pa.array(["", None, None], pa.string()),
    }
    whole = pa.RecordBatch.from_pydict(columns)
    path = tmp_path / "f.arrow"
    with pa.ipc.new_file(path, whole.schema) as writer:
        for number in range(whole.num_rows):
            writer.write_batch(whole.slice(number, 1))
    pieces = [bytes(piece) for piece in encode(path, Wire.CSV)]
    assert max(map(len, pieces)) < 3 << 20
    assert b"".join(pieces) == text(write(tmp_path / "g.arrow", columns))


def test_a_damaged_file_is_no_stream(tmp_path):
    path = write(tmp_path / "f", {"c": pa.array(["x"] * 1000)})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((pa.ArrowInvalid, OSError)):
        binary(path)


@pytest.mark.parametrize(
    "name", ["int64", "string", "date32", "time64[us]", "timestamp[us]", "binary", "bool", "double"]
)
def test_arrow_types_are_found_by_name(name):
    assert arrow_type(name) == pa.type_for_alias(name)
    assert arrow_type("decimal128(10, 2)") == arrow_type("decimal128(10,2)") == pa.decimal128(10, 2)


def test_an_unknown_arrow_type_is_refused():
    with pytest.raises(ValueError):
        arrow_type("colour")
