"""What a run takes over from earlier runs of its migration, and what it does anew.

What belongs here: reading checkpoints and the target's ledger, and judging them. What does not: the phases.

Per table, what is proved stays: loaded tables are kept; where every extraction was finished and is still
staged, the rest is loaded from it; else all that is not loaded is read again from one new snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jivs_pipeline.core.claims import Checkpoint
from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.core.plan import Plan, TableMode, TablePlan
from jivs_pipeline.core.states import Phase
from jivs_pipeline.core.validation import CheckResult
from jivs_pipeline.engine.incremental import updates
from jivs_pipeline.engine.refused import learn
from jivs_pipeline.engine.run import Extracted, Run, TableFailure

__all__ = ["note_refusals", "recall", "renew", "require_ledger", "resumable"]

_VOLATILE = {
    "rows",
    "rows_exact",
    "bytes",
    "chunks",
    "chunk_by",
    "chunk_columns",
    "mode",
    "existing_key",
    "streamed",
    "later",
    "after",
    "parents",
    "watermark",
    "watermark_column",
}
"""Parts of a table's plan that may change without its loaded rows being others."""


def recall(run: Run, points: Sequence[Checkpoint], new_id: Callable[[], str]) -> None:
    """Fill the run with what its plan's tables have reached."""
    planned = {t.target for t in run.plan.carried}
    mine = [p for p in points if p.table in planned]
    for point in mine:
        if point.phase is Phase.EXTRACT and point.ok:
            run.extracted[point.table] = Extracted.parse(point.generation, point.data)
    for point in mine:
        read = run.extracted.get(point.table)
        if point.phase is Phase.TRANSFORM and point.ok and read and read.generation == point.generation:
            run.extracted[point.table] = Extracted.parse(point.generation, point.data)
        if point.phase is Phase.VALIDATE and point.ok and read and read.generation == point.generation:
            run.validated[point.table] = [CheckResult.parse(c) for c in point.data["checks"]]
    ledger = run.target.ledger(run.key, run.since)
    learn(run, ledger, list(run.extracted))
    for point in mine:
        if point.phase is Phase.LOAD and point.ok and point.table in run.extracted:
            # The target's own ledger has the last word: the target may have been restored or made anew.
            there = ledger.loaded(point.table, point.generation)
            if there == frozenset(c.index for c in run.extracted[point.table].chunks):
                run.loaded.add(point.table)
        if not point.ok:
            run.failures[point.table] = TableFailure.parse(point.data)
    note_refusals(run)
    generations = {m.generation for t, m in run.extracted.items() if t not in run.loaded}
    run.generation = generations.pop() if len(generations) == 1 else new_id()


def note_refusals(run: Run) -> None:
    """Tables that the plan refuses fail from the start."""
    for table in run.plan.tables:
        if table.refused:
            run.failures[table.target] = TableFailure(table.refused, column=table.refused_column)


def resumable(run: Run) -> bool:
    """Whether the plan of before can be continued: no table refused, and every extraction finished and there."""
    return (
        bool(run.plan.tables)
        and not any(t.refused for t in run.plan.tables)
        and all(_stands(run, t) for t in run.plan.carried)
    )


def _stands(run: Run, table: TablePlan) -> bool:
    manifest, failure = run.extracted.get(table.target), run.failures.get(table.target)
    if manifest is None or (failure is not None and not failure.rows_stand):
        return False
    if table.target in run.loaded:
        return True
    # A chunk that was streamed is nowhere but in the target, and its snapshot is gone.
    return not table.streamed and all(
        run.staging.has(run.key, manifest.generation, c.name, c.bytes) for c in manifest.chunks
    )


def renew(run: Run, fresh: Plan, generation: str) -> None:
    """Go on by a new plan. Loaded tables keep the plan they were loaded by, where they are still the same.

    Tables that are compared are read again together, until their changes are merged: rows of one could refer to rows that
    another, read earlier, has not.
    """
    loaded = {t.target: t for t in run.plan.tables if t.target in run.loaded}
    if updates(loaded.values()) and not run.target.ledger(run.key, run.since).merged:
        loaded = {target: t for target, t in loaded.items() if t.mode is not TableMode.UPDATE}
    while gone := [target for target, t in loaded.items() if not loaded.keys() >= set(t.after)]:
        # A table whose row type is theirs is made anew, and they with it.
        loaded = {target: t for target, t in loaded.items() if target not in gone}

    def same(table: TablePlan) -> TablePlan:
        old = loaded.get(table.target)
        if old is None or old.model_dump(exclude=_VOLATILE) != table.model_dump(exclude=_VOLATILE):
            return table
        return old

    run.plan = fresh.model_copy(update={"tables": tuple(map(same, fresh.tables))})
    kept = {t.target for t in run.plan.tables if loaded.get(t.target) is t}
    run.extracted = {table: m for table, m in run.extracted.items() if table in kept}
    run.loaded = set(run.extracted)
    run.validated = {table: r for table, r in run.validated.items() if table in kept}
    run.failures = {}
    run.generation = generation


def require_ledger(run: Run) -> None:
    """No run succeeds while a planned chunk is missing from the target's ledger.

    Raises:
        TerminalError: one is.
    """
    ledger = run.target.ledger(run.key, run.since)
    for table in run.sound:
        manifest = run.extracted[table.target]
        planned = {c.index for c in manifest.chunks}
        if missing := planned - ledger.loaded(table.target, manifest.generation):
            raise TerminalError(
                f"The ledger of {table.target} lacks {len(missing)} of {len(planned)} chunks",
                hint=f"Run {run.key} again; what is there is kept",
            )
