"""The census: what is really stored in a table, how many rows there are, and where to cut them.

What belongs here: aggregates over the rows of one table. What does not: deciding types (`core/types.py`),
reading rows (`sqlite_snapshot`).

One pass counts, per column, the values that are not what its declared type promises; almost always there are
none, and that is all there is to know. Only columns with surprises get a second pass that counts everything.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from jivs_pipeline.core.chunking import chunk_count
from jivs_pipeline.core.model import Column, ForeignKey, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy
from jivs_pipeline.core.types import Affinity, Family, SqliteType, StoredValues, sqlite_type
from jivs_pipeline.infra.sources.sqlite_open import column_name, quoted

__all__ = [
    "Census",
    "bound_text",
    "bound_value",
    "free_rowid_name",
    "key_condition",
    "source_rows",
    "surprising",
    "take_census",
]

# Aggregates in one statement: SQLite takes 2,000 result columns, and its statement grows with each.
_AGGREGATES = 400
_FIXED_BYTES = 8  # of a value that is neither text nor blob, in Arrow
_INTEGER_DIGITS = 18  # that a 64-bit integer always holds
_SURE_DIGITS = 15  # that a double always gives back
_ROUND_DIGITS = 30  # that SQLite's round() takes
_CLASSES = ("integer", "real", "text", "blob")

_Found = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Census:
    """What one transaction saw of a table.

    `null_keys` are columns of the primary key with NULLs -> how many; `broken_keys` see `core.ports.Survey`.
    """

    rows: int
    bytes: int
    values: Mapping[str, StoredValues]
    null_keys: Mapping[str, int]
    broken_keys: Mapping[tuple[str, ...], int]
    chunk_by: ChunkBy
    chunk_columns: tuple[str, ...]
    chunks: tuple[Chunk, ...]


def source_rows(table: str, conditions: Iterable[str | None]) -> str:
    """`FROM … WHERE …` with all conditions; a newline ends a comment that a condition may end with."""
    wanted = " AND ".join(f"(\n{condition}\n)" for condition in conditions if condition)
    return f"FROM main.{quoted(table)}" + (f" WHERE {wanted}" if wanted else "")


# ── what values are ─────────────────────────────────────────────────────────────────────────────────────


# SQLite gives 31 February and 24:00 back as they are until a modifier makes it compute.
_COMPUTED = "'+0 days'"
# With the hyphen: the affinity of a column would make a number of '0001'.
_FIRST_YEAR = "'0001-'"


def _not_dates(c: str) -> str:
    # BINARY, because RTRIM would trim.
    return f"{c} COLLATE BINARY IS NOT date({c}, {_COMPUTED}) OR {c} COLLATE BINARY < {_FIRST_YEAR}"


def _not_timestamps(c: str) -> str:
    spaced, fraction = f"substr({c}, 1, 10) || ' ' || substr({c}, 12, 8)", f"substr({c}, 20)"
    return (
        # The common form first: it is compared as it is.
        f"{c} COLLATE BINARY IS NOT datetime({c}, {_COMPUTED}) AND ("
        f"typeof({c}) <> 'text' OR substr({c}, 11, 1) NOT IN (' ', 'T') OR length({c}) NOT BETWEEN 19 AND 26"
        f" OR {spaced} IS NOT datetime({spaced}, {_COMPUTED}) OR {_not_fraction(fraction)})"
        f" OR {c} COLLATE BINARY < {_FIRST_YEAR}"
    )


def _not_times(c: str) -> str:
    whole, fraction = f"substr({c}, 1, 8)", f"substr({c}, 9)"
    return (
        f"{c} COLLATE BINARY IS NOT time({c}, {_COMPUTED}) AND (typeof({c}) <> 'text' OR length({c}) > 15"
        f" OR {whole} IS NOT time({whole}, {_COMPUTED}) OR {_not_fraction(fraction)})"
    )


def _not_fraction(c: str) -> str:
    return f"({c} <> '' AND ({c} NOT GLOB '.[0-9]*' OR substr({c}, 2) GLOB '*[^0-9]*'))"


def _not_decimals(c: str, declared: SqliteType) -> str:
    if declared.precision is None or declared.scale is None:
        return f"{c} NOT NULL AND typeof({c}) NOT IN ('integer', 'real')"
    digits = declared.precision - declared.scale
    limit = str(10**digits) if digits <= _INTEGER_DIGITS else f"1e{digits}"
    whole = f"typeof({c}) = 'integer' OR round({c}, {min(declared.scale, _ROUND_DIGITS)}) = {c}"
    if 0 <= declared.scale <= declared.precision <= _SURE_DIGITS:
        # As a number of parts of a unit, which costs a fifth of rounding to a place, and is as exact for so few digits.
        parts = f"1e{declared.scale}"
        whole = f"CAST(round({c} * {parts}) AS INTEGER) / {parts} = {c} OR {whole}"
    return (
        f"{c} NOT NULL AND NOT (typeof({c}) IN ('integer', 'real') AND {c} > -{limit} AND {c} < {limit}"
        f" AND ({whole}))"
    )


def surprising(c: str, declared: SqliteType) -> str:
    """Condition of a value that is not what the declared type promises."""
    match declared.family:
        case Family.BOOLEAN:
            return f"{c} NOT NULL AND (typeof({c}) <> 'integer' OR {c} NOT IN (0, 1))"
        case Family.DATE:
            return _not_dates(c)
        case Family.TIMESTAMP:
            return _not_timestamps(c)
        case Family.TIME:
            return _not_times(c)
        case Family.NUMERIC:
            return _not_decimals(c, declared)
        case family:
            stored = _STORED.get(family, "text")
            # In this order: typeof() alone is right for nearly all values.
            return f"typeof({c}) <> '{stored}' AND {c} NOT NULL"


_STORED = {Family.INTEGER: "integer", Family.REAL: "real", Family.BLOB: "blob"}
_PROMISED = {
    Family.BOOLEAN: StoredValues(integers=1),
    Family.INTEGER: StoredValues(integers=1),
    Family.REAL: StoredValues(reals=1),
    Family.NUMERIC: StoredValues(integers=1, reals=1),
    Family.BLOB: StoredValues(blobs=1),
}
"""What a column holds when nothing surprises; the others hold text. One stands for any number."""


@dataclass(slots=True)
class _Totals:
    """Runs aggregates in as few passes as SQLite's limits allow; results by the key they were asked under."""

    connection: sqlite3.Connection
    rows_sql: str
    asked: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def ask(self, column: str, what: str, expression: str) -> None:
        self.asked[column, what] = expression

    def count(self, column: str, what: str, condition: str) -> None:
        self.ask(column, what, f"count(*) FILTER (WHERE {condition})")

    def run(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        keys = list(self.asked)
        for start in range(0, len(keys), _AGGREGATES):
            part = keys[start : start + _AGGREGATES]
            sql = f"SELECT {', '.join(self.asked[key] for key in part)} {self.rows_sql}"
            row = self.connection.execute(sql).fetchone()
            found.update({key: int(value or 0) for key, value in zip(part, row, strict=True)})
        return found


def _ask_for_surprises(totals: _Totals, table: str, name: str, declared: SqliteType) -> None:
    """The first pass over one column."""
    c = column_name(table, name)
    totals.count(name, "surprises", surprising(c, declared))
    if declared.affinity is Affinity.TEXT:
        totals.ask(name, "longest", f"max(length({c}))")
        # length() stops at a NUL, instr() does not.
        totals.count(name, "nul", f"instr({c}, char(0))")
    if declared.family in {Family.TEXT, Family.BLOB}:
        totals.ask(name, "bytes", f"total(length({c}))")


def _ask_for_all(totals: _Totals, table: str, name: str, declared: SqliteType) -> None:
    """The second pass over a column that holds surprises, or promises nothing."""
    c = column_name(table, name)
    for stored in _CLASSES:
        totals.count(name, stored, f"typeof({c}) = '{stored}'")
    totals.ask(name, "bytes", f"total(length({c}))")
    totals.ask(name, "longest", f"max(length({c})) FILTER (WHERE typeof({c}) = 'text')")
    totals.count(name, "nul", f"typeof({c}) = 'text' AND instr({c}, char(0))")
    totals.count(name, "minus zeros", f"typeof({c}) = 'real' AND {c} = 0 AND jivs_minus_zero({c})")
    if declared.precision is not None:
        # The quick test of the first pass rounds as SQLite does; this one reads the digits.
        fits = f"jivs_fits({c}, {declared.precision}, {declared.scale})"
        totals.count(name, "misfits", f"typeof({c}) IN ('integer', 'real') AND NOT {fits}")


def _values(name: str, declared: SqliteType, first: _Found, second: _Found) -> StoredValues:
    """What the passes found in one column."""
    if (name, "integer") in second:
        return StoredValues(
            *(second[name, stored] for stored in _CLASSES),
            longest=second[name, "longest"],
            nul=second[name, "nul"],
            minus_zeros=second[name, "minus zeros"],
            conforming=declared.precision is not None and not second[name, "misfits"],
        )
    longest, nul = first.get((name, "longest"), 0), first.get((name, "nul"), 0)
    return _PROMISED.get(declared.family, StoredValues(texts=1, longest=longest, nul=nul))


def _bytes(name: str, rows: int, first: _Found, second: _Found) -> int:
    """Bytes of one column, estimated."""
    for found in (second, first):
        if (name, "bytes") in found:
            return found[name, "bytes"]
    return rows * max(first.get((name, "longest"), _FIXED_BYTES), 1)


def _look(
    connection: sqlite3.Connection, table: Table, columns: Sequence[Column], where: str | None
) -> tuple[int, int, dict[str, StoredValues], dict[str, int]]:
    """Rows, bytes, values of each column but the rowid's, and NULLs in those of the primary key."""
    rows_sql = source_rows(table.name, [where])
    one, two = _Totals(connection, rows_sql), _Totals(connection, rows_sql)
    types = {c.name: sqlite_type(c.type) for c in columns if c.identity is None}
    one.ask("", "rows", "count(*)")
    # Of those that are carried: without them there is no such key in the target.
    for name in table.primary_key.columns if table.primary_key and not table.without_rowid else ():
        if name in types:
            one.ask(name, "present", f"count({column_name(table.name, name)})")
    for name, declared in types.items():
        if declared.family is not Family.NONE:
            _ask_for_surprises(one, table.name, name, declared)
    first = one.run()
    for name, declared in types.items():
        if declared.family is Family.NONE or first[name, "surprises"]:
            _ask_for_all(two, table.name, name, declared)
    second = two.run()
    rows = first["", "rows"]
    values = {name: _values(name, declared, first, second) for name, declared in types.items()}
    size = sum(_bytes(c.name, rows, first, second) for c in columns)
    missing = {name: rows - n for (name, what), n in first.items() if what == "present" and n < rows}
    return rows, size, values, missing


def _broken(connection: sqlite3.Connection, table: Table, key: ForeignKey, where: str | None) -> int:
    """Rows whose reference PostgreSQL would not find: it compares bytes, whatever the collation here."""
    child = [column_name(table.name, c) for c in key.columns]
    parent = [column_name(key.target_table, c) for c in key.target_columns]
    present = [f"{c} NOT NULL" for c in child]
    found = source_rows(key.target_table, [f"{c} NOT NULL" for c in parent])
    sought = ", ".join(f"{c} COLLATE BINARY" for c in child)
    missing = f"({sought}) NOT IN (SELECT {', '.join(parent)} {found})"
    return _one(connection, "count(*)", source_rows(table.name, [where, *present, missing]))


def _one(connection: sqlite3.Connection, expression: str, rows_sql: str) -> int:
    return int(connection.execute(f"SELECT {expression} {rows_sql}").fetchone()[0])


# ── where to cut ────────────────────────────────────────────────────────────────────────────────────────


def free_rowid_name(columns: Iterable[str]) -> str | None:
    """A name of the rowid that no column hides; None if there is none."""
    taken = {name.lower() for name in columns}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


_INTEGER_BOUND = re.compile(r"-?\d+")


def bound_value(text: str) -> int | float | str | bytes:
    """The value of a bound: digits, `r` and a real, `t` and a text, or `x` and hex."""
    if _INTEGER_BOUND.fullmatch(text):
        return int(text)
    kind, rest = text[:1], text[1:]
    if kind == "r":
        return float(rest)
    return bytes.fromhex(rest) if kind == "x" else rest


def bound_text(value: object) -> str:
    """A value of a key as a bound."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"r{value!r}"
    return f"x{value.hex()}" if isinstance(value, bytes) else f"t{value}"


def key_condition(columns: Sequence[str], chunk: Chunk) -> tuple[str | None, list[int | float | str | bytes]]:
    """Condition of a chunk over row values, and its parameters. `columns` are SQL."""
    conditions: list[str] = []
    parameters: list[int | float | str | bytes] = []
    for operator, bound in ((">=", chunk.lower), ("<", chunk.upper)):
        if bound is not None:
            marks = ", ".join("?" * len(bound))
            conditions.append(f"({', '.join(columns)}) {operator} ({marks})")
            parameters += [bound_value(text) for text in bound]
    return " AND ".join(conditions) or None, parameters


def _cuts(
    connection: sqlite3.Connection, table: str, key: Sequence[str], where: str | None, step: int
) -> list[tuple[str, ...]]:
    """Key of every `step`-th row: one walk along the tree, so that gaps do not matter."""
    names = ", ".join(key)
    cuts: list[tuple[str, ...]] = []
    while True:
        after, parameters = key_condition(key, Chunk(index=0, lower=cuts[-1] if cuts else None))
        sql = f"SELECT {names} {source_rows(table, [where, after])} ORDER BY {names} LIMIT 1 OFFSET {step}"
        row = connection.execute(sql, parameters).fetchone()
        if row is None:
            return cuts
        cuts.append(tuple(map(bound_text, row)))


def _chunks(
    connection: sqlite3.Connection, table: Table, where: str | None, step: int
) -> tuple[ChunkBy, tuple[str, ...], tuple[Chunk, ...]]:
    """Chunks of about `step` rows each."""
    rowid = None if table.without_rowid else free_rowid_name(c.name for c in table.columns)
    if rowid is not None:
        by, names, key = ChunkBy.ROWID, (rowid,), [f"{quoted(table.name)}.{rowid}"]
    elif table.primary_key is not None and table.without_rowid:
        by, names = ChunkBy.KEY, table.primary_key.columns
        key = [column_name(table.name, name) for name in names]
    else:
        return _WHOLE
    edges = [None, *_cuts(connection, table.name, key, where, step), None]
    chunks = (Chunk(index=i, lower=low, upper=high) for i, (low, high) in enumerate(pairwise(edges)))
    return by, names, tuple(chunks)


_WHOLE = (ChunkBy.WHOLE, (), (Chunk(index=0),))


def take_census(
    connection: sqlite3.Connection,
    table: Table,
    columns: Sequence[Column],
    where: str | None,
    chunk_bytes: int,
) -> Census:
    """Look at all rows, in one transaction."""
    connection.execute("BEGIN")
    try:
        rows, size, values, missing = _look(connection, table, columns, where)
        carried = {c.name for c in columns}
        broken = {
            key.columns: count
            for key in table.foreign_keys
            if carried.issuperset(key.columns) and (count := _broken(connection, table, key, where))
        }
        wanted = min(chunk_count(size, chunk_bytes), rows)
        by, names, chunks = _WHOLE
        if wanted > 1:
            by, names, chunks = _chunks(connection, table, where, -(-rows // wanted))
    finally:
        connection.execute("ROLLBACK")
    return Census(rows, size, values, missing, broken, by, names, chunks)
