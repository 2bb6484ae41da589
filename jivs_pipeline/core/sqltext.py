"""Checks on pieces of SQL that users write into a spec. What does not belong here: running or parsing SQL fully.

A fragment is put into a larger statement of ours, so it must not be able to end it: no semicolon,
no comment and no unbalanced bracket outside of quotes. What it may *do* is bounded by rights
(read-only transactions, a read-only file), not by this check.

Dialects disagree on what a quote is, and a spec does not say which dialect reads it: `[x']` is a name in
SQLite and a subscript in PostgreSQL, a backtick quotes in MySQL and is an operator in PostgreSQL. So a
fragment is read in every way, must be whole in one of them, and must not end our statement in any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["fragment_problem"]

_DOLLAR_QUOTE = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_BACKSLASHED_QUOTE = re.compile(r"(?<!\\)(?:\\\\)*\\['\"`]")


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a family of dialects sees a text: what quotes (opener -> closer), and whether # begins a comment."""

    quotes: dict[str, str]
    hash_comments: bool = False


_STANDARD = {"'": "'", '"': '"'}
_READINGS = (
    _Reading(_STANDARD),  # PostgreSQL, Oracle
    _Reading({**_STANDARD, "`": "`", "[": "]"}),  # SQLite, SQL Server
    _Reading({**_STANDARD, "`": "`"}, hash_comments=True),  # MySQL, MariaDB
)


class _Problem(NamedTuple):
    """`ends`: what follows would stand outside of our brackets; otherwise the statement merely does not parse."""

    text: str
    ends: bool


def fragment_problem(text: str) -> str | None:
    """Why `text` cannot stand as one expression inside a statement, or None when it can."""
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "holds a NUL character"
    if _DOLLAR_QUOTE.search(text):
        return "uses dollar quotes"
    if _BACKSLASHED_QUOTE.search(text):
        return (
            "has a backslash before a quote, which not every database reads alike; double the quote instead"
        )
    problems = [_problem(text, reading) for reading in _READINGS]
    found = [p for p in problems if p is not None]
    if ending := next((p for p in found if p.ends), None):
        return ending.text
    return found[0].text if len(found) == len(problems) else None


def _problem(text: str, reading: _Reading) -> _Problem | None:
    open_brackets: list[str] = []
    closers = {"(": ")"} if "[" in reading.quotes else {"(": ")", "[": "]"}
    position = 0
    while position < len(text):
        character = text[position]
        if character in reading.quotes:
            end = text.find(reading.quotes[character], position + 1)
            if end < 0:
                return _Problem(f"has an unclosed {character}", ends=False)
            position = end
        elif character == ";":
            return _Problem("holds more than one statement", ends=True)
        elif text[position : position + 2] in {"--", "/*"}:
            return _Problem("holds a comment", ends=True)
        elif character == "#" and reading.hash_comments:
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif character in closers:
            open_brackets.append(closers[character])
        elif character in closers.values() and (not open_brackets or open_brackets.pop() != character):
            return _Problem(f"has an unbalanced {character}", ends=True)
        position += 1
    return _Problem(f"lacks a closing {open_brackets[-1]}", ends=False) if open_brackets else None
