"""Where a table that the target has already differs from its source: ranges of the key, found by digests of both ends.

What belongs here: halving a difference until it is small, and reading some ranges as one stream. What does not: staging
them (`extract.py`), and changing the target (`infra/updating.py`).

A range that differs is cut at the target's own keys into sixteen parts of equally many rows, again and again, down to
256. So what is read is what has changed, and for each place that has, at most 256 rows around it; rows that the source has
added beyond the target's last key are in one range, and all of them are needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.plan import Chunk, Range, TableMode, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows, Snapshot
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.ports import Target
from jivs_pipeline.engine.watermark import told_by_watermark

__all__ = ["Comparison", "joined_copies", "part_of", "updates"]

_PARTS = 16
_FEW_ROWS = 256

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


def updates(tables: Iterable[TablePlan]) -> bool:
    """Whether any of them is compared with what the target has."""
    return any(t.mode is TableMode.UPDATE for t in tables)


class Comparison:
    """One table at both ends. Its chunks may be asked for by several threads.

    Args:
        snapshot: the source, as the table's rules make it.
        sift: gives a chunk of the plan without its bad rows.
    """

    def __init__(
        self,
        table: TablePlan,
        snapshot: Snapshot,
        target: Target,
        guard: Guard,
        sift: Callable[[Chunk], Chunk] = lambda chunk: chunk,
    ) -> None:
        self._table = table
        self._snapshot = snapshot
        self._target = target
        self._guard = guard
        self._sift = sift
        self._lock = threading.Lock()
        self._highest: tuple[str | None] | None = None
        self._all: tuple[Sequence[Digest], bool] | None = None

    def differing(self, chunk: Chunk) -> tuple[Digest, tuple[Range, ...]]:
        """The source's digest of a chunk, and where in it the target may differ: nowhere when that is the target's, too.

        Where no key tells chunks apart in the target, all rows of a table differ or none.
        """
        if self._table.chunk_key is None:
            digests, same = self._whole()
            return digests[chunk.index], () if same else ((None, None),)
        within = _range(chunk)
        there = self._snapshot.digest(self._table, chunk)
        (here,) = self._target.digests_within(self._table, within, ())
        if there == here:
            return there, ()
        rules = self._table.rules
        if rules is not None and (rules.dedupe or rules.python):
            return there, (within,)  # what becomes of a row depends on others
        return there, tuple(_connected(self._found(chunk, within, there, here)))

    def _found(self, chunk: Chunk, within: Range, there: Digest, here: Digest) -> Iterator[Range]:
        """Small ranges that differ, in order: first where the watermark says that rows are new, and elsewhere only if the
        digests say that there is more.
        """
        fresh = told_by_watermark(self._table, self._snapshot, self._since(), chunk)
        if not fresh:
            yield from self._narrowed(chunk, within, here.rows)
            return
        edges = sorted({edge for one in fresh for edge in one if edge is not None} - {*within})
        parts = list(pairwise([within[0], *edges, within[1]]))
        digests = dict(zip(parts, self._target.digests_within(self._table, within, edges), strict=True))
        known = {p: self._snapshot.digest(self._table, part_of(chunk, p)) for p in parts if p in fresh}
        rest = there - sum(known.values(), Digest())
        honest = rest == sum((d for p, d in digests.items() if p not in known), Digest())
        for part in parts:
            if part in known:
                if known[part] != digests[part]:
                    yield part
            elif not honest and self._snapshot.digest(self._table, part_of(chunk, part)) != digests[part]:
                yield from self._narrowed(chunk, part, digests[part].rows)

    def _since(self) -> str | None:
        """The highest watermark that the target has, asked for once."""
        with self._lock:
            if self._highest is None and self._table.watermark_column is not None:
                self._highest = (self._target.highest(self._table, self._table.watermark_column),)
        return self._highest[0] if self._highest else None

    def _whole(self) -> tuple[Sequence[Digest], bool]:
        with self._lock:
            if self._all is None:
                digests = [self._snapshot.digest(self._table, self._sift(c)) for c in self._table.chunks]
                (here,) = self._target.digests_within(self._table, (None, None), ())
                self._all = digests, sum(digests, Digest()) == here
            return self._all

    def _narrowed(self, chunk: Chunk, within: Range, rows: int) -> Iterator[Range]:
        """Small ranges that differ, in order."""
        self._guard.check()
        step = max(-(-rows // _PARTS), _FEW_ROWS)
        cuts = self._target.cuts(self._table, within, step) if rows > _FEW_ROWS else ()
        if not cuts:
            yield within
            return
        parts = list(pairwise([within[0], *cuts, within[1]]))
        here = self._target.digests_within(self._table, within, cuts)
        there = (self._snapshot.digest(self._table, part_of(chunk, part)) for part in parts)
        differing = [(p, h.rows) for p, h, t in zip(parts, here, there, strict=True) if h != t]
        known: dict[Range, list[Range]] = {}
        if len(differing) == len(parts):
            # Where one part differs all over, cutting up the others would take longer than reading them.
            probe, some = differing[len(parts) // 2]
            known[probe] = list(_connected(self._narrowed(chunk, probe, some)))
            if known[probe] == [probe]:
                yield within
                return
        for part, some in differing:
            yield from known.get(part) or self._narrowed(chunk, part, some)


def part_of(chunk: Chunk, within: Range) -> Chunk:
    """The rows of a range. One without an end is the chunk itself where nothing tells its rows apart."""
    lower, upper = within
    if lower is None and upper is None:
        return chunk
    bounds = {
        "lower": None if lower is None else (str(lower),),
        "upper": None if upper is None else (str(upper),),
    }
    return chunk.model_copy(update=bounds)  # without the bad rows, if the chunk is


def _range(chunk: Chunk) -> Range:
    return (
        None if chunk.lower is None else int(chunk.lower[0]),
        None if chunk.upper is None else int(chunk.upper[0]),
    )


def _connected(ranges: Iterable[Range]) -> Iterator[Range]:
    """Neighbours as one range: it is read by one query."""
    before: Range | None = None
    for one in ranges:
        if before is not None and before[1] == one[0]:
            before = before[0], one[1]
            continue
        if before is not None:
            yield before
        before = one
    if before is not None:
        yield before


def joined_copies(wire: Wire, streams: Iterable[Iterator[CopiedRows]]) -> Iterator[CopiedRows]:
    """Several streams of COPY as one; of none, a stream without rows."""
    if wire is not Wire.BINARY:
        for stream in streams:
            yield from stream
        return
    yield CopiedRows(_HEADER, 0)
    for stream in streams:
        yield from _bare(stream)
    yield CopiedRows(_TRAILER, 0)


def _bare(stream: Iterator[CopiedRows]) -> Iterator[CopiedRows]:
    """A binary stream without its header and trailer."""
    held: CopiedRows | None = None
    for piece in stream:
        if held is None:
            if bytes(piece.data[: len(_HEADER)]) != _HEADER:
                raise DataError("A COPY stream has an unknown header", hint="This is a bug; please report it")
            held = CopiedRows(piece.data[len(_HEADER) :], piece.rows)
            continue
        if len(piece.data) < len(_TRAILER):
            held = CopiedRows(bytes(held.data) + bytes(piece.data), held.rows + piece.rows)
            continue
        yield held
        held = piece
    if held is None or bytes(held.data[-len(_TRAILER) :]) != _TRAILER:
        raise DataError("A COPY stream has no end", hint="This is a bug; please report it")
    yield CopiedRows(held.data[: -len(_TRAILER)], held.rows)
