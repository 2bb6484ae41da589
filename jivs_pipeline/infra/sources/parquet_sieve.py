"""Rows of Parquet files that PostgreSQL's types cannot hold: telling them from the others, and reading past them.

What belongs here: rows by their numbers. What does not: which values fit (`parquet_types`), opening files and reading
good rows (`parquet_snapshot`).

A row's position is its number in the chunk's file, from 0, which both readers, pyarrow and DuckDB, count alike.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from jivs_pipeline.core.plan import ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.quarantine import BadRow, RawText
from jivs_pipeline.infra.sources.parquet_lists import element_type
from jivs_pipeline.infra.sources.parquet_nested import is_nested
from jivs_pipeline.infra.sources.parquet_types import misfits, plain

__all__ = ["Numbered", "bad_in", "bad_rows", "kept", "numbers", "unreadable"]

Array = Any  # pyarrow has no stubs that a checker can follow
Numbered = tuple[int, Any]
"""A batch and the number of its first row in the file."""

_OUT_OF_RANGE = "<"  # with this Arrow begins what it cannot print


def bad_in(batch: Array, columns: Sequence[ColumnPlan]) -> Iterator[tuple[ColumnPlan, str, Array]]:
    """Column, reason and mask of the values of a batch that do not fit."""
    for column in columns:
        for reason, mask in misfits(plain(batch.column(column.source)), column.carrier).items():
            yield column, reason, mask


def bad_rows(
    batches: Iterable[Numbered], table: TablePlan, file: str, starts: Sequence[int]
) -> Iterator[BadRow]:
    """The bad rows of a file's batches; `starts` are the numbers of the first rows of its row groups."""
    for first, batch in batches:
        reasons: dict[int, tuple[ColumnPlan, str]] = {}
        for column, reason, mask in bad_in(batch, table.columns):
            for row in np.flatnonzero(mask).tolist():
                reasons.setdefault(row, (column, reason))
        for row, (column, reason) in sorted(reasons.items()):
            values = {c.source: _value(plain(batch.column(c.source).slice(row, 1))) for c in table.columns}
            group = bisect_right(starts, first + row) - 1
            place = {"file": file, "row group": group, "row": first + row - starts[group]}
            yield BadRow.of(str(first + row), place, column.source, reason, values)


def numbers(positions: Iterable[str]) -> list[int]:
    """The rows at these positions."""
    return list(map(int, positions))


def kept(batches: Iterable[Numbered], chunk: Sifted) -> Iterator[Array]:
    """The batches without the rows that are sifted out, or with some rows alone."""
    only = None if chunk.only is None else numbers(chunk.only)
    without = numbers(chunk.without)
    for first, batch in batches:
        rows = np.arange(first, first + batch.num_rows)
        mask = np.ones(len(rows), bool) if only is None else np.isin(rows, only)
        yield batch.filter(pa.array(mask & ~np.isin(rows, without)))


def unreadable(batches: Iterable[Numbered]) -> bool:
    """Whether there are texts that are not UTF-8: DuckDB reads nothing of a file where it meets one."""
    for _, batch in batches:
        for column in batch.columns:
            try:
                plain(column).validate(full=True)
            except pa.ArrowInvalid:
                return True
    return False


def _value(array: Array) -> object:
    """The value of a plain array of one, as it is kept."""
    kinds, type_ = pa.types, array.type
    if not array.is_valid()[0].as_py():
        return None
    if kinds.is_string(type_):
        return RawText(array.cast(pa.binary())[0].as_py())
    if kinds.is_boolean(type_) or kinds.is_integer(type_) or kinds.is_floating(type_):
        return array[0].as_py()
    if kinds.is_decimal(type_):
        return str(array[0].as_py())
    if kinds.is_date(type_) or kinds.is_time(type_) or kinds.is_timestamp(type_):
        text = array.cast(pa.string())[0].as_py()
        wide = pa.int32() if type_.bit_width == 32 else pa.int64()
        return array.view(wide)[0].as_py() if text.startswith(_OUT_OF_RANGE) else text
    if is_nested(type_):
        return str(array.to_pylist()[0])
    if element_type(type_) is not None:
        elements = array.flatten()
        return str([_value(plain(elements.slice(n, 1))) for n in range(len(elements))])
    return array.cast(pa.binary())[0].as_py()
