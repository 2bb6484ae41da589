"""A connection through an ODBC driver that never waits for ever, and hands out text.

What belongs here: opening, statements, streams of record batches, noticing a silent driver. What does not: SQL of
any database, and what its errors mean (`odbc_errors.py`).

Drivers convert values as they like: psqlODBC calls a bytea a VARCHAR, SQLite's a 64-bit integer an int32, MariaDB's
makes NULL of a date of zeros. So every value crosses as the text that the server makes of it, bytes as hex digits;
the driver only copies characters. One that is longer than its buffer ends the statement with an error, never cut.

A driver's call cannot be interrupted, so each is made by the link's own thread, and a caller that has waited for
`patience` seconds leaves it behind.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from jivs_pipeline.core.errors import ConfigError, JivsError
from jivs_pipeline.core.odbc_strings import connection_string

__all__ = ["Link", "OdbcError", "TextLink"]

_T = TypeVar("_T")
_STATE = re.compile(r"State: (\w{5}), Native error: (-?\d+), Message: (.*)", re.DOTALL)
_SMALL = 64 * 1024  # characters of a value in a small result
_LARGE = 256 * 1024 * 1024
_SMALL_ROWS = 64


class OdbcError(Exception):
    """What a driver said: its SQLSTATE, the database's own number, and the message.

    `TRUNC` is ours: a value longer than the buffer that its type promised; `LINK` that the driver says nothing.
    """

    def __init__(self, state: str, native: int, message: str) -> None:
        super().__init__(message)
        self.state = state
        self.native = native
        self.message = message

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self.state.startswith("08") or self.state in {"LINK", "57P01", "57P02", "HYT01"}


def _library() -> Any:
    try:
        import arrow_odbc
    except OSError as error:
        raise ConfigError(
            "The ODBC driver manager (libodbc) is not installed",
            hint="Install unixODBC, as with: apt-get install unixodbc; docs/drivers.md has the drivers",
        ) from error
    return arrow_odbc


def _as_odbc_error(error: Exception) -> OdbcError:
    text = str(error)
    if "too large to be written into the allocated buffer" in text or "SizeLimit" in text:
        return OdbcError("TRUNC", 0, "a value is longer than the driver's buffer")
    if found := _STATE.search(text):
        return OdbcError(found[1], int(found[2]), " ".join(found[3].split()))
    if "UTF-8" in text or "utf-8" in text:
        return OdbcError("22021", 0, "the driver handed out text that is not UTF-8")
    return OdbcError("HY000", 0, " ".join(text.split())[:200])


def _as_text(schema: pa.Schema) -> pa.Schema:
    """All columns as text, except for bytes."""

    def kind(type_: Any) -> Any:
        binary = pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_)
        return pa.binary() if binary else pa.string()

    return pa.schema([pa.field(f"c{i}", kind(f.type)) for i, f in enumerate(schema)])


class TextLink(Protocol):
    """A connection that hands out text; see `Link`."""

    @property
    def lost(self) -> bool: ...  # noqa: D102
    def drop(self) -> None: ...  # noqa: D102
    def part(self) -> None: ...  # noqa: D102
    def command(self, statement: str) -> None: ...  # noqa: D102
    def rows(self, statement: str) -> list[tuple[Any, ...]]: ...  # noqa: D102
    def stream(self, statement: str, longest: int, rows: int) -> Iterator[pa.RecordBatch]: ...  # noqa: D102


class Link:
    """One connection. Used by one thread at a time.

    Args:
        attributes: of the connection string; secrets stay in this process.
        patience: seconds without an answer after which `alive` is asked, if there is one, or the link is lost.
        login_seconds: longest wait for the connection itself.
        autocommit: False where no statement begins a transaction; then `ROLLBACK` is a call of the driver's.

    Raises:
        OdbcError: the driver does not connect.
        ConfigError: there is no driver manager.
    """

    def __init__(
        self,
        attributes: Mapping[str, str],
        *,
        patience: float = 30.0,
        login_seconds: int | None = None,
        autocommit: bool = True,
    ) -> None:
        self._odbc = _library()
        self._autocommit = autocommit
        self.patience = patience
        self.longest = 40 * patience
        self.alive: Callable[[], bool] | None = None
        self._lost = False
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="odbc", daemon=True).start()
        text = connection_string(attributes)
        seconds = login_seconds or max(1, round(min(10, patience)))
        try:
            self._connection: Any = self._do(
                lambda: self._odbc.connect(text, login_timeout_sec=seconds, autocommit=autocommit)
            )
        except BaseException:
            self.drop()
            raise

    @property
    def lost(self) -> bool:
        """Whether it is of no use any more."""
        return self._lost

    def drop(self) -> None:
        """Give the connection up now; a driver that still works on something is left to it."""
        if self._lost:
            return
        self._lost = True
        self._calls.put((self._let_go, _Answer()))
        self._calls.put(None)

    def part(self, seconds: float = 2.0) -> None:
        """Close the connection and wait until the driver has said goodbye."""
        if self._lost:
            return
        self._lost = True
        answer = _Answer()
        self._calls.put((self._let_go, answer))
        self._calls.put(None)
        answer.done.wait(seconds)

    def _let_go(self) -> None:
        # MariaDB's driver does not disconnect inside a transaction, and nobody would be told.
        with suppress(Exception):
            (self._connection.execute if self._autocommit else _nothing)("ROLLBACK")
        # arrow-odbc closes when nobody holds it, in the thread that lets go last: this one.
        self._connection = None

    # ── statements ──────────────────────────────────────────────────────────────────────────────────────

    def command(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        connection = self._connection
        if statement == "ROLLBACK" and not self._autocommit:
            self._do(connection.rollback)
            return
        self._do(lambda: connection.execute(statement, payload_text_encoding=self._odbc.TextEncoding.UTF8))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of a small result; texts, or bytes."""
        try:
            return self._rows(statement, _SMALL, _SMALL_ROWS)
        except OdbcError as error:
            if error.state != "TRUNC":
                raise
            return self._rows(statement, _LARGE, 1)

    def _rows(self, statement: str, longest: int, rows: int) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for batch in self.stream(statement, longest, rows):
            found += zip(*(column.to_pylist() for column in batch.columns), strict=True)
        return found

    def stream(self, statement: str, longest: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of at most `rows` rows, all columns text or bytes, in the statement's order.

        Args:
            statement: a query.
            longest: most bytes of any value.
            rows: most rows of a batch; the driver's buffers hold as many of the longest that each column's type allows.

        Raises:
            OdbcError: the database refuses, a value is longer, or the driver is silent.
        """
        connection, encoding = self._connection, self._odbc.TextEncoding.UTF8
        reader: Any = self._do(
            lambda: connection.read_arrow_batches(
                statement,
                batch_size=rows,
                max_bytes_per_batch=None,
                max_text_size=max(longest, 1),
                max_binary_size=max(longest, 1),
                falliable_allocations=True,
                map_schema=_as_text,
                fetch_concurrently=False,
                payload_text_encoding=encoding,
            )
        )
        try:
            while True:
                batch = self._do(lambda: next(reader, None))
                if batch is None:
                    return
                yield batch
        finally:
            # Closed by the link's own thread, and before its next statement.
            holder, reader = [reader], None
            self._calls.put((holder.clear, _Answer()))

    def _do(self, call: Callable[[], _T]) -> _T:
        """Have the link's thread make a call, and wait for it no longer than it may be silent."""
        if self._lost:
            raise OdbcError("08003", 0, "the connection is closed")
        answer = _Answer()
        self._calls.put((call, answer))
        began = monotonic()
        while not answer.done.wait(self.patience):
            works = False
            if self.alive is not None and monotonic() - began < self.longest:
                with suppress(OdbcError, JivsError):
                    works = self.alive()
            if not works and not answer.done.is_set():
                self._lost = True
                self._calls.put(None)
                raise OdbcError("LINK", 0, f"no answer for {self.patience:g} s")
        if answer.error is not None:
            if isinstance(answer.error, JivsError):
                raise answer.error
            mapped = _as_odbc_error(answer.error)
            if mapped.lost:
                self.drop()
            try:
                raise mapped from None
            finally:
                # Else it and this frame would hold each other, and with them the connection, until the next collection.
                del mapped
        return answer.value

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            call, answer = item
            try:
                answer.value = call()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                answer.error = error.with_traceback(None)
            # Else this frame would hold a reader while the next statement begins.
            del item, call
            answer.done.set()
            del answer


def _nothing(_: str) -> None:
    """The driver manager rolls back by itself."""


class _Answer:
    """What became of a call."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.error: Exception | None = None
