"""A source through an ODBC driver: the database behind it decides which adapter reads it.

What belongs here: finding that database, and delegating to its adapter. What does not: everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.dialect_db2 import Db2
from jivs_pipeline.core.dialect_hana import Hana
from jivs_pipeline.core.dialect_mssql import SqlServer
from jivs_pipeline.core.dialect_sqlite import SqliteThroughDriver
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.errors import Crowded
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.ports import Snapshot, Source, Survey
from jivs_pipeline.infra.sources.generic import GenericSource
from jivs_pipeline.infra.sources.odbc_mysql import MARIADB_ODBC, OdbcMysqlSource
from jivs_pipeline.infra.sources.odbc_open import Behind, look_behind, open_link
from jivs_pipeline.infra.sources.odbc_postgresql import PSQLODBC, OdbcPostgresqlSource

__all__ = ["OdbcSource"]

_EXCUSED = 40
"""So many times the I/O timeout a question may take."""


class OdbcSource:
    """See `core.ports.Source`. Making one connects, unless too many are connected; then the first question does.

    Args:
        connection: where.
        io_timeout_seconds: longest silence.
        calling: the endpoint's circuit breaker.
        permits: leave for every connection, but for short ones that ask after another.

    Raises:
        ConnectionFailed: the driver is not there, the database does not let us in or is not known.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        io_timeout_seconds: float = 30,
        calling: Calling = nullcontext,
        permits: Permits = FREE,
    ) -> None:
        self._connection = connection
        self._io_timeout = io_timeout_seconds
        self._calling = calling
        self._permits = permits
        self._lock = threading.Lock()
        self._found: Source | None = None
        with suppress(Crowded):
            self.info()

    def info(self) -> ServerInfo:
        """Who is there."""
        return self._source().info()

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of one schema of the database."""
        return self._source().catalog(schema)

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Look at one table."""
        return self._source().survey(table, columns, where, chunk_bytes)

    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> AbstractContextManager[Snapshot]:
        """One view for all readers, as consistent as the database can make it."""
        return self._source().snapshot(readers, portion)

    def close(self) -> None:
        """Release connections."""
        with self._lock:
            if self._found is not None:
                self._found.close()

    def _source(self) -> Source:
        with self._lock:
            if self._found is None:
                self._found = self._made(self._look())
            return self._found

    def _look(self) -> Behind:
        permit = self._permits.take(1)
        try:
            with self._calling():
                link = open_link(self._connection, {}, io_timeout_seconds=self._io_timeout)
            try:
                return look_behind(link, self._connection)
            finally:
                link.part()
        finally:
            permit.give_back()

    def _made(self, behind: Behind) -> Source:
        if (dialect := _DIALECTS.get(behind.dialect)) is not None:
            # Nobody else can ask whether it still works for us.
            patience = _EXCUSED * self._io_timeout
            return GenericSource(
                self._connection,
                dialect,
                behind.version,
                partial(
                    open_link,
                    self._connection,
                    dialect.settings,
                    io_timeout_seconds=patience,
                    autocommit=dialect.own_transactions,
                ),
                calling=self._calling,
                permits=self._permits,
            )
        adapter, settings = _ADAPTERS[behind.dialect]
        opening = partial(open_link, self._connection, settings, io_timeout_seconds=self._io_timeout)
        return adapter(
            self._connection,
            opening,
            io_timeout_seconds=self._io_timeout,
            calling=self._calling,
            permits=self._permits,
        )


_ADAPTERS: Mapping[str, tuple[Callable[..., Source], Mapping[str, str]]] = {
    "postgresql": (OdbcPostgresqlSource, PSQLODBC),
    "mysql": (OdbcMysqlSource, MARIADB_ODBC),
}
"""By the database behind the driver: who reads it, and what its driver is told besides."""
_DIALECTS: Mapping[str, Dialect] = {d.name: d for d in (SqliteThroughDriver(), SqlServer(), Db2(), Hana())}
"""Those that all are read alike."""
