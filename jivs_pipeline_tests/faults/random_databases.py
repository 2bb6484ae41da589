"""Random databases for each source: schemas and rows by hypothesis, and what the target must hold then.

What belongs here: strategies, building a source, and the rows as psycopg must give them, worked out without the product.
What does not: the migration and the comparison (`test_round_trips.py`).

Values are those that a type can hold and PostgreSQL can, too: what cannot be carried is refused by the plan, which other
tests are about.
"""

from __future__ import annotations

import math
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from psycopg import sql

__all__ = ["Database", "Kind", "databases", "fill_mysql", "fill_postgresql", "typed", "write_csv", "write_parquet", "write_sqlite"]  # fmt: skip

Row = tuple[Any, ...]
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_FORBIDDEN = "\0`\"'%\\"


def _names(dialect: str) -> st.SearchStrategy[str]:
    # MySQL's names have no characters beyond the basic plane.
    highest = 0xFFFF if dialect == "mysql" else 0x10FFFF
    characters = st.characters(
        codec="utf-8",
        max_codepoint=highest,
        categories=["L", "N", "P", "S", "Zs"],
        exclude_characters=_FORBIDDEN,
    )
    return st.text(characters, min_size=1, max_size=12).map(str.strip).filter(bool)


@dataclass(frozen=True)
class Kind:
    """A column's type: how the source declares it, its values, and what each is in the target."""

    declared: Any
    values: st.SearchStrategy[Any]
    arrives: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Database:
    """Tables by name; each has columns with their kinds, and rows. The first column is a key where `keyed`."""

    tables: Mapping[str, tuple[Sequence[tuple[str, Kind]], Sequence[Row], bool]]

    def expected(self) -> dict[str, Counter[Any]]:
        """The rows that the target must hold."""
        return {
            table: Counter(
                tuple(
                    typed(None if v is None else kind.arrives(v))
                    for v, (_, kind) in zip(row, columns, strict=True)
                )
                for row in rows
            )
            for table, (columns, rows, _) in self.tables.items()
        }


def typed(value: Any) -> Any:
    """Equal only where type and value are: 1, 1.0, True and Decimal(1) are four; Decimals of other scales are others."""
    if isinstance(value, float):
        # A database that knows NaN knows one, whatever its sign and its other bits.
        return "float", "NaN" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, Decimal):
        return "decimal", str(value)
    if isinstance(value, memoryview | bytearray):
        value = bytes(value)
    if isinstance(value, list):
        return "list", tuple(map(typed, value))
    return type(value).__name__, value


def _between(bits: int) -> st.SearchStrategy[int]:
    edge = 1 << (bits - 1)
    return st.integers(-edge, edge - 1) | st.sampled_from([0, -edge, edge - 1])


def _fixed(places: int, digits: int) -> st.SearchStrategy[Decimal]:
    most = 10**digits - 1
    return st.integers(-most, most).map(lambda n: Decimal(n).scaleb(-places))


_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_MOMENT = st.datetimes()
_DAY = st.dates()

POSTGRESQL = [
    Kind("smallint", _between(16)),
    Kind("integer", _between(32)),
    Kind("bigint", _between(64)),
    Kind(
        "numeric",
        st.decimals(allow_infinity=False, allow_nan=False, places=7, min_value=-(10**30), max_value=10**30),
    ),
    Kind("numeric(20,4)", _fixed(4, 20)),
    Kind("real", st.floats(width=32), lambda f: float(str(np.float32(f)))),
    Kind("double precision", st.floats()),
    Kind("text", _TEXT),
    Kind("varchar(12)", _TEXT),
    Kind("char(14)", _TEXT.map(lambda t: t.ljust(14))),
    Kind("bytea", st.binary(max_size=12)),
    Kind("boolean", st.booleans()),
    Kind("date", _DAY),
    Kind("time", st.times()),
    Kind("timestamp", _MOMENT),
    Kind("uuid", st.uuids()),
    Kind("text[]", st.lists(st.none() | _TEXT, max_size=4)),
    Kind("bigint[]", st.lists(st.none() | _between(64), max_size=4)),
]
SQLITE = [
    Kind("INTEGER", _between(64)),
    Kind("TEXT", _TEXT),
    Kind("VARCHAR(20)", _TEXT),
    Kind("BLOB", st.binary(max_size=12)),
    # What is stored decides: a column with one text in it is text, and these have none.
    Kind("DOUBLE", _FINITE),
]
MYSQL = [
    Kind("smallint", _between(16)),
    Kind("int", _between(32)),
    Kind("bigint", _between(64)),
    Kind("bigint unsigned", st.integers(0, (1 << 64) - 1), Decimal),
    Kind("int unsigned", st.integers(0, (1 << 32) - 1)),
    Kind("decimal(20,4)", _fixed(4, 20)),
    Kind("double", _FINITE.map(lambda f: f + 0.0)),
    Kind("varchar(20)", _TEXT),
    Kind("text", _TEXT),
    Kind("varbinary(20)", st.binary(max_size=12)),
    Kind("blob", st.binary(max_size=12)),
    Kind("date", _DAY),
    Kind("datetime(6)", _MOMENT),
    Kind("datetime", _MOMENT.map(lambda m: m.replace(microsecond=0))),
    Kind("enum('a','B','ü')", st.sampled_from(["a", "B", "ü"])),
]
CSV = [Kind("text", _TEXT)]
PARQUET = [
    Kind(pa.int16(), _between(16)),
    Kind(pa.int32(), _between(32)),
    Kind(pa.int64(), _between(64)),
    Kind(pa.uint64(), st.integers(0, (1 << 64) - 1), Decimal),
    Kind(pa.decimal128(24, 4), _fixed(4, 24)),
    Kind(pa.float64(), st.floats()),
    Kind(pa.string(), _TEXT),
    Kind(pa.large_string(), _TEXT),
    Kind(pa.binary(), st.binary(max_size=12)),
    Kind(pa.bool_(), st.booleans()),
    Kind(pa.date32(), _DAY),
    Kind(pa.timestamp("us"), _MOMENT),
    Kind(pa.time64("us"), st.times()),
]
KINDS = {"postgresql": POSTGRESQL, "sqlite": SQLITE, "mysql": MYSQL, "csv": CSV, "parquet": PARQUET}
_KEYS = {
    "postgresql": Kind("bigint", _between(64)),
    "sqlite": Kind("INTEGER", _between(64)),
    "mysql": Kind("bigint", _between(64)),
}


@st.composite
def databases(draw: st.DrawFn, dialect: str) -> Database:
    """One to three tables of up to six columns and thirty rows."""
    tables: dict[str, tuple[list[tuple[str, Kind]], list[Row], bool]] = {}
    for number in range(draw(st.integers(1, 3))):
        # In most of them names are one whatever their case.
        names = draw(st.lists(_names(dialect), min_size=1, max_size=6, unique_by=str.casefold))
        columns = [(name, draw(st.sampled_from(KINDS[dialect]))) for name in names]
        keyed = dialect in _KEYS and draw(st.booleans())
        values = [st.none() | kind.values for _, kind in columns]
        if keyed:
            columns[0] = (columns[0][0], _KEYS[dialect])
            values[0] = _KEYS[dialect].values
            rows = draw(st.lists(st.tuples(*values), max_size=30, unique_by=lambda row: row[0]))
        else:
            rows = draw(st.lists(st.tuples(*values), max_size=30))
        tables[f"table {number}" if draw(st.booleans()) else f"t{number}"] = (columns, rows, keyed)
    return Database(tables)


def fill_postgresql(url: str, database: Database) -> None:
    with psycopg.connect(url) as db:
        for table, (columns, rows, keyed) in database.tables.items():
            name = sql.Identifier(table)
            parts = [
                sql.SQL("{} " + kind.declared).format(sql.Identifier(c))  # pyright: ignore[reportArgumentType]
                for c, kind in columns
            ]
            key = [sql.SQL("PRIMARY KEY ({})").format(sql.Identifier(columns[0][0]))] if keyed else []
            db.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join([*parts, *key])))
            marks = sql.SQL(", ").join(
                [sql.SQL("%s::" + kind.declared) for _, kind in columns]  # pyright: ignore[reportArgumentType]
            )
            if rows:
                db.cursor().executemany(sql.SQL("INSERT INTO {} VALUES ({})").format(name, marks), rows)


def _declared(columns: Sequence[tuple[str, Kind]], quote: str, *, keyed: bool) -> str:
    parts = [f"{quote}{name}{quote} {kind.declared}" for name, kind in columns]
    if keyed:
        parts[0] += " PRIMARY KEY"
    return ", ".join(parts)


def write_sqlite(path: Path, database: Database) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as lite:
        for table, (columns, rows, keyed) in database.tables.items():
            lite.execute(f'CREATE TABLE "{table}" ({_declared(columns, chr(34), keyed=keyed)})')
            marks = ", ".join("?" * len(columns))
            lite.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)
        lite.commit()


def fill_mysql(connection: Any, database: Database) -> None:
    with connection.cursor() as cursor:
        for table, (columns, rows, keyed) in database.tables.items():
            cursor.execute(f"CREATE TABLE `{table}` ({_declared(columns, '`', keyed=keyed)})")
            marks = ", ".join(["%s"] * len(columns))
            if rows:
                cursor.executemany(f"INSERT INTO `{table}` VALUES ({marks})", rows)
    connection.commit()


def write_csv(directory: Path, database: Database) -> None:
    """By a writer of our own: Python's cannot write NULL and '' apart."""

    def quoted(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    for table, (columns, rows, _) in database.tables.items():
        lines = [[name for name, _ in columns], *rows]
        text = "".join(",".join(map(quoted, line)) + "\n" for line in lines)
        (directory / f"{table}.csv").write_bytes(text.encode())


def write_parquet(directory: Path, database: Database) -> None:
    for table, (columns, rows, _) in database.tables.items():
        arrays = [pa.array([row[n] for row in rows], kind.declared) for n, (_, kind) in enumerate(columns)]
        schema = pa.schema([(name, kind.declared) for name, kind in columns])
        pq.write_table(pa.table(arrays, schema=schema), directory / f"{table}.parquet", row_group_size=7)
