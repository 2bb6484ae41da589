"""Rows that only the target finds bad: its own keys and conditions refuse them.

What belongs here: when they are looked for, the budget, and what becomes of the table then. What does not: finding them
(`infra/refusals.py`) and keeping them (`infra/quarantine.py`).

Looked for is only when the target has refused: rows that it takes cost nothing. Until then the tables that were there
before are as they were, for their rows are beside them, and of those that are made nothing is built on the rows.

The ledger of the target says which were taken out, by their digest, in the transaction that does so; the quarantine has
them before that. So whatever is killed, each row is in one of the two, and what should arrive is the source's digest
without theirs. They stand in the quarantine as of chunks -1, -2 …, one for each time that a table was looked through.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import LedgerView
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.attempts import attempt
from jivs_pipeline.engine.run import Run
from jivs_pipeline.engine.sifting import check_budget, portions

__all__ = ["forget_unproved", "learn", "refuse", "refuse_in_turn", "take_orphans", "taken"]

_LOG = logging.getLogger(__name__)


def taken(run: Run, job: Callable[[], object], look: Callable[[], int | None]) -> None:
    """Do what loaded rows may be in the way of, as often as rows that are in the way go to quarantine.

    Args:
        look: takes such rows out and says how many; None where it has failed a table, which ends this.

    Raises:
        DataError: no single row is in the way, or there is no budget for it.
    """
    while True:
        known = _rejected(run)
        try:
            job()
        except DataError:
            found = look() if run.spec.quarantine.max_rows else 0
            # A job beside this one may have taken them out.
            if found == 0 and _rejected(run) == known:
                raise
            if found is None:
                return
        else:
            return


def _rejected(run: Run) -> int:
    return sum(m.rejected for m in list(run.extracted.values()))


def refuse_in_turn(run: Run, tables: Sequence[TablePlan], *, orphans: bool = False) -> int | None:
    """`refuse` of several tables, parents first; None when one of them has failed."""
    found = [0]

    def one(table: TablePlan) -> None:
        found.append(refuse(run, table, orphans=orphans))

    for table in tables:
        attempt(run, table, Phase.LOAD, partial(one, table))
    return None if any(t.target in run.failures for t in tables) else sum(found)


def take_orphans(run: Run, tables: Sequence[TablePlan]) -> None:
    """Before foreign keys are built: what refers to rows that are in quarantine by now goes there, too.

    Args:
        tables: those that are made and all of whose parents are there, parents first.
    """
    if not run.spec.quarantine.max_rows or not any(m.refused for m in run.extracted.values()):
        return
    while refuse_in_turn(run, [t for t in tables if t.target not in run.failures], orphans=True):
        pass


def refuse(run: Run, table: TablePlan, *, orphans: bool = False) -> int:
    """Take the rows out of a loaded table that the target's keys and conditions refuse, and say how many they are.

    Args:
        orphans: of a table that is made: those that break a foreign key, and no others.

    Raises:
        DataError: they are more than the table's budget allows. Those in quarantine by then stay, to be looked at.
    """
    with run.refusing:
        ledger = run.target.ledger(run.key, run.since)
        before = run.extracted[table.target].rejected
        # An attempt whose answer was lost may have done it.
        learn(run, ledger, [table.target])
        manifest = run.extracted[table.target]
        number = len(_rounds(run, table, ledger)) + 1
        name = f"refused {number} {short_hash(manifest.generation)}"
        others = {
            (t.target_schema, t.target_table): (t, run.extracted[t.target].ranges)
            for t in run.sound
            if t.target in run.extracted
        }
        keep = partial(_keep, run, table, -number)
        found = run.target.refuse(table, name, manifest.generation, others, keep, orphans=orphans)
        refused = {
            chunk: manifest.refused.get(chunk, Digest()) + found.get(chunk, Digest())
            for chunk in {*manifest.refused, *found}
        }
        run.extracted[table.target] = replace(manifest, refused=refused)
        rows = run.extracted[table.target].rejected - before
        if rows:
            _LOG.warning("Rows that the target refuses", extra={"table": table.target, "rows": rows})
        return rows


def learn(run: Run, ledger: LedgerView, names: Iterable[str]) -> None:
    """Take what target tables have refused from the ledger, which has the last word."""
    for name in names:
        manifest = run.extracted[name]
        run.extracted[name] = replace(manifest, refused=ledger.refused(name, manifest.generation))


def _rounds(run: Run, table: TablePlan, ledger: LedgerView) -> list[str]:
    generation = run.generation_of(table)
    return [
        step
        for (target, step), (made_by, undo) in ledger.steps.items()
        if target == table.target and made_by == generation and "refused" in undo
    ]


def _keep(run: Run, table: TablePlan, place: int, rows: Iterator[BadRow]) -> None:
    manifest = run.extracted[table.target]
    count, first = manifest.rejected, None
    run.checkpoints.quarantined(table.target, manifest.generation, place, (), first=True, by="target")
    with closing(cast("Any", rows)) as found:
        for portion in portions(found):
            run.guard.check_inside()
            count, first = count + len(portion), first or portion[0]
            check_budget(run, table, count, first)
            run.checkpoints.quarantined(
                table.target, manifest.generation, place, portion, first=False, by="target"
            )


def forget_unproved(run: Run, tables: Sequence[TablePlan], ledger: LedgerView) -> None:
    """Rows go from the quarantine that an attempt has kept and not taken out any more."""
    if not run.spec.quarantine.max_rows:
        return
    for table in tables:
        place = -len(_rounds(run, table, ledger)) - 1
        run.checkpoints.quarantined(
            table.target, run.generation_of(table), place, (), first=True, by="target"
        )
