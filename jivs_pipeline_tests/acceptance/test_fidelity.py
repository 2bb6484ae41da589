"""What becomes of each type of each source, found out by migrating it: `docs/fidelity.md` is what these tests saw.

What belongs here: one small table per type, and the page. What does not: whether values are equal beyond what source and
target digest themselves, which the tests of each source prove with readers of their own.

After a change that is meant: `JIVS_TEST_WRITE=1 make test` writes the page anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_faults import ROOT

PAGE = ROOT / "docs" / "fidelity.md"
HEAD = """# Fidelity

What becomes of each type, and of values that other tools change in silence. Each line is a table that the tests migrate
(`jivs_pipeline_tests/acceptance/test_fidelity.py`); nothing here is written by hand. *Exact*: source and target gave the same
digest of it. *Warned*: carried, and the plan says what is lost. *Refused*: the plan names the column and why, and nothing of
the table is loaded, until a `where`, a `drop` or a budget of `quarantine.max_rows` is the answer.
"""


class Sample(NamedTuple):
    """A column: what it shows, its type as the source declares it, and its values as the source writes them."""

    what: str
    declared: Any
    values: Sequence[Any]


POSTGRESQL = [
    Sample("", "smallint", ["-32768", "32767"]),
    Sample("", "integer", ["-2147483648"]),
    Sample("", "bigint", ["-9223372036854775808"]),
    Sample(
        "1,000 digits, NaN, ±Infinity, trailing zeros",
        "numeric",
        [f"'{'9' * 1000}'", "'NaN'", "'-Infinity'", "'1.500'"],
    ),
    Sample("", "numeric(38,10)", ["'1234567890123456789012345678.0123456789'"]),
    Sample("−0, denormals, NaN", "real", ["'-0'", "'1e-45'", "'NaN'"]),
    Sample("−0, denormals, NaN", "double precision", ["'-0'", "'5e-324'", "'NaN'"]),
    Sample("", "money", ["'-1.05'"]),
    Sample("backslashes, emoji, empty", "text", ["'a\\b'", "'🦆'", "''", "' x '"]),
    Sample("", "varchar(20)", ["'ü '"]),
    Sample("padding", "char(5)", ["'a'", "'a    '"]),
    Sample("", "bytea", ["'\\x00ff'"]),
    Sample("", "boolean", ["true"]),
    Sample("infinite, BC, far years", "date", ["'infinity'", "'0044-03-15 BC'", "'5874897-12-31'"]),
    Sample(
        "infinite, BC, year 294276", "timestamp", ["'-infinity'", "'4713-01-01 00:00 BC'", "'294276-12-31'"]
    ),
    Sample("", "timestamptz", ["'2026-03-29 02:30:00.000001+01'"]),
    Sample("24:00:00", "time", ["'24:00:00'"]),
    Sample("", "timetz", ["'23:59:59.999999+15:59'"]),
    Sample("1 mon is not 30 days", "interval", ["'1 mon'", "'30 days'", "'-1 year 2 days 00:00:00.000001'"]),
    Sample("", "uuid", ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    Sample("doubled keys, blanks, big numbers", "json", ['\'{"a": 1, "a" : 1e400}\'']),
    Sample("", "jsonb", ["'{\"a\": [1.50, null]}'"]),
    Sample("lower bounds, NULLs", "int[]", ["'[0:2]={1,NULL,3}'", "'{{1,2},{3,4}}'", "'{}'"]),
    Sample("", "text[]", ['\'{"a,b",NULL,"NULL",""}\'']),
    Sample("", "int4range", ["'[1,5)'", "'empty'"]),
    Sample("", "tstzmultirange", ["'{[2026-01-01,2026-02-01)}'"]),
    Sample("", "bit(5)", ["b'00101'"]),
    Sample("", "bit varying", ["b'0'", "b''"]),
    Sample("", "inet", ["'::1/64'"]),
    Sample("", "cidr", ["'10.0.0.0/8'"]),
    Sample("", "macaddr8", ["'08:00:2b:01:02:03:04:05'"]),
    Sample("", "point", ["'(0.1,-0)'"]),
    Sample("", "polygon", ["'((0,0),(1,1),(1,0))'"]),
    Sample("", "tsvector", ["'a:1A b'"]),
    Sample("", "tsquery", ["'a & !b'"]),
    Sample("", "pg_lsn", ["'16/B374D848'"]),
    Sample("the schema's own", "mood", ["'it''s ok'"]),
    Sample("the schema's own", "percent", ["12.5"]),
    Sample("the schema's own", "place", ["ROW('a,\"b\"', NULL)"]),
    Sample("the schema's own", "span", ["'[0.1,)'"]),
    Sample("an object's number", "regclass", ["'pg_class'"]),
    Sample("of an extension that the target lacks", "citext", ["'A'"]),
    Sample("row security hides no row", "int -- guarded", ["1", "2"]),
]
MYSQL = [
    Sample("only 0 and 1", "tinyint(1)", ["0", "1"]),
    Sample("a 2 among them", "tinyint(1)", ["0", "2"]),
    Sample("", "tinyint unsigned", ["255"]),
    Sample("", "int unsigned", ["4294967295"]),
    Sample("", "bigint unsigned", ["18446744073709551615"]),
    Sample("", "decimal(65,30)", ["-12345678901234567890123456789012345.123456789012345678901234567890"]),
    Sample("", "float", ["0.1", "3.4028234e38"]),
    Sample("", "double", ["0.1", "5e-324"]),
    Sample("", "bit(5)", ["b'00101'"]),
    Sample("", "year", ["0", "2155"]),
    Sample("year 9", "date", ["'0009-01-02'"]),
    Sample("zero", "date", ["'0000-00-00'"]),
    Sample("no day of the calendar", "date", ["'2020-02-31'"]),
    Sample("", "datetime(6)", ["'2020-02-29 00:00:00.000001'"]),
    Sample("zero", "datetime", ["'0000-00-00 00:00:00'"]),
    Sample("", "timestamp(6) null", ["'2038-01-19 03:14:07.5'"]),
    Sample("±838 hours", "time(6)", ["'-838:59:59'", "'838:59:59'", "'-00:00:00.5'"]),
    Sample("", "char(5)", ["'ab'"]),
    Sample("blanks at the end", "varchar(20)", ["'trail  '", "''"]),
    Sample("NUL", "varchar(20)", ["'a\\0b'"]),
    Sample("cp1252 in latin1", "varchar(20) character set latin1", ["'€éŸ'"]),
    Sample("emoji", "longtext", ["'🦆 \\n\\t\\\\'"]),
    Sample("", "binary(4)", ["x'01020000'"]),
    Sample("", "varbinary(20)", ["x'00ff00'"]),
    Sample("", "longblob", ["x''"]),
    Sample("'' is not NULL", "enum('a','B')", ["'a'", "''", "NULL"]),
    Sample("", "set('x','y')", ["'x,y'", "''"]),
    Sample("", "json", ['\'{"a": 1, "a": 1e400}\'']),
    Sample("", "point", ["point(1, 2)"]),
]
SQLITE = [
    Sample("", "INTEGER", ["-9223372036854775808"]),
    Sample("text in it", "INTEGER", ["1", "'x'"]),
    Sample("reals in it", "INTEGER", ["1", "1.5"]),
    Sample("only 0 and 1", "BOOLEAN", ["0", "1"]),
    Sample("2 in it", "BOOLEAN", ["0", "2"]),
    Sample("−0, denormals", "REAL", ["5e-324", "-0.0"]),
    Sample("", "NUMERIC(10,2)", ["1.25", "3"]),
    Sample("", "TEXT", ["'a'", "''"]),
    Sample("NUL", "TEXT", ["'a' || char(0) || 'b'"]),
    Sample("not UTF-8", "TEXT", ["CAST(x'ff' AS TEXT)"]),
    Sample("longer than it says", "VARCHAR(2)", ["'abc'"]),
    Sample("", "DATE", ["'2020-02-29'"]),
    Sample("no day of the calendar", "DATE", ["'2020-02-31'"]),
    Sample("", "TIMESTAMP", ["'2020-02-29T12:00:00.5'"]),
    Sample("", "BLOB", ["x'00ff'"]),
    Sample("blobs and text", "BLOB", ["x'00'", "'x'"]),
    Sample("no type, of one kind", "", ["1", "2"]),
]
CSV = [
    Sample("leading zeros", "text", ["00123"]),
    Sample("empty", "text", ['""', ""]),
    Sample("NA, NaN, NULL are words", "text", ["NA", "NaN", "NULL"]),
    Sample("2^53 + 1, 2^64 − 1", "text", ["9007199254740993", "18446744073709551615"]),
    Sample("newline and quotes", "text", ['"a\n""b"""']),
    Sample("too many fields", "text", ["a,b"]),
    Sample("a NUL", "text", ["a\0b"]),
]
PARQUET = [
    Sample("", pa.uint64(), [2**64 - 1]),
    Sample("", pa.int8(), [-128]),
    Sample("", pa.float32(), [0.1, -0.0]),
    Sample("", pa.float64(), [5e-324, float("nan")]),
    Sample("", pa.decimal128(38, 10), [Decimal("1234567890123456789012345678.0123456789")]),
    Sample("", pa.decimal256(76, 0), [Decimal(10) ** 75]),
    Sample("", pa.string(), ["", "🦆"]),
    Sample("NUL", pa.string(), ["a\0b"]),
    Sample("", pa.binary(), [b"\0\xff"]),
    Sample("", pa.bool_(), [True]),
    Sample("", pa.date32(), [date(1, 1, 1)]),
    Sample("", pa.time64("us"), [time(23, 59, 59, 999999)]),
    Sample("", pa.timestamp("us"), [datetime(9999, 12, 31)]),  # noqa: DTZ001
    Sample("", pa.timestamp("us", "UTC"), [datetime(2026, 3, 29)]),  # noqa: DTZ001
    Sample("nanoseconds", pa.timestamp("ns"), [1001]),
    Sample("NULLs, none", pa.list_(pa.int64()), [[1, None], [], None]),
    Sample(
        "quotes, blanks, NULL as text", pa.list_(pa.string()), [['a"b', "", " ", "NULL", "{,}", "\\", None]]
    ),
    Sample("NaN, -0", pa.list_(pa.float64()), [[float("nan"), -0.0, 0.1, None]]),
    Sample("", pa.list_(pa.timestamp("us")), [[0, None]]),
    Sample("of lists", pa.list_(pa.list_(pa.int64())), [[[1]]]),
    Sample("", pa.struct([("a", pa.int64())]), [{"a": 1}]),
    Sample("NULLs, none", pa.map_(pa.string(), pa.int64()), [[("b", 1), ("a", None)], [], None]),
    Sample("a key twice", pa.map_(pa.string(), pa.int64()), [[("a", 1), ("a", 2)]]),
    Sample("", pa.duration("s"), [1]),
]


def _postgresql(request: pytest.FixtureRequest, _: Path) -> str:
    url: str = request.getfixturevalue("make_target")()
    with psycopg.connect(url) as db:
        db.execute("""CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
            CREATE DOMAIN percent AS numeric(5,2) CHECK (VALUE <= 100); CREATE TYPE place AS (street text, zip text);
            CREATE TYPE span AS RANGE (SUBTYPE = float8)""")
        for number, sample in enumerate(POSTGRESQL):
            db.execute(f"CREATE TABLE s{number:02} (id int PRIMARY KEY, v {sample.declared}\n)".encode())
            for row, value in enumerate(sample.values):
                db.execute(f"INSERT INTO s{number:02} VALUES ({row}, {value})".encode())
        db.execute(f"ALTER TABLE s{len(POSTGRESQL) - 1:02} ENABLE ROW LEVEL SECURITY".encode())
    return url


def _mysql(request: pytest.FixtureRequest, _: Path) -> str:
    lines = [
        line
        for number, sample in enumerate(MYSQL)
        for line in (
            f"CREATE TABLE s{number:02} (id int PRIMARY KEY, v {sample.declared})",
            *(f"INSERT INTO s{number:02} VALUES ({row}, {value})" for row, value in enumerate(sample.values)),
        )
    ]
    return request.getfixturevalue("make_mysql")(";\n".join(lines))


def _sqlite(_: pytest.FixtureRequest, place: Path) -> str:
    with closing(sqlite3.connect(place / "legacy.db")) as lite:
        for number, sample in enumerate(SQLITE):
            lite.execute(f"CREATE TABLE s{number:02} (id INTEGER PRIMARY KEY, v {sample.declared})")
            for value in sample.values:
                lite.execute(f"INSERT INTO s{number:02} (v) VALUES ({value})")
        lite.commit()
    return f"sqlite:///{place / 'legacy.db'}"


def _csv(_: pytest.FixtureRequest, place: Path) -> str:
    for number, sample in enumerate(CSV):
        lines = "".join(f"{row},{value}\n" for row, value in enumerate(sample.values))
        (place / f"s{number:02}.csv").write_text(f"id,v\n{lines}")
    return f"csv:///{place}/"


def _parquet(_: pytest.FixtureRequest, place: Path) -> str:
    for number, sample in enumerate(PARQUET):
        rows = range(len(sample.values))
        table = pa.table({"id": list(rows), "v": pa.array(sample.values, sample.declared)})
        pq.write_table(table, place / f"s{number:02}.parquet")
    return f"parquet:///{place}/"


SOURCES: dict[str, tuple[list[Sample], Callable[[pytest.FixtureRequest, Path], str]]] = {
    "PostgreSQL": (POSTGRESQL, _postgresql),
    "MySQL, MariaDB": (MYSQL, _mysql),
    "SQLite": (SQLITE, _sqlite),
    "CSV": (CSV, _csv),
    "Parquet": (PARQUET, _parquet),
}


def _section(name: str, samples: Sequence[Sample], document: Any) -> str:
    lines = [f"## {name}", "", "| type | with | becomes | |", "|---|---|---|---|"]
    tables = {t["source_table"].partition(".")[2]: t for t in document["tables"]}
    for number, sample in enumerate(samples):
        table = tables[f"s{number:02}"]
        lost = [
            w["reason"]
            for w in document["warnings"]
            if w["table"].endswith(f".s{number:02}") and w["column"] == "v"
        ]
        declared = str(sample.declared).partition(" -- ")[0] or "(none)"
        becomes = next((c["target_type"] for c in table["columns"] if c["source"] == "v"), "")
        if table["error"] is not None:
            becomes, what = "", f"refused: {table['error']['message']}"
        else:
            assert table["verified"] is True, sample
            what = f"warned: {'; '.join(lost)}" if lost else "exact"
        lines.append(
            "| "
            + " | ".join(x.replace("|", "\\|") for x in (f"`{declared}`", sample.what, becomes, what))
            + " |"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", SOURCES)
def test_every_type_is_exact_or_said(
    jivs: Jivs,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_target: Callable[[], str],
    key: str,
    name: str,
) -> None:
    samples, build = SOURCES[name]
    env = jivs.connections(a=build(request, tmp_path), b=make_target())
    spec = jivs.spec(key=key, source="a", target="b")
    planned = {t["source_table"]: t for t in jivs("plan", spec, "--json", code=0, env=env).document["tables"]}
    document = jivs("run", spec, "--json", env=env).document
    for table in document["tables"]:
        table["columns"] = planned[table["source_table"]]["columns"]
    section = _section(name, samples, document)
    written = PAGE.read_text() if PAGE.exists() else HEAD
    if os.environ.get("JIVS_TEST_WRITE"):
        parts = {p.partition("\n")[0]: f"## {p.strip()}\n" for p in written.split("## ")[1:]} | {
            name: section
        }
        PAGE.write_text("\n".join([HEAD, *(parts[n] for n in SOURCES if n in parts)]))
    else:
        assert section.strip() in written
