"""SQLite's SQL text: tokens, the constraints of a CREATE statement, and expressions in PostgreSQL's words.

What belongs here: pure functions over text. What does not: reading the catalog (`sqlite_catalog`).

SQLAlchemy's reflection was tried and left: it reads SQLite's DDL with regular expressions and silently lost
`UNIQUE (a,<newline> b)`, names of FOREIGN KEY and UNIQUE constraints, and cut CHECKs at comments. PRAGMAs give
structure, this tokenizer gives the names and expressions that PRAGMAs lack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import NoReturn

from jivs_pipeline.core.types import Family, SqliteType

__all__ = [
    "Constraint",
    "Token",
    "Untranslatable",
    "constraints",
    "default_expression",
    "group",
    "identifier",
    "index_parts",
    "tokens",
    "translate",
]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<blob>[xX]'[0-9a-fA-F]*')
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<number>0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<op>\|\||<<|>>|<=|>=|<>|==|!=|->>|->|.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Untranslatable(Exception):
    """PostgreSQL would not surely read this expression alike; the text says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is blob, string, quoted, number, word or op; `text` is as written."""

    kind: str
    text: str

    def word(self, *words: str) -> bool:
        """Whether this is one of the unquoted words (or operators)."""
        return self.kind in ("word", "op") and self.text.upper() in words


def tokens(sql: str) -> list[Token]:
    """Tokens of `sql` without comments and space."""
    return [Token(m.lastgroup or "", m[0]) for m in _TOKEN.finditer(sql) if m.lastgroup != "space"]


def identifier(token: Token) -> str:
    """The name that a token spells; SQLite takes strings for names too."""
    if token.kind == "quoted" or token.kind == "string":
        quote = token.text[0]
        inner = token.text[1:-1]
        return inner if quote == "[" else inner.replace(quote * 2, quote)
    return token.text


def group(items: Sequence[Token], start: int) -> int:
    """Index after the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(items)):
        if items[index].word("("):
            depth += 1
        elif items[index].word(")"):
            depth -= 1
            if not depth:
                return index + 1
    return len(items)


def _split(items: Sequence[Token]) -> list[list[Token]]:
    """Parts between commas outside parentheses."""
    parts: list[list[Token]] = [[]]
    index = 0
    while index < len(items):
        if items[index].word(","):
            parts.append([])
            index += 1
        else:
            end = group(items, index) if items[index].word("(") else index + 1
            parts[-1].extend(items[index:end])
            index = end
    return parts


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint or column property of CREATE TABLE.

    `kind` is PRIMARY, UNIQUE, CHECK, FOREIGN, COLLATE or GENERATED; `columns` are lower-cased names (of the column
    it stands on, or of its list); `body` is the expression of CHECK and GENERATED, or the collation.
    """

    kind: str
    name: str | None
    columns: tuple[str, ...]
    body: tuple[Token, ...] = ()
    deferrable: bool = False
    initially_deferred: bool = False


def _column_list(items: Sequence[Token]) -> tuple[str, ...]:
    return tuple(identifier(part[0]).lower() for part in _split(items) if part)


def _deferral(items: Sequence[Token], start: int) -> tuple[bool, bool, int]:
    """Read `REFERENCES t [(…)] [ON …] [MATCH …] [[NOT] DEFERRABLE [INITIALLY …]]` from its table's name on."""
    index = start + 1
    if index < len(items) and items[index].word("("):
        index = group(items, index)
    deferrable = deferred = False
    while index < len(items):
        if items[index].word("ON"):
            index += 4 if index + 2 < len(items) and items[index + 2].word("SET", "NO") else 3
        elif items[index].word("MATCH"):
            index += 2
        elif items[index].word("NOT") and index + 1 < len(items) and items[index + 1].word("DEFERRABLE"):
            index += 2
            if index < len(items) and items[index].word("INITIALLY"):
                index += 2
        elif items[index].word("DEFERRABLE"):
            deferrable = True
            index += 1
            if index < len(items) and items[index].word("INITIALLY"):
                deferred = items[index + 1].word("DEFERRED")
                index += 2
        else:
            break
    return deferrable, deferred, index


def _walk(items: Sequence[Token], own: tuple[str, ...]) -> list[Constraint]:
    """Constraints in one part of the body; `own` is the column it defines, if any."""
    found: list[Constraint] = []
    name: str | None = None
    index = 0
    while index < len(items):
        token = items[index]
        follows = items[index + 1] if index + 1 < len(items) else Token("op", "")
        if token.word("CONSTRAINT"):
            name, index = identifier(follows), index + 2
            continue
        if token.word("PRIMARY", "UNIQUE"):
            index += 2 if token.word("PRIMARY") else 1
            columns = own
            if index < len(items) and items[index].word("("):
                end = group(items, index)
                columns, index = _column_list(items[index + 1 : end - 1]), end
            found.append(Constraint(token.text.upper(), name, columns))
        elif token.word("CHECK") and follows.word("("):
            end = group(items, index + 1)
            found.append(Constraint("CHECK", name, own, tuple(items[index + 2 : end - 1])))
            index = end
        elif token.word("FOREIGN"):
            end = group(items, index + 2)
            columns = _column_list(items[index + 3 : end - 1])
            deferrable, deferred, index = _deferral(items, end + 1)
            found.append(Constraint("FOREIGN", name, columns, (), deferrable, deferred))
        elif token.word("REFERENCES"):
            deferrable, deferred, index = _deferral(items, index + 1)
            found.append(Constraint("FOREIGN", name, own, (), deferrable, deferred))
        elif token.word("COLLATE"):
            found.append(Constraint("COLLATE", None, own, (follows,)))
            index += 2
        elif token.word("AS") and follows.word("("):
            end = group(items, index + 1)
            found.append(Constraint("GENERATED", None, own, tuple(items[index + 2 : end - 1])))
            index = end
        elif token.word("DEFAULT"):
            index += 1
            if follows.word("("):
                index = group(items, index)
            else:
                index += 2 if follows.word("+", "-") else 1
        else:
            # NOT NULL, a type's words and its arguments.
            index = group(items, index) if token.word("(") else index + 1
            continue
        name = None
    return found


def constraints(sql: str) -> list[Constraint]:
    """Constraints of a CREATE TABLE statement, in order."""
    items = tokens(sql)
    start = next((i for i, t in enumerate(items) if t.word("(", "AS")), len(items))
    if start == len(items) or items[start].word("AS"):
        return []
    found: list[Constraint] = []
    for part in _split(items[start + 1 : group(items, start) - 1]):
        if not part:
            continue
        if part[0].word("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"):
            found += _walk(part, ())
        else:
            found += _walk(part[1:], (identifier(part[0]).lower(),))
    return found


def index_parts(sql: str) -> tuple[list[list[Token]], list[Token]]:
    """Keys and WHERE predicate of a CREATE INDEX statement."""
    items = tokens(sql)
    start = next(i for i, t in enumerate(items) if t.word("("))
    end = group(items, start)
    predicate = items[end + 1 :] if end < len(items) and items[end].word("WHERE") else []
    return _split(items[start + 1 : end - 1]), [t for t in predicate if not t.word(";")]


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


def default_expression(written: str, declared: SqliteType) -> str | None:
    """A DEFAULT in PostgreSQL's words; None for NULL.

    Literals are quoted: PostgreSQL reads `'1'` as whatever the column's final type is, and the census may
    still make boolean or bigint of a BOOLEAN.

    Raises:
        Untranslatable: an expression, or a value that the declared type's family cannot hold.
    """
    items = tokens(written)
    while len(items) > 2 and items[0].word("(") and group(items, 0) == len(items):
        items = items[1:-1]
    sign = ""
    if len(items) == 2 and items[0].word("+", "-"):
        sign, items = items[0].text.replace("+", ""), items[1:]
    if len(items) != 1:
        raise Untranslatable(f"default ({written}) is an expression")
    token, upper = items[0], items[0].text.upper()
    if token.kind == "word" and upper == "NULL":
        return None
    if token.kind == "word" and upper in _CLOCKS:
        if declared.family not in _CLOCK_FAMILIES[upper]:
            raise Untranslatable(
                f"default {upper} does not give a {declared.declared or 'value without a type'}"
            )
        return _CLOCKS[upper]
    if token.kind == "blob":
        if declared.family is not Family.BLOB:
            raise Untranslatable(f"default {written} is a blob in a column that is none")
        return f"'\\x{token.text[2:-1].lower()}'"
    if token.kind == "word" and upper in ("TRUE", "FALSE"):
        value = str(int(upper == "TRUE"))
    elif token.kind == "number":
        value = sign + (str(int(token.text, 16)) if upper.startswith("0X") else token.text)
        if declared.family in (Family.TEXT, Family.VARCHAR) and not re.fullmatch(r"-?(0|[1-9]\d*)", value):
            raise Untranslatable(f"default {written} is a number in a text column")
    else:
        # A word or a "name" in DEFAULT is a string to SQLite.
        value = identifier(token)
    if not _has_form(value, declared.family) or declared.family is Family.BLOB or "\0" in value:
        raise Untranslatable(f"default {written} is not a {declared.declared}")
    if declared.length is not None and len(value) > declared.length:
        raise Untranslatable(f"default {written} is longer than {declared.declared}")
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


class _Parser:
    """A recursive descent over what means the same in both databases; anything else raises."""

    def __init__(self, items: Sequence[Token], columns: Mapping[str, tuple[str, SqliteType, bool]]) -> None:
        self._items = items
        self._columns = columns
        self._at = 0

    def whole(self) -> str:
        sql = self._any()
        if self._at < len(self._items):
            self._stop()
        return sql

    def operand_alone(self) -> str:
        operand = self._operand()
        if self._at < len(self._items) or operand.literal:
            self._stop()
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
            self._stop()

    def _stop(self, reason: str | None = None) -> NoReturn:
        raise Untranslatable(reason or f"{self._peek().text} is not surely the same in PostgreSQL")

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
        if self._take("IS"):
            negated = self._take("NOT")
            self._expect("NULL")
            return f"({left.sql} IS {'NOT ' if negated else ''}NULL)"
        if self._take("ISNULL"):
            return f"({left.sql} IS NULL)"
        if self._take("NOTNULL"):
            return f"({left.sql} IS NOT NULL)"
        negated = self._take("NOT")
        if negated and self._take("NULL"):
            return f"({left.sql} IS NOT NULL)"
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
            self._stop()
        self._at += 1
        one, other = self._compared(left, self._operand(), ordered=operator not in ("=", "<>"))
        return f"({one} {operator} {other})"

    def _operand(self) -> _Operand:
        if self._take("("):
            inner = self._operand()
            self._expect(")")
            return inner
        sign = "-" if self._take("-") else "+" if self._take("+") else ""
        token = self._peek()
        self._at += 1
        # More digits than a double holds would be compared as a double there and exactly here.
        if token.kind == "number" and len(re.sub(r"\D|^0+", "", token.text)) <= _EXACT_DIGITS:
            return _Operand(sign.replace("+", "") + token.text, Family.NUMERIC, literal=True)
        if sign:
            self._at -= 1
            self._stop()
        if token.kind == "string":
            return _Operand(token.text, Family.TEXT, literal=True)
        if token.word("LENGTH") and self._peek().word("("):
            self._at += 1
            inner = self._operand()
            self._expect(")")
            if inner.family not in _TEXTS or inner.literal:
                self._stop("length() of something that is not a text column")
            return _Operand(f"length({inner.sql})", Family.INTEGER)
        if token.kind in ("word", "quoted") and not self._peek().word("(", "."):
            return self._column(token)
        self._at -= 1
        self._stop(f"{token.text} is not surely the same in PostgreSQL")

    def _column(self, token: Token) -> _Operand:
        found = self._columns.get(identifier(token).lower())
        if found is None:
            self._stop(f"{token.text} is not a column")
        name, declared, collated = found
        return _Operand('"' + name.replace('"', '""') + '"', declared.family, collated=collated)

    def _compared(self, left: _Operand, right: _Operand, *, ordered: bool) -> tuple[str, str]:
        """Both sides as PostgreSQL must spell them; raises where types or order could differ."""
        if left.literal and not right.literal:
            other, one = self._compared(right, left, ordered=ordered)
            return one, other
        if left.literal:
            self._stop("two literals are compared")
        if left.collated or right.collated:
            self._stop("a collation that PostgreSQL lacks decides the comparison")
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
            self._stop("the order of texts depends on the collation")
        self._stop(f"{left.sql} and {right.sql} are of types that PostgreSQL compares otherwise")


def translate(
    items: Sequence[Token], columns: Mapping[str, tuple[str, SqliteType, bool]], *, condition: bool = True
) -> str:
    """A CHECK or predicate (or, without `condition`, an index key) in PostgreSQL's words.

    Args:
        columns: by lower-cased name: the name, its type, and whether it has a collation of its own.

    Raises:
        Untranslatable: with the reason.
    """
    parser = _Parser(items, columns)
    return parser.whole() if condition else parser.operand_alone()
