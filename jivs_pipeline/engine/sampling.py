"""What rules make of the first rows of each table, for who writes them. Shown, and kept nowhere.

What belongs here: reading a few rows and sending them through the rules. What does not: the rules (`infra/rules/`).
"""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, cast

from jivs_pipeline.core.plan import Plan, TablePlan
from jivs_pipeline.core.ports import Source
from jivs_pipeline.engine.ports import RuleBook

__all__ = ["samples"]

_ROWS = 3


def samples(plan: Plan, source: Source, rules: RuleBook) -> dict[str, list[dict[str, Any]]]:
    """By source table, a few rows as they would arrive: by column of the target, as text or NULL.

    Raises:
        DataError: a python rule fails.
    """
    ruled = [t for t in plan.carried if t.rules is not None and t.rules.active]
    if not ruled:
        return {}
    with source.snapshot(1) as snapshot:
        refined = rules.refined(snapshot, plan.tables, Path())
        found: dict[str, list[dict[str, Any]]] = {}
        for table in ruled:
            with closing(cast("Any", refined.batches(_without_dedupe(table), table.chunks[0]))) as batches:
                found[table.source] = [
                    row for batch in islice(batches, 1) for row in batch.slice(0, _ROWS).to_pylist()
                ]
    return found


def _without_dedupe(table: TablePlan) -> TablePlan:
    """Duplicates are told by reading the whole table, which a sample is not worth."""
    rules = table.rules.model_copy(update={"dedupe": None}) if table.rules else None
    return table.model_copy(update={"rules": rules})
