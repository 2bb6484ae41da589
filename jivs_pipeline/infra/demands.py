"""What a table of the target asks of its rows: of one that is there by its catalog, of one that is made by its definition.

What belongs here: reading demands. What does not: finding the rows that do not meet them (`refusals.py`).

Only the server can evaluate an expression, so all of them stay its SQL. Demands on columns that the rows do not bring and
that a default or a sequence fills are left out: nobody knows those values before the insert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from jivs_pipeline.core.model import Index, Table
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.steps import names, raw, table_name

__all__ = ["PLACE", "Alike", "Demands", "Holds", "Refers", "of_definition", "of_relation"]

_SQL = load_blocks("jivs_pipeline.infra", "refusals.sql")
PLACE = "jivs place"
"""The name of a row's ctid among its columns."""


@dataclass(frozen=True, slots=True)
class Holds:
    """A condition that is not false of any row."""

    reason: str
    condition: sql.Composable
    column: str | None


@dataclass(frozen=True, slots=True)
class Alike:
    """Keys that no two rows have the same of; `nulls` says whether those of NULL are the same."""

    reason: str
    keys: tuple[sql.Composable, ...]
    column: str | None
    predicate: sql.Composable | None = None
    nulls: bool = False


@dataclass(frozen=True, slots=True)
class Refers:
    """Columns whose values a row of the parent (schema, table) has."""

    reason: str
    columns: tuple[str, ...]
    parent: tuple[str, str]
    there: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demands:
    """All of one table; `rows` is what stands after FROM: its rows-to-be under the table's name, each with its `PLACE`."""

    rows: sql.Composable
    holds: tuple[Holds, ...] = ()
    alike: tuple[Alike, ...] = ()
    refers: tuple[Refers, ...] = ()


def of_definition(table: TablePlan) -> Demands:
    """Of a table that the migration makes: what is built on its rows after they are loaded."""
    relation = table_name(table.target_schema, table.target_table)
    rows = sql.SQL("(SELECT t.ctid AS {place}, t.* FROM ONLY {relation} AS t) AS {name}").format(
        place=sql.Identifier(PLACE), relation=relation, name=sql.Identifier(table.target_table)
    )
    definition = table.definition
    if definition is None:
        return Demands(rows)
    primary = definition.primary_key.columns if definition.primary_key else ()
    holds = [_not_null(column) for column in primary]
    holds += [_check(c.name or c.expression, raw(c.expression), ()) for c in definition.checks if c.valid]
    refers = tuple(
        Refers(_refers(k.columns), k.columns, (k.target_schema, k.target_table), k.target_columns)
        for k in definition.foreign_keys
        if k.valid
    )
    return Demands(rows, tuple(holds), tuple(_alike(definition)), refers)


def _alike(definition: Table) -> Iterable[Alike]:
    keys = [k for k in (definition.primary_key, *definition.unique_keys) if k is not None]
    for key in keys:
        parts = tuple(sql.Identifier(c) for c in key.columns)
        yield Alike(_double(key.columns), parts, key.columns[0], nulls=key.nulls_not_distinct)
    for index in definition.indexes:
        if index.unique:
            named = [p.column for p in index.parts if p.column is not None]
            predicate = raw(index.predicate) if index.predicate else None
            reason = _double(named) if len(named) == len(index.parts) else f"duplicate in index {index.name}"
            yield Alike(
                reason, tuple(_parts(index)), named[0] if named else None, predicate, index.nulls_not_distinct
            )


def _parts(index: Index) -> Iterable[sql.Composable]:
    for part in index.parts:
        body = sql.Identifier(part.column) if part.column is not None else raw(part.expression or "NULL")
        collation = sql.SQL(" COLLATE ") + raw(part.collation) if part.collation else sql.SQL("")
        yield sql.SQL("({}){}").format(body, collation)


def of_relation(db: Session, table: TablePlan, side: sql.Identifier) -> Demands:
    """Of a table that was there before, on the rows in its side table, as they would be in the table itself."""
    relation = table_name(table.target_schema, table.target_table)
    asked = {"relation": relation.as_string()}
    columns = db.execute(_SQL["columns"], asked).fetchall()
    carried = {c.target for c in table.columns}
    filled = {name for name, *_, filled, _ in columns if filled and name not in carried}
    # What is generated may be made of them.
    unknown = filled | {name for name, _, _, _, used, *_ in columns if not filled.isdisjoint(used)}

    def known(used: Collection[str]) -> bool:
        return unknown.isdisjoint(used)

    holds = [_not_null(name) for name, _, required, *_ in columns if required and name in carried]
    holds += [
        _check(name, raw(expression), used)
        for name, expression, used in db.execute(_SQL["checks"], asked).fetchall()
        if known(used)
    ]
    alike = [
        Alike(
            _double(used) if len(used) == len(keys) else f"duplicate in index {name}",
            tuple(map(raw, keys)),
            next(iter(used), None),
            raw(predicate) if predicate else None,
            nulls,
        )
        for name, keys, predicate, nulls, used in db.execute(_SQL["unique"], asked).fetchall()
        if known(used)
    ]
    refers = [
        Refers(_refers(used), tuple(used), (schema, parent), tuple(there))
        for _, schema, parent, used, there in db.execute(_SQL["references"], asked).fetchall()
        if known(used)
    ]
    return Demands(_shaped(table, side, columns), tuple(holds), tuple(alike), tuple(refers))


def _shaped(table: TablePlan, side: sql.Identifier, columns: Iterable[tuple[Any, ...]]) -> sql.Composed:
    """The side table's rows in the columns of the table itself."""
    carried = {c.target for c in table.columns}
    plain: list[sql.Composable] = [sql.SQL("s.ctid AS {}").format(sql.Identifier(PLACE))]
    made: list[sql.Composable] = []
    for name, type_, _, generated, _, _, collation in columns:
        label, kind = sql.Identifier(name), raw(type_)
        collate = sql.SQL(" COLLATE ") + raw(collation) if collation else sql.SQL("")
        if generated is not None:
            made.append(sql.SQL(", ({})::{}{} AS {}").format(raw(generated), kind, collate, label))
        else:
            value = sql.SQL("s.{}").format(label) if name in carried else sql.SQL("NULL")
            plain.append(sql.SQL("{}::{}{} AS {}").format(value, kind, collate, label))
    return sql.SQL("(SELECT {name}.*{made} FROM (SELECT {plain} FROM ONLY {side} AS s) AS {name}) AS {name}").format(
        name=sql.Identifier(table.target_table), made=sql.Composed(made), plain=sql.SQL(", ").join(plain), side=side
    )  # fmt: skip


def _not_null(column: str) -> Holds:
    # IS NULL is also true of a row type's value that has NULLs only.
    condition = sql.SQL("num_nulls({}) = 0").format(names([column]))
    return Holds("NULL in a column that the target has as NOT NULL", condition, column)


def _check(name: str, expression: sql.Composable, used: Collection[str]) -> Holds:
    column = next(iter(used)) if len(used) == 1 else None
    return Holds(f"does not pass the target's CHECK {name}", expression, column)


def _double(columns: Iterable[str]) -> str:
    return f"duplicate of key ({', '.join(columns)}) in the target"


def _refers(columns: Iterable[str]) -> str:
    return (
        f"breaks foreign key ({', '.join(columns)}): the target has no such row, or it is in quarantine, too"
    )
