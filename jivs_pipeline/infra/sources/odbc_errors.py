"""What drivers' errors mean to us.

What belongs here: `OdbcError` into `core.errors`, decided by SQLSTATE, and by words where a driver gives none. What
does not: errors of the databases that have an adapter of their own (`postgresql_errors.py`, `mysql_errors.py`).

A driver's message may hold parts of the connection string or values; it is never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import (
    ConnectionFailed,
    DataError,
    JivsError,
    NotReady,
    ResourceError,
    SnapshotLost,
    TerminalError,
    TransientError,
)
from jivs_pipeline.infra.sources.odbc_link import OdbcError

__all__ = ["connect_error", "map_odbc_error", "mapped_odbc"]

_MOMENT = "Try again in a moment"
_WAIT = "Wait for it, or start it"
_DRIVERS = "See the names that are registered with: odbcinst -q -d -s"
# The first that matches is used.
_NO_DRIVER = re.compile(
    r"can't open lib|data source name not found|no default driver|IM00[234]", re.IGNORECASE
)
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    ("too many (clients|connections)|remaining connection slots", "has no connection free", _MOMENT),
    ("starting up|shutting down|recovery mode|not yet accepting", "is starting up or shutting down", _WAIT),
    (
        "authentication failed|access denied|login failed|invalid username|no password supplied|28000",
        "does not accept the user or password",
        "Check the user and the password before the @ of the URL",
    ),
    (
        "database .* does not exist|unknown database|cannot open database|unable to open database|connect failed",
        "has no such database",
        "Check the database in the URL",
    ),
    ("certificate|SSL|TLS", "and we do not agree on TLS", "Check sslmode or encrypt in the URL"),
)
_UNREACHABLE: tuple[tuple[str, str, str], ...] = (
    (
        "could not translate host|unknown .*host|resolve|getaddrinfo",
        "has an unknown host name",
        "Check the server in the URL",
    ),
    (
        "refused|can't connect|unreachable|no route|no such file|network-related",
        "cannot be reached",
        "Check the server and the port, and that it runs",
    ),
    ("timeout|timed out|no answer", "does not answer", "Check the server, the port and the firewall"),
)
_KINDS: tuple[tuple[str, type[JivsError], str, str], ...] = (
    (
        "TRUNC",
        DataError,
        "a value is longer than the buffer that the driver gave it",
        "Read this table in another way",
    ),
    (
        "22021",
        DataError,
        "the driver handed out text that is not UTF-8",
        "Check the encoding that it is set to",
    ),
    ("40", TransientError, "a deadlock, or a conflict with another transaction", "Run again"),
    ("HYT", TransientError, "the database did not answer in time", "Run again"),
    ("42501", ResourceError, "a privilege is missing", "Grant the user SELECT on it"),
    ("42", TerminalError, "the database does not understand a statement, or an object is gone", "Run again"),
    ("22", DataError, "a value cannot be converted", ""),
    ("HY001", ResourceError, "the driver is out of memory", "Lower parallelism, and run again"),
)

_NUMBERS: dict[int, tuple[type[JivsError], str, str]] = {
    # SQL Server
    3952: (
        ResourceError,
        "the database does not allow snapshot isolation",
        "ALTER DATABASE … SET ALLOW_SNAPSHOT_ISOLATION ON",
    ),
    3961: (
        SnapshotLost,
        "a table was changed after the snapshot was taken",
        "Run again; extraction begins anew",
    ),
    # Oracle
    1555: (SnapshotLost, "the snapshot is too old", "Raise undo_retention there, and run again"),
}
"""Of databases that have no adapter of their own; their numbers do not collide."""


def map_odbc_error(error: OdbcError, where: str) -> JivsError:
    """Our error for `error`; the caller raises it `from error`. `where` begins the sentence."""
    if error.lost:
        return TransientError(f"{where}: lost the connection [{error.state}]", hint="Run again")
    if error.native in _NUMBERS:
        kind, sentence, hint = _NUMBERS[error.native]
        return kind(f"{where}: {sentence} [{error.native}]", hint=hint)
    for prefix, kind, sentence, hint in _KINDS:
        if error.state.startswith(prefix):
            return kind(f"{where}: {sentence} [{error.state}, {error.native}]", hint=hint)
    return TerminalError(
        f"{where}: the driver failed [{error.state}, {error.native}]", hint="Look up its number"
    )


@contextmanager
def mapped_odbc(where: str) -> Generator[None]:
    """Raise drivers' errors of the block as ours, without their text: that may quote a row."""
    try:
        yield
    except OdbcError as error:
        raised = map_odbc_error(error, where)
        error.args = (error.state,)
        raise raised from error


def connect_error(error: OdbcError, connection: Connection, *, reconnect: bool) -> JivsError:
    """Our error for a failed attempt to connect; `reconnect`: this endpoint has answered before."""
    source = f"The ODBC source {connection.name!r} at {connection.place}"
    text = f"{error.state} {error.message}"
    error.args = (error.state,)
    if _NO_DRIVER.search(text):
        return ConnectionFailed(
            f"There is no ODBC driver or data source of the name that the URL of {connection.name!r} gives",
            hint=f"{_DRIVERS}; docs/drivers.md says how to install one",
        )
    for pattern, problem, hint in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            kind = {_MOMENT: TransientError, _WAIT: NotReady}.get(hint, ConnectionFailed)
            return kind(f"{source} {problem}", hint=hint)
    unanswered = NotReady if reconnect else ConnectionFailed.unanswered
    for pattern, problem, hint in _UNREACHABLE:
        if re.search(pattern, text, re.IGNORECASE):
            return unanswered(f"{source} {problem}", hint=hint)
    return unanswered(
        f"{source} refused the connection [{error.state}, {error.native}]", hint="Check the URL"
    )
