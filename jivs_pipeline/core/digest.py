"""Digests of rows: how both ends spell a value, and how row hashes add up.

What belongs here: the canonical spellings (`Canon`) and the sum. What does not: the SQL that
computes them, which each database adapter owns.

A row's text is hashed to 128 bits and the two signed 64-bit halves are summed over the rows. A sum
instead of XOR, because XOR cancels pairs of equal rows; two halves, because databases sum 64-bit
integers fast and exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Canon", "Digest", "Spelling"]

_HALF = 1 << 64


class Canon(StrEnum):
    """How a column's value is spelled before hashing; the same text on both ends for equal values."""

    TEXT = "text"  # as it is
    INTEGER = "integer"  # decimal digits
    NUMERIC = "numeric"  # decimal digits without exponent and without trailing zeros after the point
    FLOAT = "float"  # the eight bytes of the IEEE 754 double, big-endian hex: tells -0 from 0
    FLOATS = "floats"  # an array of them, as PostgreSQL prints one: {3ff8000000000000,NULL}
    BOOLEAN = "boolean"  # 0 or 1
    BYTES = "bytes"  # lower-case hex
    DATE = "date"  # YYYY-MM-DD
    TIME = "time"  # HH:MM:SS[.ffffff] without trailing zeros
    TIMESTAMP = "timestamp"  # YYYY-MM-DD HH:MM:SS[.ffffff] without trailing zeros


class Spelling(StrEnum):
    """How a whole row becomes one text."""

    RECORD = "record"
    """PostgreSQL's own `ROW(…)::text` under pinned settings, hashed with hashtextextended: PostgreSQL on both ends."""
    CANONICAL = "canonical"
    """Per column `<characters>:<canonical text>`, `-` for NULL, joined without a separator and hashed with MD5."""


@dataclass(frozen=True, slots=True)
class Digest:
    """Count and hash sum of a set of rows; adding digests is the digest of the union."""

    rows: int = 0
    high: int = 0
    low: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.high + other.high, self.low + other.low)

    def __sub__(self, other: Digest) -> Digest:
        """Of the rows of this that are not in `other`, all of whose rows are in this."""
        return Digest(self.rows - other.rows, self.high - other.high, self.low - other.low)

    @property
    def hex(self) -> str:
        """32 hex digits for people and documents."""
        return f"{self.high % _HALF:016x}{self.low % _HALF:016x}"

    def stored(self) -> str:
        """Text that `parse` reads back without loss."""
        return f"{self.rows}:{self.high}:{self.low}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `stored` wrote."""
        rows, high, low = text.split(":")
        return cls(int(rows), int(high), int(low))
