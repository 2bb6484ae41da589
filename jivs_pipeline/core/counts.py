"""How many there are of something, in the words of a sentence."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, one: str, many: str) -> str:
    """`1 row is`, `2,000 rows are`: the number with the words for one or for many."""
    return f"{number:,} {one if number == 1 else many}"
