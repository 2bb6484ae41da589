"""A source as the rules make it: what should be in the target, told from the source as it is now.

What belongs here: digests, hashes and counts of refined rows, for comparing again. What does not: comparing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import Chunk, ColumnPlan, TablePlan
from jivs_pipeline.core.ports import CopiedRows, HashedRow, Refined, Snapshot
from jivs_pipeline.core.quarantine import Again, KeptRow
from jivs_pipeline.infra.rules.again import refined_again
from jivs_pipeline.infra.rules.duplicates import duplicates
from jivs_pipeline.infra.rules.refiner import Refiner
from jivs_pipeline.infra.sources.row_text import hashed_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RefinedSnapshot"]


class RefinedSnapshot:
    """Implements `core.ports.Snapshot` for tables with rules; others are asked of the snapshot beneath.

    Args:
        refiner: makes the rules of a table, with the rows of those that it looks into.
        tables: of the plan.
        room: a directory for what takes room.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        refiner: Callable[[TablePlan, Sequence[Iterable[pa.RecordBatch]]], Refiner],
        tables: Sequence[TablePlan],
        room: Path,
    ) -> None:
        self._snapshot = snapshot
        self._tables = {t.target: t for t in tables}
        self._refiner = refiner
        self._room = room
        self._bad: Counter[str] = Counter()
        self._whole: dict[str, TablePlan] = {}
        self._duplicates: dict[str, Mapping[int, Collection[int]]] = {}
        self._lock = threading.Lock()

    @property
    def consistency(self) -> str:
        """Of the snapshot beneath."""
        return self._snapshot.consistency

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """Of the snapshot beneath."""
        return self._snapshot.copy(table, chunk)

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The rows that go on."""
        return (refined.batch for refined in self.refined(table, chunk))

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the rows that should be in the target."""
        if table.rules is None:
            return self._snapshot.digest(table, chunk)
        total = Digest()
        for refined in self.refined(table, chunk):
            total += refined.digest
            with self._lock:
                self._bad[table.target] += len(refined.bad)
        return total

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        if table.rules is None:
            yield from self._snapshot.hashes(table, chunk, key)
            return
        places = [table.columns.index(c) for c in key]
        targets = {c.target: n for n, c in enumerate(self._all_of(table).columns)}
        wanted = [targets[c.target] for c in table.columns]
        for refined in self.refined(table, chunk):
            yield from hashed_rows(table, [refined.canon[n] for n in wanted], places, refined.batch.num_rows)

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows that should be in the target."""
        return self._snapshot.count(table, chunk) if table.rules is None else self.digest(table, chunk).rows

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """Of the snapshot beneath."""
        return self._snapshot.next_values(table)

    def bad(self, table: TablePlan) -> int:
        """Rows that the rules could not be applied to, in the chunks that were digested so far."""
        with self._lock:
            return self._bad[table.target]

    def again(self, table: TablePlan, rows: Sequence[KeptRow], *, apart: bool = False) -> Again:
        """See `again.refined_again`."""
        return refined_again(self.refined, table, rows, apart=apart)

    def _all_of(self, table: TablePlan) -> TablePlan:
        """The table with all its columns: to the rules a row is bad by any of them, whichever are compared."""
        with self._lock:
            known = self._whole.get(table.target)
            if known is None or len(known.columns) < len(table.columns):
                self._whole[table.target] = known = table
            return known

    def refined(self, table: TablePlan, chunk: Chunk) -> Iterator[Refined]:
        """Batches of a chunk as its rules make them."""
        whole = self._all_of(table)
        dropped, start = sorted(self._dropped(whole).get(chunk.index, ())), 0
        others = [self._tables[one.table] for one in whole.rules.lookups] if whole.rules else []
        looked_into = [self._rows(other) for other in others]
        with self._refiner(whole, looked_into) as refiner:
            for batch in self._snapshot.batches(whole.as_read, chunk):
                end = start + batch.num_rows
                yield refiner.refine(batch, frozenset(n - start for n in dropped if start <= n < end))
                start = end

    def _rows(self, table: TablePlan) -> Iterator[pa.RecordBatch]:
        read = table.as_read
        for chunk in read.chunks:
            for batch in self._snapshot.batches(read, chunk):
                yield batch.rename_columns([c.source for c in read.columns])

    def _dropped(self, table: TablePlan) -> Mapping[int, Collection[int]]:
        if table.rules is None or table.rules.dedupe is None:
            return {}
        with self._lock:
            if table.target not in self._duplicates:
                read = table.as_read
                batches = ((c.index, b) for c in table.chunks for b in self._snapshot.batches(read, c))
                self._duplicates[table.target] = duplicates(table, batches, self._room)
            return self._duplicates[table.target]
