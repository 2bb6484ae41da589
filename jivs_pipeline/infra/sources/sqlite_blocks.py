"""Canonical texts of SQLite's rows, thousands of rows in one value per column.

What belongs here: putting a column of a block together in SQL, and taking it apart in Arrow. What does not: how a value is
spelled in SQL (`sqlite_digests`), transactions (`sqlite_snapshot`).

The stdlib's library makes an object of every value that it hands over. So it hands over blocks: the texts of a column one
after the other with a mark between them that hardly any text has; where one has it there are too many texts, and the
block is read again with a NUL between them, which no text has that PostgreSQL can hold. (A NUL cannot be written in SQL,
and as an expression it costs as much as the value.) NULLs are left out by SQLite, and told by a digit each.

Reals that are decimal fractions come as integers: if n / 100 is the very double c, then n hundredths are what c is for
everybody who prints it with 15 digits. Others come with 20 digits, which give the double back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.plan import ColumnPlan, TablePlan
from jivs_pipeline.core.types import sqlite_type
from jivs_pipeline.infra.sources.sqlite_open import column_name
from jivs_pipeline.infra.sources.sqlite_values import numeric_text
from jivs_pipeline.infra.trimming import without_zeros

__all__ = ["blocks", "fits"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow

_FIRST_ROWID = -(1 << 63)
_MOST_COLUMNS = 900  # SQLite gives 2,000 values in a row, and a column takes up to two
_DIGITS = 15  # no double needs more if so many give it back
_SCALE = 6  # up to which Arrow writes decimals without an exponent


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one column is read.

    Attributes:
        sql: gives texts, or integers.
        missing: SQL of a digit for each row of a block, 1 for NULL; empty where there is none.
        spelled: makes the canonical texts of them.
    """

    sql: str
    missing: str
    spelled: Callable[[Array], Array]


def fits(table: TablePlan, address: Sequence[str]) -> bool:
    """Whether a table's rows can be read so: those that are stored by a number, whose name is the only one unquoted."""
    numbered = len(address) == 1 and not address[0].endswith('"')
    return numbered and 0 < len(table.columns) <= _MOST_COLUMNS


def blocks(
    connection: sqlite3.Connection,
    table: TablePlan,
    canonical: Callable[[str, ColumnPlan], str],
    rowid: str,
    rows: Callable[[int, int | None], tuple[str, Sequence[Any]]],
    step: int,
) -> Iterator[tuple[list[Array], int]]:
    """Canonical texts by column, and how many rows they are. The connection returns text as bytes.

    Args:
        canonical: SQL of how a value is spelled, for those that are not read in parts.
        rowid: its SQL; rows are read in its order.
        rows: `FROM … WHERE …` with its parameters, of the rows from a rowid on to before another.
        step: rows in a block.

    Raises:
        ValueError: a column that is NOT NULL has NULLs, or a text has a NUL.
    """
    readings = [_reading(table.source_table, c, canonical) for c in table.columns]
    first: int | None = _FIRST_ROWID
    while first is not None:
        # Bounds first: rows that a limit ends would go through a subquery, which copies all their values.
        sql, parameters = rows(first, None)
        following = f"SELECT {rowid} {sql} ORDER BY {rowid} LIMIT 1 OFFSET {step}"
        end: int | None = (connection.execute(following, parameters).fetchone() or (None,))[0]
        count, columns = _block(connection, readings, *rows(first, end))
        if count:
            yield [r.spelled(texts) for r, texts in zip(readings, columns, strict=True)], count
        first = end


def _block(
    connection: sqlite3.Connection, readings: Sequence[_Reading], rows_sql: str, parameters: Sequence[Any]
) -> tuple[int, list[Array]]:
    """How many rows there are, and what was read of each column."""
    for mark, written in _MARKS:
        listed = (f", group_concat({r.sql}, {written}), {r.missing or 'NULL'}" for r in readings)
        query = f"SELECT count(*){''.join(listed)} {rows_sql}"
        count, *found = connection.execute(query, parameters).fetchone()
        pairs = [(found[n], found[n + 1]) for n in range(0, len(found), 2)]
        if all(_agree(*pair, mark, count) for pair in pairs):
            return count, [_array(*pair, mark) for pair in pairs]
    raise ValueError("a text has a NUL, or a column that is NOT NULL has NULLs")


_MARKS = ((b"\x1f", "'\x1f'"), (b"\0", "char(0)"))


def _agree(texts: bytes | None, missing: bytes | None, mark: bytes, rows: int) -> bool:
    """Whether a value of a block holds as many texts as it should."""
    found = texts.count(mark) + 1 if texts is not None else 0
    return found == rows - (missing or b"").count(b"1")


def _array(texts: bytes | None, missing: bytes | None, mark: bytes) -> Array:
    """The texts of a block."""
    whole = pa.array([] if texts is None else [texts], pa.binary())
    found = _pc.split_pattern(whole, mark).values.cast(pa.string())
    gone: npt.NDArray[np.bool_] = np.frombuffer(missing or b"", np.uint8) == ord("1")
    return found.take(pa.array(np.cumsum(~gone) - 1, mask=gone)) if gone.any() else found


def _reading(table: str, column: ColumnPlan, canonical: Callable[[str, ColumnPlan], str]) -> _Reading:
    c = column_name(table, column.source)
    missing = f"group_concat({c} IS NULL, '')" if column.nullable else ""
    digits = f"printf('%!.20g', {c})"
    if column.canon is Canon.FLOAT:
        # SQL does not tell 0.0 from -0.0, and printf makes a 0 of NULL.
        sql = f"CASE WHEN {c} = 0 THEN jivs_real({c}) WHEN {c} NOT NULL THEN {digits} END"
        return _Reading(sql, missing, _octets)
    if column.canon is Canon.NUMERIC:
        declared = sqlite_type(column.source_type).scale
        scale = _SCALE if declared is None else min(declared, _SCALE)
        whole, limit = f"CAST(round({c} * 1e{scale}) AS INTEGER)", f"1e{_DIGITS - scale}"
        sql = (
            f"CASE WHEN {c} > -{limit} AND {c} < {limit} AND {whole} / 1e{scale} = {c} THEN {whole}"
            f" WHEN typeof({c}) = 'real' THEN 'r' || {digits} WHEN {c} NOT NULL THEN 'r' || {c} END"
        )
        return _Reading(sql, missing, partial(_numbers, scale))
    return _Reading(canonical(table, column), missing, lambda texts: texts)


def _octets(digits: Array) -> Array:
    """The eight bytes of each double in hex."""
    doubles = _pc.fill_null(digits.cast(pa.float64()), 0.0).to_numpy()
    hexes = doubles.astype(">f8").tobytes().hex().encode()
    bounds = np.arange(0, len(hexes) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(digits),
        pa.py_buffer(bounds),
        pa.py_buffer(hexes),
        digits.is_valid().buffers()[1],
        digits.null_count,
    )


def _numbers(scale: int, texts: Array) -> Array:
    """As `Canon.NUMERIC` spells them, of a number of parts of a unit, or of an `r` and all digits."""
    odd = _pc.fill_null(_pc.starts_with(texts, "r"), False)
    some = _pc.any(odd).as_py()
    whole = (_pc.if_else(odd, None, texts) if some else texts).cast(pa.int64())
    halves = np.empty((len(texts), 2), np.int64)
    halves[:, 0] = _pc.fill_null(whole, 0).to_numpy()
    halves[:, 1] = halves[:, 0] >> 63
    parts = pa.Array.from_buffers(pa.decimal128(38, scale), len(texts), [None, pa.py_buffer(halves)])
    found = parts.cast(pa.string())
    found = without_zeros(found) if scale else found
    if whole.null_count:
        found = _pc.if_else(whole.is_valid(), found, None)
    if not some:
        return found
    long = [numeric_text(_value(text[1:])) for text in texts.filter(odd).to_pylist()]
    return _pc.replace_with_mask(found, odd, pa.array(long, pa.string()))


def _value(digits: str) -> float | str:
    """A real by its digits; an integer stays as it is."""
    return digits if digits.lstrip("-").isdecimal() else float(digits)
