"""Connections to a target: those that write, announced in the ledger, and those that only look.

What belongs here: opening, lending, dropping and interrupting sessions. What does not: what is said on them.

A session that looks is read-only, so that the server refuses a write that has passed by the fence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import FencedError, TerminalError
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session, connect, mapped

__all__ = ["SQL", "Right", "TargetSessions", "overtaken", "value"]

SQL = load_blocks("jivs_pipeline.infra", "target.sql")


@dataclass(frozen=True, slots=True)
class Right:
    """The right to write, once claimed."""

    key: str
    epoch: int
    application_name: str


class TargetSessions:
    """Sessions of one target. Methods may be called from several threads.

    Args:
        connection: where.
        io_timeout_seconds: longest silence of the server while it is not at work for us.
    """

    def __init__(self, connection: Connection, *, io_timeout_seconds: float = 30) -> None:
        self._connection = connection
        self._io_timeout = io_timeout_seconds
        self._right: Right | None = None
        self._idle: list[Session] = []
        self._open: list[Session] = []
        self._lock = threading.Lock()
        self._ask_lock = threading.Lock()
        self._reader = self._session("jivs", reconnect=False, read_only=True)
        self._encoding = self._reader.info.parameter_status("server_encoding")

    def close(self) -> None:
        """Release all connections; a transaction that is open is rolled back by the server."""
        with self._lock:
            sessions, self._open, self._idle = self._open, [], []
        for session in sessions:
            with suppress(psycopg.Error):
                session.close()

    def interrupt(self) -> None:
        """Cancel what the server is busy with for us, from any thread; the statements fail, nothing is committed."""
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            with suppress(psycopg.Error):
                session.cancel_safe(timeout=2)

    def _claimed(self) -> Right:
        if self._right is None:
            raise TerminalError(
                "The target was not claimed before a write", hint="This is a bug; please report it"
            )
        return self._right

    def _session(self, application_name: str, *, reconnect: bool = True, read_only: bool = False) -> Session:
        session = connect(
            self._connection,
            application_name=application_name,
            io_timeout_seconds=self._io_timeout,
            reconnect=reconnect,
            read_only=read_only,
        )
        with self._lock:
            self._open.append(session)
        session.alive = self._at_work
        return session

    def _at_work(self, session: Session) -> bool:
        # A session of its own: the silent one cannot be asked, and the reader may be the silent one.
        with self._ask_lock:
            asker = connect(
                self._connection, application_name="jivs", io_timeout_seconds=self._io_timeout, reconnect=True
            )
            try:
                row = asker.execute(SQL["active"], {"pid": session.info.backend_pid}).fetchone()
                return bool(row and row[0])
            finally:
                asker.close()

    def _borrow(self, right: Right) -> Session:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        session = self._session(right.application_name)
        with mapped("the ledger"):
            known = session.execute(
                SQL["register_backend"], {"key": right.key, "epoch": right.epoch}
            ).fetchone()
        if known is None:
            self._drop(session)
            raise overtaken(right)
        return session

    def _give_back(self, session: Session) -> None:
        with self._lock:
            self._idle.append(session)

    def _drop(self, session: Session) -> None:
        with self._lock:
            if session in self._open:
                self._open.remove(session)
        with suppress(psycopg.Error):
            session.close()

    def _drop_idle(self) -> None:
        # What ended one connection has probably ended all; each dead one would cost a retry.
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            self._drop(session)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        if self._reader.closed or self._reader.broken:
            self._reader = self._session("jivs", read_only=True)
        with mapped(f"target {self._connection.name!r}"):
            yield self._reader

    @contextmanager
    def _session_of_its_own(self, application_name: str, *, read_only: bool) -> Iterator[Session]:
        """For long queries that run side by side, and for the claim."""
        session = self._session(application_name, read_only=read_only)
        try:
            yield session
        finally:
            self._drop(session)


def overtaken(right: Right) -> FencedError:
    """The epoch has moved on."""
    return FencedError(
        f"Another run has taken migration {right.key!r} over from epoch {right.epoch}",
        hint=f"Nothing was written since; see jivs status {right.key}",
    )


def value(db: Session, name: str, parameters: Any = None) -> Any:
    """The first value that the block gives, or None."""
    row = db.execute(SQL[name], parameters).fetchone()
    return row[0] if row else None
