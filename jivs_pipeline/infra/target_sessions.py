"""Connections to a target: those that write, announced in the ledger, and those that only look.

What belongs here: opening, lending, dropping and interrupting sessions. What does not: what is said on them.

A session that looks is read-only, so that the server refuses a write that has passed by the fence.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import FencedError, JivsError, TerminalError
from jivs_pipeline.core.permits import FREE, Permit, Permits, share
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session, connect, mapped

__all__ = ["SQL", "Right", "TargetSessions", "interrupt", "overtaken", "value"]

SQL = load_blocks("jivs_pipeline.infra", "target.sql")
_BESIDE = 2
"""Sessions of a run beside its workers': the one that looks and the watchdog's."""


@dataclass(frozen=True, slots=True)
class Right:
    """The right to write, once claimed."""

    key: str
    epoch: int
    application_name: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """A server process of ours; `since` tells it from one that has its number later."""

    pid: int
    since: str


class TargetSessions:
    """Sessions of one target. Methods may be called from several threads.

    Args:
        connection: where.
        io_timeout_seconds: longest silence of the server while it is not at work for us.
        calling: the endpoint's circuit breaker.
        permits: leave for the sessions of a run; see `take_permits`.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        io_timeout_seconds: float = 30,
        calling: Calling = nullcontext,
        permits: Permits = FREE,
    ) -> None:
        self._connection = connection
        self._calling = calling
        self._io_timeout = io_timeout_seconds
        self._right: Right | None = None
        self._idle: list[Session] = []
        self._open: dict[Session, _Mark] = {}
        self._lost: list[_Mark] = []
        self._lock = threading.Lock()
        self._permits = permits
        self._permit: Permit | None = None
        self._usable: int | None = None
        self._seats: AbstractContextManager[Any] = nullcontext()
        self._ask_lock = threading.Lock()
        self._unreachable_at = -math.inf
        self._reader = self._session("jivs", reconnect=False, read_only=True)
        self._encoding = self._reader.info.parameter_status("server_encoding")

    def close(self) -> None:
        """Release all connections; a transaction that is open is rolled back by the server."""
        with self._lock:
            sessions, self._open, self._idle = [*self._open], {}, []
        for session in sessions:
            with suppress(psycopg.Error):
                session.close()
        if self._permit is not None:
            self._permit.give_back()
            self._permit = None

    def take_permits(self, workers: int) -> None:
        """Leave for what a run needs: a session that looks, the watchdog's, and one for each worker, or for fewer.

        Not counted are the session that reads the ledger before a run is begun, and the short one that asks after a
        silent one. While a run waits, it holds no session, nor did it write on any.

        Raises:
            Crowded: not even one worker has a place.
        """
        if self._permit is not None:
            return
        if self._usable is None:
            with self._reading() as db:
                self._usable = int(value(db, "usable_connections"))
        try:
            permit = self._permits.take(_BESIDE + workers, least=_BESIDE + 1, of=share(self._usable))
        except BaseException:
            self._drop(self._reader)
            raise
        self._permit, self._seats = permit, threading.BoundedSemaphore(permit.count - _BESIDE)

    def interrupt(self) -> None:
        """Cancel what the server is busy with for us, from any thread; the statements fail, nothing is committed."""
        with self._lock:
            sessions = list(self._open)
        if sessions:
            # At the same time: where the network is silent, each takes its whole time.
            with ThreadPoolExecutor(len(sessions), thread_name_prefix="jivs-interrupt") as pool:
                pool.map(interrupt, sessions)

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
            calling=self._calling,
        )
        session.alive = self._at_work
        try:
            with mapped(f"target {self._connection.name!r}"):
                self._terminate_lost(session)
                mark = session.execute(SQL["mark"]).fetchone()
        except BaseException:
            session.drop()
            raise
        with self._lock:
            self._open[session] = _Mark(*mark) if mark else _Mark(0, "-infinity")
        return session

    def _terminate_lost(self, session: Session) -> None:
        """End what is left in the server of connections that broke; the locks they hold would stop their successors."""
        with self._lock:
            lost = list(self._lost)
        for mark in lost:
            session.execute(SQL["terminate_lost"], {"pid": mark.pid, "since": mark.since})
        with self._lock:
            self._lost = [mark for mark in self._lost if mark not in lost]

    def _at_work(self, session: Session) -> bool:
        # A session of its own: the silent one cannot be asked, and the reader may be the silent one.
        wanted_at = time.monotonic()
        with self._ask_lock:
            if self._unreachable_at > wanted_at:
                return False  # whoever asked before us found out; one such wait after the other would add up
            try:
                asker = connect(
                    self._connection,
                    application_name="jivs",
                    io_timeout_seconds=self._io_timeout,
                    reconnect=True,
                )
            except JivsError:
                self._unreachable_at = time.monotonic()
                return False
            try:
                row = asker.execute(SQL["at_work"], {"pid": session.info.backend_pid}).fetchone()
                return bool(row and row[0])
            finally:
                asker.close()

    def _borrow(self, right: Right) -> Session:
        while True:
            with self._lock:
                idle = self._idle.pop() if self._idle else None
            if idle is None:
                break
            if not idle.lost:
                return idle
            self._drop(idle)
        session = self._session(right.application_name)
        with mapped("the ledger"):
            known = session.execute(
                SQL["register_backend"], {"key": right.key, "epoch": right.epoch}
            ).fetchone()
            session.execute(SQL["more_memory"])
        if known is None:
            self._drop(session)
            raise overtaken(right)
        return session

    def _give_back(self, session: Session) -> None:
        with self._lock:
            self._idle.append(session)

    @contextmanager
    def _lent(self, right: Right) -> Iterator[Session]:
        """A session that may write, back in the pool afterwards unless something went wrong in it."""
        with self._seats:
            session = self._borrow(right)
            try:
                yield session
            except BaseException:
                lost = session.closed
                self._drop(session)
                if lost:
                    self._drop_idle()
                raise
            self._give_back(session)

    def _drop(self, session: Session) -> None:
        with self._lock:
            mark = self._open.pop(session, None)
            if mark is not None and session.closed:
                self._lost.append(mark)
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
        if self._reader.lost:
            self._drop(self._reader)
            self._reader = self._session("jivs", read_only=True)
        with mapped(f"target {self._connection.name!r}"):
            yield self._reader

    @contextmanager
    def _session_of_its_own(self, application_name: str, *, read_only: bool) -> Iterator[Session]:
        """For long queries that run side by side, and for the claim."""
        with self._seats, self._fresh(application_name, read_only=read_only) as session:
            yield session

    @contextmanager
    def _spare_sessions(self, application_name: str) -> Iterator[list[Session]]:
        """All that a run may have beside those that are at work now, to read with; none outside of a run."""
        with ExitStack() as opened:
            sessions: list[Session] = []
            # Never waited for: whoever has one and waits for another may wait for somebody who does the same.
            while isinstance(self._seats, threading.Semaphore) and self._seats.acquire(blocking=False):
                opened.callback(self._seats.release)
                try:
                    sessions.append(opened.enter_context(self._fresh(application_name, read_only=True)))
                except JivsError:
                    break  # it would only have been faster
            yield sessions

    @contextmanager
    def _fresh(self, application_name: str, *, read_only: bool) -> Iterator[Session]:
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            self._drop(idle)  # so that both together are no more than there are seats
        session = self._session(application_name, read_only=read_only)
        try:
            yield session
        finally:
            self._drop(session)


def interrupt(session: Session) -> None:
    """Cancel what the server is busy with for this session."""
    with suppress(psycopg.Error):
        session.cancel_safe(timeout=2)


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
