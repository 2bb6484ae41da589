"""PostgreSQL as both ends use it: connecting, the pinned session, noticing a dead peer, mapping errors.

What belongs here: what source and target share (errors: `postgresql_errors.py`). What does not: queries
(`infra/sources/postgresql*.py`, the target) and digests (`infra/digests.py`).

Every session says the same thing in the same words: the settings below decide how a value becomes text,
so both ends must have them equal, whatever postgresql.conf, the role or the database prefers.
"""

from __future__ import annotations

import math
import os
import select
import socket
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext, suppress
from time import monotonic
from typing import Any, Self, TypeVar, cast

import psycopg
from psycopg import conninfo, sql
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed, JivsError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.pieces import CopiedRows
from jivs_pipeline.infra.postgresql_errors import connect_error, map_error, mapped

__all__ = [
    "BEGIN",
    "OLDEST_VERSION",
    "RANGE_SCANS",
    "Patient",
    "Session",
    "connect",
    "map_error",
    "mapped",
    "part",
    "pin",
    "wire_limits",
]

OLDEST_VERSION = 120000
"""Older servers print floats with 17 digits, so that their digests could never equal a newer server's."""

RANGE_SCANS = 140000
"""From this version on a condition on `ctid` reads only the pages of its range."""

BEGIN = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
"""Of a transaction whose snapshot is exported or imported."""

_CONNECT_SECONDS = 10
_END = b"\xff\xff"
_LONGEST_END = 19 + len(_END)
"""The end of a binary stream without rows: it comes in one message with the stream's header."""
_RV = TypeVar("_RV")
_Row = TypeVar("_Row")

_PINNED: dict[str, str] = {
    "client_encoding": "UTF8",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    # Since version 12 every value above 0 prints the shortest text that reads back exactly.
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    # money is a count of cents printed by the locale's rules; C is the only locale that every server has.
    "lc_monetary": "C",
    # Nothing but pg_catalog: printed expressions are schema-qualified, nothing shadows a built-in function.
    "search_path": "",
    # A row-level policy must fail loudly instead of hiding rows.
    "row_security": "off",
    # Rows leave in heap order, every time.
    "synchronize_seqscans": "off",
    # Chunk statements are costly enough to trigger it and too simple to profit.
    "jit": "off",
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_PINNED_SINCE: dict[str, tuple[int, str]] = {
    "idle_session_timeout": (140000, "0"),
    "transaction_timeout": (170000, "0"),
}


class Patient(psycopg.Connection[_Row]):
    """A connection that never waits for ever, whatever kind of rows it gives.

    `patience` seconds without a byte from the server make it ask `alive` (from another connection) whether
    the server still works on this session's statement. Without `alive`, or when it says no, the session is
    dropped and `psycopg.OperationalError` raised. Keepalives only find a dead host; this finds a silent one.
    `longest` bounds what `alive` can excuse: a frozen server process looks as if it worked.
    """

    patience: float = 30.0
    longest: float = math.inf
    alive: Callable[[Self], bool] | None = None

    def wait(self, gen: Generator[Any, Any, _RV], interval: float = 0.1, timeout: float | None = None) -> _RV:
        """Consume `gen` as psycopg does, in pieces no longer than `patience` without news."""
        return super().wait(self._listening(gen), min(interval, 0.1, self.patience / 4), timeout)

    def _listening(self, gen: Generator[Any, Any, _RV]) -> Generator[Any, Any, _RV]:
        try:
            state = next(gen)
            began = last_news = monotonic()
            while True:
                ready = yield state
                if ready:
                    last_news = monotonic()
                elif monotonic() - last_news > self.patience:
                    self._ask(last_news - began)
                    last_news = monotonic()
                state = gen.send(ready)
        except StopIteration as end:
            return cast("_RV", end.value)

    def _ask(self, seconds: float) -> None:
        works = False
        if self.alive is not None and seconds < self.longest:
            with suppress(psycopg.Error, JivsError):
                works = self.alive(self)
        if not works:
            self.drop()
            raise psycopg.OperationalError(f"no answer for {self.patience:g} s")

    @property
    def lost(self) -> bool:
        """Whether an idle session is of no use any more. Costs nothing: a server that says something unasked, says goodbye.

        Without it every session that one restart ended would cost the job that finds it an attempt of its own.
        """
        if self.closed or self.broken:
            return True
        news = select.poll()
        news.register(self.pgconn.socket, select.POLLIN)
        return bool(news.poll(0))

    def drop(self) -> None:
        """Close the socket now: no message to the server, no waiting, whatever the connection was doing."""
        self.pgconn.finish()


class Session(Patient[tuple[Any, ...]]):
    """A patient connection with what both ends of a migration need besides."""

    def copy_out(
        self, statement: sql.Composed, portion: Portion = NO_LIMIT, piece_bytes: int = 1 << 18
    ) -> Generator[CopiedRows]:
        """The stream of a COPY … TO STDOUT in pieces of about `piece_bytes`, a larger row in one piece.

        libpq hands out one row at a time; `Copy.read()` spends three times the CPU of this loop on each.
        Anything but the stream's end as the server says it drops the session: closing the iterator early, a lost
        connection, or `patience` seconds of silence (`psycopg.OperationalError`), whatever the server is doing
        meanwhile.
        """
        alive, self.alive = self.alive, None
        try:
            with self.cursor().copy(statement):
                try:
                    yield from self._pieces(min(piece_bytes, portion.bytes or piece_bytes), portion.rows)
                except BaseException:
                    # Inside of the block, so that leaving it does not wait for the rest of the stream.
                    if self.pgconn.transaction_status != TransactionStatus.INERROR:
                        self.drop()
                    raise
        finally:
            self.alive = alive

    def _pieces(self, piece_bytes: int, piece_rows: int | None) -> Generator[CopiedRows]:
        server, most = self.pgconn, piece_rows or sys.maxsize
        read = server.get_copy_data
        news = select.poll()
        news.register(server.socket, select.POLLIN)
        piece, rows = bytearray(), 0
        while True:
            size, row = read(1)
            if size == 0:
                self._receive(news)
            elif size < 0:
                break
            elif size >= piece_bytes:
                if piece:
                    yield CopiedRows(piece, rows)
                    piece, rows = bytearray(), 0
                yield CopiedRows(row, int(_is_row(row)))
            else:
                piece += row
                rows += 1 if size > _LONGEST_END else _is_row(row)
                if len(piece) >= piece_bytes or rows >= most:
                    yield CopiedRows(piece, rows)
                    piece, rows = bytearray(), 0
        if piece:
            yield CopiedRows(piece, rows)
        self._end_of_copy(news)

    def _end_of_copy(self, news: select.poll) -> None:
        """The server says last whether the COPY went well; an empty result ends the statement."""
        results: list[PGresult | None] = []
        while not results or results[-1] is not None:
            while self.pgconn.is_busy():
                self._receive(news)
            results.append(self.pgconn.get_result())
        for result in results:
            if result is not None and result.status != ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result, encoding="utf-8")

    def _receive(self, news: select.poll) -> None:
        if not news.poll(self.patience * 1000):
            raise psycopg.OperationalError(f"no data for {self.patience:g} s inside a COPY")
        self.pgconn.consume_input()

    def reset_transaction(self) -> None:
        """Roll back what is open, so that the session can be used again; a broken session is dropped."""
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        try:
            self.rollback()
        except psycopg.Error:
            self.drop()

    def __enter__(self) -> Self:
        return self


def part(sessions: Sequence[Session], seconds: float = 2.0) -> None:
    """Close sessions. Where the server is idle, wait until it has let them go: only then are their places free.

    The socket of a server process is closed by its end, after everything else.
    """
    idle = {TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR}
    ends: list[int] = []
    for session in sessions:
        if session.pgconn.transaction_status in idle:
            ends.append(os.dup(session.pgconn.socket))
        session.drop()
    deadline = monotonic() + seconds
    for end in ends:
        with socket.socket(fileno=end) as left, suppress(OSError):
            left.settimeout(max(0.01, deadline - monotonic()))
            while left.recv(1 << 16):
                pass


def _is_row(message: memoryview) -> bool:
    """A server sends one row per message (it is in the protocol's description); the end of a binary stream is none."""
    if message.nbytes > _LONGEST_END:
        return True
    text = bytes(message)
    return text != _END and not (
        len(text) == _LONGEST_END and text.startswith(b"PGCOPY") and text.endswith(_END)
    )


def connect(
    connection: Connection,
    *,
    application_name: str,
    autocommit: bool = True,
    io_timeout_seconds: float = 30,
    read_only: bool = False,
    reconnect: bool = False,
    settings: Mapping[str, str] | None = None,
    calling: Calling = nullcontext,
) -> Session:
    """Open a session with pinned settings.

    Args:
        connection: where; its URL goes to libpq in this process only.
        autocommit: as psycopg means it; False opens a transaction with the first statement.
        application_name: shown in pg_stat_activity; the takeover of a stale run recognises sessions by it.
        io_timeout_seconds: longest silence (`Session.patience`); also bounds unacknowledged TCP data.
        read_only: make every transaction read-only unless it says otherwise.
        reconnect: this endpoint has answered before, so an unreachable server is a `TransientError`.
        settings: further settings, or other values for the pinned ones (`lock_timeout`, `statement_timeout`).
        calling: the endpoint's circuit breaker; whoever only asks after a session that is open goes without.

    Raises:
        BreakerOpen: the endpoint is left alone for now.
        ConnectionFailed: wrong password, no such database, unreachable, TLS trouble.
        TransientError: full or restarting server; with `reconnect`, an unreachable one too.
    """
    try:
        parameters = wire_limits(connection.url, io_timeout_seconds)
    except psycopg.Error:
        # The parser's message quotes the URL.
        problem = f"The URL of connection {connection.name!r} cannot be read"
        raise ConnectionFailed(problem, hint="Check the characters in it; special ones need %XX") from None
    with calling():
        try:
            # Our statements are few and long: preparing them saves nothing and breaks behind a pooler.
            session = Session.connect(
                conninfo.make_conninfo(connection.url, application_name=application_name, **parameters),
                autocommit=True,
                prepare_threshold=None,
            )
        except psycopg.Error as error:
            raise connect_error(error, connection, reconnect=reconnect) from error
        session.patience = io_timeout_seconds
        try:
            with mapped(connection.place):
                pin(session, {"default_transaction_read_only": "on"} if read_only else {}, settings or {})
                session.autocommit = autocommit
        except BaseException:
            session.drop()
            raise
    return session


def wire_limits(url: str, io_timeout_seconds: float) -> dict[str, int]:
    """What libpq has to know of the longest silence, as far as the URL does not say it.

    Raises:
        psycopg.Error: the URL cannot be read; the message quotes it.
    """
    given = conninfo.conninfo_to_dict(url)
    seconds = max(1, round(io_timeout_seconds))
    defaults = {
        "connect_timeout": min(_CONNECT_SECONDS, max(2, seconds)),
        "tcp_user_timeout": seconds * 1000,
        "keepalives_idle": max(1, seconds // 3),
        "keepalives_interval": max(1, seconds // 6),
        "keepalives_count": 3,
    }
    return {name: value for name, value in defaults.items() if name not in given}


def pin(session: psycopg.Connection[Any], *settings: Mapping[str, str]) -> None:
    """Apply the pinned settings, and `settings` over them, in one round trip."""
    version = session.info.server_version
    if version < OLDEST_VERSION:
        raise ConnectionFailed(
            f"The PostgreSQL server is version {version / 10000:.1f}",
            hint="Version 12 or newer is needed",
        )
    wanted = dict(_PINNED)
    wanted.update({name: value for name, (since, value) in _PINNED_SINCE.items() if version >= since})
    for more in settings:
        wanted.update(more)
    one = sql.SQL("SET {} = {}")
    session.execute(
        sql.SQL("; ").join(one.format(sql.Identifier(name), sql.Literal(v)) for name, v in wanted.items())
    )
