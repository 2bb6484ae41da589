"""A directory of CSV files as a source.

What belongs here: `CsvSource`, which joins layout, census and snapshot into `core.ports.Source`. What does not:
each of those (`csv_open`, `csv_census`, `csv_snapshot`), the schema file (`csv_schema`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import ConfigError, DataError, SpecError
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Wire
from jivs_pipeline.core.ports import Refusal, Survey, Tolerated
from jivs_pipeline.infra.sources.csv_census import BOUNDS, looked_at, scanned, take_census
from jivs_pipeline.infra.sources.csv_keys import KeyHashes, twins
from jivs_pipeline.infra.sources.csv_open import CsvTable, Layout, pieces, read_layout, tolerant
from jivs_pipeline.infra.sources.csv_scan import Problems
from jivs_pipeline.infra.sources.csv_schema import SCHEMA_FILE
from jivs_pipeline.infra.sources.csv_sieve import DOUBLE, counted
from jivs_pipeline.infra.sources.csv_snapshot import CsvSnapshot
from jivs_pipeline.infra.sources.files_open import SCHEMA

__all__ = ["CsvSource"]

_DELIMITERS = ";\t|,"


class CsvSource:
    """A directory of CSV files, read-only. Methods may be called from several threads.

    Args:
        connection: with a `path`.
        calling: the circuit breaker of the directory: of one on a server that is gone.

    Raises:
        ConnectionFailed: the directory is missing, unreadable or without CSV files.
        ConfigError: its schema file is wrong.
    """

    def __init__(self, connection: Connection, *, calling: Calling = nullcontext) -> None:
        self._connection = connection
        self._calling = calling
        self._layout = self._read_layout()

    def _read_layout(self) -> Layout:
        with self._calling():
            return read_layout(self._connection)

    def info(self) -> ServerInfo:
        """Name, and the version of the library that reads."""
        return ServerInfo(self._connection.name, "csv", f"pyarrow {version('pyarrow')}")

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
        return self._layout.catalog()

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Census of the table's files; rows are counted, not estimated.

        Raises:
            SpecError: `where` is given, and files have no SQL.
        """
        if where is not None:
            raise SpecError(
                f"rules.{table.name}.where needs a database, and the source is a directory of files",
                hint="Remove where, or load the files into SQLite first",
            )
        known = self._layout.tables[table.name]
        names = [c.name for c in columns]
        planned = tuple(_column_plan(known, c) for c in columns)
        refused: list[Refusal] = []
        rows = size = 0
        chunks: tuple[Chunk, ...] = (Chunk(index=0),)
        tolerated: Tolerated | None = None
        try:
            hashes = KeyHashes(known)
            census = take_census(self._connection, known, names, chunk_bytes, watch=hashes.take)
            rows, size, refused, chunks = census.rows, census.bytes, census.refusals(), tuple(census.chunks)
            if not refused and (doubles := self._doubles(known, names, hashes)):
                refused.append(_double_keys(known, doubles))
            if refused:
                tolerated = self._tolerated(known, names, chunk_bytes, planned)
        except DataError as error:
            # This file's fault: the other tables go on.
            refused.append(Refusal("", error.message))
        hint = _other_delimiter(known)
        if hint is not None:
            refused = [Refusal(r.column, f"{r.reason}; {hint}") for r in refused]
        return Survey(
            rows=rows,
            rows_exact=True,
            bytes=size,
            chunk_by=ChunkBy.BYTES,
            chunk_columns=BOUNDS,
            chunks=chunks,
            columns=planned,
            lane=Lane.ARROW,
            wire=_wire(planned),
            spelling=Spelling.CHAIN,
            refused=tuple(refused),
            lossy=(Refusal("", hint),) if hint is not None and not refused else (),
            tolerated=tolerated,
        )

    def _tolerated(
        self, table: CsvTable, names: Sequence[str], chunk_bytes: int, columns: tuple[ColumnPlan, ...]
    ) -> Tolerated | None:
        """The table without its bad records; None where nobody can tell where a record ends."""
        hashes = KeyHashes(table)
        sieve = partial(counted, table)
        census = take_census(self._connection, table, names, chunk_bytes, sieve, watch=hashes.take)
        if census.problems.fatal:
            return None
        reasons = [
            Refusal(column, f"{count:,} {'rows' if count > 1 else 'row'} with {reason}")
            for (column, reason), count in census.bad.items()
        ]
        if doubles := self._doubles(table, names, hashes):
            reasons.append(_double_keys(table, doubles))
        return Tolerated(
            sum(census.bad.values()) + doubles, tuple(reasons), columns, _wire(columns),
            total=census.rows, bytes=census.bytes, chunks=tuple(census.chunks),
        )  # fmt: skip

    def _doubles(self, table: CsvTable, names: Sequence[str], hashes: KeyHashes) -> int:
        """How many good records have the key of a record before them."""
        doubled = hashes.doubled() if set(names).issuperset(table.schema.key) else ()
        if not doubled:
            return 0
        looked, seen, count = looked_at(table, names), set[str](), 0
        for file in table.files:
            texts = pieces(self._connection, file, file.begin, errors=tolerant(file))
            groups = scanned(texts, file, len(table.columns), Problems(), file.line)
            count += sum(1 for _ in twins(table, looked, groups, doubled, seen))
        return count

    @contextmanager
    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> Generator[CsvSnapshot]:
        """The files as they are now; every reader opens what it needs."""
        del readers
        yield CsvSnapshot(self._connection, self._read_layout(), portion)

    def close(self) -> None:
        """Nothing is held between calls."""


def _other_delimiter(table: CsvTable) -> str | None:
    """What to say of a table that looks as if another character separated its fields: none is guessed."""
    if len(table.columns) != 1:
        return None
    found = next((c for c in _DELIMITERS if c in table.columns[0]), None)
    if found is None:
        return None
    shown = {"\t": '"\\t"'}.get(found, f'"{found}"')
    return (
        f"it has one column, whose name holds {shown}; if that separates the fields, "
        f"say so in {SCHEMA_FILE}: options: {{delimiter: {shown}}}"
    )


def _double_keys(table: CsvTable, count: int) -> Refusal:
    key = ", ".join(table.schema.key)
    return Refusal(table.schema.key[0], f"{count:,} {'rows' if count > 1 else 'row'} with {DOUBLE}: ({key})")


def _wire(columns: Sequence[ColumnPlan]) -> Wire:
    # Text needs no conversion, and binary COPY none of CSV's quoting.
    return Wire.BINARY if all(c.target_type == "text" for c in columns) else Wire.CSV


def _column_plan(table: CsvTable, column: Column) -> ColumnPlan:
    type_ = table.types[table.columns.index(column.name)]
    return ColumnPlan(
        source=column.name,
        target=column.name,
        source_type=type_.mapping.declared if not type_.numbers else type_.target,
        target_type=type_.target,
        carrier=type_.mapping.carrier,
        arrow=type_.mapping.arrow,
        canon=type_.mapping.canon,
        nullable=column.nullable,
    )
