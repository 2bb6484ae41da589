"""Tables that are not staged (`staging: none`): each chunk goes from the source's snapshot into the target as it is read.

What belongs here: one table's chunks on that way, and what the plan says of it. What does not: the snapshot, which the
extraction opens and the run holds (`extract.py`, `run.py`), and exactly once, which is the target's as for any chunk.

What is given up: the target is written before the last row was read; and a run that goes on after a crash cannot have the
snapshot back, so that only tables that were loaded as a whole are kept, and the others are read anew from a later one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Protocol

from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.core.plan import Chunk, PlanWarning, TablePlan
from jivs_pipeline.core.ports import Piece, Snapshot
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.extract import source_digest
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run

__all__ = ["StreamedTable", "unstaged"]

_LOG = logging.getLogger(__name__)
_GIVEN_UP = (
    "staging: none: the rows are copied without staging; the target is written before all of them were read, and a run that"
    " goes on after a crash keeps the tables that are loaded and reads the others from a later snapshot"
)
_ALL_THE_SAME = "staging: none: it is staged all the same, because only rows of the copy lane can do without"


def unstaged(spec: Spec, tables: Sequence[TablePlan]) -> list[PlanWarning]:
    """What a spec without staging gives up, and the tables that are staged nevertheless."""
    if spec.staging != "none":
        return []
    carried = [t for t in tables if t.refused is None]
    given_up = (
        [PlanWarning(table="*", kind="lossy", reason=_GIVEN_UP)] if any(t.streamed for t in carried) else []
    )
    staged = [t for t in carried if not t.streamed]
    return given_up + [PlanWarning(table=t.source, kind="lossy", reason=_ALL_THE_SAME) for t in staged]


class Attempt(Protocol):
    """Runs a job of one table; see `load.py`."""

    def __call__(
        self, run: Run, table: TablePlan, job: Callable[[], object], *, chunk: int | None = None
    ) -> None: ...


class StreamedTable:
    """The chunks of one table; the last one to arrive records the manifest and the load."""

    def __init__(self, run: Run, table: TablePlan, attempt: Attempt) -> None:
        self._run = run
        self._table = table
        self._attempt = attempt
        self._chunks: dict[int, ChunkFile] = {}
        self._lock = threading.Lock()
        self._began: float | None = None

    def jobs(self) -> list[Callable[[], None]]:
        """One job per chunk."""
        return [partial(self._chunk, chunk) for chunk in self._table.chunks]

    def _chunk(self, chunk: Chunk) -> None:
        self._began = self._began or time.monotonic()
        self._attempt(self._run, self._table, partial(self._load, chunk, [0]), chunk=chunk.index)
        with self._lock:
            last = len(self._chunks) == len(self._table.chunks)
        if last:
            self._attempt(self._run, self._table, self._record)

    def _load(self, chunk: Chunk, sent: list[int]) -> None:
        run, table, snapshot = self._run, self._table, self._snapshot()
        # Before the target is asked for anything: it says how many rows must arrive, and nobody waits for locks meanwhile.
        digest = source_digest(run, snapshot, table, chunk)
        # Closed here and not some time later: a reader that stands still in a COPY is one that others wait for.
        with closing(self._pieces(snapshot, chunk, sent)) as pieces:
            run.target.load_chunk(table, chunk, run.generation, digest.rows, None, digest.hex, pieces)
        with self._lock:
            self._chunks[chunk.index] = ChunkFile(chunk.index, "", digest.rows, sent[0], "", digest)
        run.progress.add(table.target, digest.rows, sent[0])
        _LOG.debug("Chunk streamed", extra={"rows": digest.rows, "bytes": sent[0]})

    def _pieces(self, snapshot: Snapshot, chunk: Chunk, sent: list[int]) -> Generator[Piece]:
        """The chunk's bytes. `sent` outlives an attempt: one whose commit was not answered sends nothing again."""
        run, sent[0] = self._run, 0
        for piece in run.guard.watched(snapshot.copy(self._table, chunk)):
            sent[0] += len(piece.data)
            run.pace.took(piece.rows, len(piece.data))
            yield piece.data

    def _snapshot(self) -> Snapshot:
        if (snapshot := self._run.snapshot) is None:
            raise TerminalError(
                f"There is no snapshot to read {self._table.source} from",
                hint="Run the migration again from its start",
            )
        return snapshot

    def _record(self) -> None:
        run, table = self._run, self._table
        if table.target in run.extracted:
            return
        snapshot = self._snapshot()
        chunks = tuple(self._chunks[c.index] for c in table.chunks)
        numbers = snapshot.next_values(table)
        manifest = Extracted(run.generation, chunks, numbers, snapshot.consistency, sequences=run.sequences)
        counted = {"rows": manifest.rows, "size": manifest.bytes, "chunks": len(chunks)}
        seconds = time.monotonic() - (self._began or 0)
        moved = {"rows": manifest.rows, "bytes": manifest.bytes}
        run.checkpoints.done(
            table.target, Phase.EXTRACT, run.generation, **counted, seconds=0.0, data=manifest.stored()
        )
        run.checkpoints.done(
            table.target, Phase.LOAD, run.generation, **counted, seconds=seconds, data={"moved": moved}
        )
        run.extracted[table.target] = manifest
