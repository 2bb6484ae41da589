"""How databases that are read through drivers spell what we ask for; one class for what they share.

What belongs here: SQL texts and type choices of a dialect, as pure functions. What does not: running them
(`infra/sources/generic*.py`), and each dialect's own (`dialect_*.py`).

Catalog queries give texts in fixed columns, with {schema} where the schema's name goes as a literal:

- tables: name, comment
- columns: table, column, type, YES if it takes NULL, YES if it numbers itself, comment; in order
- keys: table, constraint, P or U, column; in order
- references: table, constraint, column, schema, table and column it points at, ON DELETE, ON UPDATE; in order
- indexes: table, index, YES if unique, column, YES if descending; in order
- others: name, kind of what stays behind
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.type_mapping import TypeChoice

__all__ = ["Dialect"]


class Dialect:
    """What a database needs to be read by `GenericSource`; see the module for the catalog queries."""

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    default_schema: ClassVar[str] = ""
    """A query that gives the name of the schema that is meant when nobody names one."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Keywords of the driver that decide how it reads."""
    opening: ClassVar[tuple[str, ...]] = ()
    """Statements of every new session."""
    begin: ClassVar[tuple[str, ...]] = ()
    end: ClassVar[str] = "ROLLBACK"
    own_transactions: ClassVar[bool] = True
    """Whether a statement begins a transaction; else the driver does, with the first statement after the last one's end."""
    consistency: ClassVar[str] = "one snapshot, read by one session"
    tables: ClassVar[str] = ""
    columns: ClassVar[str] = ""
    keys: ClassVar[str] = ""
    references: ClassVar[str] = ""
    indexes: ClassVar[str] = ""
    others: ClassVar[str] = ""
    piece: ClassVar[int | None] = None
    """Most characters of an expression's result that the driver hands out, where it does not know better."""
    encoding: ClassVar[str] = "utf-8"
    """Of the bytes that `hexed` spells."""

    # ── words ───────────────────────────────────────────────────────────────────────────────────────────

    def quoted(self, *names: str) -> str:
        """A name, or a qualified one, as an SQL identifier."""
        return ".".join('"' + name.replace('"', '""') + '"' for name in names)

    def literal(self, text: str) -> str:
        """Text as an SQL literal."""
        return "'" + text.replace("'", "''") + "'"

    def integer(self, number: int) -> str:
        """A number as an SQL literal."""
        return str(number)

    # ── types ───────────────────────────────────────────────────────────────────────────────────────────

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """What becomes of a column, by its type and what `counted` has counted."""
        raise NotImplementedError

    def is_integer(self, column: Column) -> bool:
        """Whether all its values are integers of at most 64 bits, compared as such."""
        raise NotImplementedError

    def counted(self, column: Column) -> dict[str, str]:  # noqa: ARG002 - for those that look
        """Name of a count -> condition of the values that are counted."""
        return {}

    # ── values ──────────────────────────────────────────────────────────────────────────────────────────

    def text(self, column: ColumnPlan) -> str:
        """SQL of the value as the text that carries it: bytes as hex digits, booleans as 0 and 1."""
        raise NotImplementedError

    def bound(self, column: ColumnPlan) -> int | None:
        """Most characters of that text, where the type says so."""
        return _BOUNDS.get(column.canon)

    def characters(self, text: str) -> str:
        """SQL of how many characters a text has at most: UTF-16 units do as well."""
        return f"LENGTH({text})"

    def shown(self, number: str) -> str:
        """SQL of a number as its digits: some drivers think little of the numbers of an expression."""
        return number

    def big(self, number: str) -> str:
        """SQL of a number whose sum may be large."""
        return number

    def part(self, text: str, start: int, length: int) -> str:
        """SQL of a part of a text, counted from 1."""
        return f"SUBSTR({text}, {start}, {length})"

    def sized(self, text: str, width: int) -> str:
        """SQL of the text as a type of so many characters; no value has more."""
        return f"CAST({text} AS VARCHAR({width}))"

    def hexed(self, text: str) -> str:
        """SQL of the hex digits of a text's bytes in `encoding`: for the second, independent read."""
        raise NotImplementedError

    def next_value(self, schema: str, table: str, column: str) -> str | None:  # noqa: ARG002
        """A query for the next number of a self-numbering column; None where the highest value has to do."""
        return None

    def spelled(self, column: ColumnPlan, text: str) -> str:  # noqa: ARG002
        """The carried text as PostgreSQL's input reads it."""
        return text


_BOUNDS = {
    Canon.INTEGER: 20,
    Canon.FLOAT: 32,
    Canon.BOOLEAN: 1,
    Canon.DATE: 10,
    Canon.TIME: 18,
    Canon.TIMESTAMP: 40,
}
