"""One consistent view of a MySQL database for several sessions, and the two ways through it.

What belongs here: how the sessions come to see the same, batches, digests, next numbers. What does not: how a
column's values cross (`mysql_carriers`), where chunks begin (`mysql_census`).

MySQL cannot export a snapshot. All sessions begin theirs while nobody may write: under FLUSH TABLES WITH READ
LOCK (a moment), or where that is not allowed under LOCK TABLES … READ of the schema's tables. Where neither is
allowed, or a lock is not granted in time, there is one session only. What was used is in `consistency`, with the
tables of engines that have no transactions and so no snapshot.
"""

from __future__ import annotations

import queue
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Never

import pyarrow as pa
import pymysql

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError, JivsError, SnapshotLost, TerminalError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ColumnPlan, TablePlan
from jivs_pipeline.core.ports import HashedRow
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow
from jivs_pipeline.core.types import arrow_type
from jivs_pipeline.infra.sources.key_breaks import KeyBreaks, Reference
from jivs_pipeline.infra.sources.mysql_carriers import array_of, hashable, readable, spelled
from jivs_pipeline.infra.sources.mysql_census import source_rows
from jivs_pipeline.infra.sources.mysql_errors import UNUSABLE, mapped, number_of
from jivs_pipeline.infra.sources.mysql_open import IDLE_SECONDS
from jivs_pipeline.infra.sources.mysql_session import Columns, Session, literal, quoted
from jivs_pipeline.infra.sources.mysql_sieve import (
    address_of,
    bad_rows,
    charsets,
    chunk_rows,
    orphans,
    present,
)
from jivs_pipeline.infra.sources.row_text import digest_of_texts, hashed_rows
from jivs_pipeline.infra.sources.rows_again import judge

__all__ = ["BATCH_BYTES", "BATCH_ROWS", "BEGIN", "MysqlSnapshot", "begin_all"]

BATCH_ROWS, BATCH_BYTES = 16_384, 8 << 20
BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
_LOCK_SECONDS = 5
_HOLD_SECONDS = 10
_NOT_ALLOWED = frozenset({1044, 1142, 1227, 1290, 1370, 1205}) | UNUSABLE
"""A privilege is missing, the server's options forbid it, a table is damaged, or the lock was not granted in time."""


def begin_all(sessions: Sequence[Session], tables: Sequence[tuple[str, str]]) -> tuple[list[Session], str]:
    """Begin the sessions' transactions so that all see the same.

    Args:
        sessions: at least one; those that are not needed are closed.
        tables: schema and name of all base tables that may be read.

    Returns:
        The sessions that are in the snapshot, and how it was made.
    """
    first, *others = sessions
    if not others:
        first.command(BEGIN)
        return [first], "one snapshot"
    if _locked(first, "FLUSH TABLES WITH READ LOCK"):
        # This lock, other than that of LOCK TABLES, outlives the beginning of a transaction.
        for session in sessions:
            session.command(BEGIN)
        _unlock(first)
        return list(sessions), "one snapshot"
    listed = ", ".join(f"{quoted(*names)} READ" for names in tables)
    if tables and _locked(first, f"LOCK TABLES {listed}"):
        for session in others:
            session.command(BEGIN)
        _unlock(first)
        first.part()
        return others, "one snapshot, begun under LOCK TABLES (the privilege RELOAD is missing)"
    first.command(BEGIN)
    for session in others:
        session.part()
    reason = "one snapshot, read by one session: others could not join it without the privilege RELOAD or LOCK TABLES"
    return [first], reason


def _locked(session: Session, statement: str) -> bool:
    """Take a lock that keeps writers out; False where this user may not, or it was not granted in time.

    Writers queue behind whoever waits for it, so it is not waited for long; and should this process be stopped
    while it has it, the server ends the session.
    """
    # Well before we take its silence for a lost connection.
    session.command(
        f"SET SESSION lock_wait_timeout = LEAST({_LOCK_SECONDS}, GREATEST(1, @@lock_wait_timeout DIV 2))"
    )
    session.command(f"SET SESSION wait_timeout = {_HOLD_SECONDS}")
    try:
        session.command(statement)
    except pymysql.Error as error:
        if number_of(error) not in _NOT_ALLOWED:
            raise
        _relax(session)
        return False
    return True


def _unlock(session: Session) -> None:
    session.command("UNLOCK TABLES")
    _relax(session)


def _relax(session: Session) -> None:
    """Back to what the session was pinned to."""
    session.command(
        f"SET SESSION wait_timeout = {IDLE_SECONDS}, lock_wait_timeout = {round(max(1, session.patience))}"
    )


class MysqlSnapshot:
    """See `core.ports.Snapshot`. A session that is lost cannot join again; when the last is lost, so is the snapshot.

    Args:
        sessions: all in transactions that see the same.
        place: where the source is, for error sentences.
        consistency: what the view guarantees.
        batch_bytes: about how large a record batch may get.
        portion: the most that is handed out at a time.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        *,
        place: str,
        consistency: str,
        batch_bytes: int = BATCH_BYTES,
        portion: Portion = NO_LIMIT,
    ) -> None:
        self._all = list(sessions)
        self._place = place
        self._consistency = consistency
        self._batch_bytes = batch_bytes
        self._portion = portion
        self._breaks = KeyBreaks(self, ())
        self._free: queue.Queue[Session | None] = queue.Queue()
        for session in sessions:
            self._free.put(session)

    @property
    def consistency(self) -> str:
        """How the snapshot was made, and what it does not cover."""
        return self._consistency

    def close(self) -> None:
        """End the transactions; a reader that is still at work loses its connection."""
        for session in self._all:
            session.drop()

    @contextmanager
    def lent(self, table: TablePlan) -> Generator[Session]:
        """A session in the snapshot, for the block."""
        session = self._free.get()
        if session is None or session.lost:
            self._forget(session)
            raise self._gone(table)
        try:
            with mapped(table.source):
                yield session
        except JivsError as error:
            if session.lost and not [s for s in self._all if s is not session and not s.lost]:
                raise self._gone(table) from error
            raise
        finally:
            if session.lost:
                self._forget(session)
            else:
                self._free.put(session)

    def _forget(self, session: Session | None) -> None:
        """Whoever waits for a session must not wait for ever when none is left."""
        if session in self._all:
            self._all.remove(session)
        if not self._all:
            self._free.put(None)

    def _gone(self, table: TablePlan) -> SnapshotLost:
        return SnapshotLost(
            f"{self._place}: the snapshot is gone, because the session that held it was lost",
            hint="Run again; extraction begins anew with another snapshot",
            table=table.target,
        )

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[Never]:  # noqa: ARG002 - the port's names
        """MySQL has no copy lane."""
        raise TerminalError(f"{table.source} of MySQL travels in the arrow lane", hint="Make the plan again")

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the plan's types and target names.

        Raises:
            DataError: a value is not what the census saw, or text is not UTF-8.
        """
        schema = pa.schema([pa.field(c.target, arrow_type(c.arrow)) for c in table.columns])
        values = [(c, readable(c)) for c in table.columns]
        rows = min(BATCH_ROWS, self._portion.rows_of(table) or BATCH_ROWS)
        size = min(self._batch_bytes, self._portion.bytes or self._batch_bytes)
        for columns in self._read(table, chunk, values, rows, size):
            yield self._joined(table, columns, schema)

    def _read(
        self,
        table: TablePlan,
        chunk: Chunk,
        values: Sequence[tuple[ColumnPlan, str]],
        rows: int = BATCH_ROWS,
        size: int = BATCH_BYTES,
    ) -> Iterator[Columns]:
        """The chunk's rows: these values of its columns as the server prints them; something, without columns."""
        wanted = ", ".join(value for _, value in values) or "1"
        with self.lent(table) as session:
            stream = session.stream(f"SELECT {wanted} {chunk_rows(table, chunk)}", rows, size)
            try:
                yield from stream
            finally:
                stream.close()

    @staticmethod
    def _joined(table: TablePlan, columns: Sequence[Any], schema: Any) -> pa.RecordBatch:
        """A batch of the plan's types out of what the server printed."""
        arrays: list[Any] = []
        for column, values in zip(table.columns, columns, strict=False):
            try:
                arrays.append(array_of(column, values))
            except ValueError as error:
                # Arrow's message quotes the value, and so its error is not kept.
                problem = (
                    "text that is not UTF-8"
                    if "UTF8" in str(error)
                    else f"a value that is no {column.target_type}"
                )
                raise DataError(
                    f"Column {column.source} of {table.source} holds {problem}",
                    hint="If the source was changed after the plan was made, make a new plan",
                    table=table.source,
                    column=column.source,
                ) from None
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    # ── bad rows ───────────────────────────────────────────────────────────────────────────────────────

    def relate(self, tables: Sequence[TablePlan]) -> None:
        """From here on rows that break a foreign key between these tables are bad, too."""
        addressed: list[TablePlan] = []
        for table in tables:
            with self.lent(table) as session:
                if address_of(session, table.source_schema, table.source_table):
                    addressed.append(table)
        self._breaks = KeyBreaks(self, addressed)

    def twins(self, table: TablePlan, key: Sequence[ColumnPlan]) -> Sequence[str]:
        """None: MySQL's keys compare more loosely than PostgreSQL's."""
        del table, key
        return ()

    def orphans(self, reference: Reference, without: Collection[str]) -> Sequence[str]:
        """See `key_breaks`."""
        table, parent = reference.table, reference.parent
        with self.lent(table) as session:
            address = address_of(session, table.source_schema, table.source_table)
            known = charsets(session, parent.source_schema, parent.source_table)
            return orphans(session, reference, address, without, known)

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The chunk's rows that the plan's columns cannot hold, or that break a key; none where rows cannot be addressed."""
        broken = self._breaks.of(table)
        with self.lent(table) as session:
            if address := address_of(session, table.source_schema, table.source_table):
                known = charsets(session, table.source_schema, table.source_table)
                yield from bad_rows(session, table, chunk, address, known, broken)

    def as_now(self, table: TablePlan) -> TablePlan:
        """Chunks are ranges of keys, whatever becomes of the rows."""
        return table

    def again(self, table: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool = False) -> Again:
        """Read rows in quarantine anew, by their keys."""
        del rest
        with self.lent(table) as session:
            address = address_of(session, table.source_schema, table.source_table)
            there = (
                present(session, table, address, [row.position for row in rows]) if address else set[str]()
            )
        places = [row.position if row.position in there else None for row in rows]
        return judge(self, table, rows, places, apart=apart)

    # ── digests ─────────────────────────────────────────────────────────────────────────────────────────

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the chunk, from a second read of its rows that shares with the first how packets are cut, no more."""
        return sum(
            (digest_of_texts(table, texts, rows) for texts, rows in self._spelled(table, chunk)), Digest()
        )

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        places = [table.columns.index(c) for c in key]
        for texts, rows in self._spelled(table, chunk):
            yield from hashed_rows(table, texts, places, rows)

    def _spelled(self, table: TablePlan, chunk: Chunk) -> Iterator[tuple[list[Any], int]]:
        """Canonical texts of some rows at a time by column, and how many rows they are.

        Columns are asked for from the last to the first, so that none is where it was in the other read.
        """
        values = [(c, hashable(c)) for c in reversed(table.columns)]
        for columns in self._read(table, chunk, values):
            texts = [spelled(c, found) for (c, _), found in zip(values, columns, strict=False)]
            yield texts[::-1], len(columns[0])

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk."""
        with self.lent(table) as session:
            return session.number(f"SELECT COUNT(*) {chunk_rows(table, chunk)}")

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """What AUTO_INCREMENT gives next, as it is now: it is not part of any snapshot."""
        identities = (
            {c.name for c in table.definition.columns if c.identity} if table.definition else set[str]()
        )
        numbered = [c for c in table.columns if c.target in identities]
        if not numbered:
            return {}
        with self.lent(table) as session:
            counter = session.number(
                "SELECT AUTO_INCREMENT FROM information_schema.TABLES"
                f" WHERE TABLE_SCHEMA = {literal(table.source_schema)} AND TABLE_NAME = {literal(table.source_table)}"
            )
            found: dict[str, int] = {}
            for column in numbered:
                rows = source_rows(table.source_schema, table.source_table, [])
                largest = session.number(f"SELECT MAX({quoted(column.source)}) {rows}")
                found[column.target] = max(counter, largest + 1, 1)
        return found
