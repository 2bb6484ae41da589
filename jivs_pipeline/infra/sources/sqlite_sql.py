"""SQLite's SQL text: tokens, and what a CREATE statement says that no PRAGMA tells.

What belongs here: pure functions over text. What does not: reading the catalog (`sqlite_catalog`),
translating expressions (`sqlite_expressions`).

SQLAlchemy's reflection was tried and left: it reads SQLite's DDL with regular expressions and silently lost
`UNIQUE (a,<newline> b)`, names of FOREIGN KEY and UNIQUE constraints, and cut CHECKs at comments. PRAGMAs
give structure, this tokenizer gives the names and expressions that PRAGMAs lack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = [
    "Constraint",
    "Token",
    "constraints",
    "group",
    "identifier",
    "index_parts",
    "tokens",
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
    if token.kind in {"quoted", "string"}:
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

    `kind` is PRIMARY, UNIQUE, CHECK, FOREIGN or COLLATE; `columns` are lower-cased names (of the column it
    stands on, or of its list); `body` is the expression of a CHECK, or the name of a collation.
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
    """Read what follows REFERENCES: deferrable, initially deferred, and the index after it."""
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


def _after_default(items: Sequence[Token], index: int) -> int:
    """Index after the value of a DEFAULT that begins at `index`."""
    if index < len(items) and items[index].word("("):
        return group(items, index)
    return index + (2 if index < len(items) and items[index].word("+", "-") else 1)


def _constraint(items: Sequence[Token], index: int, own: tuple[str, ...]) -> tuple[Constraint | None, int]:
    """The constraint that begins at `index`, if one does, and the index after it."""
    token = items[index]
    follows = items[index + 1] if index + 1 < len(items) else Token("op", "")
    found: Constraint | None = None
    if token.word("PRIMARY", "UNIQUE"):
        columns, index = own, index + (2 if token.word("PRIMARY") else 1)
        if index < len(items) and items[index].word("("):
            start, index = index, group(items, index)
            columns = _column_list(items[start + 1 : index - 1])
        found = Constraint(token.text.upper(), None, columns)
    elif token.word("CHECK") and follows.word("("):
        start, index = index + 1, group(items, index + 1)
        found = Constraint("CHECK", None, own, tuple(items[start + 1 : index - 1]))
    elif token.word("FOREIGN", "REFERENCES"):
        columns = own
        if token.word("FOREIGN"):
            start, index = index + 2, group(items, index + 2)
            columns = _column_list(items[start + 1 : index - 1])
        deferrable, deferred, index = _deferral(items, index + 1)
        found = Constraint("FOREIGN", None, columns, (), deferrable, deferred)
    elif token.word("COLLATE"):
        found, index = Constraint("COLLATE", None, own, (follows,)), index + 2
    elif token.word("DEFAULT"):
        index = _after_default(items, index + 1)
    else:
        # NOT NULL, words of a type, its arguments, the expression of a generated column.
        index = group(items, index) if token.word("(") else index + 1
    return found, index


def _walk(items: Sequence[Token], own: tuple[str, ...]) -> list[Constraint]:
    """Constraints in one part of the body; `own` is the column it defines, if any."""
    found: list[Constraint] = []
    name: str | None = None
    index = 0
    while index < len(items):
        if items[index].word("CONSTRAINT") and index + 1 < len(items):
            name, index = identifier(items[index + 1]), index + 2
            continue
        named = index
        constraint, index = _constraint(items, index, own)
        if constraint is not None:
            found.append(replace(constraint, name=name))
        if constraint is not None or items[named].word("DEFAULT", "NULL", "AS"):
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
