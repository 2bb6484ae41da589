"""What PostgreSQL's errors mean to us, decided by SQLSTATE.

What belongs here: turning psycopg's errors into `core.errors`, and the sentences that say so. What does
not: retrying.

A server's message may quote a row: in DETAIL, in COPY's CONTEXT, and for class 22 in the primary message
itself. Rows belong into the quarantine only, so for data errors we write the sentence ourselves, from
SQLSTATE and object names.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg import errors

from jivs_pipeline.core.connections import Connection, redact
from jivs_pipeline.core.errors import (
    ConnectionFailed,
    DataError,
    JivsError,
    NotReady,
    ResourceError,
    TerminalError,
    TransientError,
)
from jivs_pipeline.core.names import qualified

__all__ = ["connect_error", "map_error", "mapped"]

_T = TypeVar("_T")

# The longest prefix of the SQLSTATE decides; everything else is a TerminalError.
_KINDS: dict[str, type[JivsError]] = {
    "08": TransientError,  # connection exceptions
    "21": DataError,
    "22": DataError,
    "23": DataError,
    "25006": ResourceError,  # the server is a standby or read-only
    "25P03": TransientError,  # idle in transaction for too long
    "25P04": TransientError,  # transaction_timeout
    "28": ConnectionFailed,
    "3D": ConnectionFailed,
    "40001": TransientError,  # serialization failure
    "40002": DataError,  # a deferred constraint
    "40003": TransientError,  # lost during commit; the ledger settles it
    "40P01": TransientError,  # deadlock
    "42501": ResourceError,  # a missing privilege
    "44": DataError,  # WITH CHECK OPTION
    "53": ResourceError,
    "53300": TransientError,  # too many connections
    "54000": DataError,  # an index row that is too big
    "55006": TransientError,  # object in use
    "55P03": TransientError,  # lock_timeout
    "57": TerminalError,
    "57014": TransientError,  # statement_timeout, or somebody cancelled it
    "57P01": TransientError,  # admin shutdown, pg_terminate_backend
    "57P02": TransientError,  # crash shutdown
    "57P03": NotReady,  # starting up
    "57P05": TransientError,  # idle_session_timeout
    "58": ResourceError,  # I/O errors of the server
    "XX001": ResourceError,  # a corrupted page
    "XX002": ResourceError,
}
# Messages of functions and internal checks may quote values, and so may those of the DataError classes.
_UNQUOTABLE = ("22", "23", "40002", "44", "P0", "XX000", "38", "39", "HV", "2F")

_SENTENCES: dict[str, str] = {
    "21000": "a row would be changed twice, or a query gives several rows where one is asked for",
    "22001": "a text is too long for its type",
    "22003": "a number is out of the range of its type",
    "22007": "a text is not a valid date or time",
    "22008": "a date or time is out of range",
    "2200M": "a value is not a valid XML document",
    "2200N": "a value is not valid XML content",
    "22021": "a text has bytes that are not valid in the database's encoding",
    "22P02": "a text is not valid for its type",
    "22P03": "a binary value is not valid for its type",
    "22P04": "the COPY stream is malformed",
    "22P05": "a character does not exist in the database's encoding",
    "23001": "a row that is still referenced must stay",
    "23502": "a NULL in a NOT NULL column",
    "23503": "a row refers to one that does not exist",
    "23505": "two rows have the same key",
    "23514": "a row violates a CHECK constraint",
    "23P01": "two rows violate an exclusion constraint",
    "08": "lost the connection",
    "25006": "does not accept writes (read-only or a standby)",
    "28": "does not let us in",
    "42501": "a privilege is missing",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has no connection slot free",
    "55P03": "a lock was not granted in time",
    "57014": "the statement was cancelled or took too long",
    "57P01": "the session was terminated by an administrator",
    "57P02": "the server crashed and is restarting",
    "57P03": "the server is starting up or shutting down",
}
_HINTS: dict[str, str] = {
    "25006": "Connect to the primary server",
    "42501": "Grant the role what the message asks for",
    "53100": "Free space on the server and run again",
    "53200": "Lower parallelism or give the server more memory, and run again",
    "53400": "Raise that limit of the server's and run again",
    "58": "Look at the server's log and its disk, and run again",
    "53300": "Raise max_connections or lower limits.source_connections",
}
_COPY_CONTEXT = re.compile(
    r"^COPY .*?, line (?P<line>\d+)(?:, column (?P<column>[^:\n]+))?(?=:|$)", re.MULTILINE
)


def _longest(table: Mapping[str, _T], state: str) -> _T | None:
    return next((table[state[:n]] for n in (5, 2) if state[:n] in table), None)


def _words(state: str) -> str:
    """The condition's name in words: `NullValueNotAllowed` -> `null value not allowed`."""
    try:
        name = errors.lookup(state).__name__
    except KeyError:
        return "an error without a name"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def map_error(error: psycopg.Error, where: str) -> JivsError:
    """Our error for `error`; the caller raises it `from error`.

    The driver's error stays the cause, with its diagnostics, but loses its text: that quotes rows too, and a
    traceback in a log would print it.

    Args:
        error: from psycopg.
        where: what the sentence begins with: a table, or a connection's place.
    """
    state = error.sqlstate
    if state is None:
        return _without_state(error, where)
    kind = _longest(_KINDS, state) or TerminalError
    diag = error.diag
    column = diag.column_name
    sentence = _sentence(error, state, kind)
    if found := _COPY_CONTEXT.search(diag.context or ""):
        column = column or found["column"]
        sentence += f", line {found['line']} of the COPY stream"
    if issubclass(kind, DataError):
        parts = (("column", column), ("constraint", diag.constraint_name), ("type", diag.datatype_name))
        named = [f"{word} {name!r}" for word, name in parts if name]
        sentence += f" ({', '.join(named)})" if named else ""
    sentence += f" [{state}]"
    error.args = (sentence,)
    table = qualified(diag.schema_name or "?", diag.table_name) if diag.table_name else None
    return kind(f"{where}: {sentence}", hint=_longest(_HINTS, state) or "", table=table, column=column)


def _sentence(error: psycopg.Error, state: str, kind: type[JivsError]) -> str:
    known = _longest(_SENTENCES, state)
    primary = redact(error.diag.message_primary or "")
    if not primary or issubclass(kind, DataError) or state.startswith(_UNQUOTABLE):
        return known or _words(state)
    return f"{known}: {primary}" if known else primary


def _without_state(error: psycopg.Error, where: str) -> JivsError:
    """No SQLSTATE: libpq or psycopg noticed by itself."""
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return TransientError(f"{where}: lost the connection ({_one_line(str(error))})")
    if isinstance(error, psycopg.DataError):
        # psycopg quotes what it could not adapt.
        error.args = ("a value that cannot be sent",)
        return DataError(f"{where}: a value cannot be sent to PostgreSQL")
    return TerminalError(f"{where}: {_one_line(str(error)) or type(error).__name__}")


def _one_line(text: str) -> str:
    return redact(" ".join(text.split()))


_MOMENT = "Try again in a moment"
_WAIT = "Wait for it, or start it"
# libpq gives no SQLSTATE for a refused connection, only the server's sentence, in the server's language; what
# is not recognised here is quoted as it is. Order matters: the first that matches is used.
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    ("too many (clients|connections)|remaining connection slots", "has no connection slot free", _MOMENT),
    ("starting up|shutting down|recovery mode|not yet accepting", "is starting up or shutting down", _WAIT),
    # Somebody was there and went in the middle of the greeting.
    ("closed the connection unexpectedly|connection reset", "ended the connection", _WAIT),
    ("no password supplied", "asks for a password", "Put it into the URL or into ~/.pgpass"),
    ("authentication failed", "does not accept the user or password", "Check the user and the password"),
    ("database .* does not exist", "has no such database", "Check the database's name, or create it"),
    ("role .* does not exist", "does not know the user", "Check the user, or create the role"),
    (
        "no pg_hba.conf entry",
        "does not allow this user, database or address",
        "Add a line to pg_hba.conf, or use sslmode=require",
    ),
    ("permission denied for database", "does not let the user in", "GRANT CONNECT ON DATABASE to the user"),
    (
        "certificate|SSL|TLS",
        "and we do not agree on TLS",
        "Check sslmode, sslrootcert and the server's certificate",
    ),
)
_UNREACHABLE: tuple[tuple[str, str, str], ...] = (
    ("could not translate host|resolve|getaddrinfo", "has an unknown host name", "Check the host in the URL"),
    (
        "refused|no such file|unreachable|no route",
        "cannot be reached",
        "Check the host and the port, and that the server runs",
    ),
    ("timeout|timed out", "does not answer", "Check the host, the port and the firewall"),
)


def connect_error(error: psycopg.Error, connection: Connection, *, reconnect: bool) -> JivsError:
    """Our error for a failed attempt to connect.

    A server that is full is a `TransientError`, one that restarts `NotReady`, one without room on its disk a
    `ResourceError`. Any other failure is for a person to look at (`ConnectionFailed`), unless the endpoint has
    answered before (`reconnect`) and cannot be reached now (`NotReady`).
    """
    server = f"The PostgreSQL server of {connection.name!r} at {connection.place}"
    text = _one_line(str(error))
    if "No space left on device" in text:
        # A new session writes a file when the catalog's cache is old.
        return ResourceError(f"{server} says that the server's disk is full", hint=_HINTS["53100"])
    for pattern, problem, hint in _REFUSALS:
        if re.search(pattern, text, re.IGNORECASE):
            kind = {_MOMENT: TransientError, _WAIT: NotReady}.get(hint, ConnectionFailed)
            return kind(f"{server} {problem}", hint=hint)
    unanswered = NotReady if reconnect else ConnectionFailed.unanswered
    for pattern, problem, hint in _UNREACHABLE:
        if re.search(pattern, text, re.IGNORECASE):
            return unanswered(f"{server} {problem}", hint=hint)
    # A refusal in another language came from a server that is there.
    kind = ConnectionFailed if "FATAL: " in text and not reconnect else unanswered
    return kind(f"{server} refused the connection: {text}", hint="Check the URL")


@contextmanager
def mapped(where: str) -> Generator[None]:
    """Raise psycopg's errors of the block as ours; see `map_error`."""
    try:
        yield
    except psycopg.Error as error:
        raise map_error(error, where) from error
