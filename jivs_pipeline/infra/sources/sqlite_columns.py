"""What SQLite's columns become in a plan: as their census says, or with bad rows left out.

What belongs here: columns of a survey. What does not: the rules of types (`core/types.py`), counting what is stored
(`sqlite_census`), the condition of a bad value (`sqlite_sieve`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from jivs_pipeline.core import type_mapping
from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.model import Column, Table
from jivs_pipeline.core.plan import ColumnPlan, Wire
from jivs_pipeline.core.ports import Refusal, Tolerated
from jivs_pipeline.core.types import (
    StoredValues,
    TypeChoice,
    candidates_sqlite,
    choose_sqlite,
    sqlite_type,
)
from jivs_pipeline.infra.sources.sqlite_census import Census, free_rowid_name, source_rows
from jivs_pipeline.infra.sources.sqlite_sieve import any_bad, bad_condition

__all__ = ["NULL_IN_KEY", "chosen", "column_plan", "tolerate", "wired"]

NULL_IN_KEY = "NULL in this column of the primary key, which PostgreSQL does not take"


def chosen(column: Column, values: StoredValues) -> TypeChoice:
    """What the column becomes: by its type and values, or their text where a rule takes that."""
    choice = choose_sqlite(sqlite_type(column.type), values)
    if choice.refused is None or not column.as_text or values.blobs or values.nul:
        return choice
    return TypeChoice("text", "text", "string", Canon.TEXT, "as text, for its rule")


def column_plan(column: Column, choice: TypeChoice) -> ColumnPlan:
    """The column with the chosen type."""
    if choice.refused is not None:
        # What a rule `type: text` makes of it.
        choice = TypeChoice("text", "text", "string", choice.canon)
    return type_mapping.column_plan(column, choice)


def wired(columns: list[ColumnPlan]) -> tuple[list[ColumnPlan], Wire]:
    """The columns as COPY takes them: pgpq cannot write numeric without a scale, and then every column goes as text."""
    if not any(c.carrier == "number" and c.arrow == "string" for c in columns):
        return columns, Wire.BINARY
    return [c.model_copy(update={"arrow": "string"}) for c in columns], Wire.CSV


def tolerate(
    database: sqlite3.Connection,
    table: Table,
    columns: Sequence[Column],
    where: str | None,
    census: Census,
    encoding: str,
) -> Tolerated | None:
    """What the table becomes without its bad rows; None where it has none that the census sees, or no addresses."""
    if not table.without_rowid and free_rowid_name(c.name for c in table.columns) is None:
        return None
    planned: list[ColumnPlan] = []
    doubtful: list[str] = []
    rows_sql = source_rows(table.name, [where])
    for column in columns:
        declared, values = sqlite_type(column.type), census.values.get(column.name, StoredValues())
        choice = chosen(column, values)
        made = column_plan(column, choice)
        if choice.refused is not None:
            made = _least_bad(
                database,
                table.name,
                [column_plan(column, c) for c in candidates_sqlite(declared, values)],
                rows_sql,
            )
        if column.name in census.null_keys:
            made = made.model_copy(update={"nullable": False})
        if choice.refused is not None or column.name in census.null_keys:
            doubtful.append(column.name)
        planned.append(made)
    bad = {c.source: bad_condition(table.name, c) for c in planned if c.source in doubtful}
    if not bad:
        return None
    counts = dict(zip(bad, _counts(database, bad.values(), rows_sql), strict=True))
    if not any(counts.values()):
        return None
    rows = _counts(database, [any_bad(table.name, planned, encoding)], rows_sql)[0]
    reasons = tuple(
        Refusal(c.source, f"{counted(n, 'row has', 'rows have')} {_wrong(c, n, census)}")
        for c in planned
        if (n := counts.get(c.source))
    )
    final, wire = wired(planned)
    return Tolerated(rows, reasons, tuple(final), wire)


def _wrong(column: ColumnPlan, rows: int, census: Census) -> str:
    """What is wrong with so many rows, as the plan says it."""
    missing = census.null_keys.get(column.source, 0)
    if missing == rows:
        return NULL_IN_KEY
    return f"values that are no {column.target_type}" + (" or NULL, in the primary key" if missing else "")


def _least_bad(
    database: sqlite3.Connection, table: str, candidates: Sequence[ColumnPlan], rows_sql: str
) -> ColumnPlan:
    """The candidate that holds the most values; the first of those that hold as many."""
    counts = _counts(database, [bad_condition(table, c) for c in candidates], rows_sql)
    return candidates[counts.index(min(counts))]


def _counts(database: sqlite3.Connection, conditions: Iterable[str], rows_sql: str) -> list[int]:
    asked = ", ".join(f"count(*) FILTER (WHERE {c})" for c in conditions)
    return [int(n) for n in database.execute(f"SELECT {asked} {rows_sql}").fetchone()]
