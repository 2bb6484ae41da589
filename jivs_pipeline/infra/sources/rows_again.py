"""Rows in quarantine that were found again, judged anew: the same for all sources that read rows by their positions.

What belongs here: telling good rows from those that stay. What does not: finding a row (`sqlite_again`, `mysql_sieve`,
`parquet_sieve`) and what makes one bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import Chunk, Sifted, TablePlan
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow, Regained

__all__ = ["judge"]

_GONE = "the source has no such row any more"


class _Reader(Protocol):
    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]: ...
    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]: ...
    def digest(self, table: TablePlan, chunk: Chunk) -> Digest: ...


def judge(
    reader: _Reader, table: TablePlan, rows: Sequence[KeptRow], places: Sequence[str | None], *, apart: bool
) -> Again:
    """Judge rows that were found at these positions, chunk by chunk; None where a row is gone."""
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
