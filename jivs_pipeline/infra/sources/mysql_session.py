"""Sessions of MySQL and MariaDB: patient, and quick at reading rows.

What belongs here: statements, streaming results, noticing a dead peer, quoting. What does not: opening sessions
(`mysql_open.py`), errors' meanings (`mysql_errors.py`) and what is read.

PyMySQL does the greeting, TLS and passwords. Rows are read past it: it makes a Python object of each value,
which takes five times as long as cutting a packet into its columns, and it knows no silence but a time-out.
"""

# The stubs that pyright brings for PyMySQL lack what a subclass of its connection may use.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NoReturn, Self

import pymysql
from pymysql import err
from pymysql.connections import MAX_PACKET_LEN, MysqlPacket
from pymysql.constants import COMMAND, CR

from jivs_pipeline.core.errors import JivsError

__all__ = ["Columns", "Session", "literal", "quoted", "text_of"]

Columns = list[list[bytes | None]]
"""Some rows of a result, one list per column; every value as the server printed it."""

_PIECE = 1 << 18
_EXCUSED = 40
"""So many times the I/O timeout a question may take while the server says that it works."""
_NULL = 251
_ERROR, _END = 0xFF, 0xFE


def quoted(*names: str) -> str:
    """A name, or a qualified one, as an SQL identifier."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Text as an SQL literal that no SQL mode and no quote in it can end."""
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "_utf8mb4''"


def text_of(value: bytes | None) -> str:
    """A value that is not NULL, as text."""
    return (value or b"").decode()


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

    def stream(
        self,
        statement: str,
        rows: int = 16_384,
        size: int = 8 * 1024 * 1024,
        longest: int | None = None,  # noqa: ARG002
    ) -> Generator[Columns]:
        """The result in parts of at most `rows` rows, and of `size` bytes where no single row is larger. `longest`: bytes
        of any value, for sessions that must know (`odbc_mysql.py`).

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
