"""One line of a dialect's type table, and what is picked by it.

What belongs here: the values that all dialects share. What does not: tables and rules (`types.py`, `types_mysql.py`,
`file_types.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan

__all__ = ["MAX_DECIMAL128", "TypeChoice", "TypeMapping", "column_plan"]

MAX_DECIMAL128 = 38
"""Digits that decimal128 holds; longer numerics travel as text."""


@dataclass(frozen=True, slots=True)
class TypeMapping:
    """One line of a dialect's table.

    Attributes:
        declared: family of the declared type; `*` is any other.
        stored: what the values are (SQLite: storage classes; elsewhere the type itself).
        target: PostgreSQL type, with the letters of the declared type (`n`, `p`, `s`).
        carrier: how the source hands the value over, see the dialect's snapshot module.
        arrow: Arrow type in staging.
        canon: canonical spelling in digests.
        condition: what every value must satisfy, or empty.
        note: what a user should know, or empty: then the mapping is exact and what was declared.
    """

    declared: str
    stored: str
    target: str
    carrier: str
    arrow: str
    canon: Canon
    condition: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """What becomes of a column. `refused` is the reason why nothing can, and then the rest is void."""

    target: str
    carrier: str
    arrow: str
    canon: Canon
    note: str = ""
    refused: str | None = None


def column_plan(column: Column, choice: TypeChoice) -> ColumnPlan:
    """The column as its type was chosen, under its own name."""
    return ColumnPlan(
        source=column.name,
        target=column.name,
        source_type=column.type,
        target_type=choice.target,
        carrier=choice.carrier,
        arrow=choice.arrow,
        canon=choice.canon,
        nullable=column.nullable,
        note=choice.note,
    )
