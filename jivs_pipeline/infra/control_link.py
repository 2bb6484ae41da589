"""The way to the control database: a pool, one transaction per verb, and trying again when the server was lost.

What belongs here: connecting, transactions, retrying, errors. What does not: the verbs (`control.py`).

A verb is tried again when the connection broke, also when it broke at the commit: whether that commit stands
cannot be known then, so every verb has to be harmless when it is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from jivs_pipeline.core.errors import (
    ConfigError,
    ConflictError,
    JivsError,
    ResourceError,
    SpecError,
    TerminalError,
    TransientError,
)
from jivs_pipeline.infra import revisions
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.postgresql import Patient, map_error, wire_limits

__all__ = ["ControlLink", "Db", "Row"]

# Raised by functions of the schema: the state machine, the queue, and what is no spec.
_FORBIDDEN_CHANGE, _OTHER_REQUEST, _NO_SPEC = "JV001", "JV003", "JV004"
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
_T = TypeVar("_T")
Row = dict[str, Any]
Db = psycopg.Connection[Row]


class ControlLink:
    """Sessions of the control database. Thread-safe.

    Args:
        url: PostgreSQL URL.
        timeout_seconds: longest silence of the server, and how long a lost server is waited for.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        try:
            limits = wire_limits(url, timeout_seconds)
        except psycopg.Error:
            # The parser's message quotes the URL.
            raise ConfigError(
                "The URL of the control database cannot be read",
                hint="Check the characters in JIVS_CONTROL_URL; special ones need %XX",
            ) from None
        self._pool: ConnectionPool[Patient[Row]] = ConnectionPool(
            url,
            connection_class=Patient[Row],
            min_size=1,
            max_size=4,
            timeout=timeout_seconds,
            kwargs={
                "row_factory": dict_row,
                "application_name": "jivs control",
                **limits,
                "options": f"-c timezone=UTC {_limits(timeout_seconds)}",
            },
            configure=partial(_configure, timeout_seconds),
            # A server that restarted leaves dead connections in the pool; a verb must not pay for them.
            check=_check,
            open=False,
        )
        self._timeout = timeout_seconds

    def open(self) -> None:
        """Connect, and bring the schema up to date where it is not.

        Raises:
            ConfigError: the control database does not let us in.
        """
        try:
            self._pool.open(wait=True, timeout=self._timeout)
        except PoolTimeout as error:
            self._pool.close()
            raise ConfigError(
                "The control database does not answer", hint="Check JIVS_CONTROL_URL and that its server runs"
            ) from error
        self.do(lambda db: revisions.pending(db, "control") and revisions.upgrade(db, "control"))

    def close(self) -> None:
        """Give the connections back."""
        self._pool.close(timeout=2)

    def once(self, work: Callable[[Db], _T], *, wait_seconds: float = 5.0) -> _T:
        """Run `work` in one transaction and do not try again: for work that somebody repeats anyhow.

        Raises:
            TransientError: there was no connection, or it was lost.
            JivsError: what else the server says.
        """
        try:
            with self._pool.connection(wait_seconds) as connection:
                return work(connection)
        except (PoolTimeout, PoolClosed) as error:
            raise TransientError("The control database does not answer") from error
        except psycopg.Error as error:
            raise _mapped(error) from error

    def do(self, work: Callable[[Db], _T]) -> _T:
        """Run `work` in one transaction, and again while the server is lost for no longer than the timeout.

        Raises:
            ConflictError: the state machine forbids the change.
            ResourceError: the server's disk is full.
            TerminalError: the server is gone.
        """
        lost_at: float | None = None
        pause = _PAUSE_SECONDS
        while True:
            try:
                with self._pool.connection() as connection:
                    result = work(connection)
                    failpoint("control_before_commit")
                failpoint("control_after_commit")
            except PoolTimeout as error:
                raise _gone() from error
            except (psycopg.Error, TransientError) as error:
                known = _mapped(error) if isinstance(error, psycopg.Error) else error
                if not known.transient:
                    raise known from error
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._timeout:
                    raise _gone() from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return result


def _limits(timeout_seconds: float) -> str:
    """The server gives up before we do, and whoever stands still in a transaction does not keep its successor out."""
    limits = {
        "statement_timeout": min(30.0, timeout_seconds),
        "lock_timeout": min(20.0, timeout_seconds * 2 / 3),
        "idle_in_transaction_session_timeout": 5.0,
    }
    return " ".join(f"-c {name}={round(seconds * 1000)}ms" for name, seconds in limits.items())


def _configure(timeout_seconds: float, connection: Patient[Row]) -> None:
    connection.patience = timeout_seconds


def _check(session: psycopg.Connection[Any]) -> None:
    ConnectionPool.check_connection(session)


def _mapped(error: psycopg.Error) -> JivsError:
    if isinstance(error, psycopg.errors.DiskFull):
        return ResourceError("The control database's disk is full", hint="Free space and run again")
    said = error.diag.message_primary or ""
    if error.sqlstate == _OTHER_REQUEST:
        return ConflictError(f"{said[:1].upper()}{said[1:]}", hint=error.diag.message_hint or "")
    if error.sqlstate == _NO_SPEC:
        return SpecError(f"{said[:1].upper()}{said[1:]}", hint="Correct the spec")
    if error.sqlstate == _FORBIDDEN_CHANGE:
        return ConflictError(f"The control database refuses: {said}", hint="See jivs status")
    return map_error(error, "the control database")


def _gone() -> TerminalError:
    # Not a transient error: it was waited for here, and whoever asked must not wait once more.
    return TerminalError("The control database does not answer", hint="Start it and run again")
