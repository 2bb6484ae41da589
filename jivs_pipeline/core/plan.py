"""The plan: a migration as data. `jivs plan` prints it and the phases walk it, so a dry run cannot drift.

What belongs here: frozen values with JSON forms and the hash. What does not: making a plan from a
catalog (`engine/planning.py`).

Chunks are half-open ranges `[lower, upper)` over the table's chunk key, so that neighbours share a
bound and no row is in two chunks or in none. A bound is a tuple with one text per key column, in the
spelling of the *source*, and is compared by the source only: two databases never agree on the order
of text. None means unbounded. NULLs cannot be in a key.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.model import Table
from jivs_pipeline.core.names import qualified

__all__ = [
    "INTEGERS",
    "RULED",
    "Check",
    "Chunk",
    "ChunkBy",
    "ColumnPlan",
    "Dedupe",
    "Lane",
    "Later",
    "Lookup",
    "Made",
    "ObjectPlan",
    "Plan",
    "PlanWarning",
    "Range",
    "Rules",
    "Sifted",
    "Step",
    "TableMode",
    "TablePlan",
    "Wire",
]


class Lane(StrEnum):
    """How rows travel."""

    COPY = "copy"
    ARROW = "arrow"


class Wire(StrEnum):
    """The form in which COPY takes the rows."""

    BINARY = "binary"
    TEXT = "text"
    CSV = "csv"


INTEGERS = frozenset({"smallint", "integer", "bigint"})
"""Types of PostgreSQL that have one order in all databases."""


class ChunkBy(StrEnum):
    """What chunk bounds mean."""

    WHOLE = "whole"  # one chunk
    KEY = "key"  # values of the chunk columns
    CTID = "ctid"  # PostgreSQL heap block numbers
    ROWID = "rowid"  # SQLite rowids
    BYTES = "bytes"  # CSV: file and byte
    ROW_GROUPS = "row groups"  # Parquet: file and row group


class TableMode(StrEnum):
    """What happens to a table of that name in the target."""

    CREATE = "create"
    REPLACE = "replace"
    TRUNCATE = "truncate"
    APPEND = "append"
    UPDATE = "update"
    """Changed into what the source has."""


Range = tuple[int | None, int | None]
"""A half-open range of an integer chunk key; None means unbounded."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(_Value):
    """A half-open range of one table; the unit of work, retry and ledger."""

    index: int
    lower: tuple[str, ...] | None = None
    upper: tuple[str, ...] | None = None


class Sifted(Chunk):
    """A chunk without its bad rows (`without`), or some of its rows alone (`only`), by the source's own positions.

    Made when the rows are read and never part of a plan, so that a plan's hash does not depend on bad rows.
    """

    without: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None


class ColumnPlan(_Value):
    """One column that is carried.

    `carrier` names how the source hands the value over (dialect-specific, see `infra/sources/`);
    `arrow` is the Arrow type in staging, empty in the copy lane; `note` tells a user why the type is what it is.
    """

    source: str
    target: str
    source_type: str
    target_type: str
    carrier: str = "native"
    arrow: str = ""
    canon: Canon = Canon.TEXT
    nullable: bool = True
    note: str = ""


RULED = "rule"
"""Carrier of a column whose values a rule makes."""


class Step(_Value):
    """One change of a column's value, as DuckDB SQL over the row as it was read and over the steps before."""

    kind: Literal["lookup", "expression", "default", "type", "mask"]
    sql: str


class Made(_Value):
    """A column of the target that rules make.

    Attributes:
        target: its name.
        steps: what is done, one on the result of the other.
        text: DuckDB SQL of the last value as PostgreSQL reads it.
        checked: whether that text may still be no value of the column's type.
        masked: whether nothing of what it is made from may be shown.
        alike: whether all its values are the same, or NULL.
        required: whether NULL makes the row a bad one.
        origin: the column of the source that it takes the place of, or None for one that is added.
    """

    target: str
    steps: tuple[Step, ...]
    text: str
    checked: bool = False
    masked: bool = False
    alike: bool = False
    required: bool = False
    origin: str | None = None


class Lookup(_Value):
    """Values of another table of the migration, by their keys: `table` is the other's target name, all columns are of
    the sources, `type` is DuckDB's of the value.
    """

    table: str
    key: str
    value: str
    by: str
    type: str


class Dedupe(_Value):
    """Rows that are alike in `key` become one: the first by `order` (DuckDB SQL), then by where it is stored."""

    key: tuple[str, ...]
    order: str | None = None
    descending: bool = False


class Check(_Value):
    """One validation of a table's rows as they will be loaded.

    Attributes:
        name, kind, severity: as in the spec.
        columns: of the target, that it is about.
        fails: DuckDB SQL over the columns of the target that is true of a row that does not pass; None where `type` or
            other rows decide.
        type: that every value of the column must be one of.
        alike: whether no two rows may be alike in `columns`.
        parent: (target table, its columns) in which each row's values must be.
        broken: why it cannot pass, whatever the rows are.
        at_least: share of rows that must pass.
        quarantine: rows that do not pass are bad rows.
    """

    name: str
    kind: str
    severity: Literal["critical", "major", "minor"]
    columns: tuple[str, ...] = ()
    fails: str | None = None
    type: str | None = None
    alike: bool = False
    parent: tuple[str, tuple[str, ...]] | None = None
    broken: str | None = None
    at_least: float = 1.0
    quarantine: bool = False


class Rules(_Value):
    """What is done to a table's rows between reading and loading.

    Attributes:
        read, wire: the columns as they are read and staged; the table's own are what is loaded.
        seen: (column, DuckDB type) that expressions see, and how DuckDB gets it from the column's text.
        lookups: what steps may take from other tables.
        made: columns that rules make; all others go on as they were read.
        python: `module:function` through which batches go first.
        returned: (column, DuckDB type) that it gives back.
        checks: what is asked of the rows then.
        key_hash: tells apart the keys of `mask: hmac` that runs were given.
    """

    read: tuple[ColumnPlan, ...]
    wire: Wire
    seen: tuple[tuple[str, str], ...] = ()
    lookups: tuple[Lookup, ...] = ()
    made: tuple[Made, ...] = ()
    dedupe: Dedupe | None = None
    python: str | None = None
    returned: tuple[tuple[str, str], ...] = ()
    checks: tuple[Check, ...] = ()
    key_hash: str | None = None

    @property
    def active(self) -> bool:
        """Whether rows or values become others, and are not only checked."""
        return bool(self.made or self.dedupe or self.python)


class Later(_Value):
    """Rules that a replay was given for rows that those before reject, and the table's columns as these make them."""

    columns: tuple[ColumnPlan, ...]
    rules: Rules


class PlanWarning(_Value):
    """Something that is not carried exactly (`lossy`) or not at all (`refused`)."""

    table: str
    column: str | None = None
    kind: Literal["lossy", "refused"]
    reason: str


class ObjectPlan(_Value):
    """Something besides tables that the target makes; see `core.model.SchemaObject`.

    `before`: made before the tables. All others are made when all tables have their rows.
    """

    kind: str
    name: str
    statements: tuple[str, ...]
    drop: str
    before: bool = False
    sequences: tuple[str, ...] = ()
    optional: bool = False
    """Should the target not take it, it is left out aloud."""

    @property
    def label(self) -> str:
        """For people, and the name of its step in the ledger."""
        return f"{self.kind} {self.name}"


class TablePlan(_Value):
    """One table: what is read, in which chunks, and what it becomes.

    `refused` is the reason why the table cannot be carried, with `refused_column`; such a table fails
    alone. `rows` and `bytes` are estimates of the source unless `rows_exact`.
    """

    source_schema: str
    source_table: str
    target_schema: str
    target_table: str
    columns: tuple[ColumnPlan, ...]
    lane: Lane
    wire: Wire
    spelling: Spelling
    mode: TableMode = TableMode.CREATE
    where: str | None = None
    chunk_by: ChunkBy = ChunkBy.WHOLE
    chunk_columns: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = (Chunk(index=0),)
    rows: int = 0
    rows_exact: bool = True
    bytes: int = 0
    refused: str | None = None
    refused_column: str | None = None
    streamed: bool = False
    """Its chunks go from the source into the target in the load phase, without staging (`staging: none`)."""
    watermark: str | None = None
    """The source's SQL for a column that grows with each change of a row; where it says so is looked first."""
    watermark_column: str | None = None
    """The same column in the target."""
    existing_key: tuple[str, ...] = ()
    """Columns that tell the rows of the target's existing table apart; empty where it has no such key."""
    upsert: bool = False
    """Whether rows whose key the target's existing table has take the place of those."""
    definition: Table | None = None
    """Keys, indexes and constraints in the *target's* names; what the target builds after the load."""
    rules: Rules | None = None
    """What is done to the rows between reading and loading; None where nothing is."""
    later: tuple[Later, ...] = ()
    """What replays have done to rows that `rules` reject: the first that takes a row makes it."""
    parents: tuple[str, ...] = ()
    """Target tables to which the one that was there refers, whatever the source knows of it."""
    after: tuple[str, ...] = ()
    """Target tables that are made before it, because their row types are types of its columns."""
    large_objects_of: str | None = None
    """The migration's key, where the rows are pieces of the database's large objects and not a table's."""

    @property
    def source(self) -> str:
        """`schema.table` of the source."""
        return qualified(self.source_schema, self.source_table)

    @property
    def target(self) -> str:
        """`schema.table` of the target; the table's name in checkpoints and in the ledger."""
        return qualified(self.target_schema, self.target_table)

    @property
    def beside(self) -> bool:
        """Whether the table was there before, so that its chunks are copied beside it and merged at the end."""
        return self.mode in {TableMode.TRUNCATE, TableMode.APPEND, TableMode.UPDATE}

    @property
    def as_read(self) -> TablePlan:
        """The table as its source hands it over: without what rules make of it."""
        rules = self.rules
        if rules is None:
            return self
        names = {c.source: c.target for c in self.columns if c.carrier != RULED}
        read = tuple(c.model_copy(update={"target": names.get(c.source, c.source)}) for c in rules.read)
        # Keys are those of what the rules make.
        definition = None if rules.active else self.definition
        return self.model_copy(
            update={"columns": read, "wire": rules.wire, "rules": None, "definition": definition}
        )

    @property
    def as_texts(self) -> TablePlan:
        """As it is read, in texts that rules can look into, whichever way it is loaded."""
        read = self.as_read
        if read.lane is Lane.ARROW:
            return read
        columns = tuple(c.model_copy(update={"arrow": "string", "canon": Canon.TEXT}) for c in read.columns)
        return read.model_copy(
            update={
                "columns": columns,
                "lane": Lane.ARROW,
                "wire": Wire.CSV,
                "spelling": read.spelling.of_texts,
            }
        )

    @property
    def by_later(self) -> tuple[TablePlan, ...]:
        """The table as each replay's rules make it, in their order."""
        return tuple(
            self.model_copy(update={"columns": one.columns, "rules": one.rules, "later": ()})
            for one in self.later
        )

    @property
    def chunk_key(self) -> str | None:
        """The target's integer column that tells the chunks apart there too, or None.

        Only integers have one order in all databases. SQLite's rowid is a column where an INTEGER PRIMARY KEY is.
        """
        # A rule moves rows out of their chunk's range.
        names = {c.source: c for c in self.columns if c.carrier != RULED}
        if self.chunk_by is ChunkBy.KEY and len(self.chunk_columns) == 1:
            column = names.get(self.chunk_columns[0])
        elif self.chunk_by is ChunkBy.ROWID and self.definition is not None:
            numbered = {c.name for c in self.definition.columns if c.identity is not None}
            column = next((c for c in names.values() if c.target in numbered), None)
        else:
            return None
        return column.target if column and column.target_type in INTEGERS else None

    @property
    def hash(self) -> str:
        """Digest of everything that decides which rows arrive and how."""
        return _hash(self.model_dump(mode="json", exclude={"rows", "bytes", "rows_exact"}))


class Plan(_Value):
    """All tables of one migration, largest first."""

    key: str
    spec_hash: str
    source: str
    target: str
    source_dialect: str
    source_version: str
    target_version: str
    tables: tuple[TablePlan, ...]
    warnings: tuple[PlanWarning, ...] = ()
    target_schema: str = ""
    """Where the objects are made."""
    objects: tuple[ObjectPlan, ...] = ()
    """In an order in which they can be made."""

    @property
    def hash(self) -> str:
        """Same catalog, same rows, same spec: same hash."""
        return _hash(self.model_dump(mode="json"))

    @property
    def rows(self) -> int:
        """Rows to carry, estimated."""
        return sum(t.rows for t in self.carried)

    @property
    def bytes(self) -> int:
        """Bytes to carry, estimated."""
        return sum(t.bytes for t in self.carried)

    @property
    def staged_bytes(self) -> int:
        """Bytes to stage, estimated."""
        return sum(t.bytes for t in self.carried if not t.streamed)

    @property
    def carried(self) -> tuple[TablePlan, ...]:
        """The tables that were not refused."""
        return tuple(t for t in self.tables if t.refused is None)

    def table(self, target: str) -> TablePlan:
        """The table whose target is `schema.table`; KeyError when there is none."""
        for table in self.tables:
            if table.target == target:
                return table
        raise KeyError(target)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
