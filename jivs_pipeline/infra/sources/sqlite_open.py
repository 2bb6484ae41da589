"""Opening SQLite files read-only, and SQLite's errors in our words.

What belongs here: connections of both drivers (the stdlib's and ADBC's) with the same limits, the mapping of
their errors, quoting. What does not: what is read (`sqlite_catalog`, `sqlite_census`, `sqlite_snapshot`).
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import adbc_driver_manager
from adbc_driver_sqlite import dbapi as adbc

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed, DataError, JivsError, ResourceError, TransientError

__all__ = [
    "column_name",
    "mapped_errors",
    "numeric_text",
    "open_adbc",
    "open_failed",
    "open_sqlite",
    "quoted",
    "real_text",
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


def _uri(path: Path) -> str:
    # Bytes, because file names need not be UTF-8; quoted, because ? and # end a path in a URI.
    return f"file:{quote(os.fsencode(path))}?mode=ro"


def open_failed(connection: Connection, error: Exception, timeout_seconds: float) -> JivsError:
    """The error of an attempt to open or read the database, in one sentence."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    where = f"The database of connection {connection.name!r} ({connection.place})"
    if primary in _BUSY:
        return ConnectionFailed(
            f"{where} stayed locked for {timeout_seconds:g} seconds",
            hint="Wait until the program that writes it is done, then run it again",
        )
    problem, hint = _REASONS.get(
        primary or 0, (f"cannot be read: {error}", "Check the file and its directory")
    )
    return ConnectionFailed(f"{where} {problem}", hint=hint)


@contextmanager
def mapped_errors(connection: Connection, table: str | None = None) -> Generator[None]:
    """Turns driver errors of reading into ours; texts of SQLite hold no row values."""
    try:
        yield
    except (sqlite3.Error, adbc_driver_manager.Error) as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if isinstance(code, int) else None
        where = f"{f'table {table} of ' if table else ''}connection {connection.name!r}"
        if primary in _BUSY or "is locked" in str(error):
            raise TransientError(
                f"Another program keeps {where} locked",
                hint="Wait until it is done, then run it again",
                table=table,
            ) from error
        if primary in _MACHINE:
            raise ResourceError(
                f"Cannot read {where}: {error}", hint="Check disk, memory and TMPDIR", table=table
            ) from error
        raise DataError(
            f"Cannot read {where}: {error}", hint="Check the file and the `where` rules", table=table
        ) from error


def real_text(value: float) -> str:
    """A real as SQLite prints it, with the shortest digits that give the same value back."""
    text = repr(value)
    if "inf" in text:
        return "Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + exponent
    if value and not -4 <= point - 1 <= 14:
        return f"{'-' * sign}{shown[0]}.{shown[1:] or '0'}e{point - 1:+03d}"
    return text


def numeric_text(value: float | str) -> str:
    """A number as PostgreSQL's `trim_scale(x)::text` prints it."""
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if number.is_infinite():
        return "Infinity" if number > 0 else "-Infinity"
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _numeric(value: float | str | None) -> str | None:
    return None if value is None else numeric_text(value)


def _real(value: float | None) -> str | None:
    return None if value is None else real_text(value)


def _float_bits(value: float | None) -> str | None:
    return None if value is None else struct.pack(">d", value).hex()


def _fits(value: float | None, precision: int, scale: int) -> int | None:
    """Whether the shortest digits of a number fit numeric(precision, scale)."""
    if value is None:
        return None
    number = Decimal(repr(value))
    if not number.is_finite():
        return 0
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return int(-exponent <= scale and (number == 0 or number.adjusted() < precision - scale))


def open_sqlite(connection: Connection, timeout_seconds: float) -> sqlite3.Connection:
    """The stdlib's connection, with our functions.

    Raises:
        ConnectionFailed: missing, unreadable, locked, encrypted, damaged, or not a database.
    """
    path = connection.path
    assert path is not None
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
    opened.create_function("jivs_float_bits", 1, _float_bits, deterministic=True)
    opened.create_function("jivs_numeric", 1, _numeric, deterministic=True)
    opened.create_function("jivs_real", 1, _real, deterministic=True)
    opened.create_function("jivs_fits", 3, _fits, deterministic=True)
    return opened


def open_adbc(connection: Connection, timeout_seconds: float) -> adbc.Connection:
    """ADBC's connection; its driver brings an SQLite of its own.

    Raises:
        ConnectionFailed: it cannot be opened.
    """
    assert connection.path is not None
    opened: adbc.Connection | None = None
    try:
        opened = adbc.connect(_uri(connection.path), autocommit=True)
        with opened.cursor() as cursor:
            for pragma in (
                "query_only = ON",
                "trusted_schema = OFF",
                f"busy_timeout = {int(timeout_seconds * 1000)}",
            ):
                cursor.execute(f"PRAGMA {pragma}")
                cursor.fetchall()
    except adbc_driver_manager.Error as error:
        if opened is not None:
            opened.close()
        raise open_failed(connection, error, timeout_seconds) from error
    return opened
