"""A database read through a driver by what its dialect says (`core/driver_dialects.py`).

What belongs here: `GenericSource`, which joins catalog, survey and snapshot into `core.ports.Source`. What does not:
SQL of any dialect.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.chunking import chunk_count
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.errors import ConfigError, SpecError
from jivs_pipeline.core.model import Catalog, Column, ForeignKey, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Wire
from jivs_pipeline.core.ports import Refusal, Survey
from jivs_pipeline.core.type_mapping import TypeChoice, column_plan
from jivs_pipeline.infra.sources.generic_catalog import read_catalog
from jivs_pipeline.infra.sources.generic_snapshot import GenericSnapshot, piece_characters, rows_sql
from jivs_pipeline.infra.sources.held_session import HeldSession
from jivs_pipeline.infra.sources.odbc_errors import mapped_odbc
from jivs_pipeline.infra.sources.odbc_link import OdbcError, TextLink

__all__ = ["GenericSource"]

_FIXED_BYTES = 8  # of a value that is neither text nor bytes, in Arrow
_MOST_PIECES = 1_900  # in one statement; SQLite gives 2,000 result columns
_AS_TEXT = frozenset({"interval", "uuid", "xml", "timestamptz", "bit"})
"""Types whose binary form pgpq cannot write from what a driver hands out."""


class GenericSource:
    """See `core.ports.Source`. Making one connects, unless too many are connected; then the first question does.

    Args:
        connection: where.
        dialect: how the database there is asked.
        version: what it said of itself.
        open_link: opens a connection.
        calling: the endpoint's circuit breaker.
        permits: leave for every connection.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        version: str,
        open_link: Callable[..., TextLink],
        *,
        batch_bytes: int = 8 * 1024 * 1024,
        calling: Calling = nullcontext,
        permits: Permits = FREE,
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._version = version
        self._open_link = open_link
        self._batch_bytes = batch_bytes
        self._calling = calling
        self._permits = permits
        self._lock = threading.Lock()
        self._held = HeldSession[TextLink](permits, self._open, lambda link: link.part())

    def info(self) -> ServerInfo:
        """Who is there."""
        return ServerInfo(self._connection.name, self._dialect.name, self._version, "UTF8")

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of one schema, the connection's own unless told otherwise.

        Raises:
            ConfigError: it has no tables that this user may see.
        """
        with self._asking(self._connection.place) as link:
            schema = schema or str(link.rows(self._dialect.default_schema)[0][0])
            found = read_catalog(link, self._dialect, schema)
        if not found.tables:
            raise ConfigError(
                f"Connection {self._connection.name!r} has no tables in schema {schema!r}, or the user may not see them",
                hint="Check source_schema, or grant SELECT on them",
            )
        return found

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Census of the table's rows; rows are counted, not estimated.

        Raises:
            SpecError: the database does not understand `where`.
        """
        dialect = self._dialect
        with self._asking(table.qualified) as link:
            rows_of = rows_sql(dialect, table.schema, table.name, [where])
            if where is not None:
                self._check(link, table, rows_of)
            rows, counts = self._count(link, columns, rows_of)
            planned: list[ColumnPlan] = []
            refused: list[Refusal] = []
            for column in columns:
                choice = dialect.choose(column, counts[column.name])
                if choice.refused is not None:
                    refused.append(Refusal(column.name, choice.refused))
                    choice = TypeChoice("text", "text", "string", choice.canon)
                planned.append(column_plan(column, choice))
            refused += self._null_keys(link, table, rows_of)
            size = rows * _FIXED_BYTES * len(columns)
            if not refused:
                sizes = self._sizes(link, planned, rows_of)
                size = sum(total for total, _ in sizes)
                refused += self._too_long(planned, [longest for _, longest in sizes])
            broken = {
                key.columns: count
                for key in table.foreign_keys
                if {c.name for c in columns}.issuperset(key.columns)
                and (count := self._broken(link, table, key, where))
            }
            by, names, chunks = self._chunks(link, table, rows_of, chunk_count(size, chunk_bytes))
        wire = Wire.BINARY
        if any(_needs_text(c) for c in planned):
            wire = Wire.CSV
            planned = [c.model_copy(update={"arrow": "string"}) for c in planned]
        return Survey(
            rows=rows,
            rows_exact=True,
            bytes=size,
            chunk_by=by,
            chunk_columns=names,
            chunks=chunks,
            columns=tuple(planned),
            lane=Lane.ARROW,
            wire=wire,
            spelling=Spelling.CHAIN,
            refused=tuple(refused),
            broken_keys=broken or None,
        )

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[GenericSnapshot]:  # noqa: ARG002
        """One view of the database by one session, whatever the number of readers: no other could join it.

        Raises:
            Crowded: no connection is free.
        """
        with self._lock:
            self._held.release()
        permit = self._permits.take(1)
        try:
            with mapped_odbc(self._connection.place):
                link = self._open()
                try:
                    self._begin(link)
                    yield GenericSnapshot(
                        link,
                        self._dialect,
                        place=self._connection.place,
                        batch_bytes=self._batch_bytes,
                        portion=portion,
                    )
                finally:
                    link.part()
        finally:
            permit.give_back()

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._held.release()

    # ── sessions ────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> TextLink:
        with self._calling():
            link = self._open_link(reconnect=True)
            try:
                with mapped_odbc(self._connection.place):
                    for statement in self._dialect.opening:
                        link.command(statement)
            except BaseException:
                link.drop()
                raise
        return link

    def _begin(self, link: TextLink) -> None:
        for statement in self._dialect.begin:
            (link.rows if statement.startswith("SELECT") else link.command)(statement)

    @contextmanager
    def _asking(self, where: str) -> Generator[TextLink]:
        """The source's own session in a transaction, so that all questions see the same moment."""
        with self._lock, mapped_odbc(where):
            link = self._held.get()
            self._begin(link)
            try:
                yield link
            finally:
                if not link.lost:
                    with suppress(OdbcError):
                        link.command(self._dialect.end)

    # ── looking ─────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, link: TextLink, table: Table, rows_of: str) -> None:
        try:
            link.rows(f"SELECT COUNT(*) {rows_of}")
        except OdbcError as error:
            if link.lost:
                raise
            raise SpecError(
                f"{self._dialect.title} does not take rules.{table.name}.where [{error.state}, {error.native}]",
                hint=f"Write a condition in the SQL of {self._dialect.title}",
            ) from error

    def _count(
        self, link: TextLink, columns: Sequence[Column], rows_of: str
    ) -> tuple[int, dict[str, dict[str, int]]]:
        asked = [(c.name, what, self._sum(condition)) for c in columns
                 for what, condition in self._dialect.counted(c).items()]  # fmt: skip
        row = link.rows(
            f"SELECT {', '.join([self._dialect.shown('COUNT(*)'), *(sql for _, _, sql in asked)])} {rows_of}"
        )[0]
        counts: dict[str, dict[str, int]] = {c.name: {} for c in columns}
        for (name, what, _), value in zip(asked, row[1:], strict=True):
            counts[name][what] = int(value or 0)
        return int(row[0]), counts

    def _sum(self, condition: str) -> str:
        return self._dialect.shown(f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END)")

    def _sizes(self, link: TextLink, columns: Sequence[ColumnPlan], rows_of: str) -> list[tuple[int, int]]:
        """Characters of each column's texts, all and of the longest, where their type does not tell."""
        dialect = self._dialect
        asked: list[str] = [dialect.shown("COUNT(*)")]
        for column in columns:
            if dialect.bound(column) is None:
                size = dialect.characters(dialect.text(column))
                asked += [dialect.shown(f"SUM({dialect.big(size)})"), dialect.shown(f"MAX({size})")]
        first, *found = link.rows(f"SELECT {', '.join(asked)} {rows_of}")[0]
        values = iter(found)
        return [
            (int(next(values) or 0), int(next(values) or 0))
            if dialect.bound(column) is None
            else (_FIXED_BYTES * int(first), 1)
            for column in columns
        ]

    def _too_long(self, columns: Sequence[ColumnPlan], longest: Sequence[int]) -> list[Refusal]:
        """The column that would take too many pieces, where the driver hands out only so much of a value."""
        if self._dialect.piece is None:
            return []
        pieces = [-(-size // piece_characters(self._dialect, 2)) for size in longest]
        if sum(pieces) <= _MOST_PIECES:
            return []
        most = max(range(len(pieces)), key=pieces.__getitem__)
        reason = (
            f"its longest value takes {longest[most]:,} characters, and {self._dialect.title}'s driver hands out"
            f" {self._dialect.piece} at a time, which takes too many; read it without ODBC, or drop the column"
        )
        return [Refusal(columns[most].source, reason)]

    def _null_keys(self, link: TextLink, table: Table, rows_of: str) -> list[Refusal]:
        nullable = {c.name for c in table.columns if c.nullable and c.identity is None}
        found: list[Refusal] = []
        for name in table.primary_key.columns if table.primary_key else ():
            if name in nullable:
                asked = f"SELECT {self._sum(f'{self._dialect.quoted(name)} IS NULL')} {rows_of}"
                if count := int(link.rows(asked)[0][0] or 0):
                    rows = counted(count, "row has", "rows have")
                    reason = f"{rows} NULL in this column of the primary key, which PostgreSQL does not take"
                    found.append(Refusal(name, reason))
        return found

    def _broken(self, link: TextLink, table: Table, key: ForeignKey, where: str | None) -> int:
        """Rows whose reference points at nothing, which some databases let in."""
        dialect = self._dialect
        child, parent = dialect.quoted(table.name), dialect.quoted("jivs parent")
        present = [f"{child}.{dialect.quoted(c)} IS NOT NULL" for c in key.columns]
        same = " AND ".join(
            f"{parent}.{dialect.quoted(t)} = {child}.{dialect.quoted(c)}"
            for c, t in zip(key.columns, key.target_columns, strict=True)
        )
        parents = f"{dialect.quoted(key.target_schema, key.target_table)} {parent}"
        missing = f"NOT EXISTS (SELECT 1 FROM {parents} WHERE {same})"
        conditions = " AND ".join(f"(\n{c}\n)" for c in [where, *present, missing] if c)
        rows_of = f"FROM {dialect.quoted(table.schema, table.name)} {child} WHERE {conditions}"
        return int(link.rows(f"SELECT {dialect.shown('COUNT(*)')} {rows_of}")[0][0])

    def _chunks(
        self, link: TextLink, table: Table, rows_of: str, wanted: int
    ) -> tuple[ChunkBy, tuple[str, ...], tuple[Chunk, ...]]:
        """Ranges of an integer key of equal width, or one chunk: no two databases page through keys alike."""
        name = self._chunk_key(table)
        if wanted <= 1 or name is None:
            return ChunkBy.WHOLE, (), (Chunk(index=0),)
        key = self._dialect.quoted(name)
        low, high = link.rows(
            f"SELECT {self._dialect.shown(f'MIN({key})')}, {self._dialect.shown(f'MAX({key})')} {rows_of}"
        )[0]
        if low is None:
            return ChunkBy.WHOLE, (), (Chunk(index=0),)
        first, last = int(low), int(high)
        cuts = sorted({first + (last - first) * number // wanted for number in range(1, wanted)} - {first})
        edges = [None, *((str(cut),) for cut in cuts), None]
        chunks = (
            Chunk(index=i, lower=lower, upper=upper) for i, (lower, upper) in enumerate(pairwise(edges))
        )
        return ChunkBy.KEY, (name,), tuple(chunks)

    def _chunk_key(self, table: Table) -> str | None:
        for key in (table.primary_key, *table.unique_keys):
            if key is None:
                continue
            column = table.column(key.columns[0])
            if self._dialect.is_integer(column) and (not column.nullable or column.identity is not None):
                return column.name
        return None


def _needs_text(column: ColumnPlan) -> bool:
    base = column.target_type.partition("(")[0]
    # pgpq cannot write numeric without a decimal of Arrow's.
    return base in _AS_TEXT or (base == "numeric" and column.arrow == "string")
