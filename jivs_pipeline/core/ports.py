"""The seams between engine and infra, as Protocols. Each is as narrow as its caller needs.

Rows cross as bytes-like pieces (copy lane) or `pyarrow.RecordBatch` (arrow lane); nothing here holds
more than one piece. Implementations map their driver's errors to `core.errors` and keep `__cause__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Spelling, TablePlan, Wire

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Clock", "Piece", "Refusal", "Snapshot", "Source", "Survey"]

Piece = bytes | bytearray | memoryview
"""A bytes-like part of a COPY stream, of any size."""

Clock = Callable[[], datetime]
"""The time of day, in UTC."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a column cannot be carried."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What a source knows of one table's rows: size, chunks, and how each column travels.

    Attributes:
        rows: rows that pass the table's `where`; an estimate unless `rows_exact`.
        bytes: bytes the rows take in the source, estimated.
        chunk_by, chunk_columns, chunks: see `core.plan`.
        columns: one per carried column, in order, with source names as target names.
        refused: columns that hold something no PostgreSQL type carries exactly.
        lossy: columns carried with a loss that the survey has seen and names.
        broken_keys: source columns of foreign keys whose rows break them -> number of such rows.
    """

    rows: int
    rows_exact: bool
    bytes: int
    chunk_by: ChunkBy
    chunk_columns: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    columns: tuple[ColumnPlan, ...]
    lane: Lane
    wire: Wire
    spelling: Spelling
    refused: tuple[Refusal, ...] = ()
    lossy: tuple[Refusal, ...] = ()
    broken_keys: Mapping[tuple[str, ...], int] | None = None


class Snapshot(Protocol):
    """One consistent view of the source, shared by several readers. Methods may be called from several
    threads at once, as many as `readers`; each borrows a connection of its own."""

    @property
    def consistency(self) -> str:
        """What the view guarantees, for the report: `one snapshot`, or what is not covered."""
        ...

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[Piece]:
        """The chunk as PostgreSQL's COPY stream (lane copy). Raises at the end when the stream broke."""
        ...

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the table plan's Arrow types and target names (lane arrow)."""
        ...

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the chunk's rows, computed by the source (or from a second, independent read)."""
        ...

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """For each self-numbering column (by target name) the next number the source would give."""
        ...


class Source(Protocol):
    """A database that is read. Opening it connects; every method is read-only."""

    def info(self) -> ServerInfo:
        """Who is there."""
        ...

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of the schema (None: the connection's default) with keys and indexes, and what is left out."""
        ...

    def survey(
        self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int
    ) -> Survey:
        """Look at the rows of one table: counts, chunk bounds, and how each of `columns` travels."""
        ...

    def snapshot(self, readers: int) -> AbstractContextManager[Snapshot]:
        """A consistent view for `readers` threads; closing it ends the source's transactions."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class LoadedChunks(Protocol):
    """Which chunks the target's ledger already holds."""

    def done(self, table: str) -> frozenset[int]:
        """Indexes of the committed chunks of a target table."""
        ...


Pieces = Iterable[Piece]
