"""Rows of MySQL's protocol as Arrow arrays, cut by steps that take a column of many rows at a time.

What belongs here: where packets begin in received bytes, and where values begin in packets. What does not: receiving
(`mysql_session.py`) and what the values mean (`mysql_carriers.py`).

A row's packet is four bytes (its length in three, a number) and then for each column the length of its text and the text.
A length takes a byte, or up to nine. So where a column begins is known from the one before, for all rows at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["HEAD", "LARGEST", "MalformedError", "Places", "cut", "packets"]

Array = Any  # pyarrow has no stubs that a checker can follow
Places = npt.NDArray[np.int64]

HEAD = 4
LARGEST = (1 << 24) - 1
"""Bytes of a packet's payload; what is as long goes on in the next one."""
_WORTH = 4096
"""Bytes from which on guessing is faster than following."""
_RARE = 16
"""Bytes to one of 0, at least, where guessing is."""
_NULL = 251
_WIDE = ((252, 2), (253, 3), (254, 8), (255, 8))
"""First bytes that say in how many bytes the length follows; nobody sends the last."""


class MalformedError(ValueError):
    """A row has another length than its packet."""


def packets(data: bytearray, at: int, most: int, size: int) -> Places:
    """Where whole packets begin, the first at `at`, and where the last of them ends: up to `most` of them, or as many as
    are `size` bytes and the one that reaches it.
    """
    found = _followed(data, _guessed(data, at), most, at + size)
    count = min(most, int(np.searchsorted(found[:-1], at + size)))
    return found[: count + 1]


def _followed(data: bytearray, known: Places, most: int, stop: int) -> Places:
    """The bounds with those of the packets behind them: one says where the next begins."""
    at, left = int(known[-1]), most - len(known) + 1
    end, last = len(data), min(len(data) - HEAD + 1, stop)
    more: list[int] = []
    add = more.append
    while at < last and left > 0:
        at += HEAD + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        if at > end:
            break
        add(at)
        left -= 1
    return np.append(known, np.array(more, np.int64)) if more else known


def _guessed(data: bytearray, at: int) -> Places:
    """The bounds of the packets below 64 KiB that are found without following one after the other; they are certain.

    The third byte of such a packet is 0, as few others are. Where one ends the next begins, whose number is one more. What
    is left is a chain from the first packet on, or it is one up to some place, and from there on it is not used.
    """
    octets = np.frombuffer(data, np.uint8)[at:]
    first = np.array([at], np.int64)
    size = len(octets)
    begin = np.flatnonzero(octets[2 : size - 1] == 0) if size >= _WORTH else first[:0]
    if len(begin) > size // _RARE or not len(begin):
        return first
    end = begin + octets[begin] + (octets[begin + 1].astype(np.int64) << 8) + HEAD
    inside = end <= size - HEAD
    number = octets[begin[inside] + 3] + np.uint8(1)
    target = end[inside]
    begins = np.zeros(size, np.bool_)
    begins[target[octets[target + 3] == number]] = True
    begins[0] = True
    real = begins[begin]
    begin, end = begin[real], end[real]
    if not len(begin) or begin[0]:
        return first
    linked = np.append(begin[1:] == end[:-1], False)
    end = end[: int(linked.argmin()) + 1]
    return np.append(first, at + end[end <= size])


def cut(data: bytearray, bounds: Places, width: int) -> list[Array]:
    """The values of packets that follow each other, as one array of bytes per column.

    Args:
        bounds: where the packets begin in `data`, and where the last one ends.
        width: columns of each row.

    Raises:
        MalformedError: a row does not end where its packet does.
    """
    octets = np.frombuffer(data, np.uint8)
    rows, at = len(bounds) - 1, bounds[:-1] + HEAD
    # The values of a row and what is between them, in the order in which they are in `data`: one array to take from.
    edges = np.empty((rows, width, 2), np.int32)
    missing: list[npt.NDArray[np.bool_] | None] = []
    try:
        for column in range(width):
            at, length, absent = _lengths(octets, at)
            edges[:, column, 0] = at
            at = at + length
            edges[:, column, 1] = at
            missing.append(absent)
    except IndexError:
        raise MalformedError("a row has another length than it says") from None
    if (at != bounds[1:]).any():
        raise MalformedError("a row has another length than it says")
    places = np.append(edges.ravel(), np.int32(len(data)))
    whole = pa.Array.from_buffers(
        pa.binary(), len(places) - 1, [None, pa.py_buffer(places), pa.py_buffer(data)]
    )
    # A row that is alone may be large, and is not copied.
    if rows == 1:
        found = [whole.slice(2 * column, 1) for column in range(width)]
    else:
        # In one step: each lets other threads have Python, and waits until it gets it back.
        order = np.arange(0, len(places) - 1, 2, dtype=np.int32).reshape(rows, width).T
        taken = whole.take(pa.array(order.ravel()))
        found = [taken.slice(column * rows, rows) for column in range(width)]
    return [_without(values, absent) for values, absent in zip(found, missing, strict=True)]


def _lengths(
    octets: npt.NDArray[np.uint8], at: Places
) -> tuple[Places, Places, npt.NDArray[np.bool_] | None]:
    """Where the texts begin whose lengths are told at `at`, those lengths, and which are NULL, if any."""
    told = octets[at]
    length = told.astype(np.int64)
    at = at + 1
    if int(told.max(initial=0)) < _NULL:
        return at, length, None
    absent = told == _NULL
    length[absent] = 0
    for first, count in _WIDE:
        those = np.flatnonzero(told == first)
        if len(those):
            begin = at[those]
            # In Python's numbers a length beyond any buffer is only large; here it would be negative.
            parts = [octets[begin + n].astype(np.uint64) << np.uint64(8 * n) for n in range(count)]
            length[those] = np.minimum(np.bitwise_or.reduce(parts), np.uint64(len(octets))).astype(np.int64)
            at[those] += count
    return at, length, absent if absent.any() else None


def _without(values: Array, absent: npt.NDArray[np.bool_] | None) -> Array:
    """The array with NULL where it is absent."""
    if absent is None:
        return values
    bits = np.packbits(~absent, bitorder="little")
    _, places, data = values.buffers()
    if values.offset:
        places = places.slice(4 * values.offset)
    return pa.Array.from_buffers(values.type, len(values), [pa.py_buffer(bits), places, data])
