"""The seams between engine and infra, as Protocols. Each is as narrow as its caller needs.

Rows cross as bytes-like pieces (copy lane) or `pyarrow.RecordBatch` (arrow lane); nothing here holds
more than one piece. Implementations map their driver's errors to `core.errors` and keep `__cause__`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.pieces import CopiedRows, Piece
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CopiedRows",
    "Dependent",
    "ExistingColumn",
    "ExistingTable",
    "HashedRow",
    "HoldsLargeObjects",
    "LedgerView",
    "Measuring",
    "Piece",
    "Refined",
    "Refusal",
    "Sieve",
    "Snapshot",
    "Source",
    "Standing",
    "Survey",
    "Tolerated",
    "refused_rows",
]

HashedRow = tuple[bytes, tuple[str | None, ...]]
"""The hash of a row, and its key as both ends spell it."""


@dataclass(frozen=True, slots=True)
class Refined:
    """What rules have made of a batch.

    Attributes:
        batch: the rows that go on, every column as text that PostgreSQL reads.
        canon: the same as digests spell it, column by column.
        digest: of those rows as they should be in the target.
        source: of the batch as it was read, rows that do not go on included.
        bad: rows that a rule cannot be applied to.
        places: their numbers in the batch as it was read, as far as rules leave rows where they are.
        changed: how many values each rule has changed, by `column: kind`; rows by `rows: kind`.
    """

    batch: pa.RecordBatch
    canon: Sequence[Any]
    digest: Digest
    source: Digest
    bad: Sequence[BadRow]
    changed: Mapping[str, int]
    places: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a column cannot be carried."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tolerated:
    """What a table becomes when its bad rows are left out of it.

    Attributes:
        rows: how many are bad, each counted once.
        reasons: what is wrong, by column.
        columns, wire: in place of the survey's.
        total, bytes, chunks: in place of the survey's, where it could not read on behind a bad row.
    """

    rows: int
    reasons: tuple[Refusal, ...]
    columns: tuple[ColumnPlan, ...]
    wire: Wire
    total: int | None = None
    bytes: int | None = None
    chunks: tuple[Chunk, ...] | None = None


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
        tolerated: the way out of `refused` by a quarantine, where there is one.
        addressed: single rows can be taken out, so that also those that break keys can.
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
    tolerated: Tolerated | None = None
    addressed: bool = False


class Snapshot(Protocol):
    """One consistent view of the source, shared by several readers. Methods may be called from several
    threads at once, as many as `readers`; each borrows a connection of its own.
    """

    @property
    def consistency(self) -> str:
        """What the view guarantees, for the report: `one snapshot`, or what is not covered."""
        ...

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """The chunk as PostgreSQL's COPY stream (lane copy). Raises at the end when the stream broke."""
        ...

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the table plan's Arrow types and target names (lane arrow)."""
        ...

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest of the chunk's rows, computed by the source (or from a second, independent read)."""
        ...

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row, with the canonical texts of the key's columns."""
        ...

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk, counted by the source."""
        ...

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """For each self-numbering column (by target name) the next number the source would give."""
        ...


@runtime_checkable
class Standing(Protocol):
    """A snapshot of a source whose sequences need not belong to columns."""

    def sequences(self, schema: str, names: Sequence[str]) -> Mapping[str, tuple[int, bool]]:
        """The last number of each, and whether it was given out.

        Args:
            names: SQL for their names, as in `core.model.SchemaObject`.
        """
        ...


@runtime_checkable
class Measuring(Protocol):
    """A snapshot that can tell how large rows are before it reads them."""

    def widest(self, table: TablePlan, chunk: Chunk) -> int:
        """Bytes of the chunk's largest row, as far as no type bounds its values."""
        ...


@runtime_checkable
class Sieve(Protocol):
    """A snapshot that can tell bad rows from good ones. Its other methods then take a `Sifted` chunk, too."""

    def relate(self, tables: Sequence[TablePlan]) -> None:
        """From here on rows that break a key between these tables are bad, too, as far as the source can tell."""
        ...

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The chunk's rows that the plan's columns cannot hold, one after the other, always in the same order."""
        ...

    def as_now(self, table: TablePlan) -> TablePlan:
        """The table with the chunks that it has now: files that were corrected have other bytes than those of the plan."""
        ...

    def again(self, table: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool = False) -> Again:
        """Read rows that are in quarantine anew.

        Args:
            rest: digest of all other rows, as they were loaded.
            apart: each good row by itself, instead of all of a chunk together.
        """
        ...


class Source(Protocol):
    """A database that is read. Opening it connects; every method is read-only."""

    def info(self) -> ServerInfo:
        """Who is there."""
        ...

    def catalog(self, schema: str | None) -> Catalog:
        """Tables of the schema (None: the connection's default) with keys and indexes, and what is left out."""
        ...

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        """Look at the rows of one table: counts, chunk bounds, and how each of `columns` travels."""
        ...

    def snapshot(self, readers: int, portion: Portion = NO_LIMIT) -> AbstractContextManager[Snapshot]:
        """A consistent view for `readers` threads, which get at most a portion at a time; closing it ends the source's
        transactions.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class HoldsLargeObjects(Protocol):
    """A source whose database may have large objects, which are in no schema."""

    def survey_large_objects(self, chunk_bytes: int, others: Sequence[int]) -> Survey | None:
        """Look at all of them as if they were one table; None where there are none.

        Args:
            others: numbers that are taken in the target; one of those here is a refusal.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExistingColumn:
    """A column of a table that the target already has. `filled`: it has a default or numbers itself."""

    name: str
    type: str
    required: bool
    generated: bool
    filled: bool


@dataclass(frozen=True, slots=True)
class Dependent:
    """What holds on to a table: a `view` on it or a `foreign key` to it, and the relation that it is on."""

    kind: str
    name: str
    schema: str
    table: str


@dataclass(frozen=True, slots=True)
class ExistingTable:
    """Something in the target that already bears a name. `kind` is pg_class.relkind, `key` what tells its rows apart,
    `parent` the partitioned table that it is a part of; `hides_rows`: its policies concern us.
    """

    name: str
    kind: str
    columns: tuple[ExistingColumn, ...] = ()
    dependents: tuple[Dependent, ...] = ()
    key: tuple[str, ...] = ()
    parent: str | None = None
    hides_rows: bool = False


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The ledger's entries of one migration.

    Attributes:
        epoch: highest epoch that has claimed it; 0 when none has.
        steps: (table, step) -> (generation, undo).
        chunks: (table, chunk index) -> (generation, rows, bytes).
    """

    epoch: int = 0
    steps: Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]] = field(
        default_factory=dict[tuple[str, str], tuple[str, Mapping[str, Any]]]
    )
    chunks: Mapping[tuple[str, int], tuple[str, int, int]] = field(
        default_factory=dict[tuple[str, int], tuple[str, int, int]]
    )

    @property
    def made(self) -> frozenset[str]:
        """Target tables (`schema.table`) that this migration created."""
        return frozenset(table for table, step in self.steps if step == "create")

    def set_aside(self, table: str) -> bool:
        """Whether this migration has moved the target's table of before away."""
        return (table, "set aside") in self.steps

    @property
    def merged(self) -> bool:
        """Whether rows were moved into tables that were there before."""
        return ("*", "merge") in self.steps

    def objects(self, schema: str) -> frozenset[str]:
        """Names of the steps that made what stands beside the tables of a schema."""
        return frozenset(step for table, step in self.steps if table == f"{schema}.*")

    def loaded(self, table: str, generation: str) -> frozenset[int]:
        """Indexes of the table's chunks that are committed from this extraction."""
        return frozenset(
            chunk
            for (name, chunk), (made_by, _, _) in self.chunks.items()
            if name == table and made_by == generation
        )

    def refused(self, table: str, generation: str) -> Mapping[int, Digest]:
        """What the target did not take of the table's rows from this extraction, by index of their chunk."""
        return refused_rows(
            undo for (name, _), (made, undo) in self.steps.items() if (name, made) == (table, generation)
        )

    def stale(self, table: str, generation: str) -> bool:
        """Whether another extraction of the table has left chunks or steps. A table set aside stays so."""
        chunks = (made_by for (name, _), (made_by, _, _) in self.chunks.items() if name == table)
        steps = (
            made_by
            for (name, step), (made_by, _) in self.steps.items()
            if name == table and step != "set aside"
        )
        return any(made_by != generation for made_by in (*chunks, *steps))


def refused_rows(undo: Iterable[Mapping[str, Any]]) -> dict[int, Digest]:
    """Digests of rows that a target did not take, by chunk, from what the ledger has of its steps."""
    found: dict[int, Digest] = {}
    for entry in undo:
        for chunk, stored in entry.get("refused", {}).items():
            found[int(chunk)] = found.get(int(chunk), Digest()) + Digest.parse(stored)
    return found
