"""Phase extract: every chunk of one consistent snapshot into the staging area, with the source's digests.

What belongs here: the order of chunks, staging, the manifest. What does not: how a source reads.

A manifest is recorded per table once all its chunks are on disk. Only when every table has one may
anything be loaded, so a crash in here makes the next run begin a new snapshot and use nothing of this.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial

import pyarrow as pa
from structlog.contextvars import bound_contextvars

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import (
    ConflictError,
    JivsError,
    ResourceError,
    SnapshotLost,
    TerminalError,
)
from jivs_pipeline.core.plan import Chunk, Lane, TablePlan
from jivs_pipeline.core.ports import Sieve, Snapshot, Standing
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.arrow_types import arrow_schema
from jivs_pipeline.engine.pool import STOPS, run_all, with_retries
from jivs_pipeline.engine.ports import Sink
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run
from jivs_pipeline.engine.sifting import Sifting

__all__ = ["extract"]

_LOG = logging.getLogger(__name__)


def extract(run: Run) -> None:
    """Stage all tables that have no manifest yet.

    Raises:
        SnapshotLost: everything that this extraction staged is void; it may be begun anew.
    """
    tables = [t for t in run.sound if t.target not in run.extracted]
    if not tables:
        return
    # Nothing of an extraction that is not used any more stays on disk.
    run.staging.discard(
        run.key, run.epoch, keep={run.generation, *(m.generation for m in run.extracted.values())}
    )
    run.staging.prepare(run.key, run.generation)
    _check_room(run, sum(t.bytes for t in tables))
    readers = min(run.spec.parallelism, run.spec.limits.source_connections)
    told = partial(run.checkpoints.retried, "*", Phase.EXTRACT, None)
    with ExitStack() as opened:
        snapshot = with_retries(
            lambda: opened.enter_context(run.source.snapshot(readers, run.pace.portion)), run.guard, told
        )
        sequences = with_retries(partial(_sequences, run, snapshot), run.guard, told, but=(SnapshotLost,))
        if run.spec.quarantine.max_rows and isinstance(snapshot, Sieve):
            # Of all of them: a row may be missed by one of a table that is already staged.
            snapshot.relate([t.as_read for t in run.plan.carried])
        tasks = {t.target: _TableTask(run, t, snapshot, sequences) for t in tables}
        jobs = [partial(tasks[t.target].chunk, c) for t in tables for c in t.chunks]
        run_all(jobs, readers, run.guard)
        run.pace.settle()


def _sequences(run: Run, snapshot: Snapshot) -> Mapping[str, tuple[int, bool]]:
    """Where those stand that are no column's own; after the snapshot was taken, so beyond every number in its rows."""
    names = [name for one in run.plan.objects for name in one.sequences]
    if not names or not isinstance(snapshot, Standing):
        return {}
    return snapshot.sequences(run.plan.tables[0].source_schema, names)


def _check_room(run: Run, needed: int) -> None:
    # At the beginning, and before each chunk: others fill disks, too, and estimates are wrong.
    if needed > (free := run.staging.free_bytes()):
        raise ResourceError(
            f"The staging area has {free >> 20:,} MiB free and about {-(-needed >> 20):,} MiB are needed",
            hint="Free space there or set JIVS_STAGING_URL, then run again",
        )


class _TableTask:
    """The chunks of one table on their way to disk; the last one to arrive records the manifest."""

    def __init__(
        self, run: Run, table: TablePlan, snapshot: Snapshot, sequences: Mapping[str, tuple[int, bool]]
    ) -> None:
        self._run = run
        self._table = table
        self._read = table.as_read
        self._snapshot = snapshot
        self._sequences = sequences
        self._files: dict[int, ChunkFile] = {}
        self._sifting = Sifting(run, self._read, snapshot)
        self._lock = threading.Lock()
        self._began: float | None = None

    def chunk(self, chunk: Chunk) -> None:
        """Stage one chunk; a terminal error fails the table, not the run."""
        run, table = self._run, self._table
        if table.target in run.failures:
            return
        self._began = self._began or time.monotonic()
        told = partial(run.checkpoints.retried, table.target, Phase.EXTRACT, chunk.index)
        try:
            with bound_contextvars(table=table.target, chunk=chunk.index):
                with_retries(partial(self._stage, chunk), run.guard, told, but=(SnapshotLost,))
            if len(self._files) == len(table.chunks):
                with_retries(self._record, run.guard, told, but=(SnapshotLost,))
        except (ConflictError, ResourceError, *STOPS):
            raise
        except JivsError as error:
            run.guard.check_inside()
            if error.transient:
                raise
            run.fail(table, Phase.EXTRACT, error)

    def _stage(self, chunk: Chunk) -> None:
        run, table = self._run, self._table
        name = run.file_name(table, chunk)
        _check_room(run, max(1, table.bytes // len(table.chunks)))
        # Bad rows first: whoever kills the run now finds them in quarantine and the chunk not staged, and reads it anew.
        chunk, rejected = self._sifting.sift(chunk)
        with run.staging.writing(run.key, run.generation, name) as sink:
            rows = self._write(chunk, sink)
            size, file_hash = sink.bytes, sink.digest
        digest = self._digest(chunk)
        if rows != digest.rows:
            raise TerminalError(
                f"Two reads of chunk {chunk.index} of {table.source} gave {rows} and {digest.rows} rows",
                hint="The source changed under its snapshot; run again",
                table=table.target,
            )
        with self._lock:
            self._files[chunk.index] = ChunkFile(
                chunk.index, name, digest.rows, size, file_hash, digest, rejected
            )
        _LOG.debug("Chunk staged", extra={"rows": rows, "bytes": size})

    def _digest(self, chunk: Chunk) -> Digest:
        if self._run.spec.verify == "count":
            return Digest(self._snapshot.count(self._read, chunk))
        return self._snapshot.digest(self._read, chunk)

    def _write(self, chunk: Chunk, sink: Sink) -> int:
        """Rows written."""
        run, table = self._run, self._table
        rows = size = 0
        try:
            for more_rows, more in self._staged(chunk, sink):
                rows, size = rows + more_rows, size + more
                run.progress.add(table.target, more_rows, more)
                run.pace.took(more_rows, more)
        except BaseException:
            # Whoever tries again counts again.
            run.progress.add(table.target, -rows, -size)
            raise
        return rows

    def _staged(self, chunk: Chunk, sink: Sink) -> Iterator[tuple[int, int]]:
        """Write the chunk, and say of each piece how many rows and bytes it was."""
        table, guard = self._read, self._run.guard
        if table.lane is Lane.COPY:
            for piece in guard.watched(self._snapshot.copy(table, chunk)):
                sink.write(piece.data)
                yield piece.rows, len(piece.data)
            return
        with pa.ipc.new_file(sink, arrow_schema(table.columns)) as writer:
            for batch in guard.watched(self._snapshot.batches(table, chunk)):
                writer.write_batch(batch)
                yield batch.num_rows, batch.nbytes

    def _record(self) -> None:
        run, table = self._run, self._table
        with self._lock:
            if table.target in run.extracted:
                return
            files = tuple(self._files[c.index] for c in table.chunks)
            manifest = Extracted(
                run.generation, files, self._snapshot.next_values(table), self._snapshot.consistency,
                sequences=self._sequences,
            )  # fmt: skip
            run.extracted[table.target] = manifest
        run.checkpoints.done(
            table.target, Phase.EXTRACT, run.generation, rows=manifest.rows, size=manifest.bytes,
            chunks=len(files), seconds=time.monotonic() - (self._began or 0), data=manifest.stored(),
        )  # fmt: skip
