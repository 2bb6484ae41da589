"""Reading SQLite's catalog into `core.model`.

What belongs here: PRAGMAs and DDL to tables, keys, indexes, and what is left out with its reason. What does
not: looking at rows (`sqlite_census`), parsing SQL text (`sqlite_sql`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from jivs_pipeline.core.model import (
    Catalog,
    Check,
    Column,
    ForeignKey,
    Identity,
    Index,
    IndexPart,
    Key,
    LeftOut,
    Table,
)
from jivs_pipeline.core.types import Family, SqliteType, likely_sqlite, sqlite_type
from jivs_pipeline.infra.sources.sqlite_census import source_rows
from jivs_pipeline.infra.sources.sqlite_expressions import (
    UntranslatableError,
    default_expression,
    translate,
    translate_key,
)
from jivs_pipeline.infra.sources.sqlite_open import column_name
from jivs_pipeline.infra.sources.sqlite_sql import (
    Constraint,
    Token,
    constraints,
    identifier,
    index_parts,
    tokens,
)

__all__ = ["SCHEMA", "read_catalog"]

SCHEMA = "main"
"""The only schema of a file; attached databases are not part of it."""

# Everything in one file, rowids in order of creation. Shadow tables belong to virtual ones.
_OBJECTS = """
SELECT s.type, s.name, s.tbl_name, coalesce(s.sql, ''), coalesce(l.type, '')
FROM main.sqlite_schema AS s LEFT JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name
WHERE s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY s.rowid
"""
_COLUMNS = (
    "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?, 'main') ORDER BY cid"
)
_KEYS = "SELECT name, \"unique\", origin, partial FROM pragma_index_list(?, 'main') ORDER BY seq DESC"
_PARTS = "SELECT cid, name, \"desc\", coll FROM pragma_index_xinfo(?, 'main') WHERE key = 1 ORDER BY seqno"
_REFERENCES = """
SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?, 'main')
ORDER BY id DESC, seq
"""
_BINARY = "BINARY"
_REASONS = {
    "view": "views are not carried; create it in the target by hand",
    "trigger": "triggers are not carried; create it in the target by hand",
    "virtual table": "a virtual table is made by a module that PostgreSQL does not have",
}


class _Types(Mapping[str, tuple[str, SqliteType, bool]]):
    """By lower-cased name: a column's name, the type to expect, and whether it has a collation.

    Looks at the rows only when asked: a column of NULLs takes a scan of the table.
    """

    def __init__(self, held: Callable[[str], str | None]) -> None:
        self._held = held
        self._declared: dict[str, tuple[str, SqliteType, bool]] = {}
        self._likely: dict[str, tuple[str, SqliteType, bool]] = {}

    def add(self, name: str, declared: SqliteType, *, collated: bool) -> None:
        self._declared[name.lower()] = (name, declared, collated)

    def __getitem__(self, key: str) -> tuple[str, SqliteType, bool]:
        if key not in self._likely:
            name, declared, collated = self._declared[key]
            self._likely[key] = (name, likely_sqlite(declared, self._held(name)), collated)
        return self._likely[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)

    def spelled(self, name: str) -> str | None:
        """The column's name as it was declared; None if there is none."""
        found = self._declared.get(name.lower())
        return found[0] if found else None


@dataclass(slots=True)
class _Reading:
    """What is known of one table while it is read."""

    name: str
    constraints: list[Constraint]
    without_rowid: bool
    types: _Types
    columns: list[Column] = field(default_factory=list[Column])
    collations: dict[str, str] = field(default_factory=dict[str, str])
    primary_key: tuple[str, ...] = ()


class _Reader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables: dict[str, _Reading] = {}
        self.left_out: list[LeftOut] = []

    def _rows(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def _leave(
        self,
        name: str,
        kind: str,
        reason: str,
        table: str | None,
        severity: Literal["lossy", "refused"] = "refused",
    ) -> None:
        holds_rows = kind == "virtual table"
        self.left_out.append(LeftOut(name, kind, reason, table, severity, holds_rows))

    def read(self) -> tuple[Table, ...]:
        indexes: dict[str, str] = {}
        for kind, name, table, sql, detail in self._rows(_OBJECTS):
            what = "virtual table" if detail == "virtual" else kind
            if detail == "shadow":
                continue
            if what in _REASONS:
                self._leave(name, what, _REASONS[what], table if what == "trigger" else None)
            elif what == "index":
                indexes[name] = sql
            else:
                self._tables[name.lower()] = self._reading(name, sql)
        return _with_unique_names([self._table(reading, indexes) for reading in self._tables.values()])

    def _reading(self, name: str, sql: str) -> _Reading:
        types = _Types(partial(self._held, name))
        reading = _Reading(name, constraints(sql), _has_no_rowid(sql), types)
        for constraint in reading.constraints:
            if constraint.kind == "COLLATE":
                reading.collations[constraint.columns[0]] = identifier(constraint.body[0]).upper()
        rows = self._rows(_COLUMNS, name)
        keyed = sorted((row for row in rows if row[4]), key=lambda row: row[4])
        reading.primary_key = tuple(row[0] for row in keyed)
        has_key_index = any(row[2] == "pk" for row in self._rows(_KEYS, name))
        # A rowid by another name: no index of its own, and SQLite numbers it.
        has_alias = len(keyed) == 1 and not has_key_index and not reading.without_rowid
        for column, declared, not_null, default, key, hidden in rows:
            collation = reading.collations.get(column.lower(), _BINARY)
            types.add(column, sqlite_type(declared), collated=collation != _BINARY)
            if collation != _BINARY:
                reason = f"COLLATE {collation} is not carried: PostgreSQL will compare byte by byte"
                self._leave(f"{name}.{column}", "collation", reason, name, "lossy")
            if hidden:
                reason = "generated by an expression of SQLite; carried as plain values"
                self._leave(f"{name}.{column}", "generated column", reason, name, "lossy")
            alias = bool(key) and has_alias
            reading.columns.append(
                Column(
                    column,
                    declared,
                    nullable=not (not_null or key),
                    default=None if alias else self._default(reading, column, default),
                    identity=Identity() if alias else None,
                )
            )
        return reading

    def _held(self, table: str, column: str) -> str | None:
        """Storage class of the column's first value."""
        name = column_name(table, column)
        rows = source_rows(table, [f"{name} NOT NULL"])
        found = self._connection.execute(f"SELECT typeof({name}) {rows} LIMIT 1").fetchone()
        return found[0] if found else None

    def _default(self, reading: _Reading, column: str, written: str | None) -> str | None:
        if written is None:
            return None
        try:
            return default_expression(written, reading.types[column.lower()][1])
        except UntranslatableError as reason:
            self._leave(f"{reading.name}.{column}", "default", str(reason), reading.name, "lossy")
            return None

    def _table(self, reading: _Reading, indexes: Mapping[str, str]) -> Table:
        unique: list[Key] = []
        made: list[Index] = []
        for name, is_unique, origin, has_predicate in self._rows(_KEYS, reading.name):
            parts = self._rows(_PARTS, name)
            self._note_collations(reading, name, parts)
            if origin == "u":
                columns = tuple(part[1] for part in parts)
                unique.append(Key(_key_name(reading, "UNIQUE", columns), columns))
            elif origin == "c" and (found := self._index(reading, name, indexes[name], parts)) is not None:
                keys, predicate = found
                where = self._predicate(reading, name, predicate) if has_predicate else None
                if where is not None or not has_predicate:
                    made.append(Index(name, keys, unique=bool(is_unique), predicate=where))
        key = None
        if reading.primary_key:
            key = Key(_key_name(reading, "PRIMARY", reading.primary_key), reading.primary_key)
        return Table(
            SCHEMA,
            reading.name,
            tuple(reading.columns),
            primary_key=key,
            unique_keys=tuple(unique),
            foreign_keys=tuple(self._foreign_keys(reading)),
            checks=tuple(self._checks(reading)),
            indexes=tuple(made),
            without_rowid=reading.without_rowid,
        )

    def _note_collations(self, reading: _Reading, index: str, parts: Sequence[tuple[Any, ...]]) -> None:
        for _, column, _, collation in parts:
            of_column = reading.collations.get(str(column).lower(), _BINARY)
            if column is not None and collation.upper() not in {_BINARY, of_column}:
                reason = f"COLLATE {collation} of {column} is not carried"
                self._leave(index, "collation", reason, reading.name, "lossy")

    def _index(
        self, reading: _Reading, name: str, sql: str, parts: Sequence[tuple[Any, ...]]
    ) -> tuple[tuple[IndexPart, ...], list[Token]] | None:
        """Keys and untranslated predicate of a CREATE INDEX; None if a key is left out."""
        keys, predicate = index_parts(sql)
        made: list[IndexPart] = []
        for (_, column, descending, _), written in zip(parts, keys, strict=True):
            if column is not None:
                made.append(IndexPart(column, descending=bool(descending)))
                continue
            expression = [token for token in written if not token.word("ASC", "DESC")]
            try:
                key = translate_key(expression, reading.types)
            except UntranslatableError as reason:
                self._leave(name, "index", f"{reason}; create it in the target by hand", reading.name)
                return None
            made.append(IndexPart(None, key, descending=bool(descending)))
        return tuple(made), predicate

    def _predicate(self, reading: _Reading, index: str, predicate: Sequence[Token]) -> str | None:
        try:
            return translate(predicate, reading.types)
        except UntranslatableError as reason:
            self._leave(index, "index", f"{reason}; create it in the target by hand", reading.name)
            return None

    def _checks(self, reading: _Reading) -> list[Check]:
        found: list[Check] = []
        for constraint in reading.constraints:
            if constraint.kind != "CHECK":
                continue
            try:
                found.append(Check(constraint.name, translate(constraint.body, reading.types)))
            except UntranslatableError as reason:
                written = " ".join(token.text for token in constraint.body)
                name = constraint.name or f"{reading.name}: {written[:80]}"
                self._leave(name, "check constraint", str(reason), reading.name)
        return found

    def _foreign_keys(self, reading: _Reading) -> list[ForeignKey]:
        """In order of declaration, which is what `id` counts down from."""
        declared = [c for c in reading.constraints if c.kind == "FOREIGN"]
        grouped: dict[object, list[tuple[Any, ...]]] = {}
        for row in self._rows(_REFERENCES, reading.name):
            grouped.setdefault(row[0], []).append(row)
        found: list[ForeignKey] = []
        for position, rows in enumerate(grouped.values()):
            columns = tuple(reading.types.spelled(row[2]) or row[2] for row in rows)
            written = declared[position] if position < len(declared) else None
            if written is not None and written.columns != tuple(c.lower() for c in columns):
                written = None
            name = written.name if written else None
            parent = self._tables.get(rows[0][1].lower())
            label = name or f"{reading.name} ({', '.join(columns)})"
            if parent is None:
                self._leave(label, "foreign key", f"its table {rows[0][1]} is not carried", reading.name)
                continue
            targets = tuple(row[3] for row in rows) if rows[0][3] is not None else parent.primary_key
            problem = self._mismatch(reading, columns, parent, targets)
            if problem:
                self._leave(label, "foreign key", problem, reading.name)
                continue
            found.append(
                ForeignKey(
                    name,
                    columns,
                    SCHEMA,
                    parent.name,
                    tuple(parent.types.spelled(t) or t for t in targets),
                    on_update=rows[0][4].upper(),
                    on_delete=rows[0][5].upper(),
                    deferrable=bool(written and written.deferrable),
                    initially_deferred=bool(written and written.initially_deferred),
                )
            )
        return found

    def _mismatch(
        self, child: _Reading, columns: Sequence[str], parent: _Reading, targets: Sequence[str]
    ) -> str | None:
        """Why PostgreSQL could not take this foreign key, or None."""
        if len(targets) != len(columns) or any(parent.types.spelled(t) is None for t in targets):
            return f"its columns in {parent.name} do not exist"
        wanted = {t.lower() for t in targets}
        if wanted != {c.lower() for c in parent.primary_key} and not any(
            row[1] and not row[3] and {str(p[1]).lower() for p in self._rows(_PARTS, row[0])} == wanted
            for row in self._rows(_KEYS, parent.name)
        ):
            return f"its columns in {parent.name} are not unique"
        for column, target in zip(columns, targets, strict=True):
            one, other = child.types[column.lower()][1], parent.types[target.lower()][1]
            if not _joins(one, other):
                return f"{column} ({one.declared}) and {target} ({other.declared}) are of different types"
        return None


def _has_no_rowid(sql: str) -> bool:
    """Whether the options after a CREATE TABLE's parentheses say WITHOUT ROWID."""
    items = tokens(sql)
    closed = max((i for i, token in enumerate(items) if token.word(")")), default=len(items))
    return any(token.word("WITHOUT") for token in items[closed:])


def _key_name(reading: _Reading, kind: str, columns: Sequence[str]) -> str | None:
    wanted = tuple(c.lower() for c in columns)
    return next((c.name for c in reading.constraints if c.kind == kind and c.columns == wanted), None)


# Pairs of child and parent for which PostgreSQL has an operator, beside equal ones.
_JOINED = {
    (Family.INTEGER, Family.NUMERIC), (Family.INTEGER, Family.REAL), (Family.NUMERIC, Family.REAL),
    (Family.TEXT, Family.VARCHAR), (Family.VARCHAR, Family.TEXT),
}  # fmt: skip


def _joins(child: SqliteType, parent: SqliteType) -> bool:
    return child.family is parent.family or (child.family, parent.family) in _JOINED


def _with_unique_names(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables with names of constraints that PostgreSQL takes; the later of two equal ones loses its name.

    There a key is an index, and names of indexes and tables are unique in a schema; those of other constraints
    are unique in a table. SQLite knows no such rules.
    """
    taken = {t.name for t in tables} | {i.name for t in tables for i in t.indexes}
    found: list[Table] = []
    for table in tables:
        of_table: set[str] = set()

        def kept(name: str | None, *, key: bool = False, of_table: set[str] = of_table) -> str | None:
            if name is None or name in of_table or (key and name in taken):
                return None
            of_table.add(name)
            if key:
                taken.add(name)
            return name

        primary = table.primary_key
        found.append(
            replace(
                table,
                primary_key=replace(primary, name=kept(primary.name, key=True)) if primary else None,
                unique_keys=tuple(replace(k, name=kept(k.name, key=True)) for k in table.unique_keys),
                foreign_keys=tuple(replace(k, name=kept(k.name)) for k in table.foreign_keys),
                checks=tuple(replace(c, name=kept(c.name)) for c in table.checks),
            )
        )
    return tuple(found)


def read_catalog(connection: sqlite3.Connection) -> Catalog:
    """Tables of the file with all that hangs on them, and what is left out."""
    reader = _Reader(connection)
    tables = reader.read()
    return Catalog(SCHEMA, tables, tuple(reader.left_out))
