"""Reading rows through a driver in batches of bounded memory, whatever the longest value is.

What belongs here: how many rows a batch has, and that long values are read apart from all others. What does not: the
SQL of a value (each database's own module), turning texts into a plan's types.

A driver's buffer has room for the longest value in every row, so one long text among a million short ones would make
it huge or the batches tiny. Values without a bound are therefore measured first, in the same snapshot; rows with long
ones are a query of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

__all__ = ["Cell", "read_cells"]

_BATCH_ROWS = 16_384
_LONG = 8_192
"""Bytes from which on a value is long."""
_BYTES_OF_A_CHARACTER = 4


class Rows(Protocol):
    """What reads: see `odbc_link.Link`."""

    def rows(self, statement: str) -> list[tuple[Any, ...]]: ...
    def stream(self, statement: str, longest: int, rows: int) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One column as text.

    Attributes:
        text: SQL of it.
        octets: SQL of its bytes in UTF-8, at least.
        sized: SQL of the text as a type of so many characters, so that the driver's buffer has no more; it never cuts,
            because no value has more.
        bound: most bytes of any value, where its type says so; else it is measured.
    """

    text: str
    octets: str
    sized: Callable[[int], str]
    bound: int | None = None


def read_cells(
    link: Rows,
    cells: Sequence[Cell],
    rows: Callable[[str | None], str],
    *,
    batch_bytes: int,
    most: int | None,
) -> Iterator[pa.RecordBatch]:
    """The rows as batches of text, in the cells' order.

    Args:
        rows: `FROM … WHERE …`, narrowed down by one more condition where there is one.
        batch_bytes: about how large the driver's buffers may get.
        most: most rows of a batch, if there is a limit.
    """
    measured = [cell for cell in cells if cell.bound is None]
    widths = _measure(link, measured, rows(None))
    if widths is None:
        return
    bounds = {id(cell): width for cell, width in zip(measured, widths, strict=True)}
    long = [cell for cell in measured if bounds[id(cell)] > _LONG]
    parts: list[tuple[str | None, dict[int, int]]] = [(None, bounds)]
    if long:
        short = " AND ".join(f"({cell.text} IS NULL OR {cell.octets} <= {_LONG})" for cell in long)
        parts = [(short, bounds | {id(cell): _LONG for cell in long}), (f"NOT ({short})", bounds)]
    for condition, known in parts:
        wide = [max(1, known[id(c)] if c.bound is None else c.bound) for c in cells]
        longest = max(wide, default=1)
        size = sum(min(longest, w * _BYTES_OF_A_CHARACTER) for w in wide)
        count = max(1, min(_BATCH_ROWS, batch_bytes // max(size, 1), most or _BATCH_ROWS))
        wanted = ", ".join(cell.sized(width) for cell, width in zip(cells, wide, strict=True))
        yield from link.stream(f"SELECT {wanted} {rows(condition)}", longest, count)


def _measure(link: Rows, cells: Sequence[Cell], rows: str) -> list[int] | None:
    """Bytes of the longest value of each; None where there is no row."""
    if not cells:
        return []
    found = link.rows(f"SELECT {', '.join(['COUNT(*)', *(f'MAX({cell.octets})' for cell in cells)])} {rows}")
    count, *widths = found[0]
    return [int(width or 0) for width in widths] if int(count) else None
