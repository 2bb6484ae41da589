"""SQLite's expressions in PostgreSQL's words, where both surely mean the same.

What belongs here: pure translation of defaults, conditions and index keys. What does not: finding them in the
DDL (`sqlite_sql`), reporting what could not be translated (`sqlite_catalog`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time

from jivs_pipeline.core.types import Family, SqliteType
from jivs_pipeline.infra.sources.sqlite_sql import Token, group, identifier, tokens
from jivs_pipeline.infra.sources.sqlite_values import fits_numeric

__all__ = ["UntranslatableError", "default_expression", "translate", "translate_key"]


Columns = Mapping[str, tuple[str, SqliteType, bool]]
"""By lower-cased name: the name, its type, and whether it has a collation of its own."""


class UntranslatableError(Exception):
    """PostgreSQL would not surely read this expression alike; the text says why."""


def _string(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


_CLOCKS = {
    # SQLite's clocks are UTC and have whole seconds.
    "CURRENT_TIMESTAMP": "date_trunc('second', (now() AT TIME ZONE 'UTC'))",
    "CURRENT_DATE": "((now() AT TIME ZONE 'UTC')::date)",
    "CURRENT_TIME": "(date_trunc('second', (now() AT TIME ZONE 'UTC'))::time)",
}
_CLOCK_FAMILIES = {
    "CURRENT_TIMESTAMP": {Family.TIMESTAMP, Family.TEXT, Family.VARCHAR},
    "CURRENT_DATE": {Family.DATE, Family.TEXT, Family.VARCHAR},
    "CURRENT_TIME": {Family.TIME, Family.TEXT, Family.VARCHAR},
}
_FORMS = {
    Family.DATE: re.compile(r"\d{4}-\d\d-\d\d"),
    Family.TIME: re.compile(r"\d\d:\d\d:\d\d(\.\d{1,6})?"),
    Family.TIMESTAMP: re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?"),
    Family.INTEGER: re.compile(r"[+-]?\d{1,18}"),
    Family.REAL: re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"),
    Family.NUMERIC: re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)"),
    Family.BOOLEAN: re.compile(r"[01]"),
}


def _has_form(value: str, family: Family) -> bool:
    """Whether a literal is surely one of the family's PostgreSQL type."""
    if family not in _FORMS:
        return True
    if not _FORMS[family].fullmatch(value):
        return False
    try:
        if family in (Family.DATE, Family.TIMESTAMP):
            date.fromisoformat(value[:10])
        if family in (Family.TIME, Family.TIMESTAMP):
            time.fromisoformat(value[-8:] if "." not in value else value.partition(".")[0][-8:])
    except ValueError:
        return False
    return True


def _literal(written: str) -> tuple[str, Token]:
    """Sign and token of a default that is one literal, name or clock."""
    items = tokens(written)
    while len(items) > 2 and items[0].word("(") and group(items, 0) == len(items):
        items = items[1:-1]
    sign = ""
    if len(items) == 2 and items[0].word("+", "-"):
        sign, items = items[0].text.replace("+", ""), items[1:]
    if len(items) != 1:
        raise UntranslatableError(f"default ({written}) is an expression")
    return sign, items[0]


def _number(sign: str, token: Token, declared: SqliteType) -> str:
    value = sign + (str(int(token.text, 16)) if token.text[:2].lower() == "0x" else token.text)
    if declared.family in _TEXTS and not re.fullmatch(r"-?(0|[1-9]\d*)", value):
        raise UntranslatableError(f"default {value} is a number in a text column")
    return value


def _word(token: Token) -> str:
    if token.word("TRUE", "FALSE"):
        return str(int(token.word("TRUE")))
    # Any other word, and a "name", is a string to SQLite.
    return identifier(token)


def default_expression(written: str, declared: SqliteType) -> str | None:
    """A DEFAULT in PostgreSQL's words; None for NULL.

    Literals are quoted: PostgreSQL reads `'1'` as whatever the column's final type is, and the census may
    still make boolean or bigint of a BOOLEAN.

    Raises:
        UntranslatableError: an expression, or a value that the declared type's family cannot hold.
    """
    sign, token = _literal(written)
    word = token.text.upper() if token.kind == "word" else ""
    if word == "NULL":
        return None
    if word in _CLOCKS:
        if declared.family not in _CLOCK_FAMILIES[word]:
            raise UntranslatableError(
                f"default {word} does not give a {declared.declared or 'value without a type'}"
            )
        return _CLOCKS[word]
    if (token.kind == "blob") != (declared.family is Family.BLOB):
        raise UntranslatableError(f"default {written} is not a {declared.declared or 'blob'}")
    if token.kind == "blob":
        return f"'\\x{token.text[2:-1].lower()}'"
    value = _number(sign, token, declared) if token.kind == "number" else _word(token)
    if not _has_form(value, declared.family) or "\0" in value:
        raise UntranslatableError(f"default {written} is not a {declared.declared}")
    if declared.precision is not None and not fits_numeric(value, declared.precision, declared.scale or 0):
        raise UntranslatableError(f"default {written} does not fit {declared.declared}")
    if declared.length is not None and len(value) > declared.length:
        raise UntranslatableError(f"default {written} is longer than {declared.declared}")
    return _string(value)


# ── expressions ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Operand:
    sql: str
    family: Family
    literal: bool = False
    collated: bool = False


_COMPARISONS = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_EXACT_DIGITS = 15
_TEXTS = frozenset({Family.TEXT, Family.VARCHAR})
_ORDERED = frozenset({Family.INTEGER, Family.REAL, Family.NUMERIC})


def _is_plain(number: str) -> bool:
    """Whether both databases read it alike: no hexadecimals, no more digits than a double holds."""
    return "x" not in number.lower() and len(re.sub(r"\D|^0+", "", number)) <= _EXACT_DIGITS


class _Parser:
    """A recursive descent over what means the same in both databases; anything else raises."""

    def __init__(self, items: Sequence[Token], columns: Columns) -> None:
        self._items = items
        self._columns = columns
        self._at = 0

    def whole(self) -> str:
        sql = self._any()
        if self._at < len(self._items):
            raise self._problem()
        return sql

    def operand_alone(self) -> str:
        operand = self._operand()
        if self._at < len(self._items) or operand.literal:
            raise self._problem()
        return operand.sql

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._items[at] if at < len(self._items) else Token("end", "the end")

    def _take(self, *words: str) -> bool:
        if self._peek().word(*words):
            self._at += 1
            return True
        return False

    def _expect(self, *words: str) -> None:
        if not self._take(*words):
            raise self._problem()

    def _problem(self, reason: str | None = None) -> UntranslatableError:
        return UntranslatableError(reason or f"{self._peek().text} is not surely the same in PostgreSQL")

    def _any(self) -> str:
        parts = [self._all()]
        while self._take("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else "(" + " OR ".join(parts) + ")"

    def _all(self) -> str:
        parts = [self._negated()]
        while self._take("AND"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else "(" + " AND ".join(parts) + ")"

    def _negated(self) -> str:
        return f"(NOT {self._negated()})" if self._take("NOT") else self._predicate()

    def _predicate(self) -> str:
        if self._peek().word("("):
            end = self._at + group(self._items[self._at :], 0)
            after = self._items[end] if end < len(self._items) else Token("end", "")
            if after.kind == "end" or after.word("AND", "OR", ")"):
                self._at += 1
                inner = self._any()
                self._expect(")")
                return inner
        left = self._operand()
        if (null := self._null_test()) is not None:
            return f"({left.sql} {null})"
        negated = self._take("NOT")
        word = "NOT " if negated else ""
        if self._take("IN"):
            self._expect("(")
            values = [self._compared(left, self._operand(), ordered=False)[1]]
            while self._take(","):
                values.append(self._compared(left, self._operand(), ordered=False)[1])
            self._expect(")")
            return f"({left.sql} {word}IN ({', '.join(values)}))"
        if self._take("BETWEEN"):
            low = self._compared(left, self._operand(), ordered=True)[1]
            self._expect("AND")
            high = self._compared(left, self._operand(), ordered=True)[1]
            return f"({left.sql} {word}BETWEEN {low} AND {high})"
        operator = _COMPARISONS.get(self._peek().text) if self._peek().kind == "op" else None
        if negated or operator is None:
            raise self._problem()
        self._at += 1
        one, other = self._compared(left, self._operand(), ordered=operator not in ("=", "<>"))
        return f"({one} {operator} {other})"

    def _null_test(self) -> str | None:
        if self._take("ISNULL"):
            return "IS NULL"
        if self._take("NOTNULL"):
            return "IS NOT NULL"
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return "IS NOT NULL" if negated else "IS NULL"
        if self._peek().word("NOT") and self._peek(1).word("NULL"):
            self._at += 2
            return "IS NOT NULL"
        return None

    def _operand(self) -> _Operand:
        if self._take("("):
            inner = self._operand()
            self._expect(")")
            return inner
        sign = "-" if self._take("-") else "+" if self._take("+") else ""
        token = self._peek()
        self._at += 1
        if token.kind == "number" and _is_plain(token.text):
            return _Operand(sign.replace("+", "") + token.text, Family.NUMERIC, literal=True)
        if sign:
            self._at -= 1
            raise self._problem()
        if token.kind == "string":
            return _Operand(token.text, Family.TEXT, literal=True)
        if token.word("LENGTH") and self._peek().word("("):
            self._at += 1
            inner = self._operand()
            self._expect(")")
            if inner.family not in _TEXTS or inner.literal:
                raise self._problem("length() of something that is not a text column")
            return _Operand(f"length({inner.sql})", Family.INTEGER)
        if token.kind in ("word", "quoted") and not self._peek().word("(", "."):
            return self._column(token)
        self._at -= 1
        raise self._problem(f"{token.text} is not surely the same in PostgreSQL")

    def _column(self, token: Token) -> _Operand:
        found = self._columns.get(identifier(token).lower())
        if found is None:
            raise self._problem(f"{token.text} is not a column")
        name, declared, collated = found
        return _Operand('"' + name.replace('"', '""') + '"', declared.family, collated=collated)

    def _compared(self, left: _Operand, right: _Operand, *, ordered: bool) -> tuple[str, str]:
        """Both sides as PostgreSQL must spell them; raises where types or order could differ."""
        if left.literal and not right.literal:
            other, one = self._compared(right, left, ordered=ordered)
            return one, other
        if left.literal:
            raise self._problem("two literals are compared")
        if left.collated or right.collated:
            raise self._problem("a collation that PostgreSQL lacks decides the comparison")
        family = left.family
        if right.literal and family is Family.BOOLEAN and right.sql in ("0", "1") and not ordered:
            # Quoted: right for boolean, and for bigint if the census finds more than 0 and 1.
            return left.sql, _string(right.sql)
        # A bigint and a double are compared exactly by SQLite and as doubles by PostgreSQL.
        reals = Family.REAL in (family, right.family) and family is not right.family and not right.literal
        if family in _ORDERED and right.family in _ORDERED and not reals:
            return left.sql, right.sql
        if family in _TEXTS and right.family in _TEXTS and not ordered:
            return left.sql, right.sql
        if family is Family.DATE and right.literal and _has_form(right.sql[1:-1], Family.DATE):
            return left.sql, right.sql
        if family is Family.DATE and right.family is Family.DATE:
            return left.sql, right.sql
        if ordered and family in _TEXTS and right.family in _TEXTS:
            raise self._problem("the order of texts depends on the collation")
        raise self._problem(f"{left.sql} and {right.sql} are of types that PostgreSQL compares otherwise")


def translate(items: Sequence[Token], columns: Columns) -> str:
    """A condition (of a CHECK or a partial index) in PostgreSQL's words.

    Raises:
        UntranslatableError: with the reason.
    """
    return _Parser(items, columns).whole()


def translate_key(items: Sequence[Token], columns: Columns) -> str:
    """The expression of an index key in PostgreSQL's words.

    Raises:
        UntranslatableError: with the reason.
    """
    return _Parser(items, columns).operand_alone()
