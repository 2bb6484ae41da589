"""One consistent view of a SQLite file, and the two independent ways through it.

What belongs here: transactions of several readers, batches, digests, next numbers. What does not: how a
column's values cross (`sqlite_carriers`), where chunks begin (`sqlite_census`).

Batches come from ADBC, whose driver brings an SQLite of its own; digests from the stdlib's SQLite. ADBC takes
a column's type from its first row: a typed row goes before all others and is cut off again.

POSIX locks belong to the process: when one library lets go of the file, the other's lock is gone too and a
writer may come in (seen). So both libraries stay in their transactions until the snapshot ends; as long as
they do, neither unlocks the file or closes a descriptor of it.
"""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_sqlite import dbapi as adbc
from pyarrow import compute

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import DataError, TransientError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.ports import CopiedRows, HashedRow
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow
from jivs_pipeline.core.types import arrow_type
from jivs_pipeline.infra.sources.key_breaks import KeyBreaks, Reference
from jivs_pipeline.infra.sources.row_text import digest_of_texts, hashed_rows
from jivs_pipeline.infra.sources.rows_again import judge
from jivs_pipeline.infra.sources.sqlite_again import find
from jivs_pipeline.infra.sources.sqlite_blocks import blocks
from jivs_pipeline.infra.sources.sqlite_blocks import fits as blocks_fit
from jivs_pipeline.infra.sources.sqlite_carriers import (
    Reading,
    any_of,
    reading,
    unbounded_size,
)
from jivs_pipeline.infra.sources.sqlite_census import bound_text, free_rowid_name, key_condition, source_rows
from jivs_pipeline.infra.sources.sqlite_digests import canonical, large_digest, rows_at_once, texts
from jivs_pipeline.infra.sources.sqlite_keys import orphans, twins
from jivs_pipeline.infra.sources.sqlite_open import (
    column_name,
    mapped_errors,
    open_adbc,
    open_sqlite,
    quoted,
)
from jivs_pipeline.infra.sources.sqlite_sieve import address_of, any_bad, bad_rows, sifting

__all__ = ["SqliteSnapshot"]

_BATCH_ROWS = 16_384
_ENOUGH_ROWS = 1_024  # smaller batches cost more than finding where the large rows are
_LARGE_ROW = 4 * 1024 * 1024  # from here on a row's text is hashed piece by piece
_MARK = -1  # of the typed first row
_PAUSE_SECONDS = 0.01
_TOUCH = "SELECT count(*) FROM main.sqlite_schema"  # a transaction begins with its first read

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them

_Slot = tuple[adbc.Connection, sqlite3.Connection]
_Value = int | float | str | bytes


@dataclass(frozen=True, slots=True)
class _Rows:
    """`FROM … WHERE …` with its parameters, and how many of these rows make a batch."""

    sql: str
    parameters: tuple[_Value, ...]
    batch: int = _BATCH_ROWS


class SqliteSnapshot:
    """One view of the file, for several threads.

    Each reader has a connection of ADBC and one of the stdlib, all in transactions that see the same state;
    threads borrow them.
    """

    def __init__(
        self,
        connection: Connection,
        slots: list[tuple[adbc.Connection, sqlite3.Connection]],
        batch_bytes: int,
        portion: Portion = NO_LIMIT,
    ) -> None:
        self._connection = connection
        self._slots = slots
        self._batch_bytes = batch_bytes
        self._portion = portion
        self._known: dict[tuple[str, Chunk], int] = {}
        self._addresses: dict[str, list[str]] = {}
        self._breaks = KeyBreaks(self, ())
        self._arrow: queue.Queue[adbc.Connection] = queue.Queue()
        self._plain: queue.Queue[sqlite3.Connection] = queue.Queue()
        for arrow, plain in slots:
            self._arrow.put(arrow)
            self._plain.put(plain)

    @classmethod
    def open(
        cls,
        connection: Connection,
        readers: int,
        timeout_seconds: float,
        batch_bytes: int,
        *,
        portion: Portion = NO_LIMIT,
    ) -> SqliteSnapshot:
        """Begin all readers' transactions on the same state of the file.

        Raises:
            ConnectionFailed: the file cannot be opened.
            TransientError: it stays locked, or is written to so often that no two readers see the same.
        """
        slots: list[_Slot] = []
        witness = open_sqlite(connection, timeout_seconds)
        try:
            for _ in range(max(readers, 1)):
                # Not extend(): if the last cannot be opened, the others must be closed.
                slots.append(_opened(connection, timeout_seconds))  # noqa: PERF401
            deadline = time.monotonic() + timeout_seconds
            while not _begin(connection, witness, slots, last=time.monotonic() > deadline):
                time.sleep(_PAUSE_SECONDS)
            return cls(connection, slots, batch_bytes, portion)
        except BaseException:
            _close(slots)
            raise
        finally:
            # Not before the others have their locks: closing a descriptor would let go of them.
            witness.close()

    @property
    def consistency(self) -> str:
        """All readers see the same state."""
        return "one snapshot"

    def close(self) -> None:
        """End the transactions."""
        _close(self._slots)

    @contextmanager
    def _lent_arrow(self, table: TablePlan) -> Generator[adbc.Connection]:
        lent = self._arrow.get()
        try:
            with mapped_errors(self._connection, table.source):
                yield lent
        finally:
            self._arrow.put(lent)

    @contextmanager
    def _lent_plain(self, table: TablePlan) -> Generator[sqlite3.Connection]:
        lent = self._plain.get()
        try:
            with mapped_errors(self._connection, table.source):
                yield lent
        finally:
            self._plain.put(lent)

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """SQLite has no copy lane."""
        raise NotImplementedError(f"{table.source} of SQLite travels in the arrow lane")

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the plan's types and target names.

        Raises:
            DataError: a value is not what the census saw, or text is not UTF-8.
        """
        readings = [reading(table.source_table, column) for column in table.columns]
        for rows in self._portions(table, chunk):
            yield from self._read(table, readings, rows)

    def _portions(self, table: TablePlan, chunk: Chunk) -> list[_Rows]:
        """The chunk cut so that a batch stays near `batch_bytes`, however unequal its rows are."""
        rows = self._rows(table, chunk)
        fixed = 16 * len(table.columns) + 1
        widest = self.widest(table, chunk)
        fit = min(self._batch_bytes // (fixed + widest), _BATCH_ROWS)
        if fit >= _ENOUGH_ROWS or not widest:
            return [_Rows(rows.sql, rows.parameters, max(fit, 1))]
        with self._lent_plain(table) as connection, _texts(connection):
            key = _address(connection, table)
            if not key:
                return [_Rows(rows.sql, rows.parameters, max(fit, 1))]
            size = any_of([str(fixed), *self._sizes(table)], " + ")
            listed = f"SELECT {', '.join(key)}, {size} {rows.sql} ORDER BY {', '.join(key)}"
            cuts = _cuts(connection.execute(listed, rows.parameters), self._batch_bytes)
        edges = [None, *cuts, None]
        portions: list[_Rows] = []
        for lower, upper in pairwise(edges):
            bounds, parameters = key_condition(key, Chunk(index=0, lower=lower, upper=upper))
            portions.append(self._rows(table, chunk, bounds, parameters))
        return portions

    def _rows(
        self, table: TablePlan, chunk: Chunk, also: str | None = None, values: Sequence[_Value] = ()
    ) -> _Rows:
        """Rows of a chunk, without those that are sifted out, or of the part of it where `also` holds."""
        if not isinstance(chunk, Sifted):
            return _chunk_rows(table, chunk, [also], values)
        conditions, positions = sifting(self._address(table), chunk)
        return _chunk_rows(table, chunk, [also, *conditions], [*values, *positions])

    def _address(self, table: TablePlan) -> list[str]:
        if (known := self._addresses.get(table.source_table)) is None:
            with self._lent_plain(table) as connection, _texts(connection):
                known = self._addresses[table.source_table] = _address(connection, table)
        return known

    @staticmethod
    def _sizes(table: TablePlan) -> list[str]:
        sizes = (unbounded_size(table.source_table, column) for column in table.columns)
        return [size for size in sizes if size is not None]

    def widest(self, table: TablePlan, chunk: Chunk) -> int:
        """Bytes of texts and blobs in the chunk's largest row, as far as no type bounds them."""
        sizes = self._sizes(table)
        if not sizes:
            return 0
        # Batches and digest of a chunk both ask.
        if (known := self._known.get((table.target, chunk))) is not None:
            return known
        # Of the whole chunk, should rows be sifted out of it: an upper bound is all that is needed.
        rows = _chunk_rows(table, chunk)
        with self._lent_plain(table) as connection:
            found = connection.execute(
                f"SELECT max({any_of(sizes, ' + ')}) {rows.sql}", rows.parameters
            ).fetchone()
        self._known[table.target, chunk] = int(found[0] or 0)
        return self._known[table.target, chunk]

    def _read(self, table: TablePlan, readings: Sequence[Reading], rows: _Rows) -> Iterator[pa.RecordBatch]:
        parts = [part for r in readings for part in r.parts]
        types = [*(t for r in readings for t in r.types), pa.int64()]
        alien = any_of([r.alien for r in readings if r.alien is not None]) or "0"
        first = ", ".join([*(f"{value} AS c{i}" for i, (_, value) in enumerate(parts)), f"{_MARK} AS mark"])
        sql = f"SELECT {first} UNION ALL SELECT {', '.join([*(s for s, _ in parts), alien])} {rows.sql}"
        schema = pa.schema([pa.field(c.target, arrow_type(c.arrow)) for c in table.columns])
        with self._lent_arrow(table) as connection, connection.cursor() as cursor:
            batch = min(rows.batch, self._portion.rows_of(table) or rows.batch)
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(batch)})
            cursor.execute(sql, rows.parameters)
            reader: Any = cursor.fetch_record_batch()
            if list(reader.schema.types) != types:
                raise self._changed(
                    table, None, f"columns arrive as {', '.join(map(str, reader.schema.types))}"
                )
            marked = False
            while (batch := self._next(reader, table)) is not None:
                if not marked:
                    if batch.column(len(types) - 1)[0].as_py() != _MARK:
                        raise self._changed(table, None, "the typed first row did not come first")
                    batch, marked = batch.slice(1), True
                if batch.num_rows:
                    yield self._converted(table, readings, batch, schema)

    def _next(self, reader: Any, table: TablePlan) -> Any:
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except OSError as error:
            # ADBC names the column and the types, never a value.
            raise self._changed(table, None, str(error)) from error

    def _changed(self, table: TablePlan, column: str | None, problem: str) -> DataError:
        where = f"{table.source}.{column}" if column else table.source
        return DataError(
            f"{where} of connection {self._connection.name!r} does not hold what the plan says: {problem}",
            hint="If the source was changed after the plan was made, make a new plan",
            table=table.source,
            column=column,
        )

    def _converted(
        self, table: TablePlan, readings: Sequence[Reading], batch: Any, schema: Any
    ) -> pa.RecordBatch:
        if _pc.any(batch.column(batch.num_columns - 1).cast(pa.bool_())).as_py():
            raise self._changed(table, None, "a value of another storage class")
        arrays: list[Any] = []
        at = 0
        for column, how in zip(table.columns, readings, strict=True):
            parts = [batch.column(i) for i in range(at, at + len(how.parts))]
            at += len(how.parts)
            for part in parts:
                try:
                    if pa.types.is_string(part.type):
                        part.validate(full=True)
                except pa.ArrowInvalid as error:
                    raise DataError(
                        f"Column {column.source} of {table.source} holds text that is not UTF-8",
                        hint="Repair the text in the source, or drop the column with a rule",
                        table=table.source,
                        column=column.source,
                    ) from error
            try:
                arrays.append(how.join(parts))
            except ValueError as error:
                # Arrow's message quotes the value; its errors are ValueErrors.
                problem = (
                    f"a value is not a {column.target_type}"
                    if isinstance(error, pa.ArrowInvalid)
                    else str(error)
                )
                raise self._changed(table, column.source, problem) from None
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    # ── bad rows ───────────────────────────────────────────────────────────────────────────────────────

    def relate(self, tables: Sequence[TablePlan]) -> None:
        """From here on rows that break a key between these tables are bad, too."""
        self._breaks = KeyBreaks(self, [t for t in tables if self._address(t)])

    def twins(self, table: TablePlan, key: Sequence[ColumnPlan]) -> Iterator[str]:
        """See `key_breaks`."""
        address = self._address(table)
        with self._lent_plain(table) as connection, _texts(connection):
            yield from twins(connection, table, key, address, _encoding(connection))

    def orphans(self, reference: Reference, without: Collection[str]) -> Iterator[str]:
        """See `key_breaks`."""
        address, theirs = self._address(reference.table), self._address(reference.parent)
        with self._lent_plain(reference.table) as connection, _texts(connection):
            encoding = _encoding(connection)
            yield from orphans(connection, reference, address, theirs, without, encoding)

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The chunk's rows that the plan's columns cannot hold, or that break a key; none where rows cannot be addressed."""
        if not (address := self._address(table)):
            return
        broken = self._breaks.of(table)
        with self._lent_plain(table) as connection, _texts(connection):
            bad = any_bad(table.source_table, table.columns, _encoding(connection))
        at, positions = sifting(address, Sifted(index=0, only=tuple(broken))) if broken else ([], [])
        rows = self._rows(table, chunk, " OR ".join(f"({c})" for c in (bad, *at)), positions)
        with self._lent_plain(table) as connection:
            yield from bad_rows(connection, table, rows.sql, rows.parameters, address, broken)

    def as_now(self, table: TablePlan) -> TablePlan:
        """Chunks are ranges of keys, whatever becomes of the rows."""
        return table

    def again(self, table: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool = False) -> Again:
        """Read rows in quarantine anew, by key or by where they were."""
        del rest
        address = self._address(table)
        with self._lent_plain(table) as connection, _texts(connection):
            places = [find(connection, table, address, row) for row in rows]
        return judge(self, table, rows, places, apart=apart)

    # ── digests ─────────────────────────────────────────────────────────────────────────────────────────

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest by the stdlib's SQLite, which shares no code with `batches`."""
        rows = self._rows(table, chunk)
        widest = self.widest(table, chunk)
        large = table.spelling is Spelling.CHAIN and widest > _LARGE_ROW
        if large:
            with self._lent_plain(table) as connection:
                return large_digest(connection, table, rows.sql, rows.parameters)
        found = self._texts(table, chunk, widest)
        return sum((digest_of_texts(table, *group) for group in found), Digest())

    def _texts(self, table: TablePlan, chunk: Chunk, widest: int) -> Iterator[tuple[list[Any], int]]:
        """Canonical texts by column, and how many rows they are: in blocks, where rows are many and have a number."""
        # What types bound is not in `widest`, and hundreds of short columns are not little.
        step = rows_at_once(max(widest, table.bytes // max(table.rows, 1)))
        address, rows = self._address(table), self._rows(table, chunk)
        with self._lent_plain(table) as connection:
            if step < _ENOUGH_ROWS or not blocks_fit(table, address):
                yield from texts(connection, table, rows.sql, rows.parameters, step)
                return

            def between(first: int, end: int | None) -> tuple[str, Sequence[_Value]]:
                bounds = f"{address[0]} >= ?" + (f" AND {address[0]} < ?" if end is not None else "")
                found = self._rows(table, chunk, bounds, [first] if end is None else [first, end])
                return found.sql, found.parameters

            try:
                yield from blocks(connection, table, canonical, address[0], between, step)
            except ValueError as error:
                # Arrow's message may quote a value; its errors are ValueErrors.
                odd = isinstance(error, pa.ArrowInvalid)
                raise self._changed(table, None, "a value is another one" if odd else str(error)) from None

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        places, widest = [table.columns.index(c) for c in key], self.widest(table, chunk)
        for columns, count in self._texts(table, chunk, widest):
            yield from hashed_rows(table, columns, places, count)

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk."""
        rows = self._rows(table, chunk)
        with self._lent_plain(table) as connection:
            return int(connection.execute(f"SELECT count(*) {rows.sql}", rows.parameters).fetchone()[0])

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """One after the largest rowid; with AUTOINCREMENT, also after those of deleted rows."""
        identities = (
            {c.name for c in table.definition.columns if c.identity} if table.definition else set[str]()
        )
        found: dict[str, int] = {}
        with self._lent_plain(table) as connection:
            counters = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'"
            counted = connection.execute(counters).fetchone() is not None
            for column in table.columns:
                if column.target not in identities:
                    continue
                largest = f"max({column_name(table.source_table, column.source)})"
                sql = f"SELECT {largest} {source_rows(table.source_table, [])}"
                numbers = [connection.execute(sql).fetchone()[0]]
                if counted:
                    last = "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?"
                    numbers += connection.execute(last, (table.source_table,)).fetchone()
                found[column.target] = max(0, *(number or 0 for number in numbers)) + 1
        return found


def _opened(connection: Connection, timeout_seconds: float) -> _Slot:
    plain = open_sqlite(connection, timeout_seconds)
    try:
        arrow = open_adbc(connection)
    except BaseException:
        plain.close()
        raise
    # Texts come as the bytes they are: digests hash them without decoding.
    plain.text_factory = bytes
    # A waiting writer lets no more readers in, and waits for those that are: do not wait for it.
    plain.execute("PRAGMA busy_timeout = 0")
    return arrow, plain


def _begin(
    connection: Connection, witness: sqlite3.Connection, slots: Sequence[_Slot], *, last: bool
) -> bool:
    """Begin all transactions, or none if they would not see the same; on the `last` attempt that is an error."""
    try:
        with mapped_errors(connection):
            # Another number than before if anybody committed in between, in either journal mode.
            before = witness.execute("PRAGMA data_version").fetchone()
            for arrow, plain in slots:
                for statement in ("BEGIN", _TOUCH):
                    plain.execute(statement).fetchall()
                    _run(arrow, statement)
            if witness.execute("PRAGMA data_version").fetchone() == before:
                return True
    except TransientError:
        if last:
            raise
    if last:
        raise TransientError(
            f"Connection {connection.name!r} is written to too often for a consistent view",
            hint="Stop its writers, or migrate a copy made by `sqlite3 FILE '.backup COPY'`",
        )
    for arrow, plain in slots:
        if plain.in_transaction:
            plain.execute("ROLLBACK")
        # ADBC does not tell whether it is in one.
        with suppress(adbc_driver_manager.Error):
            _run(arrow, "ROLLBACK")
    return False


def _run(arrow: adbc.Connection, statement: str) -> None:
    with arrow.cursor() as cursor:
        cursor.execute(statement)
        cursor.fetchall()


def _close(slots: list[_Slot]) -> None:
    for arrow, plain in slots:
        # A generator of batches that nobody finished keeps its statement until it is collected.
        with suppress(adbc_driver_manager.Error, RuntimeError):
            arrow.close()
        plain.close()
    slots.clear()


@contextmanager
def _texts(connection: sqlite3.Connection) -> Generator[None]:
    """Lets a connection return texts as such: a bound that came as bytes would be compared as a blob."""
    before, connection.text_factory = connection.text_factory, str
    try:
        yield
    finally:
        connection.text_factory = before


def _cuts(rows: Iterable[tuple[Any, ...]], batch_bytes: int) -> list[tuple[str, ...]]:
    """Keys at which a new batch begins; `rows` are keys, each with its row's bytes at the end."""
    cuts: list[tuple[str, ...]] = []
    filled = held = 0
    for *key, taken in rows:
        if held and (filled + taken > batch_bytes or held >= _BATCH_ROWS):
            cuts.append(tuple(map(bound_text, key)))
            filled = held = 0
        filled, held = filled + taken, held + 1
    return cuts


def _encoding(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA encoding").fetchone()[0])


def _address(connection: sqlite3.Connection, table: TablePlan) -> list[str]:
    names = connection.execute("SELECT name FROM pragma_table_xinfo(?, 'main')", (table.source_table,))
    return address_of(connection, table.source_table, free_rowid_name(name for (name,) in names))


def _chunk_rows(
    table: TablePlan, chunk: Chunk, also: Sequence[str | None] = (), values: Sequence[_Value] = ()
) -> _Rows:
    """Rows of a chunk, or of the part of it where all of `also` hold."""
    if table.chunk_by is ChunkBy.ROWID:
        key = [f"{quoted(table.source_table)}.{table.chunk_columns[0]}"]
    else:
        key = [column_name(table.source_table, name) for name in table.chunk_columns]
    bounds, parameters = key_condition(key, chunk)
    return _Rows(source_rows(table.source_table, [bounds, *also, table.where]), (*parameters, *values))
