"""Phase transform: the rules of the spec on what is staged, chunk by chunk, before the target is touched.

What belongs here: files, the budget of bad rows, and the manifest of what the rules have made. What does not: the rules
(`infra/rules/`). Renames, drops and filters need no rows: they are done while reading.

What should be in the target is digested here, from the rows that the rules have made and apart from how they are
loaded. That the rows they were made from are the source's is seen before: their digest must be the source's own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Self

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.plan import Rules, TablePlan
from jivs_pipeline.core.ports import Refined
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.pool import run_all
from jivs_pipeline.engine.ports import Refiner
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run
from jivs_pipeline.engine.sifting import check_budget
from jivs_pipeline.engine.staged_again import forget_read, rows_again

__all__ = ["transform"]


def transform(run: Run) -> None:
    """Apply the rules to all tables that have some and are still as they were read."""
    ruled = [t for t in run.sound if t.rules is not None and t.target in run.extracted]
    todo = [t for t in ruled if run.extracted[t.target].refined is None]
    with ExitStack() as opened:
        tasks = [opened.enter_context(_TableTask(run, t, t.rules)) for t in todo if t.rules is not None]
        run_all([task.find_duplicates for task in tasks], run.spec.parallelism, run.guard)
        jobs = [partial(task.chunk, file) for task in tasks for file in task.files]
        run_all(jobs, run.spec.parallelism, run.guard)
    # Rows as they were, also those that are masked by now, stay on disk no longer than they are needed.
    for table in ruled:
        if table.target not in run.failures and table.target not in run.loaded:
            generation = run.extracted[table.target].generation
            for chunk in table.chunks:
                run.staging.remove(run.key, generation, run.file_name(table, chunk))
    forget_read(run, {run.extracted[t.target].generation for t in todo})


class _TableTask:
    """One table's chunks on their way through the rules; the last one to arrive records the manifest."""

    def __init__(self, run: Run, table: TablePlan, rules: Rules) -> None:
        self._run = run
        self._table = table
        self._rules = rules
        self._manifest = run.extracted[table.target]
        self._done: dict[int, ChunkFile] = {}
        self._changed: Counter[str] = Counter()
        self._bad: dict[int, int] = {}
        self._duplicates: Mapping[int, Collection[int]] = {}
        self._idle: list[Refiner] = []
        self._open = ExitStack()
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def files(self) -> tuple[ChunkFile, ...]:
        """The chunks as they were read."""
        return self._manifest.chunks

    def find_duplicates(self) -> None:
        """Which rows are dropped because others are alike. A table's chunks are looked at together."""
        if self._rules.dedupe is not None:
            self._attempt(self._find_duplicates, None)

    def _find_duplicates(self) -> None:
        run = self._run
        room = run.staging.path(run.key, self._manifest.generation, ".")
        batches = ((f.index, b) for f in self.files for b in run.guard.watched(self._batches(f)))
        self._duplicates = run.rules.duplicates(self._table, batches, room)

    def chunk(self, file: ChunkFile) -> None:
        """Refine one chunk; a terminal error fails the table, not the run."""
        self._attempt(partial(self._refine, file), file.index)
        if self._table.target not in self._run.failures and len(self._done) == len(self.files):
            self._attempt(self._record, None)

    def _attempt(self, job: Callable[[], None], chunk: int | None) -> None:
        attempt(self._run, self._table, Phase.TRANSFORM, job, chunk=chunk)

    def _refine(self, file: ChunkFile) -> None:
        run, table, generation = self._run, self._table, self._manifest.generation
        name = run.file_name(table, table.chunks[file.index], refined=True)
        schema = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        rows, digest, source, changed = 0, Digest(), Digest(), Counter[str]()
        with self._lock:
            self._bad[file.index] = 0
        run.checkpoints.quarantined(table.target, generation, file.index, (), first=True, by="rules")
        with run.staging.writing(run.key, generation, name) as sink:
            with pa.ipc.new_file(sink, schema) as writer:
                for refined in run.guard.watched(self._refined(file)):
                    self._reject(file, refined.bad)
                    writer.write_batch(refined.batch)
                    rows, changed = rows + refined.batch.num_rows, changed + Counter(refined.changed)
                    digest, source = digest + refined.digest, source + refined.source
                    run.progress.add(table.target, refined.batch.num_rows, refined.batch.nbytes)
            size, file_hash = sink.bytes, sink.digest
        counts_only = run.spec.verify == "count"
        if source != file.digest and not (counts_only and source.rows == file.digest.rows):
            raise DataError(
                f"What was read of chunk {file.index} of {table.source} is not what the source says it has",
                hint="This is a bug; please report it",
                table=table.target,
            )
        digest = Digest(digest.rows) if counts_only else digest
        bad = self._bad[file.index]
        with self._lock:
            self._changed.update(changed)
            self._done[file.index] = ChunkFile(
                file.index, name, rows, size, file_hash, digest, file.rejected + bad
            )

    def _refined(self, file: ChunkFile) -> Iterator[Refined]:
        dropped, start = sorted(self._duplicates.get(file.index, ())), 0
        refiner = self._borrow()
        for batch in self._batches(file):
            end = start + batch.num_rows
            yield refiner.refine(batch, frozenset(n - start for n in dropped if start <= n < end))
            start = end
        with self._lock:
            self._idle.append(refiner)

    def _borrow(self) -> Refiner:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            looked_into = [self._rows_of(one.table) for one in self._rules.lookups]
            return self._open.enter_context(self._run.rules.refiner(self._table, looked_into))

    def _rows_of(self, target: str) -> Iterator[pa.RecordBatch]:
        """Another table as it was read."""
        run, table = self._run, self._run.plan.table(target)
        again = rows_again(run, self._manifest.generation, table, "read")
        if again is not None:
            yield from (batch for _, batch in again)
            return
        manifest = run.extracted.get(target)
        names = [run.file_name(table, chunk) for chunk in table.chunks]
        paths = [run.staging.path(run.key, manifest.generation, name) for name in names] if manifest else []
        if not paths or not all(path.exists() for path in paths):
            raise DataError(
                f"The rows of {target} are not staged any more, so {self._table.target} cannot be looked up in it",
                hint=f"Take the migration back and run it again: jivs rollback {run.key}",
                table=target,
            )
        for path in paths:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                for position in range(reader.num_record_batches):
                    yield reader.get_batch(position).rename_columns([c.source for c in table.as_read.columns])

    def _batches(self, file: ChunkFile) -> Iterator[pa.RecordBatch]:
        run, generation = self._run, self._manifest.generation
        run.staging.check(run.key, generation, file.name, file.hash)
        path = run.staging.path(run.key, generation, file.name)
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            for position in range(reader.num_record_batches):
                yield reader.get_batch(position)

    def _reject(self, file: ChunkFile, bad: Collection[BadRow]) -> None:
        if not bad:
            return
        run, table = self._run, self._table
        with self._lock:
            self._bad[file.index] += len(bad)
            taken = sum(self._bad.values()) + self._manifest.rejected
        if not run.spec.quarantine.max_rows:
            first = next(iter(bad))
            raise DataError(
                f"{table.source}, column {first.column}: {first.reason}",
                hint="Correct the rule or the source, or give bad rows a budget with quarantine.max_rows",
                table=table.source,
                column=first.column,
            )
        check_budget(run, table, taken, next(iter(bad)))
        rows = tuple(bad)
        run.checkpoints.quarantined(
            table.target, self._manifest.generation, file.index, rows, first=False, by="rules"
        )

    def _record(self) -> None:
        run, table = self._run, self._table
        with self._lock:
            if run.extracted[table.target].refined is not None:
                return
            files = tuple(self._done[f.index] for f in self.files)
            manifest: Extracted = replace(self._manifest, chunks=files, refined=dict(self._changed))
            run.checkpoints.done(
                table.target, Phase.TRANSFORM, manifest.generation, rows=manifest.rows, size=manifest.bytes,
                chunks=len(files), seconds=time.monotonic() - self._began, data=manifest.stored(),
            )  # fmt: skip
            run.extracted[table.target] = manifest
