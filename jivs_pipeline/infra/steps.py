"""What steps are made of: the step itself, names of the ledger's side tables, and composed SQL.

What belongs here: what `ddl.py`, `merge.py` and `undo.py` share. What does not: any certain step.

Identifiers go through `psycopg.sql.Identifier` only. Types, defaults and expressions are PostgreSQL
text from a catalog or a checked spec and are put in as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, cast

from psycopg import sql

from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import TableMode, TablePlan

__all__ = [
    "LEDGER",
    "Step",
    "beside",
    "kept",
    "kept_schema",
    "landing",
    "look_in",
    "names",
    "numbers",
    "raw",
    "side_name",
    "table_name",
]

LEDGER = "jivs_ledger"


@dataclass(frozen=True, slots=True)
class Step:
    """One catalog change: its statements commit together with its row in the ledger.

    Attributes:
        table: `schema.table` of the target it belongs to, or `*`.
        name: unique per table; a step that the ledger has is never done again.
        undo: what a rollback does about it.
        path: schema that bare names in the statements belong to; None where there are none.
    """

    table: str
    name: str
    statements: tuple[sql.SQL | sql.Composed, ...]
    undo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    path: str | None = None


def look_in(schema: str) -> sql.Composed:
    """Makes bare names mean those of `schema`, or of an extension, for the rest of the transaction; its bodies of functions
    are not looked at, because they may name what is made later.
    """
    return sql.SQL(
        "SELECT set_config('check_function_bodies', 'off', true), set_config('search_path', concat_ws(', ', quote_ident({}),"
        " (SELECT string_agg(DISTINCT quote_ident(n.nspname), ', ') FROM pg_extension x"
        " JOIN pg_namespace n ON n.oid = x.extnamespace WHERE n.nspname <> 'pg_catalog')), true)"
    ).format(sql.Literal(schema))


def beside(schema: str) -> str:
    """What stands in the ledger in place of a table, for what belongs to a schema."""
    return f"{schema}.*"


def raw(text: str) -> sql.SQL:
    """SQL that a catalog or a checked spec gave us as text."""
    return sql.SQL(cast("LiteralString", text))


def names(listed: Iterable[str]) -> sql.Composed:
    """Identifiers with commas between."""
    return sql.SQL(", ").join(map(sql.Identifier, listed))


def table_name(schema: str, name: str) -> sql.Identifier:
    """A qualified name."""
    return sql.Identifier(schema, name)


def side_name(key: str, table: str, what: str) -> str:
    """Name of what belongs to a target table (`schema.table`) while a migration works on it."""
    return f"{what}_{short_hash(key, table)}"


def landing(key: str, table: TablePlan) -> sql.Identifier:
    """Where the chunks are copied to: the table itself, or beside it when it existed before."""
    if table.beside:
        return table_name(LEDGER, side_name(key, table.target, "side"))
    return table_name(table.target_schema, table.target_table)


def kept(key: str, table: TablePlan) -> sql.Identifier:
    """Where the rows (truncate) or the table (replace) of before are kept, so that a rollback can bring them back.

    A replaced table gets a schema of its own: its indexes and sequences move along under their names.
    """
    if table.mode is TableMode.REPLACE:
        return table_name(kept_schema(key, table), table.target_table)
    return table_name(LEDGER, side_name(key, table.target, "kept"))


def numbers(key: str, table: str) -> sql.Identifier:
    """Where it is kept how far the sequences of a target table (`schema.table`) were."""
    return table_name(LEDGER, side_name(key, table, "numbers"))


def kept_schema(key: str, table: TablePlan) -> str:
    """The schema that a replaced table moves to."""
    return side_name(key, table.target, "jivs_kept")
