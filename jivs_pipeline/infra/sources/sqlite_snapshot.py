"""Reading the rows of a SQLite file: batches, digests, next numbers.

What belongs here: one consistent view for several readers, and the two independent ways through it. What does
not: choosing carriers (`core/types.py`), finding chunks (`sqlite_census`).

Carriers, each with the Arrow type that the plan names or with `string` (then as PostgreSQL's input reads it):

- integer, real, utf8, bytes: the storage class of that name; anything else that turns up is an error.
- boolean: the integers 0 and 1.
- number: integers and reals as decimal digits, neither through the other.
- date, time, timestamp: texts of that form.
- text: anything but blobs, as text: what a rule `type: text` asks for.

Batches come from ADBC, whose driver brings an SQLite of its own; digests from the stdlib. ADBC takes a column's
type from its first row, so that a typed row goes before all others and is cut off.
"""

from __future__ import annotations

import queue
import sqlite3
import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import adbc_driver_manager
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_sqlite import dbapi as adbc

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.errors import DataError, TransientError
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, TablePlan
from jivs_pipeline.core.ports import Piece
from jivs_pipeline.core.types import Affinity, arrow_type, sqlite_type
from jivs_pipeline.infra.sources.sqlite_census import any_of, key_condition, source_rows
from jivs_pipeline.infra.sources.sqlite_open import (
    column_name,
    mapped_errors,
    open_adbc,
    open_sqlite,
    quoted,
    real_text,
)

__all__ = ["SqliteSnapshot"]

_ATTEMPTS = 20
_BATCH_ROWS = 16_384
_DIGEST_ROWS = 4_096
_PRINTF_COLUMNS = 40  # a function takes 100 arguments in older libraries
_MARK = -1  # of the typed first row

Array = Any  # pyarrow's own stubs do not tell arrays and chunked arrays apart


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one column is read: the SQL and typed first value of its parts, and how they become one array.

    `alien` is the condition of a value that the carrier cannot hold and that ADBC would convert silently.
    """

    parts: tuple[tuple[str, str], ...]
    join: Callable[[list[Array]], Array]
    alien: str | None = None


def _as_type(arrow: str) -> Callable[[list[Array]], Array]:
    wanted = arrow_type(arrow)
    return lambda parts: parts[0] if parts[0].type == wanted else parts[0].cast(wanted)


def _booleans(arrow: str) -> Callable[[list[Array]], Array]:
    def join(parts: list[Array]) -> Array:
        span = pc.min_max(parts[0])
        low, high = span["min"].as_py(), span["max"].as_py()
        if low is not None and (low < 0 or high > 1):
            raise ValueError("an integer that is neither 0 nor 1")
        return parts[0].cast(arrow_type(arrow))

    return join


def _times(parts: list[Array]) -> Array:
    # Arrow parses timestamps, not times: put them on the first day and take the microseconds.
    day = pc.binary_join_element_wise(pa.scalar("1970-01-01"), parts[0], " ")
    return day.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.time64("us"))


def _hex(parts: list[Array]) -> Array:
    return parts[0]


def _numbers(arrow: str) -> Callable[[list[Array]], Array]:
    wanted = arrow_type(arrow)

    def join(parts: list[Array]) -> Array:
        # Both by their digits: Arrow prints the shortest that give the double back.
        digits = pc.coalesce(parts[0].cast(pa.string()), parts[1].cast(pa.string()))
        return digits if digits.type == wanted else digits.cast(wanted)

    return join


def _any_text(parts: list[Array]) -> Array:
    reals = parts[2]
    if reals.null_count < len(reals):
        reals = pa.array([None if v is None else real_text(v) for v in reals.to_pylist()], pa.string())
    else:
        reals = reals.cast(pa.string())
    return pc.coalesce(parts[0], parts[1].cast(pa.string()), reals)


def _reading(table: str, column: ColumnPlan) -> _Reading:
    c = column_name(table, column.source)
    affinity = sqlite_type(column.source_type).affinity
    carrier, arrow = column.carrier, column.arrow

    def of(stored: str) -> str:
        return f"CASE WHEN typeof({c}) = '{stored}' THEN {c} END"

    def other_than(stored: str) -> str:
        return f"typeof({c}) NOT IN ('{stored}', 'null')"

    if carrier == "integer":
        return _Reading(((c, "0"),), _as_type(arrow))
    if carrier == "boolean":
        return _Reading(((c, "0"),), _booleans(arrow))
    if carrier == "real":
        alien = None if affinity is Affinity.REAL else other_than("real")
        return _Reading(((c, "0.0"),), _as_type(arrow), alien)
    if carrier == "number":
        join = _numbers(arrow)
        parts = ((of("integer"), "0"), (of("real"), "0.0"))
        return _Reading(parts, join, f"typeof({c}) IN ('text', 'blob')")
    if carrier == "utf8":
        # TEXT affinity leaves no numbers, and a comparison is cheaper than typeof().
        alien = f"{c} >= x''" if affinity is Affinity.TEXT else other_than("text")
        return _Reading(((c, "''"),), _as_type("string"), alien)
    if carrier in ("date", "time", "timestamp"):
        join = _as_type(arrow) if carrier != "time" or arrow == "string" else _times
        return _Reading(((c, "''"),), join, other_than("text"))
    if carrier == "bytes" and arrow == "string":
        written = f"CASE WHEN {c} NOT NULL THEN '\\x' || lower(hex({c})) END"
        return _Reading(((written, "''"),), _hex, other_than("blob"))
    if carrier == "bytes":
        return _Reading(((c, "x''"),), _as_type(arrow), other_than("blob"))
    if carrier == "text":
        parts = ((of("text"), "''"), (of("integer"), "0"), (of("real"), "0.0"))
        return _Reading(parts, _any_text, f"typeof({c}) = 'blob'")
    raise ValueError(f"there is no carrier {carrier!r}")


_FIRST_TYPES = {"0": pa.int64(), "0.0": pa.float64(), "''": pa.string(), "x''": pa.binary()}


def _canonical(table: str, column: ColumnPlan) -> str:
    """SQL of the value as digests spell it."""
    c = column_name(table, column.source)
    if column.canon is Canon.FLOAT:
        return f"jivs_float_bits({c})"
    if column.canon is Canon.NUMERIC:
        return f"CASE typeof({c}) WHEN 'integer' THEN {c} ELSE jivs_numeric({c}) END"
    if column.canon is Canon.BYTES:
        return (
            f"lower(hex({c}))"
            if column.nullable is False
            else f"CASE WHEN {c} NOT NULL THEN lower(hex({c})) END"
        )
    if column.canon is Canon.TIMESTAMP:
        day = f"substr({c}, 1, 10) || ' ' || substr({c}, 12)"
        return f"CASE length({c}) WHEN 19 THEN replace({c}, 'T', ' ') ELSE rtrim(rtrim({day}, '0'), '.') END"
    if column.canon is Canon.TIME:
        return f"CASE length({c}) WHEN 8 THEN {c} ELSE rtrim(rtrim({c}, '0'), '.') END"
    if column.carrier == "text":
        return f"CASE typeof({c}) WHEN 'real' THEN jivs_real({c}) ELSE CAST({c} AS TEXT) END"
    return c


def _row_text(plan: TablePlan) -> str:
    """SQL of the whole row as `Spelling.CANONICAL` spells it.

    printf() once per forty columns takes half the time of `||` per column.
    """
    pieces: list[str] = []
    for start in range(0, len(plan.columns), _PRINTF_COLUMNS):
        form, arguments = "", list[str]()
        for column in plan.columns[start : start + _PRINTF_COLUMNS]:
            value = _canonical(plan.source_table, column)
            form += "%s%s"
            arguments += [f"coalesce(length({value}) || ':', '-')", value]
        pieces.append(f"printf('{form}', {', '.join(arguments)})")
    return any_of(pieces, " || ") if pieces else "''"


class SqliteSnapshot:
    """One view of the file. Each reader has a connection of ADBC and one of the stdlib, all in transactions
    that began while nobody wrote; they are lent from queues."""

    def __init__(
        self,
        connection: Connection,
        slots: list[tuple[adbc.Connection, sqlite3.Connection]],
        batch_bytes: int,
    ) -> None:
        self._connection = connection
        self._slots = slots
        self._batch_bytes = batch_bytes
        self._arrow: queue.Queue[adbc.Connection] = queue.Queue()
        self._plain: queue.Queue[sqlite3.Connection] = queue.Queue()
        for arrow, plain in slots:
            self._arrow.put(arrow)
            self._plain.put(plain)

    @classmethod
    def open(
        cls, connection: Connection, readers: int, timeout_seconds: float, batch_bytes: int
    ) -> SqliteSnapshot:
        """Begin all readers' transactions on the same state of the file.

        Raises:
            ConnectionFailed: the file cannot be opened.
            TransientError: other programs write so often that no two readers see the same.
        """
        witness = open_sqlite(connection, timeout_seconds)
        try:
            for _ in range(_ATTEMPTS):
                slots: list[tuple[adbc.Connection, sqlite3.Connection]] = []
                try:
                    with mapped_errors(connection):
                        # Differs from the last time if anybody committed in between, in either journal mode.
                        before = witness.execute("PRAGMA data_version").fetchone()
                        for _ in range(max(readers, 1)):
                            slots.append(_begin(connection, timeout_seconds))
                        if witness.execute("PRAGMA data_version").fetchone() == before:
                            return cls(connection, slots, batch_bytes)
                except BaseException:
                    _end(slots)
                    raise
                _end(slots)
        finally:
            witness.close()
        raise TransientError(
            f"Other programs write to connection {connection.name!r} too often for a consistent view",
            hint="Stop them for the migration, or copy the file with `sqlite3 FILE '.backup COPY'`",
        )

    @property
    def consistency(self) -> str:
        """All readers see the same state."""
        return "one snapshot"

    def close(self) -> None:
        """End the transactions."""
        _end(self._slots)

    @contextmanager
    def _lent(self, source: queue.Queue[Any], table: str) -> Generator[Any]:
        lent = source.get()
        try:
            with mapped_errors(self._connection, table):
                yield lent
        finally:
            source.put(lent)

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[Piece]:
        """SQLite has no copy lane."""
        raise NotImplementedError(f"{table.source} of SQLite travels in the arrow lane")

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the plan's types and target names.

        Raises:
            DataError: a value is not what the census saw, or text is not UTF-8.
        """
        readings = [_reading(table.source_table, column) for column in table.columns]
        parts = [part for reading in readings for part in reading.parts]
        alien = any_of([reading.alien for reading in readings if reading.alien is not None])
        rows, parameters = _chunk_rows(table, chunk)
        first = ", ".join([*(f"{value} AS c{i}" for i, (_, value) in enumerate(parts)), f"{_MARK} AS mark"])
        sql = f"SELECT {first} UNION ALL SELECT {', '.join([*(s for s, _ in parts), alien or '0'])} {rows}"
        types = [*(_FIRST_TYPES[value] for _, value in parts), pa.int64()]
        schema = pa.schema([pa.field(c.target, arrow_type(c.arrow)) for c in table.columns])
        with self._lent(self._arrow, table.source_table) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_BATCH_ROWS)})
            cursor.execute(sql, parameters)
            reader = cursor.fetch_record_batch()
            if list(reader.schema.types) != types:
                raise self._changed(table, None, f"columns arrive as {reader.schema.types}")
            marked = False
            while (batch := self._next(reader, table)) is not None:
                if not marked:
                    if batch.column(len(types) - 1)[0].as_py() != _MARK:
                        raise self._changed(table, None, "the typed first row is not first")
                    batch, marked = batch.slice(1), True
                if batch.num_rows:
                    yield self._converted(table, readings, batch, schema)

    def _next(self, reader: Any, table: TablePlan) -> pa.RecordBatch | None:
        try:
            return reader.read_next_batch()
        except StopIteration:
            return None
        except (OSError, pa.ArrowException) as error:
            # ADBC: a value is not of the type of the typed first row.
            raise self._changed(table, None, str(error)) from error

    def _changed(self, table: TablePlan, column: str | None, problem: str) -> DataError:
        where = f"{table.source}.{column}" if column else table.source
        return DataError(
            f"{where} of connection {self._connection.name!r} does not hold what the plan says: {problem}",
            hint="If the source changed after the plan was made, make a new plan",
            table=table.source,
            column=column,
        )

    def _converted(
        self, table: TablePlan, readings: list[_Reading], batch: pa.RecordBatch, schema: pa.Schema
    ) -> pa.RecordBatch:
        if pc.any(batch.column(batch.num_columns - 1).cast(pa.bool_())).as_py():
            raise self._changed(table, None, "a value of another storage class")
        arrays: list[Array] = []
        at = 0
        for column, reading in zip(table.columns, readings, strict=True):
            parts = [batch.column(i) for i in range(at, at + len(reading.parts))]
            at += len(reading.parts)
            try:
                for part in parts:
                    if pa.types.is_string(part.type):
                        part.validate(full=True)
                arrays.append(reading.join(parts))
            except pa.ArrowInvalid as error:
                if "UTF8" in str(error):
                    raise DataError(
                        f"Column {column.source} of {table.source} holds text that is not UTF-8",
                        hint="Repair the text in the source, or drop the column with a rule",
                        table=table.source,
                        column=column.source,
                    ) from None
                # Arrow's message quotes the value.
                raise self._changed(table, column.source, f"a value is not a {column.target_type}") from None
            except ValueError as error:
                raise self._changed(table, column.source, str(error)) from None
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest by the stdlib's SQLite and Python's MD5, which share nothing with `batches`."""
        rows, parameters = _chunk_rows(table, chunk)
        count = high = low = 0
        with self._lent(self._plain, table.source_table) as connection:
            cursor = connection.execute(f"SELECT {_row_text(table)} {rows}", parameters)
            try:
                while texts := cursor.fetchmany(_DIGEST_ROWS):
                    joined = b"".join([md5(text, usedforsecurity=False).digest() for (text,) in texts])
                    halves = struct.unpack(f">{2 * len(texts)}q", joined)
                    count, high, low = count + len(texts), high + sum(halves[::2]), low + sum(halves[1::2])
            finally:
                cursor.close()
        return Digest(count, high, low)

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk."""
        rows, parameters = _chunk_rows(table, chunk)
        with self._lent(self._plain, table.source_table) as connection:
            return int(connection.execute(f"SELECT count(*) {rows}", parameters).fetchone()[0])

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """What SQLite would give the next row: after the largest rowid, and after deleted ones with AUTOINCREMENT."""
        identities = (
            {c.name for c in table.definition.columns if c.identity} if table.definition else set[str]()
        )
        found: dict[str, int] = {}
        with self._lent(self._plain, table.source_table) as connection:
            for column in table.columns:
                if column.target not in identities:
                    continue
                name = column_name(table.source_table, column.source)
                largest = connection.execute(
                    f"SELECT max({name}) FROM main.{quoted(table.source_table)}"
                ).fetchone()[0]
                counters = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'"
                given = None
                if connection.execute(counters).fetchone():
                    last = "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?"
                    given = connection.execute(last, (table.source_table,)).fetchone()[0]
                found[column.target] = max(largest or 0, given or 0, 0) + 1
        return found


def _begin(connection: Connection, timeout_seconds: float) -> tuple[adbc.Connection, sqlite3.Connection]:
    plain = open_sqlite(connection, timeout_seconds)
    try:
        # Texts come as the bytes they are: digests hash them without decoding.
        plain.text_factory = bytes
        plain.execute("BEGIN")
        plain.execute("SELECT count(*) FROM main.sqlite_schema").fetchone()
        arrow = open_adbc(connection, timeout_seconds)
        try:
            with arrow.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT count(*) FROM main.sqlite_schema")
                cursor.fetchall()
        except BaseException:
            arrow.close()
            raise
    except BaseException:
        plain.close()
        raise
    return arrow, plain


def _end(slots: list[tuple[adbc.Connection, sqlite3.Connection]]) -> None:
    for arrow, plain in slots:
        with suppress(adbc_driver_manager.Error):
            arrow.close()
        plain.close()
    slots.clear()


def _chunk_rows(table: TablePlan, chunk: Chunk) -> tuple[str, list[int | float | str | bytes]]:
    """`FROM … WHERE …` of a chunk, and its parameters."""
    if table.chunk_by is ChunkBy.ROWID:
        key = [f"{quoted(table.source_table)}.{table.chunk_columns[0]}"]
    else:
        key = [column_name(table.source_table, name) for name in table.chunk_columns]
    bounds, parameters = key_condition(key, chunk)
    return source_rows(table.source_table, [bounds, table.where]), parameters
