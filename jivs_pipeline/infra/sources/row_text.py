"""Digests of rows whose values are spelled as Arrow strings (see `core/digest.py`).

What belongs here: a row's text, its MD5, the sums. What does not: spelling a value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import md5
from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Digest

__all__ = ["digest_of_texts"]

_LARGE_ROW = 1024 * 1024  # from here on a row's text is never built
_PARTS = 64  # columns joined at once

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def digest_of_texts(columns: Sequence[Array], rows: int) -> Digest:
    """Digest of rows given by their columns' canonical texts."""
    if not rows:
        return Digest()
    hashes = (
        _large(columns, rows) if sum(c.nbytes for c in columns) > _LARGE_ROW * rows else _small(columns, rows)
    )
    whole = b"".join(hashes)
    halves = struct.unpack(f">{2 * rows}q", whole)
    return Digest(rows, sum(halves[::2]), sum(halves[1::2]))


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
    for number in range(rows):
        whole = md5(usedforsecurity=False)
        for column in columns:
            value = column[number]
            if not value.is_valid:
                whole.update(b"-")
                continue
            whole.update(b"%d:" % _pc.utf8_length(value).as_py())
            # The buffer is Arrow's own: no copy of 100 MB is made.
            whole.update(value.as_buffer())
        yield whole.digest()
