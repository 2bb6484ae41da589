"""Rows of SQLite that are in quarantine, found again: by their key, or where they were stored.

What belongs here: finding a row and judging it anew. What does not: what makes a row bad (`sqlite_sieve`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import Chunk, Sifted, TablePlan
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow, RawText, Regained, value_of
from jivs_pipeline.infra.sources.sqlite_census import bound_text, bound_value, source_rows
from jivs_pipeline.infra.sources.sqlite_open import column_name

__all__ = ["find", "read_again"]

_GONE = "the source has no such row any more"


class _Reader(Protocol):
    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]: ...
    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]: ...
    def digest(self, table: TablePlan, chunk: Chunk) -> Digest: ...


def find(
    connection: sqlite3.Connection, table: TablePlan, address: Sequence[str], row: KeptRow
) -> str | None:
    """Where the row is now; None where it is gone. The connection returns texts as such."""
    places = json.loads(row.position)
    where = f"({', '.join(address)}) = ({', '.join('?' * len(address))})"
    parameters: list[object] = [bound_value(part) for part in places]
    key = {name: value_of(value) for name, value in row.key.items()}
    known = {c.source for c in table.columns}
    # What is wrong with the row may be its key, and then it is looked for where it was.
    if len(address) == 1 and row.column not in key and known.issuperset(key) and _findable(key.values()):
        where = " AND ".join(f"{column_name(table.source_table, name)} IS ?" for name in key)
        parameters = list(key.values())
    listed = f"SELECT {', '.join(address)} {source_rows(table.source_table, [where, table.where])} LIMIT 1"
    found = connection.execute(listed, parameters).fetchone()
    return json.dumps([bound_text(part) for part in found]) if found else None


def _findable(values: Iterable[object]) -> bool:
    return not any(v is None or isinstance(v, RawText) for v in values)


def read_again(
    reader: _Reader, table: TablePlan, rows: Sequence[KeptRow], places: Sequence[str | None], *, apart: bool
) -> Again:
    """Judge rows that were found at these places, chunk by chunk."""
    stay: dict[int, tuple[str | None, str]] = {}
    good: list[Regained] = []
    by_chunk: dict[int, dict[str, int]] = {}
    for row, place in zip(rows, places, strict=True):
        if place is None:
            stay[row.id] = (None, _GONE)
        else:
            by_chunk.setdefault(row.chunk, {})[place] = row.id
    for number, ids in by_chunk.items():
        # Without bounds: a corrected key may be in another chunk's range.
        for bad in reader.bad_rows(table, Sifted(index=number, only=tuple(ids))):
            stay[ids.pop(bad.position)] = (bad.column, bad.reason)
        parts = [{place: id_} for place, id_ in ids.items()] if apart else [ids] if ids else []
        for part in parts:
            chunk = Sifted(index=number, only=tuple(part))
            batches = list(reader.batches(table, chunk))
            good.append(Regained(tuple(part.values()), number, batches, reader.digest(table, chunk)))
    return Again(good, stay)
