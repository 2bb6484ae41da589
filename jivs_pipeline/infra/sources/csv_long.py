"""Records of CSV that are too long for pyarrow's reader, whose blocks take four times the longest record.

What belongs here: where such records are, and reading one. What does not: all other records (`csv_snapshot.py`), and
splitting for digests (`csv_scan.py`), with which this reader shares no code: what is loaded and what is digested must not
be wrong in the same way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jivs_pipeline.infra.sources.csv_scan import Dialect, Group

__all__ = ["Cutter", "Stretch", "fields_of", "stretches"]

_BLOCK = 1 << 20

Array = Any  # of numpy, or of pyarrow, which has no stubs that a checker can follow


@dataclass(frozen=True, slots=True)
class Stretch:
    """So many bytes of a text: one long record, or records that are not."""

    length: int
    long: bool


def stretches(groups: Iterable[Group], longest: int) -> Iterator[Stretch]:
    """The text that groups were scanned from, cut around the records of more than `longest` bytes."""
    waiting = 0
    for group in groups:
        lengths = np.diff(np.append(group.begins, group.end))
        seen = 0
        for number in np.flatnonzero(lengths > longest).tolist():
            waiting += int(lengths[seen:number].sum())
            if waiting:
                yield Stretch(waiting, long=False)
            yield Stretch(int(lengths[number]), long=True)
            waiting, seen = 0, number + 1
        waiting += int(lengths[seen:].sum())
    if waiting:
        yield Stretch(waiting, long=False)


class Cutter:
    """Hands out a text by stretches, one after the other."""

    def __init__(self, texts: Generator[bytes]) -> None:
        self._texts = texts
        self._left = memoryview(b"")

    def pieces(self, length: int) -> Generator[bytes]:
        """The next bytes."""
        while length:
            piece = self._some(length)
            if not piece:
                return
            length -= len(piece)
            yield bytes(piece)

    def whole(self, length: int) -> bytearray:
        """The next bytes as one: each is copied once, to where it belongs."""
        whole = bytearray(length)
        at = 0
        while at < length and (piece := self._some(length - at)):
            whole[at : at + len(piece)] = piece
            at += len(piece)
        return whole

    def end(self) -> None:
        """Read what is left, which is nothing; whoever hands out the text checks it at its end."""
        for _ in self._texts:
            pass

    def close(self) -> None:
        """Close the file beneath."""
        self._texts.close()

    def _some(self, most: int) -> memoryview:
        if not self._left:
            self._left = memoryview(next(self._texts, b""))
        piece, self._left = self._left[:most], self._left[most:]
        return piece


def fields_of(record: bytearray, dialect: Dialect) -> list[Array]:
    """The fields of one record as Arrow arrays of one string each, which share its memory where they can.

    Raises:
        ValueError: it is none.
    """
    delimiter, quote = ord(dialect.delimiter), None if dialect.quote is None else ord(dialect.quote)
    view, end = memoryview(record), len(record)
    if end and record[end - 1] == ord("\n"):
        end -= 2 if end > 1 and record[end - 2] == ord("\r") else 1
    found: list[Array] = []
    at = 0
    while True:
        if quote is not None and at < end and record[at] == quote:
            until, doubled = _closing(record, at + 1, end, quote)
            inside = view[at + 1 : until]
            found.append(_string(_undoubled(inside, quote) if doubled else inside))
            at = until + 1
        else:
            until = record.find(delimiter, at, end)
            until = end if until < 0 else until
            found.append(_unquoted(view[at:until], dialect))
            at = until
        if at >= end:
            return found
        if record[at] != delimiter:
            raise ValueError("text after a closing quote")
        at += 1


def _closing(record: bytearray, at: int, end: int, quote: int) -> tuple[int, bool]:
    """Where the quote is that closes a field, and whether there are doubled ones before it."""
    doubled = False
    while (at := record.find(quote, at, end)) >= 0:
        if at + 1 == end or record[at + 1] != quote:
            return at, doubled
        at, doubled = at + 2, True
    raise ValueError("a quote that is never closed")


def _undoubled(inside: memoryview, quote: int) -> bytearray:
    """With one quote for each pair, block by block: `replace` of the whole would be two more copies of it."""
    one, made, at = bytes([quote]), bytearray(), 0
    while at < len(inside):
        until = min(at + _BLOCK, len(inside))
        block = bytes(inside[at:until])
        if (len(block) - len(block.rstrip(one))) % 2:
            # Not through a pair.
            until += 1
            block = bytes(inside[at:until])
        made += block.replace(one * 2, one)
        at = until
    return made


def _unquoted(value: memoryview, dialect: Dialect) -> Array:
    if len(value) <= max(map(len, dialect.nulls), default=0) * 4 and str(value, "utf-8") in dialect.nulls:
        return pa.nulls(1, pa.string())
    return _string(value)


def _string(value: memoryview | bytearray) -> Array:
    offsets = np.array([0, len(value)], np.int32)
    made: Any = pa.StringArray
    return made.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(value))
