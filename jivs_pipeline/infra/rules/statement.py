"""The one statement that applies a table's rules to a batch.

What belongs here: putting the steps of a plan together. What does not: checking them (`compiler.py`) and running it
(`refiner.py`).

Steps are nested selects: each sees the columns as they were read and what the steps before it have made, under names
that no source uses. Besides each result it says whether the step has changed the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jivs_pipeline.core.plan import Made, Rules
from jivs_pipeline.infra.rules.duck import quoted

__all__ = ["ROW", "found_in", "previous", "reading", "statement", "text_of"]

ROW = "jivs row"
"""Name of the column with the row's number in its batch."""


def previous(number: int, depth: int, origin: str | None) -> str:
    """The value that a step begins with: SQL of what the one before has made, or of the column as it was read."""
    if depth == 0:
        return quoted(origin) if origin is not None else "NULL"
    return quoted(f"jivs {number}.{depth - 1}")


def found_in(number: int) -> str:
    """The value that a lookup has found for a row."""
    return quoted(f"jivs lookup {number}")


def reading(type_: str, text: str) -> str:
    """SQL of a column's text as DuckDB's type."""
    if type_ == "BLOB":
        return f"unhex(substr({text}, 3))"
    return text if type_ == "VARCHAR" else f"CAST({text} AS {type_})"


def text_of(type_: str, value: str) -> str:
    """SQL of a DuckDB value as PostgreSQL reads it."""
    if type_ == "BLOB":
        return f"'\\x' || lower(hex({value}))"
    return value if type_ == "VARCHAR" else f"CAST({value} AS VARCHAR)"


def statement(
    rules: Rules, source: str, columns: Mapping[str, str], *, only: Sequence[int] | None = None
) -> str:
    """SQL over `source` that gives each row's number, the text of every made column, and what each step changed.

    Args:
        columns: SQL of each column that steps may use, by its name.
        only: numbers of made columns; None takes all.

    Returns:
        Columns `jivs row`, `t<n>` per made column and `c<n>.<depth>` per step. Where rows are looked up in other tables
        they come in any order.
    """
    made = [(n, m) for n, m in enumerate(rules.made) if only is None or n in only]
    seen = "".join(f", {sql} AS {quoted(name)}" for name, sql in columns.items())
    for number, lookup in enumerate(rules.lookups):
        seen += f", {reading(lookup.type, f'l{number}.v')} AS {found_in(number)}"
        source += (
            f" LEFT JOIN lookup{number} AS l{number} ON l{number}.k = CAST({columns[lookup.by]} AS VARCHAR)"
        )
    query = f'SELECT "{ROW}"{seen} FROM {source}'
    for depth in range(max((len(m.steps) for _, m in made), default=0)):
        steps = [(n, m.steps[depth].sql) for n, m in made if depth < len(m.steps)]
        results = "".join(f", {sql} AS {quoted(f'jivs {n}.{depth}')}" for n, sql in steps)
        query = f"SELECT *{results} FROM ({query})"
    results = "".join(f", {m.text} AS t{n}{_changes(n, m)}" for n, m in made)
    return f'SELECT "{ROW}"{results} FROM ({query})'


def _changes(number: int, made: Made) -> str:
    parts: list[str] = []
    for depth, step in enumerate(made.steps):
        before, after = previous(number, depth, made.origin), previous(number, depth + 1, made.origin)
        if step.kind == "default":
            changed = f"{before} IS NULL"
        elif step.kind == "mask":
            changed = f"{before} IS NOT NULL"
        else:
            changed = f"CAST({before} AS VARCHAR) IS DISTINCT FROM CAST({after} AS VARCHAR)"
        parts.append(f", {changed} AS {quoted(f'c{number}.{depth}')}")
    return "".join(parts)
