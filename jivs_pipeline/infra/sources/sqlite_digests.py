"""Digests of SQLite's rows by the stdlib's library: a second read that shares no code with the first.

What belongs here: canonical spellings in SQL (see `core/digest.py`) and hashing them. What does not: Arrow
(`sqlite_carriers`), transactions (`sqlite_snapshot`).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from hashlib import md5
from itertools import islice
from typing import Any

from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.plan import ColumnPlan, TablePlan
from jivs_pipeline.core.ports import HashedRow
from jivs_pipeline.infra.sources.sqlite_carriers import any_of
from jivs_pipeline.infra.sources.sqlite_open import column_name

__all__ = ["canonical", "hashed_rows", "large_row_hashes", "row_hashes", "total"]

_PRINTF_COLUMNS = 30  # three arguments each; a function takes 100 in older libraries
_GROUP = 4_096
_PIECE = 1024 * 1024
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character


def _without_zeros(c: str) -> str:
    return f"rtrim(rtrim({c}, '0'), '.')"


def canonical(table: str, column: ColumnPlan) -> str:
    """SQL of the value as `Canon` spells it, or NULL."""
    c = column_name(table, column.source)
    if column.canon is Canon.FLOAT:
        return f"jivs_float({c})"
    if column.canon is Canon.NUMERIC:
        return f"CASE typeof({c}) WHEN 'integer' THEN {c} ELSE jivs_numeric({c}) END"
    if column.canon is Canon.BYTES:
        return f"CASE WHEN {c} NOT NULL THEN lower(hex({c})) END"
    if column.canon is Canon.TIMESTAMP:
        spaced = f"replace({c}, 'T', ' ')"
        return f"CASE length({c}) WHEN 19 THEN {spaced} ELSE {_without_zeros(spaced)} END"
    if column.canon is Canon.TIME:
        return f"CASE length({c}) WHEN 8 THEN {c} ELSE {_without_zeros(c)} END"
    if column.carrier == "text":
        return f"CASE typeof({c}) WHEN 'real' THEN jivs_real({c}) ELSE CAST({c} AS TEXT) END"
    return c


def _item(table: str, column: ColumnPlan) -> tuple[str, list[str]]:
    """Format and arguments of `<characters>:<text>`, or `-`, in printf()."""
    c = column_name(table, column.source)
    if column.canon is Canon.FLOAT:
        return "%s", [f"jivs_float_item({c})"]
    if column.canon is Canon.NUMERIC:
        # Called once: a function of Python's costs more than all the rest of the row.
        return "%s", [
            f"CASE typeof({c}) WHEN 'integer' THEN length({c}) || ':' || {c} ELSE jivs_numeric_item({c}) END"
        ]
    value = canonical(table, column)
    if not column.nullable:
        return "%d:%s", [f"length({value})", value]
    return "%s%s%s", [f"ifnull(length({value}), '-')", f"CASE WHEN {c} NOT NULL THEN ':' END", value]


def _row_text(plan: TablePlan) -> str:
    """SQL of the whole row as `Spelling.CANONICAL` spells it.

    printf() over thirty columns takes half the time of `||` per column. It ends a text at its first NUL, as
    length() does; such texts are refused by the census and by PostgreSQL.
    """
    pieces: list[str] = []
    for start in range(0, len(plan.columns), _PRINTF_COLUMNS):
        form, arguments = "", list[str]()
        for column in plan.columns[start : start + _PRINTF_COLUMNS]:
            part, values = _item(plan.source_table, column)
            form += part
            arguments += values
        pieces.append(f"printf('{form}', {', '.join(arguments)})")
    return any_of(pieces, " || ") if pieces else "''"


def row_hashes(
    connection: sqlite3.Connection, table: TablePlan, rows_sql: str, parameters: Sequence[Any]
) -> Iterator[bytes]:
    """MD5 of each row's text. The connection returns text as bytes."""
    cursor = connection.execute(f"SELECT {_row_text(table)} {rows_sql}", parameters)
    return (md5(text, usedforsecurity=False).digest() for (text,) in cursor)


def hashed_rows(
    connection: sqlite3.Connection,
    table: TablePlan,
    key: Sequence[ColumnPlan],
    rows_sql: str,
    parameters: Sequence[Any],
) -> Iterator[HashedRow]:
    """The same with the canonical texts of the key's columns."""
    keys = "".join(f", CAST({canonical(table.source_table, c)} AS TEXT)" for c in key)
    for text, *texts in connection.execute(f"SELECT {_row_text(table)}{keys} {rows_sql}", parameters):
        hashed = md5(text, usedforsecurity=False).digest()
        yield hashed, tuple(None if t is None else t.decode() for t in texts)


def large_row_hashes(
    connection: sqlite3.Connection, table: TablePlan, rows_sql: str, parameters: Sequence[Any]
) -> Iterator[bytes]:
    """The same hashes without ever building a row's text: hex doubles a blob, and copies of it follow."""
    blobs = [column.canon is Canon.BYTES for column in table.columns]
    values = [
        column_name(table.source_table, c.source)
        if blob
        else f"CAST({canonical(table.source_table, c)} AS TEXT)"
        for c, blob in zip(table.columns, blobs, strict=True)
    ]
    for row in connection.execute(f"SELECT {', '.join(values)} {rows_sql}", parameters):
        whole = md5(usedforsecurity=False)
        for value, blob in zip(row, blobs, strict=True):
            _update(whole, value, blob=blob)
        yield whole.digest()


def _update(whole: Any, value: bytes | None, *, blob: bool) -> None:
    if value is None:
        whole.update(b"-")
        return
    view = memoryview(value)
    pieces = [view[start : start + _PIECE] for start in range(0, len(view), _PIECE)]
    characters = 2 * len(value) if blob else sum(len(bytes(p).translate(None, _CONTINUATION)) for p in pieces)
    whole.update(b"%d:" % characters)
    for piece in pieces:
        whole.update(piece.hex().encode() if blob else piece)


def total(hashes: Iterator[bytes]) -> Digest:
    """Count and sums of row hashes, taken one by one: no more than one large row is held."""
    count = high = low = 0
    while group := list(islice(hashes, _GROUP)):
        halves = struct.unpack(f">{2 * len(group)}q", b"".join(group))
        count, high, low = count + len(group), high + sum(halves[::2]), low + sum(halves[1::2])
    return Digest(count, high, low)
