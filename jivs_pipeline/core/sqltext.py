"""Checks on pieces of SQL that users write into a spec. What does not belong here: running or parsing SQL fully.

A fragment is put into a larger statement of ours, so it must not be able to end it: no semicolon,
no comment and no unbalanced bracket outside of quotes. What it may *do* is bounded by rights
(read-only transactions, a read-only file), not by this check.
"""

from __future__ import annotations

__all__ = ["fragment_problem"]

_CLOSERS = {"(": ")", "[": "]"}
_QUOTES = "'\"`"


def fragment_problem(text: str) -> str | None:
    """Why `text` cannot stand as one expression inside a statement, or None when it can."""
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "holds a NUL character"
    if "$$" in text:
        return "uses dollar quotes"
    expected: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        pair = text[position : position + 2]
        if character in _QUOTES:
            end = text.find(character, position + 1)
            if end < 0:
                return f"has an unclosed {character}"
            position = end
        elif character == ";":
            return "holds more than one statement"
        elif pair in {"--", "/*"}:
            return "holds a comment"
        elif character in _CLOSERS:
            expected.append(_CLOSERS[character])
        elif character in ")]" and (not expected or expected.pop() != character):
            return f"has an unbalanced {character}"
        position += 1
    return f"lacks a closing {expected[-1]}" if expected else None
