"""Columns whose type is the row type of another table: that table is made first, as it is in the source.

What belongs here: which tables go along so. What does not: their order (`order.py`), and how such values travel, which is as
text (`infra/sources/postgresql.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jivs_pipeline.core.model import Table
from jivs_pipeline.core.plan import TablePlan

__all__ = ["with_row_types"]


def with_row_types(tables: Sequence[TablePlan], sources: Sequence[Table]) -> list[TablePlan]:
    """The tables, each with those that have to be made before it; refused where such a one is not, or is another."""
    by_name = {t.name: t for t in sources}
    planned = {t.source_table: t for t in tables}
    waiting = True
    while waiting:
        # What needs the type of a table that is refused is refused, too.
        waiting = False
        for name, table in planned.items():
            if table.refused is None and (found := _problem(table, by_name.get(name), planned, by_name)):
                column, reason = found
                planned[name] = table.model_copy(update={"refused": reason, "refused_column": column})
                waiting = True
    made: list[TablePlan] = []
    for table in (planned[t.source_table] for t in tables):
        names = _needed(table, by_name.get(table.source_table)).values() if table.refused is None else ()
        after = tuple(sorted({planned[name].target for name in names}))
        made.append(table.model_copy(update={"after": after}) if after else table)
    return made


def _needed(table: TablePlan, source: Table | None) -> dict[str, str]:
    """Columns with such a type -> the table whose rows they are."""
    carried = {c.source for c in table.columns}
    return {c.name: c.rows_of for c in source.columns if c.rows_of and c.name in carried} if source else {}


def _problem(
    table: TablePlan, source: Table | None, planned: Mapping[str, TablePlan], by_name: Mapping[str, Table]
) -> tuple[str, str] | None:
    for column, name in _needed(table, source).items():
        other = planned.get(name)
        said = f"its type is that of the rows of table {name}, which"
        if other is None or other.refused is not None:
            return column, f"{said} is not carried"
        if other.beside and not table.beside:
            return column, f"{said} the target has already, perhaps with other columns"
        names = [c.name for c in by_name[name].columns]
        changed = other.rules is not None and other.rules.active
        if changed or other.target_table != name or [c.target for c in other.columns] != names:
            return column, f"{said} is another in the target by its rules"
    return None
