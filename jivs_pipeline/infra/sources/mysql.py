"""MySQL and MariaDB as a source.

What belongs here: `MysqlSource`, which joins catalog, census and snapshot into `core.ports.Source`. What does not:
each of those (`mysql_catalog`, `mysql_census`, `mysql_snapshot`), type rules (`core/types_mysql.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace

import pymysql

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.errors import ConfigError, Crowded, SpecError
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane
from jivs_pipeline.core.ports import Refusal, Survey, Tolerated
from jivs_pipeline.core.type_mapping import TypeChoice, column_plan
from jivs_pipeline.core.types_mysql import MysqlValues, choose_mysql, mysql_type
from jivs_pipeline.infra.sources.held_session import HeldSession
from jivs_pipeline.infra.sources.mysql_catalog import MERGE, read_catalog
from jivs_pipeline.infra.sources.mysql_census import Census, rows_about, source_rows, take_census
from jivs_pipeline.infra.sources.mysql_columns import losses, tolerate, wired
from jivs_pipeline.infra.sources.mysql_errors import UNUSABLE, mapped, number_of
from jivs_pipeline.infra.sources.mysql_open import Version, open_session, version_of
from jivs_pipeline.infra.sources.mysql_session import Session, literal, text_of
from jivs_pipeline.infra.sources.mysql_sieve import address_of, charsets
from jivs_pipeline.infra.sources.mysql_snapshot import BEGIN, MysqlSnapshot, begin_all

__all__ = ["MysqlSource"]

_ASK_SECONDS = 5.0
_PACKET_HEADROOM = 64 * 1024
_MANY_ROWS = 200_000
"""From here on a table is looked at sooner by two sessions, of which one has to be opened."""
_NO_RIGHT = frozenset({1142, 1143})


class MysqlSource:
    """See `core.ports.Source`. Making one connects, unless too many are connected; then the first question does.

    Args:
        connection: where.
        io_timeout_seconds: longest silence; also the longest wait for a lock.
        batch_bytes: about how large a record batch may get.
        calling: the endpoint's circuit breaker.
        permits: leave for every session, but for the short ones that ask after another one, or end its statement.

    Raises:
        ConnectionFailed: the server does not let us in.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        io_timeout_seconds: float = 30,
        batch_bytes: int = 8 * 1024 * 1024,
        calling: Calling = nullcontext,
        permits: Permits = FREE,
    ) -> None:
        self._connection = connection
        self._io_timeout = io_timeout_seconds
        self._batch_bytes = batch_bytes
        self._calling = calling
        self._permits = permits
        self._lock = threading.Lock()
        self._held = HeldSession(permits, self._open, lambda session: session.part())
        self._version: Version | None = None
        self._schema: str | None = None
        self._numbered: Mapping[str, frozenset[str]] | None = None
        with suppress(Crowded):
            self.info()

    def info(self) -> ServerInfo:
        """Who is there."""
        version = self._server()
        return ServerInfo(
            self._connection.name, "mariadb" if version.mariadb else "mysql", version.text, "UTF8"
        )

    def _server(self) -> Version:
        with self._lock, mapped(self._connection.place):
            if self._version is None:
                session = self._held.get()
                self._version = version_of(session, self._connection)
            return self._version

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of one database, the connection's own unless told otherwise.

        Raises:
            ConfigError: there is no such database.
        """
        version, schema = self._server(), schema or self._connection.database
        with self._asking(self._connection.place) as session:
            named = f"FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {literal(schema)}"
            if not session.number(f"SELECT COUNT(*) {named}"):
                raise ConfigError(
                    f"Connection {self._connection.name!r} has no database {schema!r}, or the user may not see it",
                    hint="Check source_schema, or grant SELECT on it",
                )
            found = read_catalog(session, schema, mariadb=version.mariadb)
        self._numbered, self._schema = found.numbered, schema
        return found.catalog

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Census of the table's rows; rows are counted, not estimated.

        Raises:
            SpecError: MySQL does not understand `where`.
        """
        if self._numbered is None:
            self.catalog(table.schema)
        numbered = (self._numbered or {}).get(table.name, frozenset[str]())
        tolerated: Tolerated | None = None
        addressed = False
        with self._asking(table.qualified) as session:
            if where is not None:
                _check(session, table, where)
            try:
                # information_schema hides columns that this user may not read: then this fails.
                session.table(f"SELECT * {source_rows(table.schema, table.name, ['FALSE'])}")
                known = charsets(session, table.schema, table.name)
                limit = session.number("SELECT @@max_allowed_packet") - _PACKET_HEADROOM
                with self._beside(session, table) as others:
                    census = take_census(
                        [session, *others], table, columns, where, chunk_bytes,
                        charsets=known, numbered=numbered, limit=limit,
                    )  # fmt: skip
            except pymysql.Error as error:
                if (reason := _unread(number_of(error))) is None:
                    raise
                census, limit = _NOTHING, 1 << 30
                refused = [Refusal("", reason)]
            else:
                refused = _too_large(census, limit)
                addressed = bool(address_of(session, table.schema, table.name))
                if not refused:
                    tolerated = tolerate(session, table, columns, where, census.values, known)
        survey = self._survey(columns, census, refused)
        return replace(survey, tolerated=tolerated, addressed=addressed)

    @staticmethod
    def _survey(columns: Sequence[Column], census: Census, refused: list[Refusal]) -> Survey:
        planned: list[ColumnPlan] = []
        lossy: list[Refusal] = []
        for column in columns:
            values = census.values.get(column.name, MysqlValues())
            choice = _chosen(column, values)
            if choice.refused is not None:
                refused.append(Refusal(column.name, choice.refused))
                choice = TypeChoice("text", "utf8", "string", choice.canon)
            lossy += losses(column, values)
            planned.append(column_plan(column, choice))
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
            lossy=tuple(lossy),
            broken_keys=census.broken_keys or None,
        )

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[MysqlSnapshot]:
        """One view of the database for all readers; see `mysql_snapshot`.

        Raises:
            Crowded: no connection is free; nor does this source keep one, so that two that wait do not wait for each
                other.
        """
        self.info()
        with self._lock:
            self._held.release()
        permit = self._permits.take(max(readers, 1))
        sessions: list[Session] = []
        try:
            with mapped(self._connection.place):
                # Not extend(): if the last cannot be opened, the others must be closed.
                for _ in range(permit.count):
                    sessions.append(self._open())  # noqa: PERF401
                tables, bare = self._tables(sessions[0])
                inside, how = begin_all(sessions, tables)
            if bare:
                how += f"; not covered, having no transactions: {', '.join(bare)}"
            yield self._view(
                inside,
                place=self._connection.place,
                consistency=how,
                batch_bytes=self._batch_bytes,
                portion=portion,
            )
        finally:
            for session in sessions:
                session.drop()
            permit.give_back()

    def _tables(self, session: Session) -> tuple[list[tuple[str, str]], list[str]]:
        """Base tables that a snapshot is for, and those that it does not cover. Before a catalog was read: all."""
        if self._schema is not None:
            schemas = f"= {literal(self._schema)}"
        else:
            schemas = "NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')"
        found = session.table(
            "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t"
            " LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE"
            f" WHERE t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND t.TABLE_SCHEMA {schemas}"
            # One that the server cannot open has no engine; LOCK TABLES of a merge table wants to write.
            f" AND t.ENGINE NOT IN ({', '.join(map(literal, sorted(MERGE)))}) ORDER BY 1, 2"
        )
        tables = [(text_of(schema), text_of(name)) for schema, name, *_ in found]
        bare = [f"{text_of(name)} ({text_of(engine)})" for _, name, engine, safe in found if safe != b"YES"]
        return tables, bare

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._held.release()

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────────

    _view: type[MysqlSnapshot] = MysqlSnapshot

    def _connect(
        self, *, io_timeout_seconds: float, reconnect: bool = False, calling: Calling = nullcontext
    ) -> Session:
        return open_session(
            self._connection,
            io_timeout_seconds=io_timeout_seconds,
            reconnect=reconnect,
            calling=calling,
        )

    def _open(self) -> Session:
        session = self._connect(
            io_timeout_seconds=self._io_timeout,
            reconnect=self._version is not None,
            calling=self._calling,
        )
        session.alive = self._at_work
        session.cancel = self._cancel
        return session

    @contextmanager
    def _aside(self) -> Generator[Session]:
        """A short session about another one."""
        asker = self._connect(io_timeout_seconds=min(_ASK_SECONDS, self._io_timeout))
        try:
            yield asker
        finally:
            asker.part()

    def _at_work(self, session: Session) -> bool:
        """Ask another session whether the server still works on this one's statement."""
        with self._aside() as asker:
            return bool(
                asker.number(
                    f"SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {session.id}"
                    " AND COMMAND IN ('Query', 'Execute')"
                )
            )

    def _cancel(self, session: Session) -> None:
        """End the statement of a session of ours."""
        with self._aside() as asker, mapped(self._connection.place):
            asker.command(f"KILL QUERY {session.id}")

    @contextmanager
    def _asking(self, where: str) -> Generator[Session]:
        """The source's own session in a transaction, so that all questions see the same moment."""
        self.info()
        with self._lock, mapped(where):
            session = self._held.get()
            session.command(BEGIN)
            try:
                yield session
            finally:
                if not session.lost:
                    with suppress(pymysql.Error):
                        session.command("ROLLBACK")

    @contextmanager
    def _beside(self, session: Session, table: Table) -> Generator[list[Session]]:
        """Another session to look at a large table with, if a connection is free.

        It sees another moment, which nobody can tell: the rows that are read are those of a third one.
        """
        with ExitStack() as opened:
            others: list[Session] = []
            if rows_about(session, table) >= _MANY_ROWS:
                with suppress(Crowded):
                    opened.callback(self._permits.take(1).give_back)
                    others.append(self._open())
                    opened.callback(others[0].drop)
                    others[0].command(BEGIN)
            yield others


_NOTHING = Census(0, 0, 0, {}, {}, ChunkBy.WHOLE, (), (Chunk(index=0),))


def _chosen(column: Column, values: MysqlValues) -> TypeChoice:
    """What the column becomes: by its type and values, or their text where a rule takes that."""
    choice = choose_mysql(mysql_type(column.type), values)
    bad_text = values.nul or values.unreadable or values.malformed or values.invalid
    if choice.refused is None or not column.as_text or not values.zero_dates or bad_text:
        return choice
    return TypeChoice("text", "utf8", "string", Canon.TEXT, "as text, for its rule")


def _check(session: Session, table: Table, where: str) -> None:
    """Raises SpecError if MySQL does not take `where` as a condition on the table."""
    try:
        session.table(f"EXPLAIN SELECT 1 {source_rows(table.schema, table.name, [where])}")
    except (pymysql.err.ProgrammingError, pymysql.err.OperationalError) as error:
        if session.lost or number_of(error) in _NO_RIGHT:
            raise
        said = " ".join(str(error.args[1]).split()) if len(error.args) > 1 else str(error)
        raise SpecError(
            f"MySQL does not take rules.{table.name}.where: {said}", hint="Write a condition in MySQL's SQL"
        ) from error


def _unread(number: int) -> str | None:
    """Why one table cannot be read, though others can; None where the error is not about the table."""
    if number in _NO_RIGHT:
        return "the source does not let this user read all of it; grant SELECT on the table"
    if number in UNUSABLE:
        return f"the server cannot use it (error {number}); repair it there, or put it under tables.exclude"
    return None


def _too_large(census: Census, limit: int) -> list[Refusal]:
    if census.largest <= limit:
        return []
    reason = (
        f"its largest row has {census.largest:,} bytes, and the server sends no more than {limit + _PACKET_HEADROOM:,};"
        " raise max_allowed_packet there"
    )
    return [Refusal("", reason)]
