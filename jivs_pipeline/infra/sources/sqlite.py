"""SQLite as a source.

What belongs here: `SqliteSource`, which joins catalog, census and snapshot into `core.ports.Source`. What
does not: each of those (`sqlite_catalog`, `sqlite_census`, `sqlite_snapshot`), type rules (`core/types.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import ConfigError, SpecError
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import ColumnPlan, Lane
from jivs_pipeline.core.ports import Refusal, Survey
from jivs_pipeline.core.types import StoredValues
from jivs_pipeline.infra.sources.sqlite_carriers import parts_of
from jivs_pipeline.infra.sources.sqlite_catalog import SCHEMA, read_catalog
from jivs_pipeline.infra.sources.sqlite_census import free_rowid_name, source_rows, take_census
from jivs_pipeline.infra.sources.sqlite_columns import NULL_IN_KEY, chosen, column_plan, tolerate, wired
from jivs_pipeline.infra.sources.sqlite_open import mapped_errors, open_sqlite
from jivs_pipeline.infra.sources.sqlite_snapshot import SqliteSnapshot

__all__ = ["SqliteSource"]

_MAX_PARTS = 1_999  # of the library's 2,000 result columns one is ours


class SqliteSource:
    """A SQLite file, read-only. Methods may be called from several threads: each opens what it needs.

    Args:
        connection: with a `path`.
        timeout_seconds: longest wait for another program's lock.
        batch_bytes: about how large a record batch may get.
        calling: the circuit breaker of the file: of one on a server that is gone, or that is never let go of.

    Raises:
        ConnectionFailed: the file is missing, unreadable, locked, damaged, encrypted or not a database.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeout_seconds: float = 30.0,
        batch_bytes: int = 8 * 1024 * 1024,
        calling: Calling = nullcontext,
    ) -> None:
        self._connection = connection
        self._timeout = timeout_seconds
        self._batch_bytes = batch_bytes
        self._calling = calling
        with self._opened() as database:
            self._encoding = str(database.execute("PRAGMA encoding").fetchone()[0])

    @contextmanager
    def _opened(self, table: str | None = None) -> Generator[sqlite3.Connection]:
        with self._calling():
            database = open_sqlite(self._connection, self._timeout)
        try:
            with mapped_errors(self._connection, table):
                yield database
        finally:
            database.close()

    def info(self) -> ServerInfo:
        """Name, version of the library that reads, and the file's encoding."""
        return ServerInfo(self._connection.name, "sqlite", sqlite3.sqlite_version, self._encoding)

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of the file; `main` is its only schema.

        Raises:
            ConfigError: another schema is asked for.
        """
        if schema not in (None, SCHEMA):
            raise ConfigError(
                f"Connection {self._connection.name!r} has no schema {schema!r}",
                hint=f"SQLite has only {SCHEMA!r}",
            )
        with self._opened() as database:
            return read_catalog(database)

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Census of the table's rows; rows are counted, not estimated.

        Raises:
            SpecError: SQLite does not understand `where`.
        """
        with self._opened(table.name) as database:
            if where is not None:
                self._check(database, table.name, where)
            census = take_census(database, table, columns, where, chunk_bytes)
            tolerated = tolerate(database, table, columns, where, census, self._encoding)
        refused = [
            Refusal(name, f"{counted(count, 'row has', 'rows have')} {NULL_IN_KEY}")
            for name, count in census.null_keys.items()
        ]
        planned: list[ColumnPlan] = []
        for column in columns:
            choice = chosen(column, census.values.get(column.name, StoredValues()))
            if choice.refused is not None:
                refused.append(Refusal(column.name, choice.refused))
            planned.append(column_plan(column, choice))
        if sum(parts_of(c) for c in planned) > _MAX_PARTS:
            reason = (
                f"it has too many columns for one query of SQLite, which gives at most {_MAX_PARTS:,} values"
            )
            refused.append(Refusal("", f"{reason}; numbers that are not only integers take two"))
            tolerated = None
        planned, wire = wired(planned)
        return Survey(
            rows=census.rows,
            rows_exact=True,
            bytes=census.bytes,
            chunk_by=census.chunk_by,
            chunk_columns=census.chunk_columns,
            chunks=census.chunks,
            columns=tuple(planned),
            lane=Lane.ARROW,
            wire=wire,
            spelling=Spelling.CHAIN,
            refused=tuple(refused),
            broken_keys=census.broken_keys or None,
            tolerated=tolerated,
            addressed=table.without_rowid or free_rowid_name(c.name for c in table.columns) is not None,
        )

    def _check(self, database: sqlite3.Connection, table: str, where: str) -> None:
        """Raises SpecError if SQLite does not take `where` as a condition on the table."""
        try:
            database.execute(f"EXPLAIN SELECT 1 {source_rows(table, [where])}").fetchall()
        except sqlite3.Error as error:
            raise SpecError(
                f"SQLite does not take rules.{table}.where: {error}", hint="Write a condition in SQLite's SQL"
            ) from error

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[SqliteSnapshot]:
        """One view of the file for all readers; it ends with the block."""
        with self._calling():
            opened = SqliteSnapshot.open(
                self._connection, readers, self._timeout, self._batch_bytes, portion=portion
            )
        try:
            yield opened
        finally:
            opened.close()

    def close(self) -> None:
        """Nothing is held between calls."""
