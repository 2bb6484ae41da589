"""Opening SQLite files read-only, and SQLite's errors in our words.

What belongs here: connections of both drivers (the stdlib's and ADBC's) with the same limits, the mapping of
their errors, quoting. What does not: what is read (`sqlite_catalog`, `sqlite_census`, `sqlite_snapshot`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import adbc_driver_manager
from adbc_driver_sqlite import dbapi as adbc

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed, DataError, JivsError, ResourceError, TransientError
from jivs_pipeline.infra.sources.sqlite_values import register

__all__ = [
    "column_name",
    "is_busy",
    "mapped_errors",
    "open_adbc",
    "open_failed",
    "open_sqlite",
    "quoted",
]

_REASONS = {
    sqlite3.SQLITE_NOTADB: (
        "is not an SQLite database, or it is encrypted",
        "Check the path; decrypt it first",
    ),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Restore a backup, or rebuild it with `sqlite3 FILE .recover`"),
    sqlite3.SQLITE_PERM: ("may not be read", "Grant this user read access to the file and its directory"),
    sqlite3.SQLITE_AUTH: ("may not be read", "Grant this user read access to the file and its directory"),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "Grant this user read access to the file, and write access to its directory if it is in WAL mode",
    ),
    # A hot journal or WAL must be rolled back or recovered by somebody who may write.
    sqlite3.SQLITE_READONLY: (
        "was left in the middle of a write and needs recovery",
        "Open it once with the application that owns it, or with the sqlite3 shell",
    ),
}
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_MACHINE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def column_name(table: str, column: str) -> str:
    """A column with its table: SQLite takes an unqualified "name" that does not exist for a string."""
    return f"{quoted(table)}.{quoted(column)}"


def _path(connection: Connection) -> Path:
    if connection.path is None:
        raise ConnectionFailed(
            f"Connection {connection.name!r} names no file",
            hint="Write sqlite:///relative or sqlite:////absolute",
        )
    return connection.path


def _uri(path: Path) -> str:
    # Bytes, because file names need not be UTF-8; quoted, because ? and # end a path in a URI.
    return f"file:{quote(os.fsencode(path))}?mode=ro"


def _primary(error: BaseException) -> int:
    """SQLite's primary result code; 0 where the driver has none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def is_busy(error: BaseException) -> bool:
    """Whether an error, ours or a driver's, says that another program holds a lock."""
    cause = error.__cause__ or error
    return _primary(cause) in _BUSY or "is locked" in str(cause)


def open_failed(connection: Connection, error: Exception, timeout_seconds: float) -> JivsError:
    """The error of an attempt to open or read the database, in one sentence."""
    where = f"The database of connection {connection.name!r} ({connection.place})"
    if is_busy(error):
        return ConnectionFailed.unanswered(
            f"{where} stayed locked for {timeout_seconds:g} seconds",
            hint="Wait until the program that writes it is done, then run it again",
        )
    problem, hint = _REASONS.get(
        _primary(error), (f"cannot be read: {error}", "Check the file and its directory")
    )
    return ConnectionFailed(f"{where} {problem}", hint=hint)


@contextmanager
def mapped_errors(connection: Connection, table: str | None = None) -> Generator[None]:
    """Turns driver errors of reading into ours; texts of SQLite hold no row values."""
    try:
        yield
    except (sqlite3.Error, adbc_driver_manager.Error) as error:
        where = f"{f'table {table} of ' if table else ''}connection {connection.name!r}"
        # ADBC repeats the whole query in further lines.
        problem = str(error).partition("\n")[0]
        if problem.startswith("Could not decode"):
            problem = "a text is not UTF-8"  # the message quotes it
        if is_busy(error):
            raise TransientError(
                f"Another program keeps {where} locked",
                hint="Wait until it is done, then run it again",
                table=table,
            ) from error
        if _primary(error) in _MACHINE:
            raise ResourceError(
                f"Cannot read {where}: {problem}", hint="Check disk, memory and TMPDIR", table=table
            ) from error
        raise DataError(
            f"Cannot read {where}: {problem}", hint="Check the file and the `where` rules", table=table
        ) from error


def open_sqlite(connection: Connection, timeout_seconds: float) -> sqlite3.Connection:
    """The stdlib's connection, with our functions.

    Raises:
        ConnectionFailed: missing, unreadable, locked, encrypted, damaged, or not a database.
    """
    path = _path(connection)
    if not path.is_file():
        problem = "is a directory" if path.is_dir() else "does not exist"
        raise ConnectionFailed(
            f"The database of connection {connection.name!r} ({connection.place}) {problem}",
            hint="Check the path in its URL: sqlite:///relative or sqlite:////absolute",
        )
    opened: sqlite3.Connection | None = None
    try:
        opened = sqlite3.connect(
            _uri(path), uri=True, timeout=timeout_seconds, isolation_level=None, check_same_thread=False
        )
        opened.execute("PRAGMA query_only = ON")
        opened.execute("PRAGMA trusted_schema = OFF")

        opened.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        if opened is not None:
            opened.close()
        raise open_failed(connection, error, timeout_seconds) from error
    register(opened)
    return opened


def open_adbc(connection: Connection) -> adbc.Connection:
    """ADBC's connection; its driver brings an SQLite of its own, which waits for no lock.

    Raises:
        ConnectionFailed: it cannot be opened.
    """
    opened: adbc.Connection | None = None
    try:
        opened = adbc.connect(_uri(_path(connection)), autocommit=True)
        with opened.cursor() as cursor:
            for pragma in ("query_only = ON", "trusted_schema = OFF"):
                cursor.execute(f"PRAGMA {pragma}")
                cursor.fetchall()
    except adbc_driver_manager.Error as error:
        if opened is not None:
            opened.close()
        raise open_failed(connection, error, 0) from error
    return opened
