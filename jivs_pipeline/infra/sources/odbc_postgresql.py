"""PostgreSQL through an ODBC driver.

What belongs here: a session that psycopg's users take for one of psycopg's, and rows as text. What does not: the
catalog, the survey, snapshots and digests, which are those of `postgresql*.py`.

Every query is wrapped into one that gives each row as JSON, so that arrays, numbers and booleans arrive as what they
are. Rows of tables are not: the server prints each value, and PostgreSQL reads the same text at the other end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import psycopg
import pyarrow as pa
from psycopg import errors, sql
from psycopg.pq import DiagnosticField, TransactionStatus

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.model import Column, Table
from jivs_pipeline.core.pace import Portion
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.core.ports import HashedRow, Refusal, Survey
from jivs_pipeline.infra.postgresql import Session, mapped, pin
from jivs_pipeline.infra.sources.odbc_link import Link, OdbcError
from jivs_pipeline.infra.sources.odbc_rows import Cell, read_cells
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource
from jivs_pipeline.infra.sources.postgresql_catalog import SQL
from jivs_pipeline.infra.sources.postgresql_snapshot import (
    PostgresqlSnapshot,
    chunk_predicate,
    relation,
)
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["PSQLODBC", "OdbcPostgresqlSource"]

PSQLODBC = {
    # Text of any length is one type for the driver, whose longest value arrow-odbc is told.
    "MaxVarcharSize": "1073741823",
    "MaxLongVarcharSize": "1073741823",
    "TextAsLongVarchar": "1",
    "UnknownsAsLongVarchar": "1",
    "BoolsAsChar": "1",
    # It would fetch so many rows at a time, whatever their size; cursors are ours.
    "UseDeclareFetch": "0",
    "UseServerSidePrepare": "0",
    # No savepoints but ours.
    "Protocol": "7.4-0",
    "ReadOnly": "0",
}
"""Keywords of psqlODBC's that do not decide what is read, but how."""

_PARAMETER = re.compile(r"%(?:%|\((\w+)\)s)")
_COMMENT = re.compile(r"--[^\n]*")
_PRIMARY = re.compile(r"^(?:ERROR|FATAL|PANIC): (.*?)(?:;? Error while .*| (?:DETAIL|HINT|CONTEXT):.*)?$")
_QUERY = re.compile(r"\s*(?:--[^\n]*\n\s*)*(SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*EXPLAIN\b", re.IGNORECASE)
_MOST_VARCHAR = 10_485_760

# Bytes of the longest text of types whose values have one.
_BOUNDS = {
    "smallint": 6, "integer": 11, "bigint": 20, "boolean": 5, "real": 24, "double precision": 25, "date": 16,
    "time without time zone": 15, "time with time zone": 24, "timestamp without time zone": 32,
    "timestamp with time zone": 36, "uuid": 36, "oid": 10,
}  # fmt: skip
_SIZED = re.compile(r"(?:character|character varying)\((\d+)\)")
_SHORT = 255


class _Rows(list[tuple[Any, ...]]):
    """A result, as psycopg's cursors hand it out."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return self[0] if self else None


class _Info:
    server_version = 0
    backend_pid = 0


class _State:
    """Stands for a psycopg connection's `pgconn`, of which only this is asked."""

    def __init__(self, session: PgSession) -> None:
        self._session = session

    @property
    def transaction_status(self) -> TransactionStatus:
        if self._session.lost:
            return TransactionStatus.UNKNOWN
        return TransactionStatus.INTRANS if self._session.in_transaction else TransactionStatus.IDLE


class PgSession:
    """What a `postgresql.Session` is to those who ask questions."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.info = _Info()
        self.in_transaction = False
        self.pgconn = _State(self)
        version, pid = self.execute("SELECT current_setting('server_version_num')::int, pg_backend_pid()")[0]
        self.info.server_version, self.info.backend_pid = version, pid

    @property
    def lost(self) -> bool:
        """Whether it is closed."""
        return self.link.lost

    closed = lost

    def drop(self) -> None:
        """Give it up at once."""
        self.link.drop()

    def execute(self, query: str | sql.Composable, parameters: Mapping[str, Any] | None = None) -> _Rows:
        """Run a statement.

        Raises:
            psycopg.Error: of the class that psycopg has for the SQLSTATE.
        """
        text = query if isinstance(query, str) else query.as_string(None)
        # A question mark in a comment is a parameter to psqlODBC. Statements of ours have no -- in their literals.
        if parameters is not None:
            text = _COMMENT.sub("", text)
            text = _PARAMETER.sub(lambda m: _literal(parameters[m[1]]) if m[1] else "%", text)
        with as_psycopg():
            if _EXPLAIN.match(text):
                return _Rows((json.loads(line[0]),) for line in self.link.rows(text))
            if _QUERY.match(text):
                lines = self.link.rows(
                    f"SELECT row_to_json(q)::text FROM (\n{text.rstrip().rstrip(';')}\n) AS q"
                )
                return _Rows(json.loads(line[0], object_pairs_hook=_values) for line in lines)
            self.link.command(text)
        self._follow(text)
        return _Rows()

    def _follow(self, text: str) -> None:
        word = text.split(None, 1)[0].upper() if text.strip() else ""
        if word == "BEGIN":
            self.in_transaction = True
        elif word in {"COMMIT", "ROLLBACK"} and " TO " not in text.upper():
            self.in_transaction = False

    def reset_transaction(self) -> None:
        """Roll back what is open; a broken session is dropped."""
        if self.in_transaction and not self.lost:
            try:
                self.execute("ROLLBACK")
            except psycopg.Error:
                self.drop()


def _values(pairs: list[tuple[str, Any]]) -> tuple[Any, ...]:
    """A row's values in order: names may be there twice, which no dict keeps."""
    return tuple(value for _, value in pairs)


def _literal(value: Any) -> str:
    return sql.Literal(value).as_string(None)


@contextmanager
def as_psycopg() -> Generator[None]:
    """Raise the driver's errors of the block as psycopg would have."""
    try:
        yield
    except OdbcError as error:
        if error.lost:
            raise psycopg.OperationalError(error.message) from error
        found = _PRIMARY.match(error.message)
        info: dict[int, bytes | None] = {
            DiagnosticField.SQLSTATE: error.state.encode(),
            DiagnosticField.MESSAGE_PRIMARY: (found[1] if found else error.message).encode(),
        }
        try:
            kind: type[psycopg.Error] = errors.lookup(error.state)
        except KeyError:
            # 07002: what looks like a parameter to the driver, such as the operator ? in a condition.
            kind = psycopg.ProgrammingError if error.state == "07002" else psycopg.InternalError
        raised = kind(error.message, info=info, encoding="utf-8")
        raised.sqlstate = raised.sqlstate or error.state
        raise raised from error


def part_all(sessions: Sequence[Session]) -> None:
    """Close sessions and wait until the server has let them go."""
    for session in cast("Sequence[PgSession]", sessions):
        session.link.part()


class OdbcPostgresqlSource(PostgresqlSource):
    """See `core.ports.Source`. `open_link` opens a connection; `settings` are those of `PostgresqlSource`."""

    def __init__(self, connection: Connection, open_link: Callable[..., Link], **settings: Any) -> None:
        self._open_link = open_link
        super().__init__(connection, **settings)

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """As PostgreSQL's own, but all columns travel as text."""
        found = super().survey(table, columns, where, chunk_bytes)
        refused = found.refused
        if not found.columns and not refused:
            refused = (
                Refusal("", "it has no columns that are carried, and no driver hands out rows of nothing"),
            )
        return replace(
            found,
            columns=tuple(c.model_copy(update={"arrow": "string"}) for c in found.columns),
            lane=Lane.ARROW,
            wire=Wire.CSV,
            refused=refused,
        )

    def _open(self, *, reconnect: bool = True) -> Session:
        with self._calling():
            link = self._open_link(reconnect=reconnect)
            try:
                with mapped(self._connection.place):
                    session = PgSession(link)
                    own = cast("Session", session)
                    pin(
                        own,
                        {
                            "default_transaction_read_only": "on",
                            "lock_timeout": f"{round(self._io_timeout * 1000)}ms",
                        },
                    )
            except BaseException:
                link.drop()
                raise
        link.alive = lambda: self._at_work(own)
        return own

    def _at_work(self, session: Session) -> bool:
        link = self._open_link(reconnect=True)
        try:
            rows = PgSession(link).execute(SQL["at_work"], {"pid": session.info.backend_pid})
        finally:
            link.drop()
        return bool(rows and rows[0][0])

    def _part(self, sessions: Sequence[Session]) -> None:
        part_all(sessions)

    def _view(self, readers: int, *, utf8: bool, portion: Portion) -> PostgresqlSnapshot:
        return OdbcPostgresqlSnapshot(
            self._open, readers, utf8=utf8, place=self._connection.place, portion=portion
        )


class OdbcPostgresqlSnapshot(PostgresqlSnapshot):
    """The same exported snapshot; rows come as batches of text."""

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The chunk as record batches of text in the plan's target names."""
        schema = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        source = relation(table.source_schema, table.source_table).as_string(None)
        predicate = chunk_predicate(table, chunk)
        first = [predicate.as_string(None)] if predicate is not None else []

        def rows(condition: str | None) -> str:
            conditions = [*first, *([condition] if condition else [])]
            return f"FROM {source}" + "".join(
                f" {word} (\n{c}\n)" for word, c in zip(["WHERE", *["AND"] * 9], conditions, strict=False)
            )

        with self._reader(table) as session, as_psycopg():
            link = cast("PgSession", session).link
            cells = [_cell(c) for c in table.columns]
            size = self._portion.bytes or _BATCH_BYTES
            stream = read_cells(
                _ByCursor(link),
                cells,
                rows,
                batch_bytes=min(size, _BATCH_BYTES),
                most=self._portion.rows_of(table),
            )
            for batch in stream:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        query = self._row_hashes(table, chunk, key).as_string(None)
        names = [f"t{number}" for number in range(len(key))]
        wanted = ", ".join(["encode(q.h, 'hex')", *(f"q.{name}::text" for name in names)])
        statement = f"SELECT {wanted} FROM (\n{query}\n) AS q({', '.join(['h', *names])})"
        with self._reader(table) as session, as_psycopg():
            # No index, and so no key, takes longer values.
            for batch in _ByCursor(cast("PgSession", session).link).stream(statement, 1 << 14, 256):
                for hashed, *texts in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                    yield bytes.fromhex(hashed), tuple(texts)

    def _part(self, sessions: Sequence[Session]) -> None:
        part_all(sessions)


class _ByCursor:
    """A link whose streams are read by a cursor of the server's: the driver fetches all of a result before its first row."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self._link.rows(statement)

    def stream(self, statement: str, longest: int, rows: int) -> Iterator[pa.RecordBatch]:
        self._link.command(f"DECLARE jivs_rows NO SCROLL CURSOR FOR {statement}")
        done = False
        while not done:
            fetched = 0
            for batch in self._link.stream(f"FETCH FORWARD {rows} FROM jivs_rows", longest, rows):
                fetched += batch.num_rows
                yield batch
            done = fetched < rows
        self._link.command("CLOSE jivs_rows")


_BATCH_BYTES = 8 * 1024 * 1024


def _cell(column: ColumnPlan) -> Cell:
    name = quoted(column.source)
    bound = _BOUNDS.get(column.source_type)
    if bound is None and (found := _SIZED.fullmatch(column.source_type)) and int(found[1]) <= _SHORT:
        bound = 4 * int(found[1])

    def sized(width: int) -> str:
        return f"{name}::text" + (f"::varchar({width})" if width <= _MOST_VARCHAR else "")

    return Cell(name, f"octet_length({name}::text)", sized, bound)
