"""Rows of Parquet files that are in quarantine, found again in files that somebody has made anew.

What belongs here: finding rows and judging them anew. What does not: what makes a row bad (`parquet_sieve`).

Files have no keys. A row is the one at its place of before, as long as all rows that are not asked for are those that
were loaded: their digest says so, and then nothing has moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import Chunk, Sifted, TablePlan
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow, Regained

__all__ = ["read_again"]

_MOVED = "other rows of its files were changed, too, so that nobody can tell which one it was"
_GONE = "its file has no such row any more"


class _Reader(Protocol):
    def place(self, table: TablePlan, chunk: Chunk) -> tuple[str, range]: ...
    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]: ...
    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]: ...
    def digest(self, table: TablePlan, chunk: Chunk) -> Digest: ...


def read_again(
    reader: _Reader, now: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool
) -> Again:
    """The rows as the files have them now.

    Args:
        now: the table with chunks of the files as they are.
        rest: digest of what was loaded.
    """
    stay: dict[int, tuple[str | None, str]] = {row.id: (None, _GONE) for row in rows}
    found: list[tuple[Chunk, Mapping[str, KeptRow]]] = []
    others = Digest()
    for chunk in now.chunks:
        file, numbers = reader.place(now, chunk)
        there = {r.position: r for r in rows if r.key.get("file") == file and int(r.position) in numbers}
        bad = {row.position: row for row in reader.bad_rows(now, chunk)}
        stay |= {row.id: (b.column, b.reason) for p, row in there.items() if (b := bad.get(p))}
        others += reader.digest(now, Sifted(**chunk.model_dump(), without=tuple({*there, *bad})))
        found.append((chunk, {p: row for p, row in there.items() if p not in bad}))
    if others != rest:
        return Again([], {row.id: (None, _MOVED) for row in rows})
    good: list[Regained] = []
    for chunk, there in found:
        for row in there.values():
            del stay[row.id]
        for number in sorted({row.chunk for row in there.values()}):
            mine = [row for row in there.values() if row.chunk == number]
            for part in [[row] for row in mine] if apart else [mine]:
                one = Sifted(**chunk.model_dump(), only=tuple(row.position for row in part))
                batches = list(reader.batches(now, one))
                good.append(Regained(tuple(row.id for row in part), number, batches, reader.digest(now, one)))
    return Again(good, stay)
