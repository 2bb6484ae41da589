"""What hashtextextended gives inside of PostgreSQL, for a column of texts at once.

What belongs here: that function over arrays. What does not: what is hashed of a row, and in which order (`chains.py`).

The function is Bob Jenkins' lookup3 on blocks of twelve bytes. Most columns are a matrix: each text is padded with zeros to
the same number of words, and a word of all texts is a column. Rows whose text has ended take part in a step that is none
for them, which is cheaper than leaving them out. Where few texts are much longer than the others, the rows with most
blocks go first instead, so that those that have one more are a slice, and words are gathered from where the texts are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

__all__ = ["Hashes", "bounds_of", "hashed"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow
Words = npt.NDArray[np.uint32]
Numbers = npt.NDArray[Any]

_BLOCK, _WORD = 12, 4
_START = np.uint32((0x9E3779B9 + 3923095) & 0xFFFFFFFF)
_SPARE = 60  # bytes more per text than there are that a matrix may have, besides half as many
_ROOM = 6 * _WORD  # the last block is read as if it were whole, and each word with the one after it
_BITS = [np.uint32(n) for n in range(32)]
_MASKS = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF], np.uint32)


class Hashes(NamedTuple):
    """64 bits per row, in halves: the function works on 32 bits."""

    high: Words
    low: Words

    def signed(self) -> npt.NDArray[np.int64]:
        """As PostgreSQL's int8."""
        return ((self.high.astype(np.uint64) << np.uint64(32)) | self.low).view(np.int64)


def hashed(texts: Array, seeds: Hashes) -> Hashes:
    """The hash of each text with its seed; NULL is hashed as the empty text.

    Args:
        texts: strings or bytes.
    """
    bounds = bounds_of(texts)
    length: Numbers = np.diff(bounds)
    if texts.null_count:
        # What is in the buffer of a NULL is nobody's.
        length = length * texts.is_valid().to_numpy(zero_copy_only=False)
    a = length.astype(np.uint32)
    a += _START
    b, c = a.copy(), a.copy()
    _seed(a, b, c, seeds)
    most = int(length.max(initial=0))
    if most < _BLOCK or len(texts) * (most - _SPARE) <= 1.5 * float(length.sum()):
        _in_step(_matrix(texts, bounds, length, most), length, most, a, b, c)
        return Hashes(b, c)
    return _in_order(texts, bounds, length, a, b, c)


def bounds_of(column: Array) -> Numbers:
    """Where values begin in their buffer, and where the last one ends."""
    places = column.buffers()[1]
    if places is None:
        return np.zeros(len(column) + 1, np.int32)
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    found: Numbers = np.frombuffer(places, np.int64 if wide else np.int32)
    return found[column.offset : column.offset + len(column) + 1]


def _octets(column: Array, bounds: Numbers, room: int) -> npt.NDArray[np.uint8]:
    """The texts one after the other, and at least some zeros behind them."""
    data, first, last = column.buffers()[2], int(bounds[0]), int(bounds[-1])
    found = np.zeros(-(-(last - first + room) // _WORD) * _WORD, np.uint8)
    if data is not None:
        found[: last - first] = np.frombuffer(data, np.uint8)[first:last]
    return found


# All rows in step


def _matrix(texts: Array, bounds: Numbers, length: Numbers, most: int) -> Callable[[int], Words]:
    """Gives the word at a position of each text; zeros are what is behind its end."""
    if most == int(length.min(initial=most)) and not texts.null_count:
        octets, rows = _octets(texts, bounds, _ROOM), len(texts)

        def word(position: int) -> Words:
            at = position * _WORD
            words: Words = np.ndarray((rows,), "<u4", octets.data, offset=at, strides=(most,))
            return words if at + _WORD <= most else words & _MASKS[max(most - at, 0)]

        return word
    if pa.types.is_binary(texts.type):
        texts = texts.view(pa.string())
    elif pa.types.is_large_binary(texts.type):
        texts = texts.view(pa.large_string())
    columns = max(1, -(-most // _WORD))
    padded = _pc.ascii_rpad(_pc.fill_null(texts, ""), columns * _WORD, padding="\0")
    matrix = np.frombuffer(padded.buffers()[2], "<u4", count=len(texts) * columns).reshape(-1, columns)
    return lambda position: matrix[:, position]


def _in_step(word: Callable[[int], Words], length: Numbers, most: int, a: Words, b: Words, c: Words) -> None:
    columns = -(-most // _WORD)
    for number in range(most // _BLOCK + 1):
        first, going = 3 * number, length >= _BLOCK * (number + 1)
        for position, part in enumerate((a, b), first):
            if position < columns:
                np.add(part, word(position), part)
        everybody, nobody = bool(going.all()), number == most // _BLOCK
        if first + 2 < columns:
            last = word(first + 2)
            # The lowest byte of the last word of a text is the length's.
            np.add(c, last if everybody else last << ((~going).astype(np.uint32) << _BITS[3]), c)
        if everybody and not nobody:
            _mix(a, b, c)
        elif not nobody:
            mask = np.negative(going.astype(np.uint32))
            ended = [part.copy() for part in (a, b, c)]
            _mix(a, b, c)
            for part, before in zip((a, b, c), ended, strict=True):
                # Without a branch, which a processor would guess wrong.
                np.bitwise_xor(part, before, part)
                np.bitwise_and(part, mask, part)
                np.bitwise_xor(part, before, part)
    _finish(a, b, c)


# Those that are longest first


def _in_order(texts: Array, bounds: Numbers, length: Numbers, a: Words, b: Words, c: Words) -> Hashes:
    blocks = length // _BLOCK
    order = np.argsort(-blocks, kind="stable")
    start, rest, blocks = bounds[:-1][order] - bounds[0], (length - _BLOCK * blocks)[order], blocks[order]
    a, b, c = a[order], b[order], c[order]
    words = _octets(texts, bounds, _ROOM).view("<u4")
    reader = _Reader(words, start)
    having = np.searchsorted(-blocks, -np.arange(1, int(blocks[0]) + 1), side="right")
    for number, count in enumerate(having.tolist()):
        parts = a[:count], b[:count], c[:count]
        for position, part in enumerate(parts, 3 * number):
            np.add(part, reader.word(count, position), part)
        _mix(*parts)
    reader, rows = _Reader(words, start + _BLOCK * blocks), len(rest)
    a += reader.word(rows, 0) & _MASKS[np.minimum(rest, _WORD)]
    b += reader.word(rows, 1) & _MASKS[np.clip(rest - _WORD, 0, _WORD)]
    c += (reader.word(rows, 2) & _MASKS[np.clip(rest - 2 * _WORD, 0, _WORD)]) << _BITS[8]
    _finish(a, b, c)
    high, low = np.empty_like(b), np.empty_like(c)
    high[order], low[order] = b, c
    return Hashes(high, low)


class _Reader:
    """Words of texts that begin anywhere: each is the end of one aligned word and the beginning of the next."""

    def __init__(self, words: Words, start: Numbers) -> None:
        self._words = words
        self._at = start >> 2
        self._right = ((start & 3) << 3).astype(np.uint32)
        # In two steps, for a shift by 32 bits is none.
        self._left = np.uint32(31) - self._right

    def word(self, rows: int, number: int) -> Words:
        """The word at a position of each of the first rows."""
        at = self._at[:rows] + number
        here = self._words[at] >> self._right[:rows]
        return here | (self._words[at + 1] << _BITS[1] << self._left[:rows])


# The function's steps. What an operation makes goes where it is used next, so that all stays in the processor's cache.


def _seed(a: Words, b: Words, c: Words, seeds: Hashes) -> None:
    """A seed of 0 leaves the state as it is."""
    none = (seeds.high | seeds.low) == 0
    untouched = [(part, part[none]) for part in (a, b, c)] if none.any() else []
    a += seeds.high
    b += seeds.low
    _mix(a, b, c)
    for part, before in untouched:
        part[none] = before


def _turn(words: Words, bits: int, turned: Words, rest: Words) -> None:
    np.left_shift(words, _BITS[bits], turned)
    np.right_shift(words, _BITS[32 - bits], rest)
    np.bitwise_or(turned, rest, turned)


def _mix(a: Words, b: Words, c: Words) -> None:
    turned, rest = np.empty_like(a), np.empty_like(a)
    for x, y, z, bits in (
        (a, b, c, 4),
        (b, c, a, 6),
        (c, a, b, 8),
        (a, b, c, 16),
        (b, c, a, 19),
        (c, a, b, 4),
    ):
        np.subtract(x, z, x)
        _turn(z, bits, turned, rest)
        np.bitwise_xor(x, turned, x)
        np.add(z, y, z)


def _finish(a: Words, b: Words, c: Words) -> None:
    turned, rest = np.empty_like(a), np.empty_like(a)
    for x, y, bits in ((c, b, 14), (a, c, 11), (b, a, 25), (c, b, 16), (a, c, 4), (b, a, 14), (c, b, 24)):
        np.bitwise_xor(x, y, x)
        _turn(y, bits, turned, rest)
        np.subtract(x, turned, x)
