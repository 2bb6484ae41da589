"""Digests of canonical texts in plain Python, written from the words in `core/digest.py` alone.

What belongs here: the hash functions and the sums. What does not: how a value is spelled, which each test says itself.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from jivs_pipeline.core.digest import LONG, Canon, Digest, Spelling

_ALL = 0xFFFFFFFF
_FREE = {Canon.TEXT, Canon.BYTES, Canon.FLOATS}


def reference(
    rows: Iterable[Sequence[str | None]], canons: Sequence[Canon], spelling: Spelling = Spelling.CHAIN
) -> Digest:
    """The digest of rows given by their canonical texts."""
    total = Digest()
    for row in rows:
        total += _chained(row, canons) if spelling is Spelling.CHAIN else _joined(row, canons)
    return total


def _joined(row: Sequence[str | None], canons: Sequence[Canon]) -> Digest:
    texts = [
        (f"{len(t)}:{t}" if c in _FREE else t) if t is not None else ("-" if c in _FREE else "")
        for t, c in zip(row, canons, strict=True)
    ]
    return Digest(1, *struct.unpack(">qq", hashlib.md5(",".join(texts).encode()).digest()))


def _chained(row: Sequence[str | None], canons: Sequence[Canon]) -> Digest:
    found = 0
    for text, canon in zip(row, canons, strict=True):
        data = (text or "").encode()
        if canon in _FREE:
            found ^= -1 % 2**64 if text is None else len(data)
        if canon in _FREE and len(data) > LONG:
            data = hashlib.md5(data).hexdigest().encode()
        found = hashtextextended(data, found)
    return Digest(1, found - (found >> 63 << 64), 0)


def hashtextextended(data: bytes, seed: int) -> int:
    """PostgreSQL's function, unsigned: Bob Jenkins' lookup3 with a seed of 64 bits."""
    a = b = c = 0x9E3779B9 + len(data) + 3923095 & _ALL
    if seed:
        a, b, c = _mixed(a + (seed >> 32), b + seed, c)
    while len(data) >= 12:
        x, y, z = struct.unpack("<3I", data[:12])
        a, b, c = _mixed(a + x, b + y, c + z)
        data = data[12:]
    # The lowest byte of the last word belongs to the length.
    x, y, z = struct.unpack("<3I", data[:8].ljust(8, b"\0") + b"\0" + data[8:].ljust(3, b"\0"))
    a, b, c = a + x & _ALL, b + y & _ALL, c + z & _ALL
    c = (c ^ b) - _turned(b, 14) & _ALL
    a = (a ^ c) - _turned(c, 11) & _ALL
    b = (b ^ a) - _turned(a, 25) & _ALL
    c = (c ^ b) - _turned(b, 16) & _ALL
    a = (a ^ c) - _turned(c, 4) & _ALL
    b = (b ^ a) - _turned(a, 14) & _ALL
    c = (c ^ b) - _turned(b, 24) & _ALL
    return b << 32 | c


def _turned(word: int, bits: int) -> int:
    return word << bits & _ALL | word >> 32 - bits


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    a, b, c = a & _ALL, b & _ALL, c & _ALL
    for first, second, third in ((4, 6, 8), (16, 19, 4)):
        a, c = (a - c & _ALL) ^ _turned(c, first), c + b & _ALL
        b, a = (b - a & _ALL) ^ _turned(a, second), a + c & _ALL
        c, b = (c - b & _ALL) ^ _turned(b, third), b + a & _ALL
    return a, b, c
