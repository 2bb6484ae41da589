"""A directory of Parquet files as a source.

What belongs here: `ParquetSource`: the catalog by footers, the survey by one pass over the columns whose values may
not fit. What does not: types (`parquet_types`), reading rows (`parquet_snapshot`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.chunking import chunk_bytes_for
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import ConfigError, DataError, SpecError
from jivs_pipeline.core.model import Catalog, Column, LeftOut, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Wire
from jivs_pipeline.core.ports import Refusal, Survey, Tolerated
from jivs_pipeline.core.type_mapping import column_plan
from jivs_pipeline.infra.sources.files_open import SCHEMA, Member, list_tables, unusable
from jivs_pipeline.infra.sources.parquet_sieve import bad_in
from jivs_pipeline.infra.sources.parquet_snapshot import (
    BOUNDS,
    ParquetSnapshot,
    ParquetTable,
    batch_rows,
    damaged,
    open_parquet,
    version_of,
)
from jivs_pipeline.infra.sources.parquet_types import LOOKED_AT, choose

__all__ = ["ParquetSource"]

_ENDINGS = (".parquet", ".pq")
_MAX_COLUMNS = 1_600  # of a table of PostgreSQL


def _said(count: int, reason: str) -> str:
    """`reason` begins with what is counted, in the plural."""
    many, _, rest = reason.partition(" ")
    return f"{counted(count, many.removesuffix('s'), many)} {rest}"


@dataclass(slots=True)
class _Census:
    """What the pass over a table has found."""

    rows: int = 0
    bytes: int = 0
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    bad: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict[str, dict[str, tuple[int, str]]])
    bad_rows: int = 0
    """Each once, however many of its values are bad."""

    def refusals(self) -> list[Refusal]:
        """A reason for each kind of value that does not fit."""
        return [
            Refusal(column, f"{_said(count, reason)}, first in {where}")
            for column, reasons in self.bad.items()
            for reason, (count, where) in reasons.items()
        ]


class ParquetSource:
    """A directory of Parquet files, read-only. Methods may be called from several threads.

    Args:
        connection: with a `path`.
        calling: the circuit breaker of the directory: of one on a server that is gone.

    Raises:
        ConnectionFailed: the directory is missing, unreadable or without Parquet files.
    """

    def __init__(self, connection: Connection, *, calling: Calling = nullcontext) -> None:
        self._connection = connection
        self._calling = calling
        self._tables, self._left_out = self._read()

    def _read(self) -> tuple[dict[str, ParquetTable], tuple[LeftOut, ...]]:
        with self._calling():
            found = list_tables(self._connection, _ENDINGS)
        tables: dict[str, ParquetTable] = {}
        left_out = list(found.left_out)
        for name, members in found.tables.items():
            try:
                tables[name] = self._table(name, members)
            except DataError as error:
                left_out.append(unusable(name, "file", error.message))
            except ValueError as error:
                left_out.append(unusable(name, "file", str(error)))
        return tables, tuple(left_out)

    def _table(self, name: str, members: tuple[Member, ...]) -> ParquetTable:
        first = None
        for member in members:
            with open_parquet(self._connection, member) as (parquet, _):
                schema = parquet.schema_arrow.remove_metadata()
            first = schema if first is None else first
            if schema != first:
                raise ValueError(f"{member.name}: its schema is not that of {members[0].name}")
        names: list[str] = list(first.names) if first is not None else []
        if double := next((n for n in names if names.count(n) > 1), None):
            raise ValueError(f"{members[0].name}: it has column {double[:80]!r} twice")
        if any(not n.strip() or "\0" in n for n in names):
            raise ValueError(f"{members[0].name}: a column has no usable name")
        if not 0 < len(names) <= _MAX_COLUMNS:
            raise ValueError(
                f"{members[0].name}: it has {len(names):,} columns; 1 to {_MAX_COLUMNS:,} can be carried"
            )
        return ParquetTable(name, members, first)

    def info(self) -> ServerInfo:
        """Name, and the version of the library that reads."""
        return ServerInfo(self._connection.name, "parquet", f"pyarrow {version('pyarrow')}")

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of the directory; `files` is its only schema.

        Raises:
            ConfigError: another schema is asked for.
        """
        if schema not in (None, SCHEMA):
            raise ConfigError(
                f"Connection {self._connection.name!r} has no schema {schema!r}",
                hint=f"A directory has only {SCHEMA!r}",
            )
        tables = (
            Table(SCHEMA, t.name, tuple(Column(f.name, str(f.type), nullable=f.nullable) for f in t.schema))
            for t in self._tables.values()
        )
        return Catalog(SCHEMA, tuple(tables), self._left_out)

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Rows by the footers; values of text, dates and times are looked at one by one.

        Raises:
            SpecError: `where` is given, and files have no SQL.
        """
        if where is not None:
            raise SpecError(
                f"rules.{table.name}.where needs a database, and the source is a directory of files",
                hint="Remove where, or load the files into SQLite first",
            )
        known = self._tables[table.name]
        choices = {c.name: choose(known.schema.field(c.name).type) for c in columns}
        refused = [Refusal(name, c.refused) for name, c in choices.items() if c.refused is not None]
        planned = [column_plan(c, choices[c.name]) for c in columns]
        # pgpq writes what Arrow has a type for; as soon as one column travels as text for another type, all do.
        wire = (
            Wire.BINARY if all(c.arrow != "string" or c.target_type == "text" for c in planned) else Wire.CSV
        )
        if wire is Wire.CSV:
            planned = [c.model_copy(update={"arrow": "string"}) for c in planned]
        census = _Census()
        tolerated: Tolerated | None = None
        try:
            for member in known.files:
                self._look(census, member, planned, frozenset(r.column for r in refused), chunk_bytes)
            if census.bad_rows and not refused:
                tolerated = Tolerated(census.bad_rows, tuple(census.refusals()), tuple(planned), wire)
            refused += census.refusals()
        except DataError as error:
            refused.append(Refusal("", error.message))
        return Survey(
            rows=census.rows,
            rows_exact=True,
            bytes=census.bytes,
            chunk_by=ChunkBy.ROW_GROUPS,
            chunk_columns=BOUNDS,
            chunks=tuple(census.chunks) or (Chunk(index=0),),
            columns=tuple(planned),
            lane=Lane.ARROW,
            wire=wire,
            spelling=Spelling.CHAIN,
            refused=tuple(refused),
            tolerated=tolerated,
        )

    def _look(
        self,
        census: _Census,
        member: Member,
        planned: Sequence[ColumnPlan],
        refused: frozenset[str],
        chunk_bytes: int,
    ) -> None:
        looked = [c for c in planned if c.carrier in LOOKED_AT and c.source not in refused]
        names = [c.source for c in looked]
        try:
            with open_parquet(self._connection, member) as (parquet, file):
                seen = version_of(file)
                metadata = parquet.metadata
                start, size = 0, 0
                groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
                most = chunk_bytes_for(sum(g.total_byte_size for g in groups), chunk_bytes)
                for number, group in enumerate(groups):
                    if size and size + group.total_byte_size > most:
                        census.chunks.append(_chunk(len(census.chunks), member, start, number, seen))
                        start, size = number, 0
                    size += group.total_byte_size
                    census.bytes += group.total_byte_size
                    self._look_at_group(census, member, parquet, number, looked, names)
                census.chunks.append(_chunk(len(census.chunks), member, start, metadata.num_row_groups, seen))
                census.rows += metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged(self._connection, member.name) from error

    @staticmethod
    def _look_at_group(
        census: _Census,
        member: Member,
        parquet: object,
        number: int,
        looked: Sequence[ColumnPlan],
        names: list[str],
    ) -> None:
        from pyarrow.parquet import ParquetFile

        if not names or not isinstance(parquet, ParquetFile):
            return
        most = batch_rows(parquet, range(number, number + 1))
        for batch in parquet.iter_batches(most, row_groups=[number], columns=names, use_threads=False):
            any_bad = np.zeros(batch.num_rows, bool)
            for column, reason, mask in bad_in(batch, looked):
                any_bad |= mask
                found = census.bad.setdefault(column.source, {})
                before, where = found.get(reason, (0, f"row group {number:,} of {member.name}"))
                found[reason] = (before + int(mask.sum()), where)
            census.bad_rows += int(any_bad.sum())

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[ParquetSnapshot]:
        """The files as they are now; every reader opens what it needs."""
        del readers
        yield ParquetSnapshot(self._connection, self._read()[0], portion)

    def close(self) -> None:
        """Nothing is held between calls."""


def _chunk(index: int, member: Member, start: int, end: int, seen: str) -> Chunk:
    return Chunk(index=index, lower=(member.name, str(start), seen), upper=(member.name, str(end), ""))
