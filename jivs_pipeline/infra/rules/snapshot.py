"""A source as the rules make it: what should be in the target, told from the source as it is now.

What belongs here: digests, hashes and counts of refined rows, for comparing again. What does not: comparing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.ports import CopiedRows, HashedRow, Refined, Sieve, Snapshot
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow
from jivs_pipeline.infra.rules.again import Keys, judged, key_of, refined_again
from jivs_pipeline.infra.rules.duplicates import duplicates
from jivs_pipeline.infra.rules.in_turn import InTurn
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
        sifts: rows that are bad in their source are left out where the caller has not done so (`Sifted`).
        kept: keys of rows in quarantine, by target table: they are left out, whatever the rules say of them now.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        refiner: Callable[[TablePlan, Sequence[Iterable[pa.RecordBatch]]], Refiner],
        tables: Sequence[TablePlan],
        room: Path,
        *,
        sifts: bool = False,
        kept: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._tables = {t.target: t for t in tables}
        self._refiner = refiner
        self._room = room
        self._sifts = sifts
        self._kept = kept or {}
        self._bad: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
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
        for refined, left_out in self._sorted(table, chunk):
            total += refined.digest
            with self._lock:
                self._bad[table.target] += len(refined.bad)
                self._left_out[table.target] += left_out
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

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The rows of a chunk that the rules could not be applied to."""
        return (row for refined in self.refined(table, chunk) for row in refined.bad)

    def left_out(self, table: TablePlan) -> int:
        """Rows that are in quarantine, in the chunks that were digested so far; `bad` are others, then."""
        with self._lock:
            return self._left_out[table.target]

    def keyed(self, table: TablePlan) -> bool:
        """Whether rows in quarantine can be known again by their keys."""
        return bool(key_of(table))

    def again(self, table: TablePlan, rows: Sequence[KeptRow], *, apart: bool = False) -> Again:
        """See `again.refined_again`."""
        return refined_again(self.refined, table, rows, apart=apart)

    def judged(self, table: TablePlan, again: Again) -> Again:
        """Rows that are good in their source by now, one by one, as the rules make them."""
        if table.rules is None:
            return again
        with self._in_turn(table) as in_turn:
            return judged(in_turn.refine, table, again)

    def _all_of(self, table: TablePlan) -> TablePlan:
        """The table with all its columns: to the rules a row is bad by any of them, whichever are compared."""
        with self._lock:
            known = self._whole.get(table.target)
            if known is None or len(known.columns) < len(table.columns):
                self._whole[table.target] = known = table
            return known

    def refined(self, table: TablePlan, chunk: Chunk) -> Iterator[Refined]:
        """Batches of a chunk as its rules make them."""
        return (refined for refined, _ in self._sorted(table, chunk))

    def _sorted(self, table: TablePlan, chunk: Chunk) -> Iterator[tuple[Refined, int]]:
        """Refined batches without the rows that are in quarantine, and how many those were."""
        whole = self._all_of(table)
        kept = Keys(whole, self._kept.get(table.target, ()))
        dropped, start = sorted(self._dropped(whole).get(chunk.index, ())), 0
        read = whole.as_read
        with self._in_turn(whole) as in_turn:
            for batch in self._snapshot.batches(read, self._sift(read, chunk)):
                end = start + batch.num_rows
                yield kept.without(
                    in_turn.refine(batch, frozenset(n - start for n in dropped if start <= n < end))
                )
                start = end

    def _in_turn(self, table: TablePlan) -> InTurn:
        def made(one: TablePlan) -> Refiner:
            others = [self._tables[asked.table] for asked in one.rules.lookups] if one.rules else []
            return self._refiner(one, [self._rows(other) for other in others])

        return InTurn([partial(made, one) for one in (table, *table.by_later)])

    def _sift(self, read: TablePlan, chunk: Chunk) -> Chunk:
        """The chunk without rows that are bad in their source."""
        if not self._sifts or isinstance(chunk, Sifted) or not isinstance(self._snapshot, Sieve):
            return chunk
        bad = tuple(row.position for row in self._snapshot.bad_rows(read, chunk))
        return Sifted(**chunk.model_dump(), without=bad) if bad else chunk

    def _rows(self, table: TablePlan) -> Iterator[pa.RecordBatch]:
        for chunk in table.chunks:
            yield from self.unruled(table, chunk)

    def unruled(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """Rows as they are read, in texts, under the source's names."""
        read = table.as_texts
        for batch in self._snapshot.batches(read, self._sift(read, chunk)):
            yield batch.rename_columns([c.source for c in read.columns])

    def _dropped(self, table: TablePlan) -> Mapping[int, Collection[int]]:
        if table.rules is None or table.rules.dedupe is None:
            return {}
        with self._lock:
            if table.target not in self._duplicates:
                read = table.as_read
                chunks = (self._sift(read, c) for c in table.chunks)
                batches = ((c.index, b) for c in chunks for b in self._snapshot.batches(read, c))
                self._duplicates[table.target] = duplicates(table, batches, self._room)
            return self._duplicates[table.target]
