"""Digests of rows whose values are spelled as Arrow strings (see `core/digest.py`).

What belongs here: from canonical texts to the hashes of rows that a table's plan asks for. What does not: spelling a
value, or the chain's function (`infra/chains.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from hashlib import md5
from itertools import repeat
from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import HashedRow
from jivs_pipeline.infra.chains import chain_digest, chain_hashes, hex_pieces, octets_of

__all__ = ["are_large", "digest_of_texts", "hashed_rows", "total_of"]

_LARGE_ROW = 1024 * 1024  # from here on a row's text is never built
_PARTS = 64  # columns joined at once

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def digest_of_texts(table: TablePlan, columns: Sequence[Array], rows: int) -> Digest:
    """Digest of rows given by the canonical texts of the table's columns; `are_large` tells what else one may be."""
    if not rows:
        return Digest()
    if table.spelling is Spelling.CHAIN:
        return chain_digest(columns, [c.canon for c in table.columns], rows)
    return total_of(list(_md5_hashes(table, columns, rows)))


def are_large(column: Array) -> bool:
    """Whether a column of bytes may stay as it is: digests then spell its hex digits piece by piece."""
    return column.nbytes > _LARGE_ROW * max(len(column), 1)


def _texts(column: Array) -> list[str | None]:
    values = column.to_pylist()
    return [v if v is None else v.hex() for v in values] if pa.types.is_binary(column.type) else values


def total_of(hashes: Sequence[bytes]) -> Digest:
    """Count and sums of hashes of 16 bytes."""
    halves = struct.unpack(f">{2 * len(hashes)}q", b"".join(hashes))
    return Digest(len(hashes), sum(halves[::2]), sum(halves[1::2]))


def hashed_rows(
    table: TablePlan, columns: Sequence[Array], key: Sequence[int], rows: int
) -> Iterator[HashedRow]:
    """Hashes of such rows with the texts of some of their columns, given by position."""
    if not rows:
        return
    texts = zip(*(_texts(columns[n]) for n in key), strict=True) if key else repeat(())
    if table.spelling is Spelling.CHAIN:
        hashes = chain_hashes(columns, [c.canon for c in table.columns], rows)
    else:
        hashes = _md5_hashes(table, columns, rows)
    yield from zip(hashes, texts, strict=False)


def _md5_hashes(table: TablePlan, columns: Sequence[Array], rows: int) -> Iterator[bytes]:
    """The hash of each of at least one row in the spelling CANONICAL."""
    free = [c.canon.free for c in table.columns]
    large = sum(c.nbytes for c in columns) > _LARGE_ROW * rows
    large = large or any(pa.types.is_binary(c.type) for c in columns)
    return _large(columns, free, rows) if large else _small(columns, free, rows)


def _small(columns: Sequence[Array], free: Sequence[bool], rows: int) -> Iterator[bytes]:
    items = [
        _pc.coalesce(_pc.binary_join_element_wise(_pc.utf8_length(c).cast(pa.string()), c, ":"), "-")
        if counted
        else _pc.fill_null(c, "")
        for c, counted in zip(columns, free, strict=True)
    ]
    while len(items) > 1:
        items = [
            _pc.binary_join_element_wise(*items[i : i + _PARTS], ",") if items[i + 1 : i + 2] else items[i]
            for i in range(0, len(items), _PARTS)
        ]
    texts = items[0].cast(pa.binary()).to_pylist() if items else [b""] * rows
    return (md5(text, usedforsecurity=False).digest() for text in texts)


def _large(columns: Sequence[Array], free: Sequence[bool], rows: int) -> Iterator[bytes]:
    valid = [c.is_valid() for c in columns]
    octets = [octets_of(c) for c in columns]
    for row in range(rows):
        whole = md5(usedforsecurity=False)
        for number, (column, counted) in enumerate(zip(columns, free, strict=True)):
            whole.update(b"," if number else b"")
            if not valid[number][row].as_py():
                whole.update(b"-" if counted else b"")
                continue
            value = octets[number](row)
            if pa.types.is_binary(column.type):
                whole.update(b"%d:" % (2 * len(value)))
                for piece in hex_pieces(value):
                    whole.update(piece)
                continue
            # Of an array of one: of a scalar it would be asked by way of a copy.
            whole.update(b"%d:" % _pc.utf8_length(column.slice(row, 1))[0].as_py() if counted else b"")
            whole.update(value)
        yield whole.digest()
