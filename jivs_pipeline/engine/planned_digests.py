"""How the rows of a table are compared whose types in the target are wider than the source's.

What belongs here: the spellings that are one text for a value in both types. What does not: whether the target's types
hold the source's values (`core/widening.py`), and the spellings themselves (`core/digest.py`).
"""

from __future__ import annotations

import re

from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import ExistingTable
from jivs_pipeline.core.widening import widens

__all__ = ["compared_in"]

_LENGTHS = re.compile(r"\(.*\)")
_CANONS = {
    "smallint": Canon.NUMERIC, "integer": Canon.NUMERIC, "bigint": Canon.NUMERIC, "numeric": Canon.NUMERIC,
    "real": Canon.FLOAT, "date": Canon.DATE,
}  # fmt: skip


def compared_in(plan: TablePlan, existing: ExistingTable | None) -> TablePlan:
    """The plan of a table that goes into an existing one. Values of two types have no hash in common but that of a text."""
    if existing is None or plan.spelling is not Spelling.RECORD:
        return plan
    types = {c.name: c.type for c in existing.columns}
    if all(widens(types.get(c.target, c.target_type), c.target_type) for c in plan.columns):
        return plan
    columns = tuple(
        c.model_copy(update={"canon": _CANONS.get(_LENGTHS.sub("", c.target_type), c.canon)})
        for c in plan.columns
    )
    return plan.model_copy(update={"columns": columns, "spelling": plan.spelling.of_texts})
