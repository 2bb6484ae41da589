"""The hash of `Spelling.CHAIN` over Arrow's texts, column by column.

What belongs here: what is hashed of a value, and linking columns. What does not: the function that hashes (`lookup3.py`),
spelling a value, or PostgreSQL's side of it (`digests.py`).
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
from jivs_pipeline.infra.lookup3 import Hashes, bounds_of, hashed

__all__ = [
    "Link",
    "chain_digest",
    "chain_digests",
    "chain_hashes",
    "digest_of_links",
    "hex_pieces",
    "link_text",
    "octets_of",
]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow

_PIECE = 1 << 20
_ROWS = 24_576  # at once: what they need stays in the processor's cache


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

    def part(self, rows: range) -> Link:
        """Some of the rows, one after the other."""
        marks = None if self.marks is None else self.marks[rows.start : rows.stop]
        return Link(self.texts.slice(rows.start, len(rows)), marks)


def chain_digest(columns: Sequence[Array], canons: Sequence[Canon], rows: int) -> Digest:
    """Digest of rows given by their columns' canonical texts."""
    return digest_of_links([_link(c, canon) for c, canon in zip(columns, canons, strict=True)], rows)


def digest_of_links(columns: Sequence[Link], rows: int) -> Digest:
    """The same where it is said already what is hashed."""
    return sum((_total(_chain(_parts(columns, p), _seeds(len(p)))) for p in _portions(rows)), Digest())


def chain_digests(
    columns: Sequence[Array],
    more: Sequence[Array],
    canons: Sequence[Canon],
    more_canons: Sequence[Canon],
    rows: int,
) -> tuple[Digest, Digest]:
    """The digests of the same number of rows twice. Columns that are alike up to the first that is not are hashed once."""
    alike = 0
    for one, other, canon, other_canon in zip(columns, more, canons, more_canons, strict=False):
        if canon is not other_canon or not (one is other or (one.type == other.type and one.equals(other))):
            break
        alike += 1
    links = [_link(c, canon) for c, canon in zip(columns, canons, strict=True)]
    others = [_link(c, canon) for c, canon in zip(more[alike:], more_canons[alike:], strict=True)]
    first, second = Digest(), Digest()
    for portion in _portions(rows):
        seeds = _chain(_parts(links[:alike], portion), _seeds(len(portion)))
        first += _total(_chain(_parts(links[alike:], portion), seeds))
        second += _total(_chain(_parts(others, portion), seeds))
    return first, second


def chain_hashes(columns: Sequence[Array], canons: Sequence[Canon], rows: int) -> Iterator[bytes]:
    """The hash of each such row, as PostgreSQL's int8send writes it."""
    links = [_link(c, canon) for c, canon in zip(columns, canons, strict=True)]
    whole = _chain(links, _seeds(rows)).signed().astype(">i8").tobytes()
    return (whole[n : n + 8] for n in range(0, len(whole), 8))


def _total(hashes: Hashes) -> Digest:
    # Halves, for the sum of 64-bit integers needs more than 64 bits.
    high = int(hashes.high.view(np.int32).sum(dtype=np.int64))
    return Digest(len(hashes.high), (high << 32) + int(hashes.low.sum(dtype=np.int64)), 0)


def _portions(rows: int) -> Iterator[range]:
    """As few as may be, and of one size: each costs something, however few its rows are."""
    size = -(-rows // max(1, -(-rows // _ROWS)))
    return (range(start, min(start + size, rows)) for start in range(0, rows, size or 1))


def _parts(columns: Sequence[Link], rows: range) -> list[Link]:
    return [c.part(rows) for c in columns]


def _seeds(rows: int) -> Hashes:
    return Hashes(np.zeros(rows, np.uint32), np.zeros(rows, np.uint32))


def _chain(columns: Sequence[Link], seeds: Hashes) -> Hashes:
    for column in columns:
        seeds = hashed(column.texts, seeds if column.marks is None else _marked(seeds, column.marks))
    return seeds


def _marked(seeds: Hashes, marks: npt.NDArray[np.int64]) -> Hashes:
    return Hashes(seeds.high ^ (marks >> 32).astype(np.uint32), seeds.low ^ marks.astype(np.uint32))


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
    data = column.buffers()[2]
    bounds = bounds_of(column)
    whole = memoryview(data) if data is not None else memoryview(b"")
    return lambda number: whole[int(bounds[number]) : int(bounds[number + 1])]
