"""Oracle as a source, by python-oracledb's thin mode and its Arrow batches. Never run against a server here.

What belongs here: the connection, and its errors in the words of `odbc_link`. What does not: SQL
(`core/dialect_oracle.py`), and how rows are read (`generic*.py`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import oracledb
import pyarrow as pa

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.dialect_oracle import Oracle
from jivs_pipeline.core.errors import Crowded
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.ports import Source
from jivs_pipeline.infra.sources.generic import GenericSource
from jivs_pipeline.infra.sources.odbc_errors import connect_error
from jivs_pipeline.infra.sources.odbc_link import OdbcError

__all__ = ["OracleLink", "open_oracle"]

_CONNECT_SECONDS = 10
_EXCUSED = 40
"""So many times the I/O timeout a round trip may take: nobody else can ask Oracle whether it still works for us."""
_STATES = {
    1017: "28000", 28000: "28000", 28001: "28000", 1045: "28000", 12514: "08004", 12541: "08001", 942: "42S02", 904: "42S22",
    1031: "42501", 8177: "40001", 1555: "40001", 60: "40001",
}  # fmt: skip
_LOST = frozenset({28, 1012, 3113, 3114, 3135, 12537, 12547, 12570})
_CODE = re.compile(r"(ORA|DPY)-(\d+)")


@contextmanager
def _as_odbc() -> Generator[None]:
    """Raise the driver's errors of the block as those that drivers share."""
    try:
        yield
    except oracledb.Error as error:
        found = _CODE.search(str(error))
        family, number = (found[1], int(found[2])) if found else ("DPY", 0)
        state = _STATES.get(number, "HY000") if family == "ORA" else "HY000"
        lost = number in _LOST if family == "ORA" else number in {1001, 4011, 4024, 6005}
        message = " ".join(str(error).split())
        raise OdbcError("08S01" if lost else state, number, message) from None


class OracleLink:
    """See `odbc_link.TextLink`."""

    def __init__(self, connection: Connection, patience: float) -> None:
        parts = urlsplit(connection.url)
        given = dict(parse_qsl(parts.query))
        with _as_odbc():
            self._connection: Any = oracledb.connect(
                user=unquote(parts.username or "") or None,
                password=unquote(parts.password or "") or None,
                host=connection.host,
                port=connection.port or 1521,
                service_name=connection.database,
                protocol=given.get("protocol", "tcp"),
                tcp_connect_timeout=min(_CONNECT_SECONDS, patience),
            )
        self._connection.call_timeout = round(_EXCUSED * patience * 1000)
        self._lost = False

    @property
    def version(self) -> str:
        """Of the server."""
        return str(self._connection.version)

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self._lost

    def drop(self) -> None:
        """Close it."""
        self.part()

    def part(self) -> None:
        """Close it."""
        self._lost = True
        with suppress(oracledb.Error):
            self._connection.close()

    def command(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        with self._watched(), self._connection.cursor() as cursor:
            cursor.execute(statement)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of a small result, as texts."""
        with self._watched(), self._connection.cursor() as cursor:
            cursor.execute(statement)
            return [tuple(None if v is None else str(v) for v in row) for row in cursor.fetchall()]

    def stream(self, statement: str, longest: int, rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """Record batches of texts and bytes; the driver makes room for the longest by itself."""
        with self._watched():
            for frame in self._connection.fetch_df_batches(statement, size=rows):
                for batch in pa.table(frame).to_batches():
                    yield _plain(batch)

    @contextmanager
    def _watched(self) -> Generator[None]:
        try:
            with _as_odbc():
                yield
        except OdbcError as error:
            self._lost = self._lost or error.lost
            raise


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Without types for large values, of which a batch has none too many."""

    def kind(type_: Any) -> Any:
        return pa.binary() if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) else pa.string()

    columns = [column.cast(kind(column.type)) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=[f"c{i}" for i in range(len(columns))])


def open_oracle(
    connection: Connection,
    *,
    io_timeout_seconds: float = 30,
    calling: Calling = nullcontext,
    permits: Permits = FREE,
) -> Source:
    """Oracle as a source. Connects, unless too many are connected; then the first question does.

    Raises:
        ConnectionFailed: wrong password, no such service, unreachable.
    """

    def open_link(*, reconnect: bool = True) -> OracleLink:
        try:
            return OracleLink(connection, io_timeout_seconds)
        except OdbcError as error:
            raise connect_error(error, connection, reconnect=reconnect) from error

    version = ""
    with suppress(Crowded):
        permit = permits.take(1)
        try:
            with calling():
                link = open_link(reconnect=False)
            version = link.version
            link.part()
        finally:
            permit.give_back()
    return GenericSource(connection, Oracle(), version, open_link, calling=calling, permits=permits)
