"""Digests of rows whose values are spelled as Arrow strings (see `core/digest.py`).

What belongs here: a row's text, its MD5, the sums. What does not: spelling a value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from hashlib import md5
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.ports import HashedRow

__all__ = ["are_large", "digest_of_texts", "hashed_rows", "hashes_of_texts"]

_LARGE_ROW = 1024 * 1024  # from here on a row's text is never built
_PARTS = 64  # columns joined at once

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def digest_of_texts(columns: Sequence[Array], rows: int) -> Digest:
    """Digest of rows given by their columns' canonical texts; `are_large` tells what else a column may be."""
    if not rows:
        return Digest()
    whole = b"".join(hashes_of_texts(columns, rows))
    halves = struct.unpack(f">{2 * rows}q", whole)
    return Digest(rows, sum(halves[::2]), sum(halves[1::2]))


def are_large(column: Array) -> bool:
    """Whether a column of bytes may stay as it is: digests then spell its hex digits piece by piece."""
    return column.nbytes > _LARGE_ROW * max(len(column), 1)


def hashes_of_texts(columns: Sequence[Array], rows: int) -> Iterator[bytes]:
    """The hash of each of at least one row."""
    large = sum(c.nbytes for c in columns) > _LARGE_ROW * rows
    return _large(columns, rows) if large else _small(columns, rows)


def hashed_rows(columns: Sequence[Array], key: Sequence[int], rows: int) -> Iterator[HashedRow]:
    """Hashes of rows with the texts of some of their columns, given by position."""
    if rows:
        texts = zip(*(_texts(columns[n]) for n in key), strict=True) if key else repeat(())
        yield from zip(hashes_of_texts(columns, rows), texts, strict=False)


def _texts(column: Array) -> list[str | None]:
    values = column.to_pylist()
    return [v if v is None else v.hex() for v in values] if pa.types.is_binary(column.type) else values


def _small(columns: Sequence[Array], rows: int) -> Iterator[bytes]:
    items = [
        _pc.coalesce(_pc.binary_join_element_wise(_pc.utf8_length(c).cast(pa.string()), c, ":"), "-")
        for c in columns
    ]
    while len(items) > 1:
        items = [
            _pc.binary_join_element_wise(*items[i : i + _PARTS], "") if items[i + 1 : i + 2] else items[i]
            for i in range(0, len(items), _PARTS)
        ]
    texts = items[0].cast(pa.binary()).to_pylist() if items else [b""] * rows
    return (md5(text, usedforsecurity=False).digest() for text in texts)


def _large(columns: Sequence[Array], rows: int) -> Iterator[bytes]:
    valid = [c.is_valid() for c in columns]
    octets = [_octets(c) for c in columns]
    for number in range(rows):
        whole = md5(usedforsecurity=False)
        for column, there, values in zip(columns, valid, octets, strict=True):
            if not there[number].as_py():
                whole.update(b"-")
            elif pa.types.is_binary(column.type):
                value = values(number)
                whole.update(b"%d:" % (2 * len(value)))
                for at in range(0, len(value), _LARGE_ROW):
                    whole.update(value[at : at + _LARGE_ROW].hex().encode())
            else:
                # Of an array of one: of a scalar it would be asked by way of a copy.
                whole.update(b"%d:" % _pc.utf8_length(column.slice(number, 1))[0].as_py())
                whole.update(values(number))
        yield whole.digest()


def _octets(column: Array) -> Callable[[int], memoryview]:
    """Gives the bytes of a valid value where they are: Arrow's own scalars make a copy of 100 MB."""
    _, places, data = column.buffers()
    offsets = (
        np.frombuffer(places, np.int32)[column.offset :] if places is not None else np.zeros(1, np.int32)
    )
    all_of_them = memoryview(data) if data is not None else memoryview(b"")
    return lambda number: all_of_them[int(offsets[number]) : int(offsets[number + 1])]
