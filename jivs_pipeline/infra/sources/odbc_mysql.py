"""MySQL and MariaDB through an ODBC driver.

What belongs here: a session that the MySQL source takes for its own, and rows as text. What does not: catalog, census,
snapshots and digests, which are those of `mysql*.py`.

MariaDB's driver makes NULL of dates that no calendar has, and prints floats with six digits: so the server prints
every value, bytes as hex digits, and the driver copies characters.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import pyarrow as pa
import pymysql
from pymysql import err
from pymysql.constants import CR

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.model import Catalog
from jivs_pipeline.core.plan import Chunk, ColumnPlan, TablePlan
from jivs_pipeline.core.types_mysql import mysql_type
from jivs_pipeline.infra.sources.mysql import MysqlSource
from jivs_pipeline.infra.sources.mysql_errors import mapped
from jivs_pipeline.infra.sources.mysql_open import pin
from jivs_pipeline.infra.sources.mysql_session import Columns, Session, rows_of, text_of
from jivs_pipeline.infra.sources.mysql_sieve import chunk_rows
from jivs_pipeline.infra.sources.mysql_snapshot import BATCH_BYTES, BATCH_ROWS, MysqlSnapshot
from jivs_pipeline.infra.sources.odbc_link import Link, OdbcError
from jivs_pipeline.infra.sources.odbc_rows import Cell, read_cells

__all__ = ["MARIADB_ODBC", "OdbcMysqlSource"]

MARIADB_ODBC = {"NO_CACHE": "1", "FORWARDONLY": "1"}
"""Keywords of MySQL's and MariaDB's drivers: rows may come as they are read. (MariaDB's 3.1 fetches a chunk first.)"""

_SMALL, _SMALL_ROWS, _LARGE = 64 * 1024, 64, 1 << 28
_SHORT = 255
_BOUNDS = {
    "date": 10, "datetime(n)": 26, "timestamp(n)": 29, "time(n)": 17, "float": 32, "double": 32, "year": 4, "bit(n)": 64,
    "uuid": 36,
}  # fmt: skip
_INTEGER = 21
# MariaDB's driver does not let SET NAMES pass.
_CHARACTERS = (
    "SET character_set_client = utf8mb4, character_set_results = utf8mb4,"
    " collation_connection = utf8mb4_general_ci"
)
_HEX = frozenset({"bytes", "ewkb"})


class MysqlLink:
    """What a `mysql_session.Session` is to those who ask questions."""

    alive: Callable[[Session], bool] | None = None
    cancel: Callable[[Session], None] | None = None

    def __init__(self, link: Link) -> None:
        self.link = link
        self.patience = link.patience
        link.alive = self._works
        self._id: int | None = None

    def _works(self) -> bool:
        return self.alive is not None and self.alive(cast("Session", self))

    @property
    def id(self) -> int:
        """The server's number of this session."""
        if self._id is None:
            self._id = self.number("SELECT CONNECTION_ID()")
        return self._id

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self.link.lost

    def drop(self) -> None:
        """Give it up at once."""
        self.link.drop()

    def part(self) -> None:
        """Say goodbye and close."""
        self.link.part()

    def command(self, statement: str) -> None:
        """Run a statement that gives no rows."""
        with as_pymysql():
            self.link.command(statement)

    def table(self, statement: str) -> list[tuple[bytes | None, ...]]:
        """All rows of a small result."""
        return [row for columns in self.stream(statement) for row in rows_of(columns)]

    def texts(self, statement: str) -> list[tuple[str | None, ...]]:
        """All rows of a small result, as texts."""
        return [tuple(None if v is None else v.decode() for v in row) for row in self.table(statement)]

    def number(self, statement: str) -> int:
        """The one number that a query gives; 0 for NULL."""
        found = self.table(statement)
        return int(text_of(found[0][0]) or 0) if found else 0

    def stream(self, statement: str, rows: int = 16_384) -> Generator[Columns]:
        """The result in parts: small values first, then with room for any."""
        with as_pymysql():
            any_yet = False
            try:
                for batch in self.link.stream(statement, _SMALL, min(rows, _SMALL_ROWS)):
                    yield _columns(batch)
                    any_yet = True
            except OdbcError as error:
                if error.state != "TRUNC" or any_yet:
                    raise
            else:
                return
            for batch in self.link.stream(statement, _LARGE, 1):
                yield _columns(batch)


def _columns(batch: pa.RecordBatch) -> Columns:
    return [column.cast(pa.binary()) for column in batch.columns]


@contextmanager
def as_pymysql() -> Generator[None]:
    """Raise the driver's errors of the block as PyMySQL would have."""
    try:
        yield
    except OdbcError as error:
        if error.lost:
            raise err.OperationalError(CR.CR_SERVER_LOST, "lost the connection") from error
        kind: type[pymysql.Error] = err.error_map.get(error.native, err.OperationalError)  # pyright: ignore[reportAttributeAccessIssue]
        message = error.message.rpartition("]")[2]
        raise kind(error.native or -1, message) from error


class OdbcMysqlSnapshot(MysqlSnapshot):
    """The same snapshot; the driver hands out text."""

    def _read(
        self,
        table: TablePlan,
        chunk: Chunk,
        values: Sequence[tuple[ColumnPlan, str]],
        rows: int = BATCH_ROWS,
        size: int = BATCH_BYTES,
    ) -> Iterator[Columns]:
        cells = [_cell(column, value) for column, value in values]
        with self.lent(table) as session, as_pymysql():
            stream = read_cells(
                cast("MysqlLink", session).link,
                cells,
                lambda condition: chunk_rows(table, chunk, condition),
                batch_bytes=size,
                most=rows,
            )
            for batch in stream:
                yield [
                    _bytes(found) if column.carrier in _HEX else found.cast(pa.binary())
                    for (column, _), found in zip(values, batch.columns, strict=False)
                ]


def _bytes(values: Any) -> Any:
    return pa.array([None if v is None else bytes.fromhex(v) for v in values.to_pylist()], pa.binary())


def _cell(column: ColumnPlan, value: str) -> Cell:
    declared = mysql_type(column.source_type)
    hexed = column.carrier in _HEX
    text = f"HEX({value})" if hexed else value
    octets = f"2 * LENGTH({value})" if hexed else f"LENGTH(CONVERT({value} USING utf8mb4))"
    bound = _BOUNDS.get(declared.family)
    if declared.integer:
        bound = _INTEGER
    elif declared.precision is not None:
        bound = declared.precision + 3
    elif declared.family in {"char(n)", "varchar(n)"} and (declared.length or 0) <= _SHORT:
        bound = 4 * (declared.length or 1)
    # CAST AS CHAR cuts in silence, but nothing is longer than what was measured, and digests would tell.
    return Cell(text, octets, lambda width: f"CAST({text} AS CHAR({width}) CHARACTER SET utf8mb4)", bound)


class OdbcMysqlSource(MysqlSource):
    """See `core.ports.Source`. `open_link` opens a connection; `settings` are those of `MysqlSource`."""

    _view = OdbcMysqlSnapshot

    def __init__(self, connection: Connection, open_link: Callable[..., Link], **settings: Any) -> None:
        self._open_link = open_link
        super().__init__(connection, **settings)

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of one database, the connection's own unless told otherwise.

        Raises:
            ConfigError: there is no such database, or none is chosen.
        """
        if schema is None:
            with self._asking(self._connection.place) as session:
                schema = session.texts("SELECT DATABASE()")[0][0]
            if schema is None:
                raise ConfigError(
                    f"Connection {self._connection.name!r} chooses no database",
                    hint="Write database=… into its URL, or source_schema into the spec",
                )
        return super().catalog(schema)

    def _connect(
        self, *, io_timeout_seconds: float, reconnect: bool = False, calling: Calling = nullcontext
    ) -> Session:
        with calling():
            link = self._open_link(io_timeout_seconds=io_timeout_seconds, reconnect=reconnect)
            session = cast("Session", MysqlLink(link))
            try:
                with mapped(self._connection.place):
                    session.command(_CHARACTERS)
                    pin(session, io_timeout_seconds)
            except BaseException:
                session.drop()
                raise
        return session
