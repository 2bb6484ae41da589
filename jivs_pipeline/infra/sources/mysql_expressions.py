"""MySQL's defaults and CHECKs as PostgreSQL's expressions, where they surely mean the same.

What belongs here: pure functions over text. What does not: reading the catalog (`mysql_catalog`).

A constant default becomes a quoted literal without a type, which PostgreSQL reads as its column's type, whatever
that turns out to be (tinyint(1) becomes boolean or smallint by its values). Of expressions only those over numbers
are translated: comparisons of texts depend on collations that PostgreSQL does not have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime

from jivs_pipeline.core.types_mysql import MysqlType

__all__ = [
    "Default",
    "UntranslatableError",
    "check_expression",
    "default_expression",
    "read_default",
    "sql_text",
]


class UntranslatableError(Exception):
    """Why an expression is left out, in words that follow `default: `."""


@dataclass(frozen=True, slots=True)
class Default:
    """A column's default: a constant's text, or an expression."""

    text: str
    constant: bool


_STRING = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
_BITS = re.compile(r"b'([01]*)'", re.IGNORECASE)
_NOW = re.compile(r"(?:current_timestamp|now|localtime|localtimestamp)(?:\((\d*)\))?", re.IGNORECASE)
_TODAY = re.compile(r"\(?(?:curdate|current_date)(?:\(\))?\)?", re.IGNORECASE)
_INTERVAL = re.compile(r"-?\d{1,3}:\d\d:\d\d(?:\.\d+)?")
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "b": "\b", "Z": "\x1a"}


def sql_text(text: str) -> str:
    """A literal of PostgreSQL's, whose backslashes are plain characters."""
    return "'" + text.replace("'", "''") + "'"


def _unescaped(text: str) -> str:
    text = text.replace("''", "'")
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text, flags=re.DOTALL)


def read_default(written: str | None, extra: str, *, mariadb: bool) -> Default | None:
    """What `information_schema` says of a default. MariaDB writes SQL; MySQL the bare value, or an expression."""
    if written is None:
        return None
    if not mariadb:
        generated = "DEFAULT_GENERATED" in extra.upper() or _NOW.fullmatch(written) is not None
        return Default(written, constant=not generated)
    if written.upper() == "NULL":
        return None
    if found := _STRING.fullmatch(written):
        return Default(_unescaped(found[1]), constant=True)
    return Default(written, constant=bool(_NUMBER.fullmatch(written) or _BITS.fullmatch(written)))


def default_expression(default: Default, type_: MysqlType) -> str:
    """The default of a column of that type in PostgreSQL.

    Raises:
        UntranslatableError: it is not sure what it would be.
    """
    if default.constant:
        return sql_text(_constant(default.text, type_))
    if (found := _NOW.fullmatch(default.text)) and type_.family in {"datetime(n)", "timestamp(n)"}:
        name = "LOCALTIMESTAMP" if type_.family == "datetime(n)" else "CURRENT_TIMESTAMP"
        return f"{name}({found[1] or 0})"
    if _TODAY.fullmatch(default.text) and type_.family == "date":
        return "CURRENT_DATE"
    raise UntranslatableError(f"{default.text} is not carried; set it in the target by hand")


def _constant(text: str, type_: MysqlType) -> str:
    family = type_.family
    if "\0" in text:
        raise UntranslatableError("it holds a NUL character")
    if family == "bit(n)" and (found := _BITS.fullmatch(text)):
        return found[1].zfill(type_.length or 1)
    if type_.text or family in {"uuid", "inet"}:
        return text
    if family == "tinyint(1)" and text in {"0", "1"}:
        return text
    numeric = (type_.integer and family != "tinyint(1)") or family in {"decimal(p,s)", "float", "double"}
    if numeric and _NUMBER.fullmatch(text):
        return text
    if family == "time(n)" and _INTERVAL.fullmatch(text):
        return text
    with suppress(ValueError):
        if family == "date":
            return date.fromisoformat(text).isoformat()
        if family == "datetime(n)":
            return datetime.fromisoformat(text).isoformat(" ")
    raise UntranslatableError(
        f"{text!r} of type {type_.declared} is not carried; set it in the target by hand"
    )


# ── CHECK ───────────────────────────────────────────────────────────────────────────────────────────────

_TOKEN = re.compile(
    r"\s*(?:(?P<name>`(?:[^`]|``)+`)|(?P<number>\d+(?:\.\d+)?)|(?P<word>[A-Za-z_]+)|(?P<op>(?!<=>|--)(?:<=|>=|<>|!=|[-<>=()+*,])))"
)
_WORDS = frozenset({"AND", "OR", "NOT", "IS", "NULL", "BETWEEN", "IN"})


def check_expression(clause: str, types: Mapping[str, MysqlType]) -> str:
    """A CHECK over numbers, by `types` of the columns.

    Raises:
        UntranslatableError: it uses anything of which it is not sure that PostgreSQL means the same.
    """
    clause, at = clause.strip(), 0
    parts: list[str] = []
    while at < len(clause):
        found = _TOKEN.match(clause, at)
        if found is None:
            raise UntranslatableError(f"PostgreSQL may not mean the same by {clause}")
        at = found.end()
        if name := found["name"]:
            column = name[1:-1].replace("``", "`")
            parts.append(_numeric_column(column, types, clause))
        elif word := found["word"]:
            if word.upper() not in _WORDS:
                raise UntranslatableError(f"PostgreSQL may not mean the same by {clause}")
            parts.append(word.upper())
        else:
            parts.append("<>" if found["op"] == "!=" else found["number"] or found["op"])
    return " ".join(parts)


def _numeric_column(column: str, types: Mapping[str, MysqlType], clause: str) -> str:
    type_ = types.get(column)
    # tinyint(1) may become boolean; a float's comparison rounds elsewhere.
    sure = type_ is not None and (
        (type_.integer and type_.family != "tinyint(1)") or type_.family == "decimal(p,s)"
    )
    if not sure:
        raise UntranslatableError(f"PostgreSQL may not mean the same by {clause}")
    return '"' + column.replace('"', '""') + '"'
