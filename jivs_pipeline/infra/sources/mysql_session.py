"""Sessions of MySQL and MariaDB: pinned, patient, and quick at reading rows.

What belongs here: connecting, TLS, the settings that decide how values are printed, streaming results, quoting.
What does not: errors' meanings (`mysql_errors.py`) and what is read.

PyMySQL does the greeting, TLS and passwords. Rows are read past it: it makes a Python object of each value,
which takes five times as long as cutting a packet into its columns, and it knows no silence but a time-out.

Every session says the same thing in the same words: UTC, utf8mb4, no SQL mode.
"""

# The stubs that pyright brings for PyMySQL lack what a subclass of its connection may use.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, NoReturn, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql import err
from pymysql.connections import MAX_PACKET_LEN, MysqlPacket
from pymysql.constants import COMMAND, CR

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed, JivsError
from jivs_pipeline.infra.sources.mysql_errors import connect_error, mapped

__all__ = [
    "IDLE_SECONDS",
    "Columns",
    "Session",
    "Version",
    "literal",
    "open_session",
    "quoted",
    "text_of",
    "version_of",
]

Columns = list[list[bytes | None]]
"""Some rows of a result, one list per column; every value as the server printed it."""

IDLE_SECONDS = 86_400
"""How long the server keeps a session that says nothing: a reader without work waits for the end of the extraction."""
_PIECE = 1 << 18
_CONNECT_SECONDS = 10
_EXCUSED = 40
"""So many times the I/O timeout a question may take while the server says that it works."""
_NULL = 251
_ERROR, _END = 0xFF, 0xFE

_PINNED = (
    "SET SESSION sql_mode = '', time_zone = '+00:00', net_write_timeout = 3600, net_read_timeout = 600,"
    " wait_timeout = {idle}, sql_select_limit = DEFAULT, lock_wait_timeout = {lock}, innodb_lock_wait_timeout = {lock}"
)
# Each server knows only some of these.
_PINNED_WHERE_KNOWN = (
    "max_statement_time = 0",
    "max_execution_time = 0",
    "idle_transaction_timeout = 0",
    "idle_readonly_transaction_timeout = 0",
    "information_schema_stats_expiry = 0",
    "system_versioning_asof = DEFAULT",
    # MariaDB's cache of subqueries takes keys that differ in case for one, and gives one's answer for the other.
    "optimizer_switch = 'subquery_cache=off,exists_to_in=off'",
)
_OLDEST = {True: (10, 2), False: (5, 7)}
"""Of MariaDB and MySQL: older ones do not tell what generates a column."""


def quoted(*names: str) -> str:
    """A name, or a qualified one, as an SQL identifier."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Text as an SQL literal that no SQL mode and no quote in it can end."""
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "_utf8mb4''"


def text_of(value: bytes | None) -> str:
    """A value that is not NULL, as text."""
    return (value or b"").decode()


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says that it is."""

    text: str
    mariadb: bool
    number: tuple[int, int]


class Session(pymysql.connections.Connection):
    """A connection that never waits for ever.

    `patience` seconds without a byte make it ask `alive` (by another session) whether the server still works on
    its statement; without `alive`, or when it says no, the session is dropped and error 2013 raised. `cancel`
    ends the statement of a result that nobody wants to the end.
    """

    patience: float = 30.0
    alive: Callable[[Session], bool] | None = None
    cancel: Callable[[Session], None] | None = None
    _held: bytes = b""
    _at: int = 0

    @property
    def id(self) -> int:
        """The server's number of this session."""
        return int(self.thread_id())

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self._sock is None

    def drop(self) -> None:
        """Close the socket now, whatever the server is doing."""
        self._closed = True
        self._force_close()

    def part(self) -> None:
        """Say goodbye and close; harmless when it is closed."""
        with suppress(pymysql.Error):
            self.close()

    # ── statements ──────────────────────────────────────────────────────────────────────────────────────

    def command(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        self.table(statement)

    def table(self, statement: str) -> list[tuple[bytes | None, ...]]:
        """All rows of a small result."""
        return [row for columns in self.stream(statement) for row in zip(*columns, strict=True)]

    def texts(self, statement: str) -> list[tuple[str | None, ...]]:
        """All rows of a small result, as texts."""
        return [
            tuple(None if value is None else value.decode() for value in row) for row in self.table(statement)
        ]

    def number(self, statement: str) -> int:
        """The one number that a query gives; 0 for NULL."""
        found = self.table(statement)
        return int(text_of(found[0][0]) or 0) if found else 0

    def stream(self, statement: str, rows: int = 16_384, size: int = 8 * 1024 * 1024) -> Generator[Columns]:
        """The result in parts of at most `rows` rows, and of `size` bytes where no single row is larger.

        Raises:
            pymysql.Error: the server's error, or 2013 for a session that is lost.
        """
        self._execute_command(COMMAND.COM_QUERY, statement)
        first: Any = self._read_packet()
        if first.is_ok_packet():
            return
        if first.is_load_local_packet():
            self.drop()
            raise err.OperationalError(CR.CR_SERVER_LOST, "the server asked for a file")
        width = int(first.read_length_encoded_integer())
        for _ in range(width + 1):  # the columns' descriptions, and their end
            self._read_packet()
        ended = False
        try:
            while not ended:
                columns, ended = self._part(width, rows, size)
                if columns[0]:
                    yield columns
        except GeneratorExit:
            if not ended:
                self._abandon(width)
            raise

    def _part(self, width: int, rows: int, size: int) -> tuple[Columns, bool]:
        """Cut packets into columns until enough are there, or the result ends."""
        columns: Columns = [[] for _ in range(width)]
        adders = [column.append for column in columns]
        data, at, taken, left = self._held, self._at, 0, rows
        while left and taken < size:
            if len(data) - at < 4:
                data, at = self._more(data, at, 4)
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            if len(data) - at < length + 4:
                data, at = self._more(data, at, length + 4)
            at += 4
            head = data[at] if length else _NULL
            if head == _ERROR or (head == _END and length < 9):
                self._held, self._at = data, at + length
                if head == _ERROR:
                    MysqlPacket(data[at : at + length], self.encoding).raise_for_error()
                return columns, True
            if length == MAX_PACKET_LEN:
                row, data, at = self._long_row(data, at)
                end = _cut(row, 0, adders)
                expected = taken_now = len(row)
            else:
                end = _cut(data, at, adders)
                taken_now, expected = length, at + length
                at = expected
            if end != expected:
                self._lose("a row has another length than it says")
            taken, left = taken + taken_now, left - 1
        self._held, self._at = data, at
        return columns, False

    def _long_row(self, data: bytes, at: int) -> tuple[bytes, bytes, int]:
        """A row of several packets, of which the first begins at `at`."""
        pieces = [data[at : at + MAX_PACKET_LEN]]
        data, at = data[at + MAX_PACKET_LEN :], 0
        while len(pieces[-1]) == MAX_PACKET_LEN:
            data, at = self._more(data, at, 4)
            length = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            data, at = self._more(data, at, length + 4)
            pieces.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        return b"".join(pieces), data, at

    def _abandon(self, width: int) -> None:
        """End a statement whose result is not wanted any more, so that the session stays of use."""
        try:
            if self.cancel is None:
                self.drop()
                return
            self.cancel(self)
            deadline = monotonic() + self.patience
            while monotonic() < deadline:
                if self._part(width, 16_384, 1 << 24)[1]:
                    return
            self.drop()
        except pymysql.Error:
            pass  # that it was cancelled, or is lost
        except JivsError:
            self.drop()

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────────────

    def _read_bytes(self, num_bytes: int) -> bytes:
        """PyMySQL's way to bytes: its own buffer cannot go on after a time-out, ours can."""
        self._held, self._at = self._more(self._held, self._at, num_bytes)
        start, self._at = self._at, self._at + num_bytes
        return self._held[start : self._at]

    def _more(self, data: bytes, at: int, needed: int) -> tuple[bytes, int]:
        """Bytes from `at` on, at least `needed`."""
        have = len(data) - at
        if have >= needed:
            return data, at
        pieces = [data[at:]]
        while have < needed:
            pieces.append(self._receive())
            have += len(pieces[-1])
        return b"".join(pieces), 0

    def _receive(self) -> bytes:
        began = monotonic()
        while True:
            sock: Any = self._sock
            if sock is None:
                self._lose("it is closed")
            try:
                data: bytes = sock.recv(_PIECE)
            except TimeoutError:
                self._ask(monotonic() - began)
                continue
            except OSError as error:
                self._lose(str(error))
            if not data:
                self._lose("the server closed it")
            return data

    def _ask(self, seconds: float) -> None:
        works = False
        if self.alive is not None and seconds < _EXCUSED * self.patience:
            with suppress(pymysql.Error, JivsError):
                works = self.alive(self)
        if not works:
            self._lose(f"no answer for {self.patience:g} s")

    def _lose(self, why: str) -> NoReturn:
        self.drop()
        raise err.OperationalError(CR.CR_SERVER_LOST, f"lost the connection: {why}")

    def __enter__(self) -> Self:
        return self


def _cut(data: bytes, at: int, adders: Sequence[Callable[[bytes | None], None]]) -> int:
    """Hand a row's values to its columns; returns where the row ends."""
    for add in adders:
        length = data[at]
        if length < _NULL:
            at += 1
        elif length == _NULL:
            add(None)
            at += 1
            continue
        elif length == 252:
            length, at = data[at + 1] | data[at + 2] << 8, at + 3
        elif length == 253:
            length, at = data[at + 1] | data[at + 2] << 8 | data[at + 3] << 16, at + 4
        else:
            length, at = int.from_bytes(data[at + 1 : at + 9], "little"), at + 9
        end = at + length
        add(data[at:end])
        at = end
    return at


def _tls(connection: Connection, given: dict[str, str]) -> dict[str, Any]:
    """PyMySQL's words for `ssl-mode` and its files."""
    mode = given.get("ssl-mode", "verify_ca" if "ssl-ca" in given else "preferred").lower()
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred" and "ssl-cert" not in given:
        return {}
    try:
        context = ssl.create_default_context(cafile=given.get("ssl-ca"))
        # What MySQL makes for itself is not up to X.509's letter.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode == "verify_identity"
        context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify_") else ssl.CERT_NONE
        if "ssl-cert" in given:
            context.load_cert_chain(given["ssl-cert"], given.get("ssl-key"))
    except OSError as error:
        raise ConnectionFailed(
            f"The certificates of connection {connection.name!r} cannot be used: {error.strerror or 'not PEM'}",
            hint="Check ssl-ca, ssl-cert and ssl-key in its URL",
        ) from error
    return {"ssl": context}


def open_session(
    connection: Connection,
    *,
    io_timeout_seconds: float = 30,
    reconnect: bool = False,
    calling: Calling = nullcontext,
) -> Session:
    """Open a read-only session with pinned settings.

    Args:
        connection: where; its URL stays in this process.
        io_timeout_seconds: longest silence, also the longest wait for a lock.
        reconnect: this endpoint has answered before, so an unreachable server is waited for.
        calling: the endpoint's circuit breaker.

    Raises:
        ConnectionFailed: wrong password, no such database, unreachable, TLS trouble.
        TransientError: full or restarting server; with `reconnect`, an unreachable one too.
    """
    parts = urlsplit(connection.url)
    given = dict(parse_qsl(parts.query))
    seconds = given.get("connect_timeout", "")
    options: dict[str, Any] = {
        "host": connection.host or "localhost",
        "port": connection.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),
        "database": connection.database,
        "charset": "utf8mb4",
        "autocommit": True,
        "local_infile": False,
        "connect_timeout": max(
            1, int(seconds) if seconds.isdigit() else min(_CONNECT_SECONDS, round(io_timeout_seconds))
        ),
        "read_timeout": io_timeout_seconds,
        "write_timeout": io_timeout_seconds,
        "program_name": "jivs source",
        **_tls(connection, given),
    }
    with calling():
        try:
            session = Session(**options)
        except (pymysql.Error, OSError, RuntimeError, UnicodeError) as error:
            raise connect_error(error, connection, reconnect=reconnect) from error
        session.patience = io_timeout_seconds
        try:
            with mapped(connection.place):
                _pin(session, io_timeout_seconds)
        except BaseException:
            session.drop()
            raise
    return session


def _pin(session: Session, io_timeout_seconds: float) -> None:
    session.command(_PINNED.format(lock=max(1, round(io_timeout_seconds)), idle=IDLE_SECONDS))
    for setting in _PINNED_WHERE_KNOWN:
        # Unknown here, or not for this user to set: then nobody else has set it for a read either.
        with suppress(err.OperationalError, err.ProgrammingError, err.InternalError):
            session.command(f"SET SESSION {setting}")
        if session.lost:
            raise err.OperationalError(CR.CR_SERVER_LOST, "lost the connection")
    session.command("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.command("SET SESSION TRANSACTION READ ONLY")


def version_of(session: Session, connection: Connection) -> Version:
    """Who is there.

    Raises:
        ConnectionFailed: it is too old.
    """
    text = text_of(session.table("SELECT version()")[0][0])
    mariadb = "mariadb" in text.lower()
    numbers = text.removeprefix("5.5.5-").split("-")[0].split(".")
    number = (int(numbers[0]), int(numbers[1]))
    if number < _OLDEST[mariadb]:
        oldest = ".".join(map(str, _OLDEST[mariadb]))
        raise ConnectionFailed(
            f"The server of {connection.name!r} is {'MariaDB' if mariadb else 'MySQL'} {text.split('-')[0]}",
            hint=f"Version {oldest} or newer is needed",
        )
    return Version(text, mariadb, number)
