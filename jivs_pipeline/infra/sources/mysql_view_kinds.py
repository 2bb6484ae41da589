"""Kinds of values in MySQL's views, as far as it matters whether PostgreSQL means the same by them.

What belongs here: what a value is, and what columns a query may name. What does not: writing expressions
(`mysql_view_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sqlglot import exp

from jivs_pipeline.core.types_mysql import mysql_type
from jivs_pipeline.infra.sources.mysql_expressions import UntranslatableError

__all__ = [
    "NUMBERS",
    "Kind",
    "Node",
    "Scope",
    "Value",
    "column_value",
    "identifier",
    "is_exact",
    "only",
    "refuse",
    "same_kind",
]

Node = Any
"""A node of sqlglot's, whose own types do not say what its parts are."""


class Kind(StrEnum):
    """What a value is, as far as it matters here."""

    INTEGER = "integer"
    DECIMAL = "decimal"
    DOUBLE = "double"
    FLAG = "tinyint(1)"  # boolean or smallint in PostgreSQL, by the rows
    TRUTH = "condition"  # 0 or 1 in MySQL
    TEXT = "text"
    ENUM = "enum"
    LITERAL = "text literal"
    DATE = "date"
    DATETIME = "datetime"
    MOMENT = "timestamp"
    NULL = "null"
    OTHER = "other"


NUMBERS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.DOUBLE, Kind.FLAG, Kind.TRUTH})


def identifier(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def refuse(node: Node) -> UntranslatableError:
    """The reason why an expression is not translated."""
    names = {exp.Div: "division", exp.IntDiv: "DIV", exp.Mod: "MOD"}
    name = node.name if isinstance(node, exp.Anonymous) else names.get(type(node), node.key.upper())
    return UntranslatableError(f"PostgreSQL may not mean the same by {name}")


def only(node: Node, *names: str) -> None:
    """Raises UntranslatableError if a node has more parts than these."""
    if more := [name for name, part in node.args.items() if part and name not in names]:
        raise UntranslatableError(f"PostgreSQL may not mean the same by {node.key.upper()} with {more[0]}")


@dataclass(frozen=True, slots=True)
class Value:
    """An expression: `text` is its collation, `members` those of an ENUM, `scale` its digits behind the point.

    `column`: it is a column as it is.
    """

    sql: str
    kind: Kind
    text: str = ""
    members: tuple[str, ...] = ()
    scale: int = 0
    column: bool = False

    @property
    def settled(self) -> Value:
        """As a column of a query: a condition is 0 or 1 there."""
        if self.kind is Kind.TRUTH:
            return Value(f"CAST(({self.sql}) AS integer)", Kind.INTEGER)
        if self.kind in {Kind.LITERAL, Kind.NULL}:
            return replace(self, sql=f"CAST({self.sql} AS text)", kind=Kind.TEXT)
        return self

    def check_grouped(self, what: str) -> None:
        """Raises UntranslatableError if equal values here are not all equal there."""
        if self.kind in {Kind.TEXT, Kind.LITERAL} and not is_exact(self.text):
            raise UntranslatableError(f"{what} of texts, which MySQL compares by a collation")
        if self.kind is Kind.OTHER:
            raise UntranslatableError(f"{what} of values that PostgreSQL may not compare alike")


def column_value(name: str, declared: str, collation: str) -> Value:
    """A column by its type, as `information_schema` spells it; its SQL is its name."""
    type_ = mysql_type(declared)
    kinds = {
        "tinyint(1)": Kind.FLAG, "decimal(p,s)": Kind.DECIMAL, "double": Kind.DOUBLE, "enum": Kind.ENUM,
        "date": Kind.DATE, "datetime(n)": Kind.DATETIME, "timestamp(n)": Kind.MOMENT, "char(n)": Kind.TEXT,
        "varchar(n)": Kind.TEXT, "text": Kind.TEXT, "bigint unsigned": Kind.DECIMAL,
    }  # fmt: skip
    kind = kinds.get(type_.family, Kind.INTEGER if type_.integer else Kind.OTHER)
    if type_.zerofill:
        kind = Kind.OTHER  # leading zeros come back as text
    return Value(identifier(name), kind, collation, type_.members, type_.scale or 0, column=True)


def is_exact(collation: str) -> bool:
    """Whether it compares byte by byte, blanks at the end, too."""
    return collation.endswith(("_nopad_bin", "0900_bin"))


def same_kind(what: str, values: Sequence[Value]) -> Value:
    """What a value is that may be any of these.

    Raises:
        UntranslatableError: they are not of one kind.
    """
    kinds = {v.kind for v in values} - {Kind.NULL}
    collation = next((v.text for v in values if v.kind is Kind.TEXT), "")
    if len({v.text for v in values if v.kind is Kind.TEXT}) > 1:
        collation = ""
    if kinds <= NUMBERS:
        scale = max(v.scale for v in values)
        kind = Kind.DECIMAL if Kind.DECIMAL in kinds else Kind.INTEGER
        if Kind.DOUBLE in kinds:
            kind = Kind.DOUBLE
        if kinds == {Kind.FLAG}:
            kind = Kind.FLAG
        return Value("", kind, scale=scale)
    if kinds <= {Kind.TEXT, Kind.LITERAL, Kind.ENUM}:
        return Value("", Kind.TEXT, collation)
    if len(kinds) == 1 and Kind.OTHER not in kinds:
        return Value("", kinds.pop())
    raise UntranslatableError(f"{what} of values of several kinds ({', '.join(sorted(kinds))})")


Sources = Mapping[str, tuple[str | None, Value]]


@dataclass(slots=True)
class Scope:
    """The relations that a query's expressions may name, by alias, then those of the query around it."""

    outer: Scope | None = None
    sources: dict[str, Sources] = field(default_factory=dict[str, Sources])

    def add(self, alias: str, columns: Sources) -> None:
        """A relation: for each column the one that it is of, and the column."""
        self.sources[alias] = columns

    def find(self, alias: str, column: str) -> tuple[str | None, Value] | None:
        """The column, here or around."""
        if alias in self.sources:
            return self.sources[alias].get(column)
        return self.outer.find(alias, column) if self.outer else None
