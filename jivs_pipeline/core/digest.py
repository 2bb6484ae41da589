"""Digests of rows: how both ends spell a value, and how row hashes add up.

What belongs here: the canonical spellings (`Canon`) and the sum. What does not: the SQL that
computes them, which each database adapter owns.

A row is hashed to 128 bits, or to 64, and the signed 64-bit halves are summed over the rows. A sum
instead of XOR, because XOR cancels pairs of equal rows; halves, because databases sum 64-bit
integers fast and exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["LONG", "Canon", "Digest", "Spelling"]

_HALF = 1 << 64
LONG = 4096
"""Bytes from which on a chain hashes the MD5 of a value's text instead of the text."""


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

    @property
    def free(self) -> bool:
        """Whether the text may be empty, or of any length."""
        return self in {Canon.TEXT, Canon.BYTES, Canon.FLOATS}


class Spelling(StrEnum):
    """How a whole row becomes one text."""

    RECORD = "record"
    """The values of the columns one after the other, each hashed by PostgreSQL's own function for its type with the hash
    of those before it as seed: 64 bits. For PostgreSQL on both ends, and columns of the same types."""
    CHAIN = "chain"
    """The canonical texts of the columns one after the other, each hashed by PostgreSQL's hashtextextended with the hash
    of those before it as seed, the first with 0: 64 bits. NULL is hashed as the empty text. For a free text the seed is
    XORed with its length in bytes, -1 for NULL, and one longer than `LONG` is hashed as its MD5. For ends that are
    PostgreSQL or hash in here."""
    CANONICAL = "canonical"
    """The canonical texts joined by commas and hashed with MD5. NULL is spelled as the empty text. A free one is
    `<characters>:<text>`, and `-` for NULL. For PostgreSQL databases
    whose encoding is another one than UTF8."""

    @property
    def of_texts(self) -> Spelling:
        """The spelling where this end's rows are worked on as texts on their way."""
        return Spelling.CHAIN if self is Spelling.RECORD else self


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
