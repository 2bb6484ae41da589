"""What MySQL's errors mean to us, decided by their numbers.

What belongs here: turning PyMySQL's errors into `core.errors`, and the sentences that say so. What does not:
retrying, and opening sessions (`mysql_open.py`).

A server's message may quote a value (`Truncated incorrect DOUBLE value: '…'`). Only messages of the kinds
below, which name objects and never values, are passed on; for all others the number has to do.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pymysql

from jivs_pipeline.core.connections import Connection, redact
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

__all__ = ["LOST", "UNUSABLE", "connect_error", "map_error", "mapped", "number_of"]

LOST = frozenset(
    {0, 1053, 1077, 1079, 1080, 1158, 1159, 1160, 1161, 1184, 1927, 2006, 2013, 2014, 2055, 4031}
)
"""The session is gone: shut down, killed, cut, or silent for too long."""

UNUSABLE = frozenset(
    {1016, 1017, 1033, 1034, 1035, 1146, 1168, 1194, 1195, 1286, 1712, 1812, 1813, 1814, 1815, 1932}
)
"""The server cannot use the files of one table: they are crashed, discarded, of an engine that it lacks, or gone."""

_KINDS: dict[int, tuple[type[JivsError], str, str]] = {
    3: (ResourceError, "the server cannot write a file", "Look at its disk and its log, and run again"),
    1021: (ResourceError, "the server's disk is full", "Free space on the server and run again"),
    1037: (ResourceError, "the server is out of memory", "Lower parallelism, and run again"),
    1038: (ResourceError, "the server is out of sort memory", "Raise sort_buffer_size, and run again"),
    1041: (ResourceError, "the server is out of memory", "Lower parallelism, and run again"),
    1114: (ResourceError, "a table of the server's is full", "Free space on the server and run again"),
    1040: (
        TransientError,
        "the server has no connection free",
        "Raise max_connections or lower limits.source_connections",
    ),
    1203: (TransientError, "the user has too many connections", "Raise max_user_connections"),
    1226: (TransientError, "the user has used up a limit of the server's", "Raise the user's limits"),
    1205: (TransientError, "a lock was not granted in time", "Run again when nobody holds it"),
    1213: (TransientError, "a deadlock", "Run again"),
    1317: (TransientError, "the statement was cancelled", "Run again"),
    1969: (TransientError, "the statement took longer than max_statement_time", "Raise it for this user"),
    3024: (TransientError, "the statement took longer than max_execution_time", "Raise it for this user"),
    1153: (
        ResourceError,
        "a row is larger than the server's max_allowed_packet",
        "Raise max_allowed_packet on the server and run again",
    ),
    1301: (
        ResourceError,
        "a value is larger than the server's max_allowed_packet",
        "Raise max_allowed_packet on the server and run again",
    ),
    1412: (
        SnapshotLost,
        "the table was changed after the snapshot was taken",
        "Run again; extraction begins anew with another snapshot",
    ),
    1142: (ResourceError, "a privilege is missing", "Grant the user what the message asks for"),
    1143: (ResourceError, "a privilege is missing", "Grant the user what the message asks for"),
    1227: (ResourceError, "a privilege is missing", "Grant the user what the message asks for"),
    1370: (ResourceError, "a privilege is missing", "Grant the user what the message asks for"),
    1290: (ResourceError, "the server's options do not allow it", ""),
    1054: (TerminalError, "a column does not exist", ""),
    1064: (TerminalError, "the statement is not understood", ""),
    1146: (TerminalError, "the table is gone", "Run again"),
    1194: (ResourceError, "the table is marked as crashed", "Repair it with REPAIR TABLE"),
    1305: (TerminalError, "a function does not exist", ""),
    1582: (TerminalError, "a function got a wrong number of parameters", ""),
    1630: (TerminalError, "a function does not exist", ""),
    1690: (DataError, "a number is out of range", ""),
}
_QUOTABLE = frozenset({1054, 1064, 1142, 1143, 1146, 1227, 1290, 1305, 1370, 1412, 1582, 1630})

# Number -> what the server's sentence says and what to do; a person has to look at these.
_REFUSALS = {
    1044: ("does not let the user into the database", "GRANT SELECT, SHOW VIEW on it to the user"),
    1045: ("does not accept the user or password", "Check the user and the password"),
    1049: ("has no such database", "Check the database's name"),
    1129: ("has blocked this host after too many failed attempts", "Run mariadb-admin flush-hosts there"),
    1130: ("does not allow connections from this host", "Create the user for this host"),
    1251: ("asks for an authentication that this client does not know", "Use another plugin for the user"),
    1698: ("does not accept the user or password", "Check the user and the password"),
    2026: ("and we do not agree on TLS", "Check ssl-mode, ssl-ca and the server's certificate"),
    3118: ("has locked the account", "Unlock it with ALTER USER … ACCOUNT UNLOCK"),
    4151: ("has locked the account", "Unlock it with ALTER USER … ACCOUNT UNLOCK"),
    1820: ("wants the user's password changed first", "Change it with ALTER USER"),
    1862: ("says that the user's password has expired", "Change it with ALTER USER"),
}


def number_of(error: BaseException) -> int:
    """The server's or the client library's number; 0 where there is none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def map_error(error: pymysql.Error, where: str) -> JivsError:
    """Our error for `error`; the caller raises it `from error`. `where` begins the sentence."""
    number = number_of(error)
    if number in LOST:
        return TransientError(f"{where}: lost the connection [{number}]", hint="Run again")
    kind, sentence, hint = _KINDS.get(number, (None, "", ""))
    text = _message(error) if number in _QUOTABLE else ""
    # The driver's error stays the cause, without its text: that may quote a row.
    error.args = (number, text or sentence or "an error of the server's")
    if kind is None:
        kind = DataError if isinstance(error, pymysql.DataError) else TerminalError
        return kind(f"{where}: the server refused a statement with error {number}", hint="Look up its number")
    return kind(f"{where}: {sentence}{f': {text}' if text else ''} [{number}]", hint=hint)


def _message(error: BaseException) -> str:
    return redact(" ".join(str(error.args[1]).split())) if len(error.args) > 1 else ""


@contextmanager
def mapped(where: str) -> Generator[None]:
    """Raise PyMySQL's errors of the block as ours."""
    try:
        yield
    except pymysql.Error as error:
        raise map_error(error, where) from error


def connect_error(error: Exception, connection: Connection, *, reconnect: bool) -> JivsError:
    """Our error for a failed attempt to connect.

    A full or restarting server is waited for. Anything else is for a person to look at, unless the endpoint has
    answered before (`reconnect`) and cannot be reached now.
    """
    server = f"The MySQL server of {connection.name!r} at {connection.place}"
    number = number_of(error)
    unanswered = NotReady if reconnect else ConnectionFailed.unanswered
    if number in _REFUSALS:
        problem, hint = _REFUSALS[number]
        return ConnectionFailed(f"{server} {problem}", hint=hint)
    if number in {1040, 1203, 1226}:
        return TransientError(f"{server}: {_KINDS[number][1]}", hint=_KINDS[number][2])
    if number in {1053, 1077, 1079}:
        return NotReady(f"{server} is shutting down", hint="Wait for it, or start it")
    original = getattr(error, "original_exception", None)
    text = _message(error) or str(error)
    if isinstance(original, TimeoutError) or "timed out" in text:
        return unanswered(f"{server} does not answer", hint="Check the host, the port and the firewall")
    if "getaddrinfo" in text or "Name or service" in text or "resolution" in text:
        return unanswered(f"{server} has an unknown host name", hint="Check the host in the URL")
    if "SSL" in text or "certificate" in text:
        problem, hint = _REFUSALS[2026]
        return ConnectionFailed(f"{server} {problem}", hint=hint)
    if number == 2003:
        return unanswered(
            f"{server} cannot be reached", hint="Check the host and the port, and that the server runs"
        )
    if number in LOST:
        return unanswered(f"{server} ended the connection", hint="Wait for it, or start it")
    return ConnectionFailed(f"{server} refused the connection [{number}]", hint="Check the URL")
