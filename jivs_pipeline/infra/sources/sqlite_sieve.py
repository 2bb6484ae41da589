"""Rows of SQLite that the plan's columns cannot hold: the condition per carrier, the rows, and reading past them.

What belongs here: SQL that tells bad rows from good ones, and addresses of rows. What does not: choosing the types
(`core/types.py`), reading good rows (`sqlite_snapshot`).

A row's address is its rowid, or its primary key where it has no rowid. ADBC brings an SQLite that lacks our
functions, so bad rows are found by the stdlib's and both libraries leave them out by address.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from jivs_pipeline.core.plan import ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.ports import Refusal
from jivs_pipeline.core.quarantine import BadRow, RawText
from jivs_pipeline.core.types import Family, sqlite_type
from jivs_pipeline.infra.sources.sqlite_carriers import any_of
from jivs_pipeline.infra.sources.sqlite_census import bound_text, bound_value, surprising
from jivs_pipeline.infra.sources.sqlite_open import column_name, quoted

__all__ = ["address_of", "any_bad", "bad_condition", "bad_rows", "position", "sifting"]

_TEXTS = 90  # arguments of one call; a function takes 100 in older libraries
_STORED = {"integer": "integer", "boolean": "integer", "real": "real", "utf8": "text", "bytes": "blob"}
_WORDS: dict[type, str] = {int: "an integer", float: "a real", RawText: "a text", bytes: "a blob"}

_Value = int | float | str | bytes


def bad_condition(table: str, column: ColumnPlan) -> str:
    """SQL of a value that the column cannot hold; all but text that is not UTF-8, which takes a look at its bytes."""
    c, declared = column_name(table, column.source), sqlite_type(column.source_type)
    bad: list[str] = []
    match column.carrier:
        case "boolean":
            bad.append(f"(typeof({c}) <> 'integer' OR {c} NOT IN (0, 1)) AND {c} NOT NULL")
        case "date" | "time" | "timestamp":
            bad.append(f"{c} NOT NULL AND ({surprising(c, declared)})")
        case "number":
            bad.append(f"typeof({c}) IN ('text', 'blob')")
            bad.append(f"typeof({c}) = 'real' AND {c} = 0 AND jivs_minus_zero({c})")
            if column.target_type != "numeric":
                # The quick look first: reading digits takes a function of Python's.
                fits = f"jivs_fits({c}, {declared.precision}, {declared.scale})"
                bad.append(
                    f"({surprising(c, declared)}) AND typeof({c}) IN ('integer', 'real') AND NOT {fits}"
                )
        case "text":
            bad.append(f"typeof({c}) = 'blob'")
        case carrier:
            bad.append(f"typeof({c}) <> '{_STORED[carrier]}' AND {c} NOT NULL")
    if column.carrier in {"utf8", "text"}:
        bad.append(f"typeof({c}) = 'text' AND instr({c}, char(0))")
        if declared.family is Family.VARCHAR and column.target_type != "text":
            bad.append(f"length({c}) > {declared.length}")
    if not column.nullable:
        bad.append(f"{c} IS NULL")
    return any_of([f"({b})" for b in bad])


def _not_utf8(table: str, columns: Sequence[ColumnPlan], encoding: str) -> list[str]:
    """Conditions of rows with such text; in a UTF-16 file SQLite itself makes the bytes."""
    if encoding != "UTF-8":
        return []
    texts = [c for c in columns if c.carrier in {"utf8", "text"}]
    blobs = [f"CAST({column_name(table, c.source)} AS BLOB)" for c in texts]
    return [
        f"jivs_not_utf8({', '.join(blobs[start : start + _TEXTS])})" for start in range(0, len(blobs), _TEXTS)
    ]


def _why(column: ColumnPlan, value: object) -> str:
    """What is wrong with a value that the condition has found."""
    if value is None:
        return "NULL, which this column may not hold"
    if isinstance(value, RawText) and column.carrier in {"utf8", "text"}:
        if _is_utf8(value):
            return (
                "a NUL character, which PostgreSQL text cannot hold"
                if b"\0" in value
                else f"too long for {column.target_type}"
            )
        return "text that is not UTF-8"
    if isinstance(value, float) and column.carrier == "number" and value == 0.0:
        return "-0.0, which numeric does not tell from 0"
    return f"{_WORDS[type(value)]} that is no {column.target_type}"


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _raw(connection: sqlite3.Connection) -> Generator[None]:
    """Lets a connection tell texts, whatever their bytes, from blobs."""
    before, connection.text_factory = connection.text_factory, RawText
    try:
        yield
    finally:
        connection.text_factory = before


def any_bad(table: str, columns: Sequence[ColumnPlan], encoding: str) -> str:
    """SQL of a row with a value that its column cannot hold."""
    each = [f"({bad_condition(table, c)})" for c in columns]
    return any_of([*each, *_not_utf8(table, columns, encoding)]) or "0"


def bad_rows(
    connection: sqlite3.Connection,
    table: TablePlan,
    rows_sql: str,
    parameters: Sequence[_Value],
    address: Sequence[str],
    broken: Mapping[str, Refusal],
) -> Iterator[BadRow]:
    """The rows that `rows_sql` selects, which are bad or `broken` by their keys, in the order of their addresses."""
    name = table.source_table
    each = [bad_condition(name, c) for c in table.columns]
    which = " ".join(f"WHEN {e} THEN {n}" for n, e in enumerate(each))
    values = [column_name(name, c.source) for c in table.columns]
    listed = ", ".join([*address, f"CASE {which} END", *values])
    query = f"SELECT {listed} {rows_sql} ORDER BY {', '.join(address)}"
    with _raw(connection):
        for found in connection.execute(query, parameters):
            place, number, row = found[: len(address)], found[len(address)], found[len(address) + 1 :]
            if number is None:
                odd = (n for n, v in enumerate(row) if isinstance(v, RawText) and not _is_utf8(v))
                number = next(odd, None)
            if number is None:
                why = broken[position(place)]
            else:
                column = table.columns[number]
                why = Refusal(column.source, _why(column, row[number]))
            named = dict(zip((c.source for c in table.columns), row, strict=True))
            yield BadRow.of(position(place), _key(table, named, place), why.column, why.reason, named)


def position(place: Sequence[object]) -> str:
    """The address of a row, as text."""
    return json.dumps([bound_text(v.decode() if isinstance(v, RawText) else v) for v in place])


def _key(table: TablePlan, row: Mapping[str, object], place: Sequence[object]) -> Mapping[str, object]:
    """The primary key where all of it is carried, and the rowid where that is not or a part of it is NULL."""
    sources = {c.target: c.source for c in table.columns}
    key = table.definition.primary_key if table.definition else None
    names = [sources[c] for c in key.columns if c in sources] if key else []
    known = {name: row[name] for name in names}
    return known if known and None not in known.values() else {**known, "rowid": place[0]}


def sifting(address: Sequence[str], chunk: Sifted) -> tuple[list[str], list[_Value]]:
    """Conditions that leave out the bad rows, or all but some, and their parameters."""
    conditions: list[str] = []
    parameters: list[_Value] = []
    for word, positions in (("NOT IN", chunk.without), ("IN", chunk.only)):
        if positions is None or (word == "NOT IN" and not positions):
            continue
        places = [[bound_value(part) for part in json.loads(p)] for p in positions]
        if len(address) == 1 and all(isinstance(place[0], int) for place in places):
            # One parameter, however many there are.
            conditions.append(f"{address[0]} {word} (SELECT value FROM json_each(?))")
            parameters.append(json.dumps([place[0] for place in places]))
        else:
            marks = ", ".join(f"({', '.join('?' * len(address))})" for _ in places)
            conditions.append(f"({', '.join(address)}) {word} (VALUES {marks})")
            parameters += [part for place in places for part in place]
    return conditions, parameters


def address_of(connection: sqlite3.Connection, table: str, free_rowid: str | None) -> list[str]:
    """SQL of the key in whose order the table is stored; empty if its rowid has no name left."""
    columns = connection.execute("SELECT name, pk FROM pragma_table_xinfo(?, 'main')", (table,)).fetchall()
    listed = "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
    if any(without_rowid for (without_rowid,) in connection.execute(listed, (table,))):
        return [column_name(table, name) for name, key in sorted(columns, key=lambda c: c[1]) if key]
    return [f"{quoted(table)}.{free_rowid}"] if free_rowid else []
