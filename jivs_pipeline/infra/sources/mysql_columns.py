"""What MySQL's columns become in a plan: as their census says, or with bad rows left out.

What belongs here: columns of a survey. What does not: the rules of types (`core/types_mysql.py`), counting values
(`mysql_census`), which rows are bad (`mysql_sieve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.model import Column, Table
from jivs_pipeline.core.plan import ColumnPlan, Wire
from jivs_pipeline.core.ports import Refusal, Tolerated
from jivs_pipeline.core.type_mapping import column_plan
from jivs_pipeline.core.types_mysql import MysqlValues, choose_mysql, mysql_type
from jivs_pipeline.infra.sources.mysql_census import source_rows
from jivs_pipeline.infra.sources.mysql_session import Session
from jivs_pipeline.infra.sources.mysql_sieve import address_of, bad_conditions

__all__ = ["losses", "tolerate", "wired"]

_AS_TEXT = frozenset({"bit", "interval", "uuid"})
"""Types whose binary form pgpq cannot write."""


def wired(columns: list[ColumnPlan]) -> tuple[list[ColumnPlan], Wire]:
    """The columns as COPY takes them: as soon as pgpq cannot write one, all go as text."""
    if not any(_needs_text(c) for c in columns):
        return columns, Wire.BINARY
    return [c.model_copy(update={"arrow": "string"}) for c in columns], Wire.CSV


def _needs_text(column: ColumnPlan) -> bool:
    base = column.target_type.partition("(")[0]
    # pgpq cannot write numeric without a decimal of Arrow's.
    return base in _AS_TEXT or (base == "numeric" and column.arrow == "string")


def losses(column: Column, values: MysqlValues) -> list[Refusal]:
    """What is carried as it is, but may not be what it was meant to be, or is not told apart any more."""
    found: list[Refusal] = []
    if values.disguised:
        texts = counted(values.disguised, "text in latin1 looks", "texts in latin1 look")
        reason = (
            f"{texts} like UTF-8 that was stored without conversion;"
            " they are carried as MySQL reads them (Ã© for é)"
        )
        found.append(Refusal(column.name, reason))
    if not values.invalid:
        return found
    errors = counted(values.invalid, "value is", "values are")
    reason = f"{errors} the error value of the ENUM (index 0), which becomes the empty text"
    if values.blank:
        same = counted(
            values.blank, "other is the member '' and becomes", "others are the member '' and become"
        )
        reason += f"; {same} the same"
    return [*found, Refusal(column.name, reason)]


def tolerate(
    session: Session,
    table: Table,
    columns: Sequence[Column],
    where: str | None,
    values: Mapping[str, MysqlValues],
    known: Mapping[str, str],
) -> Tolerated | None:
    """What the table becomes without its bad rows; None where it has none, or its rows have no addresses.

    Args:
        known: character set of each text column.
    """
    planned: list[ColumnPlan] = []
    bad: dict[str, str] = {}
    for column in columns:
        declared, found = mysql_type(column.type), values.get(column.name, MysqlValues())
        choice = choose_mysql(declared, found.sound)
        if choice.refused is not None:
            return None
        made = column_plan(column, choice)
        if choose_mysql(declared, found).refused is not None:
            bad[column.name] = " OR ".join(f"({c})" for c in bad_conditions(made, known.get(column.name, "")))
        planned.append(made)
    if not bad or not address_of(session, table.schema, table.name):
        return None
    asked = ", ".join(f"SUM({c})" for c in [" OR ".join(bad.values()), *bad.values()])
    row = session.texts(f"SELECT {asked} {source_rows(table.schema, table.name, [where])}")[0]
    rows, *counts = (int(n or 0) for n in row)
    types = {c.source: c.target_type for c in planned}
    reasons = tuple(
        Refusal(name, f"{n:,} {'rows have' if n > 1 else 'row has'} values that are no {types[name]}")
        for name, n in zip(bad, counts, strict=True)
    )
    final, wire = wired(planned)
    return Tolerated(rows, reasons, tuple(final), wire)
