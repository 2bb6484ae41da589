"""One view of a database through one session, for dialects that cannot share one: rows twice, once for the digest.

What belongs here: batches, counts, the second read. What does not: the dialect's SQL (`core/driver_dialects.py`).

The second read is independent of the first: it asks for the hex digits of each text's bytes, which no driver converts,
and spells them as `core/digest.py` says, without Arrow's types in between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Never

import pyarrow as pa

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.errors import DataError, SnapshotLost, TerminalError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ColumnPlan, TablePlan
from jivs_pipeline.core.ports import HashedRow
from jivs_pipeline.core.types import arrow_type
from jivs_pipeline.infra.sources.generic_values import canonical_array, typed_array
from jivs_pipeline.infra.sources.odbc_errors import mapped_odbc
from jivs_pipeline.infra.sources.odbc_link import TextLink
from jivs_pipeline.infra.sources.odbc_rows import Cell, read_cells
from jivs_pipeline.infra.sources.row_text import digest_of_texts, hashed_rows

__all__ = ["GenericSnapshot", "rows_sql"]

Array = Any  # pyarrow has no stubs that a checker can follow


def rows_sql(dialect: Dialect, schema: str, table: str, conditions: Sequence[str | None]) -> str:
    """`FROM … WHERE …` with all conditions; a newline ends a comment that a condition may end with."""
    wanted = " AND ".join(f"(\n{condition}\n)" for condition in conditions if condition)
    return f"FROM {dialect.quoted(schema, table)}" + (f" WHERE {wanted}" if wanted else "")


class GenericSnapshot:
    """See `core.ports.Snapshot`. Readers take turns at its one session; when that is lost, so is the snapshot."""

    def __init__(
        self, link: TextLink, dialect: Dialect, *, place: str, batch_bytes: int, portion: Portion = NO_LIMIT
    ) -> None:
        self._link = link
        self._dialect = dialect
        self._place = place
        self._batch_bytes = batch_bytes
        self._portion = portion
        self._turn = threading.Lock()

    @property
    def consistency(self) -> str:
        """What the database guarantees."""
        return self._dialect.consistency

    @contextmanager
    def _lent(self, table: TablePlan) -> Generator[TextLink]:
        with self._turn:
            if self._link.lost:
                raise self._gone(table)
            try:
                with mapped_odbc(table.source):
                    yield self._link
            except Exception as error:
                if self._link.lost:
                    raise self._gone(table) from error
                raise

    def _gone(self, table: TablePlan) -> SnapshotLost:
        return SnapshotLost(
            f"{self._place}: the snapshot is gone, because the session that held it was lost",
            hint="Run again; extraction begins anew with another snapshot",
            table=table.target,
        )

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[Never]:  # noqa: ARG002 - the port's names
        """Drivers have no copy lane."""
        raise TerminalError(f"{table.source} travels in the arrow lane", hint="Make the plan again")

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the plan's types and target names.

        Raises:
            DataError: a value is not what the plan says.
        """
        schema = pa.schema([pa.field(c.target, arrow_type(c.arrow)) for c in table.columns])
        for columns in self._texts(table, chunk, lambda text: text, 1):
            arrays = [
                _checked(table, column, texts, self._typed)
                for column, texts in zip(table.columns, columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the chunk, from a second read of its rows as the hex digits of their texts."""
        return sum(
            (digest_of_texts(table, columns, len(columns[0])) for columns in self._spelled(table, chunk)),
            Digest(),
        )

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        places = [table.columns.index(c) for c in key]
        for columns in self._spelled(table, chunk):
            yield from hashed_rows(table, columns, places, len(columns[0]))

    def _spelled(self, table: TablePlan, chunk: Chunk) -> Iterator[list[Array]]:
        """Canonical texts of some rows at a time, by column."""
        encoding = self._dialect.encoding
        for columns in self._texts(table, chunk, self._dialect.hexed, 2 * _WIDTHS.get(encoding, 1)):
            texts = [_decoded(column, encoding) for column in columns]
            yield [
                _checked(table, column, values, self._canonical)
                for column, values in zip(table.columns, texts, strict=True)
            ]

    def _typed(self, column: ColumnPlan, texts: Array) -> Array:
        return typed_array(column, texts, lambda text: self._dialect.spelled(column, text))

    def _canonical(self, column: ColumnPlan, texts: Array) -> Array:
        return canonical_array(column, texts, lambda text: self._dialect.spelled(column, text))

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk, counted by the source."""
        with self._lent(table) as link:
            return int(
                link.rows(f"SELECT {self._dialect.shown('COUNT(*)')} {self._rows(table, chunk)}")[0][0]
            )

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """What comes next in self-numbering columns, as it is now: counters are part of no snapshot."""
        numbered = (
            {c.name for c in table.definition.columns if c.identity} if table.definition else set[str]()
        )
        found: dict[str, int] = {}
        dialect = self._dialect
        for column in table.columns:
            if column.target not in numbered:
                continue
            with self._lent(table) as link:
                rows = rows_sql(dialect, table.source_schema, table.source_table, [])
                highest = link.rows(
                    f"SELECT {dialect.shown(f'MAX({dialect.quoted(column.source)})')} {rows}"
                )[0][0]
                query = dialect.next_value(table.source_schema, table.source_table, column.source)
                counted = link.rows(query) if query else []
            numbers = [
                int(highest) + 1 if highest is not None else 1,
                *(int(n) for (n,) in counted if n is not None),
            ]
            found[column.target] = max(numbers)
        return found

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────

    def _rows(self, table: TablePlan, chunk: Chunk, condition: str | None = None) -> str:
        bounds = [
            f"{self._dialect.quoted(table.chunk_columns[0])} {operator} {bound[0]}"
            for operator, bound in ((">=", chunk.lower), ("<", chunk.upper))
            if bound is not None
        ]
        return rows_sql(
            self._dialect, table.source_schema, table.source_table, [*bounds, table.where, condition]
        )

    def _texts(
        self, table: TablePlan, chunk: Chunk, wrap: Callable[[str], str], factor: int
    ) -> Iterator[list[Array]]:
        """The columns of some rows at a time, each value the text that `wrap` makes of the carried one."""
        with self._lent(table) as link:
            pieces = self._pieces(link, table, chunk, factor)
            cells = [
                cell
                for column, count in zip(table.columns, pieces, strict=True)
                for cell in self._cells(column, count, wrap, factor)
            ]
            stream = read_cells(
                link,
                cells,
                lambda condition: self._rows(table, chunk, condition),
                batch_bytes=min(self._batch_bytes, self._portion.bytes or self._batch_bytes),
                most=self._portion.rows_of(table),
            )
            for batch in stream:
                at, columns = 0, list[Array]()
                for count in pieces:
                    columns.append(_joined([batch.column(i) for i in range(at, at + count)]))
                    at += count
                yield columns

    def _pieces(self, link: TextLink, table: TablePlan, chunk: Chunk, factor: int) -> list[int]:
        """How many pieces each column's longest value takes; one each where the driver knows its sizes."""
        dialect = self._dialect
        if dialect.piece is None:
            return [1] * len(table.columns)
        size = piece_characters(dialect, factor)
        asked = [
            dialect.shown(f"MAX({dialect.characters(dialect.text(c))})") if dialect.bound(c) is None else "1"
            for c in table.columns
        ]
        longest = link.rows(f"SELECT {', '.join(asked)} {self._rows(table, chunk)}")[0]
        return [max(1, -(-int(n or 1) // size)) for n in longest]

    def _cells(
        self, column: ColumnPlan, pieces: int, wrap: Callable[[str], str], factor: int
    ) -> Iterator[Cell]:
        dialect = self._dialect
        text = dialect.text(column)
        if dialect.piece is not None and dialect.bound(column) is None:
            size = piece_characters(dialect, factor)
            for number in range(pieces):
                part = wrap(dialect.part(text, 1 + number * size, size))
                yield Cell(part, part, lambda _, part=part: part, dialect.piece)
            return
        whole, bound = wrap(text), dialect.bound(column)
        # Characters of at most four bytes: in UTF-8 as well as in two units of UTF-16.
        octets = f"4 * {dialect.characters(text)}" + (f" * {factor}" if factor > 1 else "")
        yield Cell(
            whole,
            octets,
            lambda width: dialect.sized(whole, width),
            None if bound is None else bound * factor,
        )


_WIDTHS = {"utf-16-le": 2}


def piece_characters(dialect: Dialect, factor: int) -> int:
    """Characters of a piece, of which each may take four bytes, and `factor` digits for each of those."""
    return (dialect.piece or 1 << 30) // 4 // factor


def _joined(parts: Sequence[Array]) -> Array:
    if len(parts) == 1:
        return parts[0]
    columns = [part.to_pylist() for part in parts]
    return pa.array(
        [None if row[0] is None else "".join(row) for row in zip(*columns, strict=True)], pa.string()
    )


def _decoded(texts: Array, encoding: str) -> Array:
    """Texts out of the hex digits of their bytes; without an encoding they are texts already, or bytes."""
    if not encoding:
        if pa.types.is_string(texts.type):
            return texts
        return pa.array([None if v is None else v.hex() for v in texts.to_pylist()], pa.string())
    found = [None if v is None else bytes.fromhex(v).decode(encoding) for v in texts.to_pylist()]
    return pa.array(found, pa.string())


def _checked(
    table: TablePlan, column: ColumnPlan, texts: Array, make: Callable[[ColumnPlan, Array], Array]
) -> Array:
    try:
        return make(column, texts)
    except (ValueError, ArithmeticError):
        # Arrow's message quotes the value, and so its error is not kept.
        raise DataError(
            f"Column {column.source} of {table.source} holds a value that is no {column.target_type}",
            hint="If the source was changed after the plan was made, make a new plan",
            table=table.source,
            column=column.source,
        ) from None
