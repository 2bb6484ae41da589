"""In which order tables are made and filled.

What belongs here: which table comes before which. What does not: what is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from jivs_pipeline.core.plan import TablePlan

__all__ = ["in_waves", "parents_first"]


def in_waves(tables: Sequence[TablePlan]) -> list[list[TablePlan]]:
    """Tables in lists one after the other, so that each comes behind those that it needs; no row has itself in it."""
    left = {t.target: t for t in tables}
    waves: list[list[TablePlan]] = []
    while ready := [t for t in left.values() if left.keys().isdisjoint(t.after)]:
        waves.append(ready)
        for table in ready:
            del left[table.target]
    return waves


def parents_first(tables: Sequence[TablePlan]) -> list[TablePlan]:
    """Tables in an order in which every foreign key's parent comes before its child, as far as there is one."""
    by_name = {(t.target_schema, t.target_table): t for t in tables}
    by_target = {t.target: t for t in tables}
    ordered: dict[str, TablePlan] = {}
    waiting: set[str] = set()

    def visit(table: TablePlan) -> None:
        if table.target in ordered or table.target in waiting:
            return
        waiting.add(table.target)
        for key in table.definition.foreign_keys if table.definition else ():
            if (parent := by_name.get((key.target_schema, key.target_table))) is not None:
                visit(parent)
        for name in table.parents:
            if (parent := by_target.get(name)) is not None:
                visit(parent)
        ordered[table.target] = table

    for table in sorted(tables, key=lambda t: t.target):
        visit(table)
    return list(ordered.values())
