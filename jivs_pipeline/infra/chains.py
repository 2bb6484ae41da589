"""The hash of `Spelling.CHAIN` over Arrow's texts, column by column: what hashtextextended gives inside of PostgreSQL.

What belongs here: that function over arrays, and linking columns by it. What does not: spelling a value, or PostgreSQL's
side of it (`digests.py`).

The function is Bob Jenkins' lookup3 on blocks of twelve bytes. Here it takes a block of all rows at a time, the rows with
most blocks first, so that those that have one more are a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import LONG, Canon, Digest

__all__ = ["Link", "chain_digest", "chain_hashes", "digest_of_links", "hex_pieces", "link_text", "octets_of"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow
Words = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]

_PIECE = 1 << 20
_ROWS = 16_384  # at once: what they need stays in the processor's cache
_BLOCK, _WORD = 12, 4
_START = 0x9E3779B9 + 3923095
_PADDING = 6 * _WORD  # the last block is read as if it were whole, and each word with the one after it
_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Link:
    """What is hashed of a column.

    Attributes:
        texts: NULL is hashed as the empty text.
        marks: int64 per row for the seeds, or None.
    """

    texts: Array
    marks: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, found: Iterable[tuple[bytes | None, int]], *, free: bool = True) -> Link:
        """Of what `link_text` gave for each value."""
        texts, marks = zip(*found, strict=True)
        return cls(pa.array(texts, pa.binary()), np.array(marks, np.int64) if free else None)

    def part(self, start: int, rows: int) -> Link:
        """Some of the rows."""
        marks = None if self.marks is None else self.marks[start : start + rows]
        return Link(self.texts.slice(start, rows), marks)


def chain_digest(columns: Sequence[Array], canons: Sequence[Canon], rows: int) -> Digest:
    """Digest of rows given by their columns' canonical texts."""
    return digest_of_links([_link(c, canon) for c, canon in zip(columns, canons, strict=True)], rows)


def digest_of_links(columns: Sequence[Link], rows: int) -> Digest:
    """The same where it is said already what is hashed."""
    high = 0
    for start in range(0, rows, _ROWS):
        hashes = _chain([c.part(start, _ROWS) for c in columns], min(_ROWS, rows - start))
        # Halves, for the sum of 64-bit integers needs more than 64 bits.
        signed = hashes.view(np.int64)
        high += (int((signed >> 32).sum()) << 32) + int((signed & 0xFFFFFFFF).sum())
    return Digest(rows, high, 0)


def chain_hashes(columns: Sequence[Array], canons: Sequence[Canon], rows: int) -> Iterator[bytes]:
    """The hash of each such row, as PostgreSQL's int8send writes it."""
    found = _chain([_link(c, canon) for c, canon in zip(columns, canons, strict=True)], rows)
    whole = found.astype(">u8").tobytes()
    return (whole[n : n + 8] for n in range(0, len(whole), 8))


def _chain(columns: Sequence[Link], rows: int) -> Hashes:
    found: Hashes = np.zeros(rows, np.uint64)
    for column in columns:
        found = _hashed(column.texts, found if column.marks is None else found ^ column.marks.view(np.uint64))
    return found


def _link(column: Array, canon: Canon) -> Link:
    if not canon.free:
        return Link(column)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return _link_of_bytes(column)
    marks = _pc.fill_null(_pc.binary_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    places = np.flatnonzero(marks > LONG)
    if not len(places):
        return Link(column, marks)
    octets = octets_of(column)
    hashes = pa.array([link_text(octets(int(n)), blob=False)[0] for n in places], pa.binary()).cast(
        column.type
    )
    return Link(_pc.replace_with_mask(column, pa.array(marks > LONG), hashes), marks)


def _link_of_bytes(column: Array) -> Link:
    """Of values whose canonical text is their hex digits."""
    valid, octets = column.is_valid().to_pylist(), octets_of(column)
    return Link.of(link_text(octets(n) if there else None, blob=True) for n, there in enumerate(valid))


def link_text(value: bytes | memoryview | None, *, blob: bool) -> tuple[bytes | None, int]:
    """What is hashed of a value, which is short where the value is large, and its mark.

    Args:
        value: its text as UTF-8, or the bytes of a blob, whose text is their hex digits.
    """
    if value is None:
        return None, -1
    size = len(value) * (1 + blob)
    if size <= LONG:
        return (value.hex().encode() if blob else bytes(value)), size
    whole = md5(usedforsecurity=False)
    for piece in hex_pieces(value) if blob else (value,):
        whole.update(piece)
    return whole.hexdigest().encode(), size


def hex_pieces(value: bytes | memoryview) -> Iterator[bytes]:
    """The hex digits of a blob, of which 200 MB would be too much at once."""
    return (value[at : at + _PIECE].hex().encode() for at in range(0, len(value), _PIECE))


def octets_of(column: Array) -> Callable[[int], memoryview]:
    """Gives the bytes of a valid value where they are: Arrow's own scalars make a copy of 100 MB."""
    _, places, data = column.buffers()
    bounds = _bounds(column, places)
    whole = memoryview(data) if data is not None else memoryview(b"")
    return lambda number: whole[int(bounds[number]) : int(bounds[number + 1])]


def _bounds(column: Array, places: Any) -> npt.NDArray[Any]:
    """Where values begin in their buffer, and where the last one ends."""
    if places is None:
        return np.zeros(len(column) + 1, np.int32)
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    found: npt.NDArray[Any] = np.frombuffer(places, np.int64 if wide else np.int32)
    return found[column.offset : column.offset + len(column) + 1]


def _hashed(texts: Array, seeds: Hashes) -> Hashes:
    """What hashtextextended gives for each text with its seed."""
    words, start, length = _words(texts)
    a = length.astype(np.uint32) + np.uint32(_START & 0xFFFFFFFF)
    b, c = a.copy(), a.copy()
    _seed(a, b, c, seeds)
    blocks = length // _BLOCK
    if not (most := int(blocks.max(initial=0))):
        return _ended(_Reader(words, start), length, a, b, c)
    order = np.argsort(-blocks, kind="stable")
    start, length, blocks = start[order], length[order], blocks[order]
    a, b, c = a[order], b[order], c[order]
    reader = _Reader(words, start)
    having = np.searchsorted(-blocks, -np.arange(1, most + 1), side="right")
    for number, count in enumerate(having):
        parts = a[:count], b[:count], c[:count]
        for position, part in enumerate(parts, 3 * number):
            np.add(part, reader.word(int(count), position), out=part)
        _mix(*parts)
    placed = np.empty(len(texts), np.uint64)
    placed[order] = _ended(_Reader(words, start + _BLOCK * blocks), length - _BLOCK * blocks, a, b, c)
    return placed


def _ended(reader: _Reader, rest: npt.NDArray[np.int64], a: Words, b: Words, c: Words) -> Hashes:
    """The hashes after the last, unfinished block."""
    rows = len(rest)
    a += reader.word(rows, 0) & _MASKS[np.minimum(rest, _WORD)]
    if int(rest.max(initial=0)) > _WORD:
        b += reader.word(rows, 1) & _MASKS[np.clip(rest - _WORD, 0, _WORD)]
        # The lowest byte of the last word is the length's.
        c += (reader.word(rows, 2) & _MASKS[np.clip(rest - 2 * _WORD, 0, _WORD)]) << np.uint32(8)
    _finish(a, b, c)
    return (b.astype(np.uint64) << _HALF) | c


def _words(texts: Array) -> tuple[Words, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All texts as little-endian words, and where each begins and how many bytes it has."""
    _, places, data = texts.buffers()
    bounds = _bounds(texts, places).astype(np.int64)
    first, last = int(bounds[0]), int(bounds[-1])
    padded = np.zeros((last - first + _PADDING + _WORD) // _WORD, "<u4")
    if data is not None:
        padded.view(np.uint8)[: last - first] = np.frombuffer(data, np.uint8)[first:last]
    length = np.diff(bounds)
    if texts.null_count:
        # What is in the buffer of a NULL is nobody's.
        length *= texts.is_valid().to_numpy(zero_copy_only=False)
    return padded, bounds[:-1] - first, length


class _Reader:
    """Words of texts that begin anywhere: each is the end of one aligned word and the beginning of the next."""

    def __init__(self, words: Words, start: npt.NDArray[np.int64]) -> None:
        self._words = words
        self._at = start >> 2
        self._right = ((start & 3) << 3).astype(np.uint32)
        # In two steps, for a shift by 32 bits is none.
        self._left = np.uint32(31) - self._right

    def word(self, rows: int, number: int) -> Words:
        """The word at a position of each of the first rows."""
        at = self._at[:rows] + number
        here = self._words[at] >> self._right[:rows]
        return here | (self._words[at + 1] << np.uint32(1) << self._left[:rows])


_MASKS = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF], np.uint32)


def _seed(a: Words, b: Words, c: Words, seeds: Hashes) -> None:
    """A seed of 0 leaves the state as it is."""
    none = seeds == 0
    untouched = [(part, part[none]) for part in (a, b, c)] if none.any() else []
    a += (seeds >> _HALF).astype(np.uint32)
    b += seeds.astype(np.uint32)
    _mix(a, b, c)
    for part, before in untouched:
        part[none] = before


def _turned(words: Words, bits: int) -> Words:
    return (words << np.uint32(bits)) | (words >> np.uint32(32 - bits))


def _mix(a: Words, b: Words, c: Words) -> None:
    for bits in ((4, 6, 8), (16, 19, 4)):
        a -= c
        a ^= _turned(c, bits[0])
        c += b
        b -= a
        b ^= _turned(a, bits[1])
        a += c
        c -= b
        c ^= _turned(b, bits[2])
        b += a


def _finish(a: Words, b: Words, c: Words) -> None:
    parts = {"a": a, "b": b, "c": c}
    for into, by, bits in _STEPS:
        parts[into] ^= parts[by]
        parts[into] -= _turned(parts[by], bits)


_STEPS = (
    ("c", "b", 14),
    ("a", "c", 11),
    ("b", "a", 25),
    ("c", "b", 16),
    ("a", "c", 4),
    ("b", "a", 14),
    ("c", "b", 24),
)
