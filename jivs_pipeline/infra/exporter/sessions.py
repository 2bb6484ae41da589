"""A session that only looks, kept open from one look to the next.

What belongs here: opening it, its limits, and dropping it when it is of no use. What does not: the queries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.exporter.parts import PartDown
from jivs_pipeline.infra.postgresql import Session, connect

__all__ = ["LookingSession", "Row", "Rows"]

Row = dict[str, Any]
Rows = Callable[[str], list[Row]]
_APPLICATION = "jivs metrics"
_OLD_SCHEMA = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
)


class LookingSession:
    """One session to one database, for one thread at a time.

    Args:
        url: gives the database's URL when it is needed.
        name: of the database, for the server's log.
        timeout_seconds: of connecting, and of each query.
    """

    def __init__(self, url: Callable[[], str], name: str, *, timeout_seconds: float) -> None:
        self._url = url
        self._name = name
        self._timeout = timeout_seconds
        self._session: Session | None = None

    def close(self) -> None:
        """Close the session."""
        session, self._session = self._session, None
        if session is not None:
            session.drop()

    @contextmanager
    def snapshot(self) -> Generator[Rows]:
        """Queries that all see the same moment; call with a statement for its rows.

        Raises:
            PartDown: a table is missing, or may not be read.
            JivsError, psycopg.Error: the database does not answer.
        """
        session = self._opened()
        try:
            with session.transaction(), session.cursor(row_factory=dict_row) as cursor:
                yield lambda statement: cursor.execute(statement.encode()).fetchall()
        except _OLD_SCHEMA as error:
            raise PartDown("the schema is not up to date; run jivs db upgrade") from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise PartDown("the role of the exporter may not read it; see sql/roles.sql") from error
        except BaseException:
            self.close()
            raise

    def _opened(self) -> Session:
        if self._session is None or self._session.lost:
            self.close()
            milliseconds = str(round(self._timeout * 1000))
            self._session = connect(
                parse_url(self._url(), self._name),
                application_name=_APPLICATION,
                io_timeout_seconds=self._timeout,
                read_only=True,
                settings={
                    "default_transaction_isolation": "repeatable read",
                    "statement_timeout": milliseconds,
                    "lock_timeout": milliseconds,
                    "idle_in_transaction_session_timeout": "10s",
                },
            )
        return self._session
