"""Phase extract: every chunk of one consistent snapshot into the staging area, with the source's digests.

What belongs here: the order of chunks, staging, the manifest. What does not: how a source reads.

A manifest is recorded per table once all its chunks are on disk. Only when every table has one, but for those that are
streamed (`streaming.py`), may anything be loaded, so a crash in here makes the next run begin a new snapshot and use
nothing of this.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import (
    DataError,
    ResourceError,
    SnapshotLost,
    TerminalError,
)
from jivs_pipeline.core.plan import Chunk, Lane, TableMode, TablePlan
from jivs_pipeline.core.ports import Measuring, Sieve, Snapshot, Standing
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.arrow_types import arrow_schema
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.incremental import Comparison, joined_copies, part_of, updates
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.ports import RefinedSnapshot, Sink
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run, claim
from jivs_pipeline.engine.sifting import Sifting
from jivs_pipeline.engine.staged_again import stage_again

__all__ = ["extract", "source_digest"]

_LOG = logging.getLogger(__name__)
_WIDE, _WIDE_ON_AVERAGE = 32 << 20, 256 << 10
"""Bytes of a row from which on one worker at a time reads such; the average is asked where a source cannot tell."""


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
    if staged := [t for t in tables if not t.streamed]:
        run.staging.prepare(run.key, run.generation)
        _check_room(run, sum(map(_needed, staged)))
    streaming = len(staged) < len(tables)
    workers = min(run.spec.parallelism, run.spec.limits.source_connections)
    # Where chunks are streamed, a target that stumbles costs each reader its session: one more keeps the snapshot alive.
    readers = min(workers + streaming, run.spec.limits.source_connections)
    told = partial(run.checkpoints.retried, "*", Phase.EXTRACT, None)
    if updates(tables):
        # Whatever is compared must not be changed any more by a run that was overtaken.
        with_retries(partial(claim, run), run.guard, told)
    with ExitStack() as opened:
        snapshot = with_retries(
            lambda: opened.enter_context(run.source.snapshot(readers, run.pace.portion)), run.guard, told
        )
        sequences = with_retries(partial(_sequences, run, snapshot), run.guard, told, but=(SnapshotLost,))
        if run.spec.quarantine.max_rows and isinstance(snapshot, Sieve):
            # Of all of them: a row may be missed by one of a table that is already staged.
            snapshot.relate([t.as_read for t in run.plan.carried])
        alone = threading.Lock()
        tasks = {t.target: _TableTask(run, t, snapshot, sequences, alone) for t in staged}
        jobs = [job for t in staged for c in t.chunks for job in tasks[t.target].jobs(c)]
        # First: whose manifest is there can count on the rows of others that it needs.
        run_all(stage_again(run, snapshot, staged), workers, run.guard)
        run_all(jobs, workers, run.guard)
        run.pace.settle()
        if streaming:
            run.hold(snapshot, sequences, opened.pop_all())


def source_digest(run: Run, snapshot: Snapshot, table: TablePlan, chunk: Chunk) -> Digest:
    """What the source says of the chunk's rows, as far as the spec wants it verified."""
    if run.spec.verify == "count":
        return Digest(snapshot.count(table, chunk))
    return snapshot.digest(table, chunk)


def _sequences(run: Run, snapshot: Snapshot) -> Mapping[str, tuple[int, bool]]:
    """Where those stand that are no column's own; after the snapshot was taken, so beyond every number in its rows."""
    names = [name for one in run.plan.objects for name in one.sequences]
    if not names or not isinstance(snapshot, Standing):
        return {}
    tables = (t for t in run.plan.tables if t.large_objects_of is None)
    return snapshot.sequences(next(tables).source_schema, names)


def _needed(table: TablePlan) -> int:
    """Bytes that a table may take in staging; of one that is compared, nobody knows how many rows differ."""
    return 0 if table.mode is TableMode.UPDATE else table.bytes


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
        self,
        run: Run,
        table: TablePlan,
        snapshot: Snapshot,
        sequences: Mapping[str, tuple[int, bool]],
        alone: threading.Lock,
    ) -> None:
        self._run = run
        self._table = table
        self._sequences = sequences
        self._alone = alone
        self._read, self._snapshot = table.as_read, snapshot
        self._tolerant = run.spec.quarantine.max_rows > 0
        self._refined: RefinedSnapshot | None = None
        self._comparison: Comparison | None = None
        if table.mode is TableMode.UPDATE:
            if table.rules is not None:
                room = run.staging.path(run.key, run.generation, ".")
                self._refined = run.rules.refined(snapshot, run.plan.tables, room, sifts=self._tolerant)
                self._read, self._snapshot = table, self._refined
            self._comparison = Comparison(
                self._read, self._snapshot, run.target, run.guard, lambda c: self._sift(c)[0]
            )
        self._files: dict[int, ChunkFile] = {}
        self._halves: dict[int, ChunkFile | Digest] = {}
        self._sifting = Sifting(run, table.as_read, snapshot)
        self._sifted: dict[int, tuple[Chunk, int]] = {}
        self._sift_lock = threading.Lock()
        self._lock = threading.Lock()
        self._began: float | None = None

    def jobs(self, chunk: Chunk) -> Sequence[Callable[[], None]]:
        """What is to be done for a chunk; a terminal error fails the table, not the run.

        The two reads of a chunk are jobs apart, so that a table of few chunks keeps all workers busy. But for rows that are
        sifted or compared: which they are is known when they have been read.
        """
        apart = self._comparison is None and not self._tolerant
        reads = (self._stage, self._digest) if apart else (self._stage_and_digest,)
        return [partial(self._job, read, chunk) for read in reads]

    def _job(self, read: Callable[[Chunk], None], chunk: Chunk) -> None:
        run, table = self._run, self._table
        if table.target in run.failures:
            return
        self._began = self._began or time.monotonic()
        attempt(run, table, Phase.EXTRACT, partial(self._carefully, read, chunk), chunk=chunk.index)
        if len(self._files) == len(table.chunks):
            attempt(run, table, Phase.EXTRACT, self._record, chunk=chunk.index)

    def _carefully(self, read: Callable[[Chunk], None], chunk: Chunk) -> None:
        """Read a chunk; a row of 100 MB is several times in memory on its way, so no other is read beside it."""
        with self._alone if self._is_wide(chunk) else nullcontext():
            read(chunk)

    def _is_wide(self, chunk: Chunk) -> bool:
        table = self._read
        if table.lane is Lane.COPY:
            return False  # held once, and not as a whole where it is digested
        if isinstance(self._snapshot, Measuring):
            return self._snapshot.widest(table, chunk) >= _WIDE
        return table.bytes >= _WIDE_ON_AVERAGE * max(table.rows, 1)

    def _stage(self, chunk: Chunk) -> None:
        self._meet(chunk, self._file(chunk, [chunk]))

    def _digest(self, chunk: Chunk) -> None:
        self._meet(chunk, source_digest(self._run, self._snapshot, self._read, chunk))

    def _meet(self, chunk: Chunk, half: ChunkFile | Digest) -> None:
        """Whoever comes second has both reads of the chunk."""
        with self._lock:
            other = self._halves.setdefault(chunk.index, half)
        if isinstance(half, ChunkFile) and isinstance(other, Digest):
            self._keep(replace(half, digest=other))
        elif isinstance(half, Digest) and isinstance(other, ChunkFile):
            self._keep(replace(other, digest=half))

    def _stage_and_digest(self, chunk: Chunk) -> None:
        run, table = self._run, self._table
        # Bad rows first: whoever kills the run now finds them in quarantine and the chunk not staged, and reads it anew.
        chunk, rejected = self._sift(chunk)
        if self._refined is not None and self._tolerant:
            rejected += self._sifting.reject(chunk, self._refined.bad_rows(table, chunk))
        whole, ranges, parts = None, (), [chunk]
        if self._comparison is not None:
            whole, ranges = self._comparison.differing(chunk)
            whole = Digest(whole.rows) if run.spec.verify == "count" else whole
            parts = [part_of(chunk, within) for within in ranges]
        if self._refined is not None and not self._tolerant and (bad := self._refined.bad(table)):
            raise DataError(
                f"{table.source} has {bad:,} rows that its rules cannot be applied to",
                hint="Correct the rules or the source, or give bad rows a budget with quarantine.max_rows",
                table=table.source,
            )
        file = self._file(chunk, parts)
        digest = sum((source_digest(run, self._snapshot, self._read, part) for part in parts), Digest())
        self._keep(replace(file, digest=digest, rejected=rejected, ranges=ranges), whole)

    def _file(self, chunk: Chunk, parts: Sequence[Chunk]) -> ChunkFile:
        """Write a chunk, or the parts of it that differ; without their digest."""
        run, table = self._run, self._table
        name = run.file_name(table, chunk, refined=self._read.rules is not None)
        _check_room(run, max(1, _needed(table) // len(table.chunks)))
        with run.staging.writing(run.key, run.generation, name) as sink:
            rows = self._write(parts, sink)
            size, file_hash = sink.bytes, sink.digest
        return ChunkFile(chunk.index, name, rows, size, file_hash, Digest())

    def _keep(self, file: ChunkFile, whole: Digest | None = None) -> None:
        """Both reads of a chunk; `whole` is the digest of all its rows, where only parts of it were read."""
        if file.rows != file.digest.rows:
            raise TerminalError(
                f"Two reads of chunk {file.index} of {self._table.source} gave {file.rows} and {file.digest.rows} rows",
                hint="The source changed under its snapshot; run again",
                table=self._table.target,
            )
        with self._lock:
            self._files[file.index] = replace(file, digest=whole or file.digest)
        _LOG.debug("Chunk staged", extra={"rows": file.rows, "bytes": file.bytes})

    def _sift(self, chunk: Chunk) -> tuple[Chunk, int]:
        """The chunk without its bad rows, and how many they are; once, where tables are compared as a whole."""
        if self._comparison is None:
            return self._sifting.sift(chunk)
        with self._sift_lock:
            if chunk.index not in self._sifted:
                self._sifted[chunk.index] = self._sifting.sift(chunk)
            return self._sifted[chunk.index]

    def _write(self, parts: Sequence[Chunk], sink: Sink) -> int:
        """Rows written."""
        run, table = self._run, self._table
        rows = size = 0
        try:
            for more_rows, more in self._staged(parts, sink):
                rows, size = rows + more_rows, size + more
                run.progress.add(table.target, more_rows, more)
                run.pace.took(more_rows, more)
        except BaseException:
            # Whoever tries again counts again.
            run.progress.add(table.target, -rows, -size)
            raise
        return rows

    def _staged(self, parts: Sequence[Chunk], sink: Sink) -> Iterator[tuple[int, int]]:
        """Write the chunk, or the parts of it that differ, and say of each piece how many rows and bytes it was."""
        table, guard = self._read, self._run.guard
        if table.lane is Lane.COPY:
            streams = (self._snapshot.copy(table, part) for part in parts)
            copied = next(streams) if self._comparison is None else joined_copies(table.wire, streams)
            for piece in guard.watched(copied):
                sink.write(piece.data)
                yield piece.rows, len(piece.data)
            return
        ruled = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        schema = arrow_schema(table.columns) if table.rules is None else ruled
        with pa.ipc.new_file(sink, schema) as writer:
            for batch in guard.watched(b for part in parts for b in self._snapshot.batches(table, part)):
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
                refined=None if self._read.rules is None else {},
            )  # fmt: skip
            run.extracted[table.target] = manifest
        run.checkpoints.done(
            table.target, Phase.EXTRACT, run.generation, rows=manifest.rows, size=manifest.bytes,
            chunks=len(files), seconds=time.monotonic() - (self._began or 0), data=manifest.stored(),
        )  # fmt: skip
