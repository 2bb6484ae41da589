"""Tables that others look into, or are checked against, and whose rows are not staged (any more): read once more, to be
read only.

What belongs here: which those are, their files, and what is in them. What does not: who reads them (`transform.py`,
`validate.py`).

A run that goes on after some tables were loaded stages the others from a new snapshot; in an incremental run only rows
that differ are staged. The files lie in the extraction of whoever needs them, and are there before its manifest is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import pyarrow as pa

from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import Chunk, TableMode, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.run import Run

__all__ = ["again_path", "forget_read", "rows_again", "stage_again"]

Form = Literal["read", "made"]
"""As the source hands rows over, for lookups; as they are loaded, for checks."""


def stage_again(run: Run, snapshot: Snapshot, tables: Sequence[TablePlan]) -> list[Callable[[], None]]:
    """Jobs that read what `tables`, which are extracted now, need of others; what goes wrong in one fails who needs it."""
    needed: dict[tuple[str, Form], TablePlan] = {}
    for table in tables:
        for target, form in _needs(table):
            if not _staged(run, run.plan.table(target), form, tables):
                needed.setdefault((target, form), table)
    return [
        partial(_attempt, run, snapshot, by, run.plan.table(target), chunk, form)
        for (target, form), by in needed.items()
        for chunk in run.plan.table(target).chunks
    ]


def _needs(table: TablePlan) -> Iterator[tuple[str, Form]]:
    if table.rules is None:
        return
    # A table that is compared reads the source itself.
    for lookup in table.rules.lookups if table.mode is not TableMode.UPDATE else ():
        yield lookup.table, "read"
    for check in table.rules.checks:
        if check.parent is not None:
            yield check.parent[0], "made"


def _staged(run: Run, table: TablePlan, form: Form, now: Iterable[TablePlan]) -> bool:
    """Whether all rows of a table are on disk, or about to be."""
    if table.refused or table.mode is TableMode.UPDATE:
        return table.refused is not None
    if any(t.target == table.target for t in now):
        return True
    manifest = run.extracted.get(table.target)
    if manifest is None:
        return True  # it failed, and so will what needs it
    if form == "read":
        names = [run.file_name(table, chunk) for chunk in table.chunks]
        return all(run.staging.path(run.key, manifest.generation, name).exists() for name in names)
    return all(run.staging.has(run.key, manifest.generation, c.name, c.bytes) for c in manifest.chunks)


def _attempt(run: Run, snapshot: Snapshot, by: TablePlan, table: TablePlan, chunk: Chunk, form: Form) -> None:
    attempt(run, by, Phase.EXTRACT, partial(_stage, run, snapshot, table, chunk, form), chunk=chunk.index)


def _stage(run: Run, snapshot: Snapshot, table: TablePlan, chunk: Chunk, form: Form) -> None:
    room = run.staging.path(run.key, run.generation, ".")
    refined = run.rules.refined(snapshot, run.plan.tables, room, sifts=run.spec.quarantine.max_rows > 0)
    rows = refined.unruled(table, chunk) if form == "read" else refined.batches(table, chunk)
    names = (
        [c.source for c in table.as_texts.columns] if form == "read" else [c.target for c in table.columns]
    )
    watched = iter(run.guard.watched(rows))
    first = next(watched, None)
    schema = pa.schema([pa.field(n, pa.string()) for n in names]) if first is None else first.schema
    with (
        run.staging.writing(run.key, run.generation, _name(table, chunk, form)) as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in () if first is None else chain([first], watched):
            writer.write_batch(batch)


def _name(table: TablePlan, chunk: Chunk, form: Form) -> str:
    return f"{short_hash(table.target)}-{chunk.index}.{form}-again.arrow"


def again_path(run: Run, generation: str, table: TablePlan, chunk: Chunk, form: Form) -> Path:
    """Where a chunk is that an extraction has read for others."""
    return run.staging.path(run.key, generation, _name(table, chunk, form))


def rows_again(
    run: Run, generation: str, table: TablePlan, form: Form
) -> Iterator[tuple[int, pa.RecordBatch]] | None:
    """Batches with their chunk's index, that an extraction has read for others; None where it has not."""
    paths = [(c.index, again_path(run, generation, table, c, form)) for c in table.chunks]
    if not all(path.exists() for _, path in paths):
        return None
    return _batches(run, paths)


def _batches(run: Run, paths: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, pa.RecordBatch]]:
    for index, path in paths:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            for position in range(reader.num_record_batches):
                run.guard.check_inside()
                yield index, reader.get_batch(position)


def forget_read(run: Run, generations: Iterable[str]) -> None:
    """Rows as they were read stay on disk no longer than they are needed."""
    for generation in generations:
        for table in run.plan.carried:
            for chunk in table.chunks:
                if again_path(run, generation, table, chunk, "read").exists():
                    run.staging.remove(run.key, generation, _name(table, chunk, "read"))
