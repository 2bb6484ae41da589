"""Sessions of MySQL and MariaDB: patient, and quick at reading rows.

What belongs here: statements, streaming results, noticing a dead peer, quoting. What does not: opening sessions
(`mysql_open.py`), errors' meanings (`mysql_errors.py`) and what is read.

PyMySQL does the greeting, TLS and passwords. Rows are read past it: it makes a Python object of each value,
which takes twenty times as long as cutting many packets at once, and it knows no silence but a time-out.
"""

# The stubs that pyright brings for PyMySQL lack what a subclass of its connection may use.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any, NoReturn, Self

import numpy as np
import pymysql
from pymysql import err
from pymysql.connections import MysqlPacket
from pymysql.constants import COMMAND, CR

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.infra.sources.mysql_packets import HEAD, LARGEST, MalformedError, Places, cut, packets

__all__ = ["Columns", "Session", "literal", "quoted", "rows_of", "text_of"]

Columns = list[Any]
"""Some rows of a result, one Arrow array of bytes per column; every value as the server printed it."""

_PIECE = 1 << 18
_EXCUSED = 40
"""So many times the I/O timeout a question may take while the server says that it works."""
_ERROR, _END = 0xFF, 0xFE


def quoted(*names: str) -> str:
    """A name, or a qualified one, as an SQL identifier."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def literal(text: str) -> str:
    """Text as an SQL literal that no SQL mode and no quote in it can end."""
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "_utf8mb4''"


def rows_of(columns: Columns) -> Iterator[tuple[bytes | None, ...]]:
    """Rows of some columns, for those who look at each value."""
    return zip(*(column.to_pylist() for column in columns), strict=True)


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

    def __init__(self, **options: Any) -> None:
        self._held = bytearray()
        self._at = 0
        self._space = memoryview(bytearray(_PIECE))
        super().__init__(**options)

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
        return [row for columns in self.stream(statement) for row in rows_of(columns)]

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
                if columns:
                    yield columns
        except GeneratorExit:
            if not ended:
                self._abandon(width)
            raise

    def _part(self, width: int, rows: int, size: int) -> tuple[Columns, bool]:
        """Some rows, and whether the result has ended; then there are none."""
        bounds, other = self._packets(rows, size)
        data = self._held
        if other == 0:
            if len(data) >= HEAD + LARGEST and bounds[1] == HEAD + LARGEST:
                return self._cut(self._long_row(), width), False
            self._at = int(bounds[1])
            if data[HEAD] == _ERROR:
                MysqlPacket(bytes(data[HEAD : self._at]), self.encoding).raise_for_error()
            return [], True
        bounds = bounds[: other + 1]
        self._held = data[bounds[-1] :]
        return self._cut((data, bounds), width), False

    def _packets(self, rows: int, size: int) -> tuple[Places, int]:
        """The bounds of the packets that the held bytes begin with, and how many of them are rows of one packet each.

        The packet behind those, if there is one, is a row of several, or an error, or the result's end.
        """
        data, self._at = self._held[self._at :], 0
        # Held from here on: what was received stays, whatever interrupts this.
        self._held = data
        found: list[Places] = []
        at, left = 0, rows
        while True:
            places = packets(data, at, left, size - at)
            at, left = int(places[-1]), left - len(places) + 1
            # Each begins where the one before it ends.
            found.append(places[1:])
            # The last packet is what ends a result; and nobody says how much is still to come.
            if left <= 0 or at >= size or (len(places) > 1 and not _ordinary(data, places[-2:])):
                break
            data += self._receive()
        bounds = np.concatenate([np.zeros(1, np.int64), *found])
        return bounds, _ordinary(data, bounds)

    def _long_row(self) -> tuple[bytearray, Places]:
        """The row of several packets that the held bytes begin with, as one packet."""
        data, end = self._held, HEAD + LARGEST
        length = LARGEST
        while length == LARGEST:
            self._await(data, end + HEAD)
            length = int.from_bytes(data[end : end + 3], "little")
            del data[end : end + HEAD]
            end += length
            self._await(data, end)
        self._held = data[end:]
        del data[end:]
        return data, np.array([0, end], np.int64)

    def _cut(self, packets: tuple[bytearray, Places], width: int) -> Columns:
        try:
            return cut(*packets, width)
        except MalformedError as error:
            self._lose(str(error))

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

    def _create_ssl_ctx(self, sslp: dict[str, Any] | ssl.SSLContext) -> ssl.SSLContext:
        """Where TLS is only preferred, nobody's certificate is checked. PyMySQL reads those of all authorities even so,
        which takes longer than all else of a connection.
        """
        if sslp:
            return super()._create_ssl_ctx(sslp)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────────────

    def _read_bytes(self, num_bytes: int) -> bytes:
        """PyMySQL's way to bytes: its own buffer cannot go on after a time-out, ours can."""
        self._await(self._held, self._at + num_bytes)
        start, self._at = self._at, self._at + num_bytes
        found = bytes(self._held[start : self._at])
        if self._at == len(self._held):
            self._held, self._at = bytearray(), 0
        return found

    def _await(self, data: bytearray, size: int) -> None:
        """Receive until so many bytes are there."""
        while len(data) < size:
            data += self._receive()

    def _receive(self) -> memoryview:
        """What comes next, until the next time."""
        began = monotonic()
        while True:
            sock: Any = self._sock
            if sock is None:
                self._lose("it is closed")
            try:
                # Into the same memory: recv() asks the system for its size each time, and gives it back.
                count: int = sock.recv_into(self._space)
            except TimeoutError:
                self._ask(monotonic() - began)
                continue
            except OSError as error:
                self._lose(str(error))
            if not count:
                self._lose("the server closed it")
            return self._space[:count]

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


def _ordinary(data: bytearray, bounds: Places) -> int:
    """How many of the packets, from the first on, are rows of one packet each."""
    octets = np.frombuffer(data, np.uint8)
    length = np.diff(bounds) - HEAD
    first = octets[np.minimum(bounds[:-1] + HEAD, len(octets) - 1)]
    other = (first == _ERROR) | ((first == _END) & (length < 9)) | (length == LARGEST)
    return int(other.argmax()) if other.any() else len(length)
