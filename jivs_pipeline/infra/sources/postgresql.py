"""PostgreSQL as a source: who is there, what a table holds, in which chunks it is read.

What belongs here: the source's own session, the survey of rows and the chunk bounds. What does not: the
catalog (`postgresql_catalog.py`) and reading rows (`postgresql_snapshot.py`).

Every session is read-only, and pinned as in `infra/postgresql.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psycopg
from psycopg import sql

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.chunking import chunk_count
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import Crowded, SpecError, TerminalError
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.plan import INTEGERS, Chunk, ChunkBy, ColumnPlan, Lane, Wire
from jivs_pipeline.core.ports import Refusal, Snapshot, Survey
from jivs_pipeline.infra import digests
from jivs_pipeline.infra.postgresql import BEGIN, RANGE_SCANS, Session, connect, mapped, part
from jivs_pipeline.infra.sources.held_session import HeldSession
from jivs_pipeline.infra.sources.postgresql_catalog import SQL, numbered, read_catalog
from jivs_pipeline.infra.sources.postgresql_large_objects import survey_large_objects
from jivs_pipeline.infra.sources.postgresql_snapshot import (
    COMPUTED,
    PostgresqlSnapshot,
    raw,
    relation,
)

__all__ = ["PostgresqlSource"]

_EXACT_BYTES = 1 << 30
"""Heaps below this are counted; above, the planner's estimate has to do."""
_SCATTERED_BYTES = 1 << 28
"""Heaps below this are read by key even when its order is not that of the heap: the pages stay in memory."""
_SMALL_BYTES = 1 << 24
"""Heaps above this are read by blocks, unless their key is one integer, whose ranges the target can tell apart, too."""
_BLOCKS_PER_CHUNK = 30
_FEWEST_BLOCKS = 3000
_ASK_SECONDS = 5.0
_EXCUSED = 40
"""So many times the I/O timeout a question may take while the server says that it works: 20 minutes of 30 s."""
_NOTICES_CLIENTS = 140000

# Of these the binary form does not carry over. It has the number of an object, which is another object in
# another database (reg*); or it is refused when the value is empty (the others, seen with versions 15 and 18).
_TEXT_ONLY = frozenset(
    {
        "int2vector",
        "oidvector",
        "tsquery",
        "regproc",
        "regprocedure",
        "regoper",
        "regoperator",
        "regclass",
        "regcollation",
        "regtype",
        "regrole",
        "regnamespace",
        "regconfig",
        "regdictionary",
        "regdatabase",
    }
)
# Types whose values only the server itself can make.
_UNENTERABLE = frozenset({"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector"})


@dataclass(frozen=True, slots=True)
class _Size:
    heap: int
    toast: int
    block: int

    @property
    def bytes(self) -> int:
        return self.heap + self.toast


class PostgresqlSource:
    """See `core.ports.Source`. Making one connects, unless too many are connected; then the first question does.

    Args:
        connection: where.
        io_timeout_seconds: longest silence; also the longest wait for a lock.
        calling: the endpoint's circuit breaker.
        permits: leave for every session, but for the short one that asks after a silent one.

    Raises:
        ConnectionFailed: the server does not let us in.
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
        self._held = HeldSession(permits, self._opened, lambda session: self._part([session]))
        self._info: ServerInfo | None = None
        with suppress(Crowded):
            self.info()

    def info(self) -> ServerInfo:
        """Who is there."""
        with self._lock, mapped(self._connection.place):
            info = self._info = self._info or _server_info(self._connection, self._held.get())
        return info

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of one schema, `public` unless told otherwise."""
        with self._asking(self._connection.place) as session:
            return read_catalog(session, schema or "public")

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Look at one table; what cannot be carried, or not be read, is in `refused`.

        Raises:
            SpecError: PostgreSQL does not accept `where`.
        """
        with self._asking(table.qualified) as session:
            oid = _table_oid(session, table)
            plans, wire, refused = _columns(session, oid, [c for c in columns if c.generated is None])
            refused = refused or _forbidden(session, oid, table, plans, where)
            size = _Size(*_one(session, SQL["size"], {"table": oid}))
            if refused:
                rows, exact, by, keys, chunks = 0, False, ChunkBy.WHOLE, (), (Chunk(index=0),)
            else:
                rows, exact = _rows(session, table, where, size)
                wanted = min(chunk_count(size.bytes, chunk_bytes), rows)
                by, keys, chunks = self._chunks(session, table, where, size, wanted)
        return Survey(
            rows=rows,
            rows_exact=exact,
            bytes=size.bytes,
            chunk_by=by,
            chunk_columns=keys,
            chunks=chunks,
            columns=plans,
            lane=Lane.COPY,
            wire=wire,
            # hashtextextended hashes bytes, and they are those of the database's own encoding.
            spelling=Spelling.RECORD if self.info().encoding == "UTF8" else Spelling.CANONICAL,
            refused=refused,
        )

    def survey_large_objects(self, chunk_bytes: int, others: Sequence[int]) -> Survey | None:
        """Look at the database's large objects; see `core.ports.HoldsLargeObjects`."""
        utf8 = self.info().encoding == "UTF8"
        with self._asking(self._connection.place) as session:
            return survey_large_objects(session, chunk_bytes, others, utf8=utf8)

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[Snapshot]:
        """One exported snapshot for all readers, over as many connections, or fewer where no more are free.

        Raises:
            Crowded: none is free; nor does this source keep one, so that two that wait do not wait for each other.
        """
        utf8 = self.info().encoding == "UTF8"
        with self._lock:
            self._held.release()
        permit = self._permits.take(readers)
        try:
            snapshot = self._view(permit.count, utf8=utf8, portion=portion)
            try:
                yield snapshot
            finally:
                snapshot.close()
        finally:
            permit.give_back()

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._held.release()

    def _view(self, readers: int, *, utf8: bool, portion: Portion) -> PostgresqlSnapshot:
        return PostgresqlSnapshot(
            self._open, readers, utf8=utf8, place=self._connection.place, portion=portion
        )

    def _part(self, sessions: Sequence[Session]) -> None:
        part(sessions)

    def _open(self, *, reconnect: bool = True) -> Session:
        session = connect(
            self._connection,
            application_name="jivs source",
            io_timeout_seconds=self._io_timeout,
            read_only=True,
            reconnect=reconnect,
            settings={"lock_timeout": f"{round(self._io_timeout * 1000)}ms"},
            calling=self._calling,
        )
        session.alive = self._at_work
        session.longest = _EXCUSED * self._io_timeout
        if session.info.server_version >= _NOTICES_CLIENTS:
            # So that what a killed run has left computing ends, and its place is free. Not every system can do it.
            with suppress(psycopg.Error):
                session.execute("SET client_connection_check_interval = '1s'")
        return session

    def _opened(self) -> Session:
        return self._open(reconnect=self._info is not None)

    def _at_work(self, session: Session) -> bool:
        """Ask another session whether the server still computes for this one; see `-- name: at_work`."""
        seconds = min(_ASK_SECONDS, self._io_timeout)
        asker = connect(self._connection, application_name="jivs source", io_timeout_seconds=seconds)
        try:
            row = asker.execute(SQL["at_work"], {"pid": session.info.backend_pid}).fetchone()
        finally:
            asker.drop()
        return bool(row and row[0])

    @contextmanager
    def _asking(self, where: str) -> Generator[Session]:
        """The source's own session in a transaction, so that all questions see the same moment."""
        self.info()
        with self._lock, mapped(where):
            session = self._held.get()
            try:
                session.execute(BEGIN)
                yield session
            finally:
                session.reset_transaction()

    def _chunks(
        self, session: Session, table: Table, where: str | None, size: _Size, wanted: int
    ) -> tuple[ChunkBy, tuple[str, ...], tuple[Chunk, ...]]:
        key = _chunk_key(table)
        ranges = session.info.server_version >= RANGE_SCANS
        types = [c.type for c in table.columns if c.name in key]
        by_blocks = ranges and size.heap > _SMALL_BYTES and (len(key) != 1 or types[0] not in INTEGERS)
        if key and not by_blocks:
            bounds, order = _key_bounds(session, table, where, size, wanted)
            # By a key in random order each chunk would read nearly every page of the heap.
            if not (ranges and size.heap > _SCATTERED_BYTES and abs(order) < 0.9):
                return ChunkBy.KEY, key, _between(bounds)
        if wanted <= 1 or not ranges:
            return ChunkBy.WHOLE, (), (Chunk(index=0),)
        blocks = size.heap // size.block
        step = max(1, -(-blocks // wanted))
        return ChunkBy.CTID, (), _between([(str(block),) for block in range(step, blocks, step)])


def _server_info(connection: Connection, session: Session) -> ServerInfo:
    query = "SELECT current_setting('server_version'), current_setting('server_encoding')"
    version, encoding = _one(session, sql.SQL(query))
    return ServerInfo(connection.name, "postgresql", version.split()[0], encoding)


def _one(session: Session, query: Any, parameters: Any = None) -> tuple[Any, ...]:
    row = session.execute(query, parameters).fetchone()
    if row is None:
        raise TerminalError("The source's catalog changed while it was read", hint="Run again")
    return row


def _table_oid(session: Session, table: Table) -> int:
    row = session.execute(SQL["table"], {"schema": table.schema, "name": table.name}).fetchone()
    if row is None:
        raise TerminalError(f"The source's table {table.qualified} is gone", hint="Run again")
    return int(row[0])


def _columns(
    session: Session, oid: int, columns: Sequence[Column]
) -> tuple[tuple[ColumnPlan, ...], Wire, tuple[Refusal, ...]]:
    """How each column travels, the form of the whole COPY, and the columns that cannot."""
    types = {name: rest for name, *rest in session.execute(SQL["types"], {"table": oid}).fetchall()}
    plans: list[ColumnPlan] = []
    refused: list[Refusal] = []
    wire = Wire.BINARY
    for column in columns:
        if column.name not in types:
            raise TerminalError(f"The source's column {column.name!r} is gone", hint="Run again")
        own, name, kind, binary, computed = types[column.name]
        # What rows of the server's own catalogs are made of differs from one version to the next.
        if (not own and not column.made and column.extension is None) or (own and kind == "c"):
            reason = (
                f"its type {column.type} is neither PostgreSQL's own nor a type of the schema that is carried"
            )
            refused.append(Refusal(column.name, reason))
        elif name in _UNENTERABLE or name.startswith("pg_brin_"):
            refused.append(Refusal(column.name, f"no value of type {column.type} can be entered"))
        # The binary forms of composites and arrays name types by oids, which are others in the target; what those of an
        # extension's types are is its own affair.
        apart = column.extension is not None or (column.made and (kind != "e" or column.type.endswith("]")))
        if not binary or name in _TEXT_ONLY or apart:
            wire = Wire.TEXT
        plans.append(
            ColumnPlan(
                source=column.name,
                target=column.name,
                source_type=column.type,
                target_type=column.type,
                carrier=COMPUTED if computed else "native",
                nullable=column.nullable,
            )
        )
    return tuple(plans), wire, tuple(refused)


def _forbidden(
    session: Session, oid: int, table: Table, columns: Sequence[ColumnPlan], where: str | None
) -> tuple[Refusal, ...]:
    """What this role may not read; found by asking for no rows."""
    names = digests.column_list([c.source for c in columns])
    source = relation(table.schema, table.name)
    try:
        session.execute("SAVEPOINT rights")
        session.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(names, source))
        if where is not None:
            session.execute(sql.SQL("SELECT FROM {} WHERE ({}) LIMIT 0").format(source, raw(where)))
    except (
        psycopg.errors.InsufficientPrivilege,
        psycopg.errors.FeatureNotSupported,
        psycopg.errors.ObjectNotInPrerequisiteState,
    ) as error:
        session.execute("ROLLBACK TO rights")
        return (Refusal("", f"the source does not let us read it: {error.diag.message_primary}"),)
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        if where is None:
            raise
        raise SpecError(
            f"rules.{table.name}.where is not accepted by the source: {error.diag.message_primary}",
            hint="It is a condition in PostgreSQL's SQL; write functions with their schema",
        ) from error
    carried = {c.source for c in columns}
    return tuple(
        Refusal(
            n.column,
            f"the source does not let us read its sequence {n.schema}.{n.sequence}; grant SELECT on it",
        )
        for n in numbered(session, [oid])
        if n.column in carried and not n.readable
    )


def _condition(where: str | None) -> sql.Composable:
    return sql.SQL(" WHERE ({})").format(raw(where)) if where is not None else sql.SQL("")


def _rows(session: Session, table: Table, where: str | None, size: _Size) -> tuple[int, bool]:
    source = relation(table.schema, table.name)
    if size.heap < _EXACT_BYTES:
        query = sql.SQL("SELECT count(*) FROM {}{}").format(source, _condition(where))
        return int(_one(session, query)[0]), True
    query = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {}{}").format(source, _condition(where))
    return int(_one(session, query)[0][0]["Plan"]["Plan Rows"]), False


def _chunk_key(table: Table) -> tuple[str, ...]:
    """Columns of a key without NULLs that has a btree in the columns' own order; empty when there is none."""
    never_null = {c.name for c in table.columns if not c.nullable}
    keys = [k.columns for k in (table.primary_key, *table.unique_keys) if k is not None]
    for index in table.indexes:
        plain = all(p.column and not p.opclass and not p.collation for p in index.parts)
        if index.unique and plain and index.predicate is None and index.method == "btree":
            keys.append(tuple(p.column for p in index.parts if p.column))
    return next((key for key in keys if never_null.issuperset(key)), ())


# Every n-th part of the sampled keys in order. `place` against `rank` tells how far the heap is in key order.
# REPEATABLE: the same table gives the same plan.
_BOUNDS = sql.SQL(
    "WITH sample AS MATERIALIZED ("
    "SELECT {keys}, row_number() OVER (ORDER BY {keys}) AS rank,"
    " row_number() OVER (ORDER BY ctid) AS place, count(*) OVER () AS total"
    " FROM {source}{sample}{condition})"
    " SELECT (SELECT corr(rank, place) FROM sample), {texts} FROM sample"
    " WHERE rank > 1 AND (rank - 1) * {wanted} / total <> (rank - 2) * {wanted} / total ORDER BY rank"
)


def _key_bounds(
    session: Session, table: Table, where: str | None, size: _Size, wanted: int
) -> tuple[list[tuple[str, ...]], float]:
    """Bounds that cut the rows into `wanted` parts of about one size, and the heap's order."""
    if wanted <= 1:
        return [], 1.0
    key = _chunk_key(table)
    blocks = max(1, size.heap // size.block)
    percent = 100 * max(_FEWEST_BLOCKS, _BLOCKS_PER_CHUNK * wanted) / blocks
    sample = sql.SQL(" TABLESAMPLE SYSTEM ({}) REPEATABLE (42)").format(sql.Literal(f"{percent:.4f}"))
    query = _BOUNDS.format(
        keys=digests.column_list(key),
        source=relation(table.schema, table.name),
        sample=sample if percent < 50 else sql.SQL(""),
        condition=_condition(where),
        texts=sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in key),
        wanted=sql.Literal(wanted),
    )
    found = session.execute(query).fetchall()
    return [tuple(texts) for _, *texts in found], float(found[0][0] or 0) if found else 1.0


def _between(bounds: Sequence[tuple[str, ...]]) -> tuple[Chunk, ...]:
    """Half-open chunks that meet at the bounds and are open at both ends."""
    edges = (None, *bounds, None)
    return tuple(Chunk(index=i, lower=lower, upper=upper) for i, (lower, upper) in enumerate(pairwise(edges)))
