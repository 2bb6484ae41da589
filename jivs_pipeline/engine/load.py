"""Phase load: tables, then chunks, then everything that is built on the rows.

What belongs here: the order, and which table fails by what. What does not: fencing and the ledger, which
the target does for every chunk and step (`infra/target.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from jivs_pipeline.core.errors import JivsError, RefusedError
from jivs_pipeline.core.plan import Lane, TablePlan
from jivs_pipeline.core.ports import LedgerView, Piece
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.build import apply_step, apply_steps, build
from jivs_pipeline.engine.encode import encode
from jivs_pipeline.engine.objects import make_after, make_before, take_back_for
from jivs_pipeline.engine.order import in_waves, parents_first
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.refused import forget_unproved, learn, refuse_in_turn, taken
from jivs_pipeline.engine.run import ChunkFile, Run, claim
from jivs_pipeline.engine.streaming import StreamedTable

__all__ = ["load", "whole"]

_LOG = logging.getLogger(__name__)


def load(run: Run) -> None:
    """Bring the target to what the plan says; what the ledger already has is not done again."""
    tables = [t for t in run.sound if t.target in run.extracted or t.streamed]
    told = partial(run.checkpoints.retried, "*", Phase.LOAD, None)
    with_retries(partial(claim, run), run.guard, told)
    for schema in sorted({t.target_schema for t in tables if t.large_objects_of is None}):
        with_retries(partial(run.target.ensure_schema, schema), run.guard, told)
    _conclude(run, told)
    ledger = with_retries(partial(run.target.ledger, run.key, run.since), run.guard, told)
    take_back_for(run, [t for t in tables if not t.beside], ledger)
    make_before(run)
    forget_unproved(run, tables, ledger)
    waves = in_waves(tables)
    for wave in reversed(waves[1:]):
        # What was made with a table's row type goes before that table.
        resets = [partial(_attempt, run, t, partial(_reset, run, t, ledger)) for t in wave]
        run_all(resets, run.spec.parallelism, run.guard)
    for wave in waves:
        prepare = [partial(_attempt, run, t, partial(_prepare, run, t, ledger)) for t in wave]
        run_all(prepare, run.spec.parallelism, run.guard)
    _load_chunks(run, [t for t in tables if t.target not in run.loaded], ledger)
    run.let_go()
    merged = _merge(run, _sound(run, tables))
    build(run, tables)
    make_after(run)
    if run.spec.quarantine.max_rows:
        ledger = with_retries(partial(run.target.ledger, run.key, run.since), run.guard, told)
        learn(run, ledger, list(run.extracted))
    run.loaded = {t.target for t in _sound(run, tables) if merged or not t.beside}


def _conclude(run: Run, told: Callable[[int, JivsError, float], None]) -> None:
    """What loads before this one have made stays for good, and what they kept for a rollback goes."""
    while run.since and with_retries(partial(run.target.conclude_next, run.since), run.guard, told):
        run.guard.check()


def whole(run: Run) -> set[str]:
    """The tables that were loaded to the last chunk so far, by what this run has recorded of them."""
    return run.loaded | {t.target for t in run.sound if t.streamed and t.target in run.extracted}


def _sound(run: Run, tables: Sequence[TablePlan]) -> list[TablePlan]:
    return [t for t in tables if t.target not in run.failures]


def _attempt(run: Run, table: TablePlan, job: Callable[[], object], *, chunk: int | None = None) -> None:
    attempt(run, table, Phase.LOAD, job, chunk=chunk)


def _reset(run: Run, table: TablePlan, ledger: LedgerView) -> None:
    """Take away what another extraction has left of a table."""
    if ledger.stale(table.target, run.generation_of(table)):
        if table.beside and ledger.merged:
            raise RefusedError(
                f"Rows of an earlier extraction were already merged into {table.target}",
                hint=f"Take them back first, with: jivs rollback {run.key}",
            )
        run.target.reset(table)


def _prepare(run: Run, table: TablePlan, ledger: LedgerView) -> None:
    _reset(run, table, ledger)
    apply_steps(run, table, run.builder.create(run.key, table))


# Chunks


def _load_chunks(run: Run, tables: Sequence[TablePlan], ledger: LedgerView) -> None:
    tasks: list[Callable[[], None]] = []
    for table in _sound(run, tables):
        if table.target not in run.extracted:
            tasks += StreamedTable(run, table, _attempt).jobs()
            continue
        manifest = run.extracted[table.target]
        there = (
            frozenset[int]()
            if ledger.stale(table.target, manifest.generation)
            else ledger.loaded(table.target, manifest.generation)
        )
        for file in manifest.chunks:
            if file.index in there:
                run.progress.add(table.target, file.rows, file.bytes)
        task = _TableTask(run, table, [f for f in manifest.chunks if f.index not in there])
        tasks += task.jobs()
    run_all(tasks, run.spec.parallelism, run.guard)


class _TableTask:
    """The missing chunks of one table; when the last one is in, the table's load is recorded."""

    def __init__(self, run: Run, table: TablePlan, files: Sequence[ChunkFile]) -> None:
        self._run = run
        self._table = table
        self._files = files
        self._left = len(files)
        self._lock = threading.Lock()
        self._began: float | None = None

    def jobs(self) -> list[Callable[[], None]]:
        """One job per missing chunk; one that only records when none is missing."""
        if not self._files:
            return [self._record]
        return [partial(self._chunk, f) for f in self._files]

    def _chunk(self, file: ChunkFile) -> None:
        self._began = self._began or time.monotonic()
        _attempt(self._run, self._table, partial(self._load, file), chunk=file.index)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._record()

    def _load(self, file: ChunkFile) -> None:
        run, table = self._run, self._table
        manifest = run.extracted[table.target]
        chunk = table.chunks[file.index]
        pieces = run.guard.watched(self._pieces(file))
        run.target.load_chunk(
            table, chunk, manifest.generation, file.rows, file.bytes, file.digest.hex, pieces
        )
        run.progress.add(table.target, file.rows, file.bytes)
        _LOG.debug("Chunk loaded", extra={"rows": file.rows, "bytes": file.bytes})

    def _pieces(self, file: ChunkFile) -> Iterator[Piece]:
        run, table = self._run, self._table
        generation = run.extracted[table.target].generation
        if table.lane is Lane.COPY:
            return run.staging.pieces(run.key, generation, file.name, file.hash)
        run.staging.check(run.key, generation, file.name, file.hash)
        return encode(run.staging.path(run.key, generation, file.name), table.wire)

    def _record(self) -> None:
        run, table = self._run, self._table
        if table.target in run.failures:
            return
        manifest = run.extracted[table.target]
        # What the seconds were spent on: a run that goes on loads only what is missing.
        moved = {"rows": sum(f.rows for f in self._files), "bytes": sum(f.bytes for f in self._files)}
        run.checkpoints.done(
            table.target, Phase.LOAD, manifest.generation, rows=manifest.rows, size=manifest.bytes,
            chunks=len(manifest.chunks), seconds=time.monotonic() - self._began if self._began else 0.0,
            data={"moved": moved},
        )  # fmt: skip


# What is built on the rows


def _merge(run: Run, tables: Sequence[TablePlan]) -> bool:
    """Move side tables into place: all of them or none, because foreign keys among them must always hold."""
    beside = [t for t in tables if t.beside]
    if len(beside) != len([t for t in run.plan.carried if t.beside]):
        return False
    told = partial(run.checkpoints.retried, "*", Phase.LOAD, None)
    ranges = {t.target: run.extracted[t.target].ranges for t in beside}
    for step in run.builder.merge(run.key, parents_first(beside), ranges):
        apply = partial(apply_step, run, step, "")
        retried = partial(with_retries, apply, run.guard, told)
        # Parents first: what refers to a row that is refused goes with it.
        look = partial(refuse_in_turn, run, parents_first(beside))
        run_all([partial(taken, run, retried, look)], 1, run.guard)
    return not any(t.target in run.failures for t in beside)
