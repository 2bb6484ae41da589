"""What a source's catalog says, in words that no dialect owns.

What belongs here: frozen values read from a source. What does not: decisions about the target
(`core/plan.py`) and the queries that fill these (`infra/sources/`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jivs_pipeline.core.names import qualified

__all__ = [
    "Catalog",
    "Check",
    "Column",
    "ForeignKey",
    "Identity",
    "Index",
    "IndexPart",
    "Key",
    "LeftOut",
    "Need",
    "PartKind",
    "SchemaObject",
    "ServerInfo",
    "Table",
]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One end of a migration as it presents itself."""

    name: str
    dialect: str
    version: str
    encoding: str = "UTF8"


@dataclass(frozen=True, slots=True)
class Identity:
    """A column that numbers itself. What comes next is not here: it is read with the rows (`Snapshot.next_values`).

    `sequence` is the name of an owned sequence to keep (serial columns); None makes an identity column.
    """

    always: bool = False
    start: int = 1
    increment: int = 1
    minimum: int | None = None
    maximum: int | None = None
    cache: int = 1
    cycle: bool = False
    sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` is the source's own spelling; `default` and `generated` are PostgreSQL expressions
    (None where the dialect could not translate them).
    """

    name: str
    type: str
    nullable: bool = True
    default: str | None = None
    generated: str | None = None
    identity: Identity | None = None
    comment: str | None = None
    collation: str | None = None
    made: bool = False
    """Whether its type is one of the catalog's objects; its name is without a schema then."""
    rows_of: str | None = None
    """The table of the catalog whose rows are its type, or its type's elements."""
    extension: str | None = None
    """The extension that its type belongs to, with its schema."""
    numbers_from: str | None = None
    """The sequence among the catalog's objects that its default takes numbers from."""
    required_by: str | None = None
    """The name of its NOT NULL, where somebody has given it one."""
    settings: tuple[str, ...] = ()
    """What PostgreSQL's ALTER COLUMN sets before there are rows: `SET STORAGE EXTERNAL`."""
    as_text: bool = False
    """Whether a rule takes its values as the source's text, should no type hold them all."""


@dataclass(frozen=True, slots=True)
class Key:
    """Primary or unique key. `name` is None where the source has none; `clause` ends its definition
    (DEFERRABLE …, NULLS NOT DISTINCT before the columns is `nulls_not_distinct`).
    """

    name: str | None
    columns: tuple[str, ...]
    deferrable: bool = False
    initially_deferred: bool = False
    nulls_not_distinct: bool = False
    include: tuple[str, ...] = ()
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """Actions are spelled as in SQL: NO ACTION, RESTRICT, CASCADE, SET NULL, SET DEFAULT."""

    name: str | None
    columns: tuple[str, ...]
    target_schema: str
    target_table: str
    target_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    match_full: bool = False
    deferrable: bool = False
    initially_deferred: bool = False
    valid: bool = True
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A CHECK whose expression PostgreSQL understands."""

    name: str | None
    expression: str
    valid: bool = True
    no_inherit: bool = False
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One key of an index: a column or an expression, with its order."""

    column: str | None
    expression: str | None = None
    descending: bool = False
    nulls_first: bool | None = None
    collation: str | None = None
    opclass: str | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is not a key's. `predicate` is a PostgreSQL expression."""

    name: str
    parts: tuple[IndexPart, ...]
    unique: bool = False
    method: str = "btree"
    predicate: str | None = None
    include: tuple[str, ...] = ()
    nulls_not_distinct: bool = False
    with_options: tuple[str, ...] = ()
    comment: str | None = None


PartKind = Literal["default", "generated column", "check constraint", "index"]


@dataclass(frozen=True, slots=True)
class Need:
    """A part of a table that uses something of an extension; `extension` is `schema.name`."""

    kind: PartKind
    name: str
    extension: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with all that hangs on it. Names are the source's own, never quoted."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: Key | None = None
    unique_keys: tuple[Key, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    indexes: tuple[Index, ...] = ()
    comment: str | None = None
    unlogged: bool = False
    without_rowid: bool = False
    """SQLite only: the table has no rowid to chunk by."""
    uses_objects: bool = False
    """Whether its expressions name objects of its schema, without that schema."""
    needs: tuple[Need, ...] = ()
    root: str | None = None
    """The partitioned table that it is a part of, in the end."""
    settings: tuple[str, ...] = ()
    """What PostgreSQL's ALTER TABLE sets before there are rows: `SET (fillfactor='70')`."""

    @property
    def qualified(self) -> str:
        """`schema.table` for people and dictionaries."""
        return qualified(self.schema, self.name)

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object of the source that is not carried, and why. One that `holds_rows` would be missed: it fails the run."""

    name: str
    kind: str
    reason: str
    table: str | None = None
    severity: Literal["lossy", "refused"] = "refused"
    holds_rows: bool = False


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """Something besides tables that a few statements make: a type, a view, a function, a trigger.

    Attributes:
        name: for people, without the schema: `f(integer)`, `orders.check_total` for what hangs on a relation.
        statements: in PostgreSQL's SQL; names of its own schema stand bare and mean the one that it is made in.
        drop: the statement that undoes them.
        before: tables need it, so it is made before them; all others are made on their rows.
        needs: (kind, name) of other objects that it uses, and of extensions.
        uses: (table, column or None) of tables that it uses.
        roots: more names by which `tables` of a spec may mean it: of a partition, the table that it belongs to.
        sequences: SQL for the names of those in it; where they stand is read with the rows (`ports.Standing`).
        optional: should the target not take it, it is left out aloud, and the run goes on.
        on_update: of a trigger that the spec has to ask for (`on_update`), the column that it sets.
    """

    kind: str
    name: str
    statements: tuple[str, ...]
    drop: str
    before: bool = False
    needs: frozenset[tuple[str, str]] = frozenset()
    uses: frozenset[tuple[str, str | None]] = frozenset()
    roots: frozenset[str] = frozenset()
    sequences: tuple[str, ...] = ()
    optional: bool = False
    on_update: str | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything of one schema that a migration may carry. `objects` stand in an order in which they can be made."""

    schema: str
    tables: tuple[Table, ...]
    left_out: tuple[LeftOut, ...] = field(default=())
    objects: tuple[SchemaObject, ...] = ()
    extensions: tuple[str, ...] = ()
    """Those of the source's database, as `schema.name`."""

    def table(self, name: str) -> Table | None:
        """The table called `name`, or None."""
        return next((t for t in self.tables if t.name == name), None)
