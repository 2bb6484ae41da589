"""What is built on a table's rows: keys, indexes, checks, statistics, references, numbering, comments.

What belongs here: what waits for what. What does not: the statements (`infra/ddl.py`) and rows (`load.py`).

Each step waits for those alone that it needs or that would keep it waiting at a lock of the server, which would cost a
worker. The largest table goes first: its steps are a chain that all others fit beside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.order import parents_first
from jivs_pipeline.engine.pool import run_all
from jivs_pipeline.engine.ports import StepLike
from jivs_pipeline.engine.refused import refuse, take_orphans, taken
from jivs_pipeline.engine.run import Run

__all__ = ["apply_step", "apply_steps", "build"]


def apply_step(run: Run, step: StepLike, generation: str) -> None:
    """Run a step that the ledger does not have yet."""
    run.target.apply(step, generation)


def apply_steps(run: Run, table: TablePlan, steps: Iterable[StepLike]) -> None:
    """Run a table's steps one after the other; a stop of the run is heeded between them."""
    for step in steps:
        run.guard.check()
        apply_step(run, step, run.generation_of(table))


def build(run: Run, tables: Sequence[TablePlan]) -> None:
    """Build all of it. What fails in here fails its table, whose rows stand unless it is they, and what refers to it."""
    works = _Works(run)
    works.add(sorted(tables, key=lambda t: -t.bytes))
    run_all(works.jobs, run.spec.parallelism, run.guard, works.after)


class _Works:
    """The jobs of all tables, and which of them wait for others."""

    def __init__(self, run: Run) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.after: dict[int, set[int]] = {}
        self._run = run
        self._left_out = {t.target for t in run.plan.tables} - {t.target for t in run.plan.carried}
        self._known: dict[str, set[int]] = {}
        self._one_at_a_time = threading.Lock()
        self._sifted: set[int] = set()

    def add(self, tables: Sequence[TablePlan]) -> None:
        """Everything of these tables, in the order in which it is begun where nothing waits."""
        made = [t for t in tables if not t.beside and t.large_objects_of is None]
        builder, keyed = self._run.builder, dict[str, set[int]]()
        for table in made:
            # Keys and checks keep everybody else away from a table; indexes are built side by side.
            keys = keyed[table.target] = self._job(table, builder.build_keys(table), set())
            indexes = [self._job(table, [i], keys) for i in builder.build_indexes(table)]
            built = keys.union(*indexes)
            checked = built | self._job(table, builder.build_checks(table), built)
            # Of expressions in indexes there are statistics, too.
            self._known[table.target] = checked | self._job(table, builder.analyze(table), checked)
        if self._run.spec.quarantine.max_rows:
            # No key may stand yet when rows go that others refer to: its action would take those away without a word.
            self._sifted = {len(self.jobs)}
            self.after[len(self.jobs)] = set[int]().union(*self._known.values())
            self.jobs.append(partial(self._take_orphans, made))
        for table in made:
            references = self._references(table)
            self._job(table, builder.describe(table), self._known[table.target] | references)
        for table in tables:
            if (manifest := self._run.extracted.get(table.target)) is not None:
                self._job(table, builder.number(table, manifest.next_values), keyed.get(table.target, set()))

    def _references(self, table: TablePlan) -> set[int]:
        """Made one table at a time, for two that lock each other's tables would deadlock; checked side by side.

        They are checked by a join, for which a planner that knows nothing of the tables takes an index a row.
        """
        keys = table.definition.foreign_keys if table.definition else ()
        parents = {f"{k.target_schema}.{k.target_table}" for k in keys}
        known = self._sifted.union(*(self._known.get(name, set()) for name in {*parents, table.target}))
        builder = self._run.builder
        made = self._job(
            table, builder.build_references(table), known, parents=parents, lock=self._one_at_a_time
        )
        return made | self._job(table, builder.check_references(table), made, parents=parents)

    @property
    def _lost(self) -> set[str]:
        """Tables that are not there, or not whole."""
        return self._left_out | self._run.failures.keys()

    def _take_orphans(self, made: Sequence[TablePlan]) -> None:
        lost = self._lost
        whole = [
            t
            for t in made
            if t.target not in lost
            and t.definition
            and t.definition.foreign_keys
            and lost.isdisjoint(f"{k.target_schema}.{k.target_table}" for k in t.definition.foreign_keys)
        ]
        take_orphans(self._run, parents_first(whole))

    def _job(
        self,
        table: TablePlan,
        steps: Sequence[StepLike],
        after: set[int],
        *,
        parents: Iterable[str] = (),
        lock: threading.Lock | None = None,
    ) -> set[int]:
        """Its number, or those that it would have waited for where there is nothing to do."""
        if not steps:
            return after
        number = len(self.jobs)
        self.jobs.append(partial(self._run_steps, table, steps, frozenset(parents), lock or threading.Lock()))
        self.after[number] = after
        return {number}

    def _run_steps(
        self, table: TablePlan, steps: Sequence[StepLike], parents: frozenset[str], lock: threading.Lock
    ) -> None:
        run = self._run
        # What refers to a table that failed waits for the run that repairs it.
        if parents & self._lost:
            return
        with lock:
            applied = partial(
                taken, run, partial(apply_steps, run, table, steps), partial(refuse, run, table)
            )
            attempt(run, table, Phase.LOAD, applied, rows_stand=True)
