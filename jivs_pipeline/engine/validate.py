"""Phase validate: the validations of the spec on the rows as they will be loaded, before the target is touched.

What belongs here: which checks are asked of which files, their results, and examples of rows that do not pass. What
does not: the checks (`infra/rules/checks.py`) and what a result means (`core/validation.py`).

Rows that a check quarantines were taken out by the phase before; here they are only counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, cast

import pyarrow as pa

from jivs_pipeline.core.errors import DataError, JivsError, TerminalError
from jivs_pipeline.core.plan import Check, TablePlan
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.core.states import Phase
from jivs_pipeline.core.validation import CheckResult
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.run import ChunkFile, Run
from jivs_pipeline.engine.staged_again import rows_again

__all__ = ["validate"]

_EXAMPLES = 10
"""Rows of a check that are kept to be looked at."""

Place = tuple[int, int]


def validate(run: Run) -> list[CheckResult]:
    """Check every table that goes on.

    Raises:
        TerminalError: one of them was not extracted.
    """
    for table in run.sound:
        if table.target not in run.extracted and not table.streamed:
            raise TerminalError(
                f"Table {table.source} was not extracted", hint="Run the migration again from its start"
            )
    asked = [t for t in run.sound if t.rules is not None and t.rules.checks]
    todo = [t for t in asked if t.target not in run.validated and t.target not in run.loaded]
    run_all([partial(_validate, run, t) for t in todo], run.spec.parallelism, run.guard)
    return [result for results in run.validated.values() for result in results]


def _validate(run: Run, table: TablePlan) -> None:
    began = time.monotonic()
    manifest = run.extracted[table.target]
    told = partial(run.checkpoints.retried, table.target, Phase.VALIDATE, None)
    try:
        results = with_retries(lambda: _Table(run, table).results(), run.guard, told)
    except DataError as error:
        run.fail(table, Phase.VALIDATE, error)
        return
    except JivsError:
        run.guard.check_inside()
        raise
    run.validated[table.target] = results
    run.checkpoints.done(
        table.target, Phase.VALIDATE, manifest.generation, rows=manifest.rows, size=0, chunks=len(manifest.chunks),
        seconds=time.monotonic() - began, data={"checks": [r.stored() for r in results]},
    )  # fmt: skip


class _Table:
    """One table's checks."""

    def __init__(self, run: Run, table: TablePlan) -> None:
        self._run = run
        self._table = table
        self._checks: Sequence[Check] = table.rules.checks if table.rules else ()
        self._manifest = run.extracted[table.target]
        self._room = run.staging.path(run.key, self._manifest.generation, ".")
        self._examples: dict[int, list[BadRow]] = {}

    def results(self) -> list[CheckResult]:
        """In the order of the spec. Examples of what does not pass are in quarantine then."""
        rows = self._manifest.rows
        refined: Mapping[str, int] = self._manifest.refined or {}
        counted = self._rows_that_fail()
        results: list[CheckResult] = []
        for check in self._checks:
            if check.quarantine:
                gone = refined.get(f"check: {check.name}", 0)
                results.append(CheckResult.of(self._table.target, check, rows + gone, gone, gone))
            elif check.alike or check.parent:
                results.append(CheckResult.of(self._table.target, check, rows, self._sets_that_fail(check)))
            else:
                results.append(CheckResult.of(self._table.target, check, rows, counted.get(check.name, 0)))
        self._keep_examples()
        return results

    def _rows_that_fail(self) -> dict[str, int]:
        checks = [c for c in self._checks if not c.quarantine and (c.fails is not None or c.type is not None)]
        counts: dict[str, int] = {}
        if not checks:
            return counts
        by_name = {c.name: c for c in checks}
        with self._run.rules.checker(self._table, checks) as checker:
            for chunk, batch in _batches(self._run, self._table):
                for name, numbers in checker.failing(batch).items():
                    room = max(0, _EXAMPLES - counts.get(name, 0))
                    counts[name] = counts.get(name, 0) + len(numbers)
                    self._note(by_name[name], chunk, batch, numbers[:room])
        return counts

    def _sets_that_fail(self, check: Check) -> int:
        run, table = self._run, self._table
        own = _batches(run, table)
        if check.parent is None:
            found = run.rules.alike(own, check.columns, self._room)
        else:
            parent = run.plan.table(check.parent[0])
            again = rows_again(run, self._manifest.generation, parent, "made")
            parents = again if again is not None else _batches(run, parent)
            found = run.rules.orphans(table, own, check.columns, parent, parents, check.parent[1], self._room)
        with closing(cast("Any", iter(found))) as places:
            first = list(islice(places, _EXAMPLES))
            count = len(first) + sum(1 for _ in places)
        self._note_places(check, first)
        return count

    # Examples

    def _note_places(self, check: Check, places: Iterable[Place]) -> None:
        wanted = sorted(places)
        ends: dict[int, int] = {}
        for chunk, batch in _batches(self._run, self._table) if wanted else ():
            start = ends.get(chunk, 0)
            ends[chunk] = end = start + batch.num_rows
            self._note(check, chunk, batch, [n - start for c, n in wanted if c == chunk and start <= n < end])

    def _note(self, check: Check, chunk: int, batch: pa.RecordBatch, numbers: Sequence[int]) -> None:
        definition = self._table.definition
        primary = definition.primary_key.columns if definition and definition.primary_key else ()
        names = batch.schema.names
        key = [n for n in primary if n in names] or names[:5]
        for number in numbers:
            row = {n: batch.column(n)[number].as_py() for n in dict.fromkeys((*key, *check.columns))}
            shown = {n: row[n] for n in key}
            column = check.columns[0] if check.columns else None
            example = BadRow.of("", shown, column, f"example: does not pass {check.name}", row)
            self._examples.setdefault(chunk, []).append(example)

    def _keep_examples(self) -> None:
        run, table, generation = self._run, self._table, self._manifest.generation
        for chunk in {0, *self._examples}:
            rows = self._examples.get(chunk, ())
            run.checkpoints.quarantined(table.target, generation, chunk, rows, first=True, by="example")


def _batches(run: Run, table: TablePlan) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A table's rows as they will be loaded, each batch with its chunk's index."""
    manifest = run.extracted.get(table.target)
    if manifest is None or not all(_staged(run, manifest.generation, c) for c in manifest.chunks):
        raise DataError(
            f"The rows of {table.target} are not staged any more, so nothing can be checked against them",
            hint=f"Take the migration back and run it again: jivs rollback {run.key}",
            table=table.target,
        )
    for file in manifest.chunks:
        run.staging.check(run.key, manifest.generation, file.name, file.hash)
        path = run.staging.path(run.key, manifest.generation, file.name)
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            for position in range(reader.num_record_batches):
                run.guard.check_inside()
                yield file.index, reader.get_batch(position)


def _staged(run: Run, generation: str, file: ChunkFile) -> bool:
    return run.staging.has(run.key, generation, file.name, file.bytes)
