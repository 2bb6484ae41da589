"""Digests of SQLite's rows by the stdlib's library: a second read that shares no code with the first.

What belongs here: canonical spellings in SQL (see `core/digest.py`). What does not: Arrow
(`sqlite_carriers`), transactions (`sqlite_snapshot`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.plan import ColumnPlan, TablePlan
from jivs_pipeline.infra.chains import Link, digest_of_links, link_text
from jivs_pipeline.infra.sources.sqlite_open import column_name

__all__ = ["canonical", "large_digest", "rows_at_once", "texts"]

Array = Any  # pyarrow has no stubs that a checker can follow

_GROUP, _GROUP_BYTES = 16_384, 8 << 20
_FEW = 1_024


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


def texts(
    connection: sqlite3.Connection, table: TablePlan, rows_sql: str, parameters: Sequence[Any], step: int
) -> Iterator[tuple[list[Array], int]]:
    """Canonical texts by column, and how many rows they are. The connection returns text as bytes.

    Args:
        step: how many rows are asked for at a time; see `rows_at_once`.
    """
    wanted = [f"CAST({canonical(table.source_table, c)} AS TEXT)" for c in table.columns]
    cursor = connection.execute(f"SELECT {', '.join(wanted) or 'NULL'} {rows_sql}", parameters)
    for rows in _grouped(cursor, step):
        columns = zip(*rows, strict=True) if wanted else ()
        yield [pa.array(column, pa.binary()).cast(pa.string()) for column in columns], len(rows)


def rows_at_once(widest: int) -> int:
    """How many rows may be held where the largest has so many bytes."""
    return max(1, min(_GROUP, _GROUP_BYTES // max(1, widest)))


def _grouped(cursor: sqlite3.Cursor, step: int) -> Iterator[list[tuple[bytes | None, ...]]]:
    """Rows in groups, of which none is much larger than it should be: hashing a few rows costs as much as many."""
    rows: list[tuple[bytes | None, ...]] = []
    size = 0
    while more := cursor.fetchmany(step):
        rows += more
        if step < _GROUP:
            size += sum(len(value) for row in more for value in row if value is not None)
        if len(rows) >= _GROUP or size >= _GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def large_digest(
    connection: sqlite3.Connection, table: TablePlan, rows_sql: str, parameters: Sequence[Any]
) -> Digest:
    """The digest of the same, in the spelling CHAIN, holding one large value at a time, and never the hex
    digits of a blob.
    """
    blobs = [column.canon is Canon.BYTES for column in table.columns]
    values = [
        column_name(table.source_table, c.source)
        if blob
        else f"CAST({canonical(table.source_table, c)} AS TEXT)"
        for c, blob in zip(table.columns, blobs, strict=True)
    ]
    digest = Digest()
    rows = connection.execute(f"SELECT {', '.join(values)} {rows_sql}", parameters)
    while group := [
        [link_text(value, blob=blob) for value, blob in zip(row, blobs, strict=True)]
        for row in islice(rows, _FEW)
    ]:
        by_column = zip(zip(*group, strict=True), table.columns, strict=True)
        links = [Link.of(found, free=column.canon.free) for found, column in by_column]
        digest += digest_of_links(links, len(group))
    return digest
