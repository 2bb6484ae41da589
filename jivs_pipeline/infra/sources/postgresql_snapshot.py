"""One view of a PostgreSQL source, shared by several sessions: the rows, their digests, their next numbers.

What belongs here: the exported snapshot, its readers and the statements over a chunk. What does not: where
chunk bounds come from (`postgresql.py`) and how a row is spelled (`infra/digests.py`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, cast

import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg import sql
from psycopg.pq import TransactionStatus

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError, SnapshotLost, TransientError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows, HashedRow
from jivs_pipeline.infra import digests, large_objects
from jivs_pipeline.infra.postgresql import BEGIN, Session, mapped, part
from jivs_pipeline.infra.sources.postgresql_catalog import SQL, numbered

__all__ = ["COMPUTED", "PostgresqlSnapshot", "chunk_predicate", "raw", "relation"]

COMPUTED = "computed"
"""Carrier of a column that the source generates and the target does not: only a query can read it."""

_BATCH_BYTES = 4 << 20
_AS_COPIED = re.compile(
    r"(smallint|integer|bigint|numeric|real|double precision|date|time|timestamp|text|character varying|uuid|bytea)"
    r"\b(?!.*\[\])"
)
"""Types of which COPY writes the text that a cast gives, in half the time."""
_STANDS_HERE, _GO_BACK = sql.SQL("SAVEPOINT snapshot"), sql.SQL("ROLLBACK TO snapshot")


def raw(text: str) -> sql.SQL:
    """SQL of the user's, checked in the spec and bounded by a read-only transaction."""
    return sql.SQL(cast("LiteralString", text))


def relation(schema: str, table: str) -> sql.Composed:
    """What follows FROM: the table without its children."""
    return sql.SQL("ONLY {}").format(sql.Identifier(schema, table))


def chunk_predicate(table: TablePlan, chunk: Chunk) -> sql.Composable | None:
    """The condition of a chunk's rows; None when it is all rows.

    Bounds are literals without a type, so that PostgreSQL reads each as its column's type and compares by the
    column's own operator and collation. Row values compare as the key's btree does; the planner takes them to choose far
    more rows than they do, and would read the whole table for each chunk, so the first column's own bounds are there, too.
    """
    parts: list[sql.Composable] = []
    for bound, operator, within in (
        (chunk.lower, sql.SQL(">="), sql.SQL(">=")),
        (chunk.upper, sql.SQL("<"), sql.SQL("<=")),
    ):
        if bound is None:
            continue
        if table.chunk_by is ChunkBy.CTID:
            parts.append(sql.SQL("ctid {} {}::tid").format(operator, sql.Literal(f"({bound[0]},0)")))
        else:
            values = sql.SQL(", ").join(sql.Literal(value) for value in bound)
            parts.append(
                sql.SQL("({}) {} ({})").format(digests.column_list(table.chunk_columns), operator, values)
            )
            if len(bound) > 1:
                first = sql.Identifier(table.chunk_columns[0])
                parts.append(sql.SQL("{} {} {}").format(first, within, sql.Literal(bound[0])))
    if table.where is not None:
        parts.append(sql.SQL("({})").format(raw(table.where)))
    return sql.SQL(" AND ").join(parts) if parts else None


def _rows_of(table: TablePlan, chunk: Chunk) -> tuple[sql.Composable, sql.Composable | None]:
    """What follows FROM, and the condition of the chunk's rows; None when it is all rows."""
    if table.large_objects_of is not None:
        return large_objects.of_chunk(chunk), None
    return relation(table.source_schema, table.source_table), chunk_predicate(table, chunk)


def copy_statement(table: TablePlan, chunk: Chunk) -> sql.Composed:
    """COPY … TO STDOUT of a chunk. A whole table needs no query, which saves up to a tenth of the time."""
    names = digests.column_list([c.source for c in table.columns])
    source, predicate = _rows_of(table, chunk)
    plain = table.large_objects_of is None and all(c.carrier != COMPUTED for c in table.columns)
    if predicate is None and table.columns and plain:
        what = sql.SQL("{} ({})").format(sql.Identifier(table.source_schema, table.source_table), names)
    else:
        condition = sql.SQL(" WHERE {}").format(predicate) if predicate is not None else sql.SQL("")
        what = sql.SQL("(SELECT {} FROM {}{})").format(names, source, condition)
    form = sql.SQL("binary" if table.wire is Wire.BINARY else "text")
    return sql.SQL("COPY {} TO STDOUT (FORMAT {})").format(what, form)


def texts_statement(table: TablePlan, chunk: Chunk) -> sql.Composed:
    """COPY … TO STDOUT of a chunk as CSV. `::text` is what digests spell, which for booleans is not what COPY writes."""
    predicate = chunk_predicate(table, chunk)
    texts = sql.SQL(", ").join(
        sql.SQL("{}" if _AS_COPIED.match(c.target_type) else "{}::text").format(sql.Identifier(c.source))
        for c in table.columns
    )
    return sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT (FORMAT csv)").format(
        texts,
        relation(table.source_schema, table.source_table),
        sql.SQL(" WHERE {}").format(predicate) if predicate is not None else sql.SQL(""),
    )


def _parsed(piece: CopiedRows, table: TablePlan) -> pa.RecordBatch:
    """Whole rows of CSV; a piece is a block, so that no row is longer than one."""
    names = [c.target for c in table.columns]
    numbered_names = [f"c{n}" for n in range(len(names))]
    found: Any = pacsv.read_csv(
        pa.BufferReader(piece.data),
        read_options=pacsv.ReadOptions(
            use_threads=False, block_size=len(piece.data) + 1, column_names=numbered_names
        ),
        # An empty line is the NULL of a table of one column.
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(numbered_names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            # PostgreSQL quotes the empty text, and NULL never.
            quoted_strings_can_be_null=False,
        ),
    )
    if found.num_rows != piece.rows:
        raise DataError(
            f"{piece.rows} rows of {table.source} were read as {found.num_rows}",
            hint="This is a bug; please report it",
            table=table.target,
        )
    return found.rename_columns(names).combine_chunks().to_batches()[0]


class PostgresqlSnapshot:
    """See `core.ports.Snapshot`. Sessions are opened when they are first needed and stay until `close`.

    The first session exports the snapshot, and each that joins it exports it again, so that it lives as long as one
    of them does. An error of the server's ends no session: it is rolled back to where the snapshot stands. A session
    that is lost is replaced; with a single one the snapshot is lost with it. (A session that only holds the snapshot
    would be safer, and one connection more than the source was asked for.)

    Args:
        open_session: connects to the source.
        readers: most sessions; as many read at the same time.
        utf8: whether the source's encoding is UTF8.
        place: where the source is, for error sentences.
        portion: the most that is handed out at a time.
    """

    consistency = "one snapshot"

    def __init__(
        self,
        open_session: Callable[[], Session],
        readers: int,
        *,
        utf8: bool,
        place: str,
        portion: Portion = NO_LIMIT,
    ) -> None:
        self._open_session = open_session
        self._readers = readers
        self._utf8 = utf8
        self._place = place
        self._portion = portion
        self._free = threading.BoundedSemaphore(readers)
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._opening = 0
        self._open: dict[Session, str] = {}
        """Sessions in the snapshot, each with the name under which it exports it."""
        self._closed = False
        with mapped(place):
            first = open_session()
            try:
                self._open[first] = _begin(first)
            except BaseException:
                first.drop()
                raise
        self._idle.append(first)

    def close(self) -> None:
        """End all transactions; a reader that is still at work loses its connection."""
        with self._lock:
            self._closed = True
            sessions, self._open, self._idle = [*self._open], {}, []
        self._part(sessions)

    def _part(self, sessions: Sequence[Session]) -> None:
        part(sessions)

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """The chunk in the plan's COPY format, in pieces of about 256 KiB, or a portion."""
        with self._reader(table) as session:
            yield from session.copy_out(copy_statement(table, chunk), self._portion)

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as PostgreSQL's own text of every value, for tables whose values rules change."""
        with self._reader(table) as session:
            for piece in session.copy_out(texts_statement(table, chunk), self._portion, _BATCH_BYTES):
                if piece.rows:
                    yield _parsed(piece, table)

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the chunk, computed by the source."""
        source, predicate = _rows_of(table, chunk)
        columns = [digests.Hashed.of_source(c) for c in table.columns]
        query = digests.row_digest(table.spelling, source, columns, predicate, utf8=self._utf8)
        with self._reader(table) as session:
            row = session.execute(query).fetchone()
        return Digest(*map(int, row)) if row else Digest()

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        with self._reader(table) as session:
            for hashed, *texts in session.cursor().stream(self._row_hashes(table, chunk, key), size=1000):
                yield bytes(hashed), tuple(texts)

    def _row_hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> sql.Composed:
        source, predicate = _rows_of(table, chunk)
        return digests.row_hashes(
            table.spelling,
            source,
            [digests.Hashed.of_source(c) for c in table.columns],
            [digests.Hashed.of_source(c) for c in key],
            predicate,
            utf8=self._utf8,
        )

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk."""
        source, predicate = _rows_of(table, chunk)
        condition = sql.SQL(" WHERE {}").format(predicate) if predicate is not None else sql.SQL("")
        query = sql.SQL("SELECT count(*) FROM {}{}").format(source, condition)
        with self._reader(table) as session:
            row = session.execute(query).fetchone()
        return int(row[0]) if row else 0

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """By target name, from the sequences as they are now: they are not part of any snapshot."""
        if table.large_objects_of is not None:
            return {}
        target = {c.source: c.target for c in table.columns}
        found: dict[str, int] = {}
        with self._reader(table) as session:
            names = {"schema": table.source_schema, "name": table.source_table}
            oids = [oid for (oid,) in session.execute(SQL["table"], names).fetchall()]
            for own in numbered(session, oids):
                if own.column not in target:
                    continue
                sequence = sql.Identifier(own.schema, own.sequence)
                row = session.execute(
                    sql.SQL("SELECT last_value, is_called FROM {}").format(sequence)
                ).fetchone()
                if row is not None:
                    found[target[own.column]] = row[0] + (own.increment if row[1] else 0)
        return found

    def sequences(self, schema: str, names: Sequence[str]) -> Mapping[str, tuple[int, bool]]:
        """As they are now: they are not part of any snapshot."""
        found: dict[str, tuple[int, bool]] = {}
        with self._free, mapped(self._place):
            session = self._borrow()
            try:
                session.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
                for name in names:
                    query = sql.SQL(
                        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n"
                        " ON n.oid = c.relnamespace WHERE c.oid = {}::regclass"
                    ).format(raw(name))
                    row = session.execute(query).fetchone()
                    if row is not None:
                        query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(*row))
                        row = session.execute(query).fetchone()
                    if row is not None:
                        found[name] = (row[0], row[1])
                session.execute("SET LOCAL search_path TO ''")
            except BaseException:
                self._restore(session)
                raise
            self._give_back(session)
        return found

    @contextmanager
    def _reader(self, table: TablePlan) -> Generator[Session]:
        """A session in the snapshot, back in the pool afterwards unless it was lost."""
        with self._free, mapped(table.source):
            session = self._borrow()
            try:
                if table.large_objects_of is None:
                    _hold(session, table)
                yield session
            except BaseException:
                self._restore(session)
                raise
            self._give_back(session)

    def _restore(self, session: Session) -> None:
        """After an error: back to where the snapshot stands, or out of the pool."""
        try:
            if session.pgconn.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
                session.execute(_GO_BACK)
                self._give_back(session)
                return
        except psycopg.Error:
            pass
        with self._lock:
            self._open.pop(session, None)
        session.drop()

    def _give_back(self, session: Session) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)

    def _borrow(self) -> Session:
        with self._lock:
            self._idle = [s for s in self._idle if not self._forgotten(s)]
            if self._closed:
                raise TransientError(f"The snapshot of {self._place} is closed", hint="Run again")
            # One is left to hold the snapshot as long as another may be opened.
            all_open = len(self._open) + self._opening >= self._readers
            if self._idle and (len(self._idle) > 1 or all_open):
                return self._idle.pop()
            self._opening += 1
        try:
            return self._join()
        finally:
            with self._lock:
                self._opening -= 1

    def _forgotten(self, session: Session) -> bool:
        """Whether the session is closed; then it is forgotten."""
        if session.closed:
            self._open.pop(session, None)
        return session.closed

    def _join(self) -> Session:
        """Another session in the snapshot, by the name that any of the others gives it."""
        with self._lock:
            names = list(self._open.values())
        if not names:
            raise self._gone()
        session = self._open_session()
        try:
            name = self._import(session, names)
            with self._lock:
                if self._closed:
                    raise TransientError(f"The snapshot of {self._place} is closed", hint="Run again")  # noqa: TRY301
                self._open[session] = name
        except BaseException:
            session.drop()
            raise
        return session

    def _import(self, session: Session, names: Sequence[str]) -> str:
        gone: psycopg.Error | None = None
        for name in names:
            try:
                return _begin(session, name)
            except (
                psycopg.errors.InvalidParameterValue,
                psycopg.errors.UndefinedObject,
                psycopg.errors.ObjectNotInPrerequisiteState,
            ) as error:
                gone = error
                session.execute("ROLLBACK")
        raise self._gone() from gone

    def _gone(self) -> SnapshotLost:
        return SnapshotLost(
            f"{self._place}: the snapshot is gone, because the session that held it was lost",
            hint="Run again; extraction begins anew with another snapshot",
        )


def _begin(session: Session, name: str | None = None) -> str:
    """Begin a transaction in a new snapshot, or in the one of that name; returns a name for it."""
    session.execute(BEGIN)
    if name is not None:
        session.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
    row = session.execute("SELECT pg_export_snapshot()").fetchone()
    session.execute(_STANDS_HERE)
    return row[0] if row else ""


def _hold(session: Session, table: TablePlan) -> None:
    """Lock the table against being emptied or rewritten, and make sure that this has not happened already."""
    # Reading nothing takes the lock of a reader; LOCK TABLE would ask for rights on all columns.
    source = relation(table.source_schema, table.source_table)
    session.execute(sql.SQL("SELECT FROM {} LIMIT 0").format(source))
    names = {"schema": table.source_schema, "name": table.source_table}
    row = session.execute(SQL["untouched"], names).fetchone()
    if row is None or not row[0]:
        raise SnapshotLost(
            f"{table.source} was truncated, rewritten or replaced after the snapshot was taken",
            hint="Run again; extraction begins anew with another snapshot",
            table=table.target,
        )
