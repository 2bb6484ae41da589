"""Reading SQLite's catalog into `core.model`.

What belongs here: PRAGMAs and DDL to tables, keys, indexes, and what is left out with its reason. What does
not: looking at rows (`sqlite_census`), parsing SQL text (`sqlite_sql`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
from jivs_pipeline.core.types import Affinity, Family, SqliteType, sqlite_type
from jivs_pipeline.infra.sources.sqlite_sql import (
    Constraint,
    Untranslatable,
    constraints,
    default_expression,
    identifier,
    index_parts,
    tokens,
    translate,
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
SELECT id, "table", "from", "to", on_update, on_delete FROM pragma_foreign_key_list(?, 'main') ORDER BY id DESC, seq
"""
_REASONS = {
    "view": "views are not carried; create it in the target by hand",
    "trigger": "triggers are not carried; create it in the target by hand",
    "virtual table": "a virtual table is made by a module that PostgreSQL does not have",
}


@dataclass(slots=True)
class _Reading:
    """What is known of one table while it is read."""

    name: str
    sql: str
    without_rowid: bool = False
    strict: bool = False
    columns: list[Column] = field(default_factory=list[Column])
    types: dict[str, tuple[str, SqliteType, bool]] = field(
        default_factory=dict[str, tuple[str, SqliteType, bool]]
    )
    collations: dict[str, str] = field(default_factory=dict[str, str])
    primary_key: tuple[str, ...] = ()
    constraints: list[Constraint] = field(default_factory=list[Constraint])


class _Reader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tables: dict[str, _Reading] = {}
        self.left_out: list[LeftOut] = []

    def _rows(self, sql: str, *parameters: str) -> list[tuple[object, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    def _leave(
        self,
        name: str,
        kind: str,
        reason: str,
        table: str | None,
        severity: Literal["lossy", "refused"] = "refused",
    ) -> None:
        self.left_out.append(LeftOut(name, kind, reason, table, severity))

    def read(self) -> tuple[Table, ...]:
        indexes: dict[str, str] = {}
        for type_, name, table, sql, kind in self._rows(_OBJECTS):
            type_, name, table, sql = str(type_), str(name), str(table), str(sql)
            if kind == "shadow":
                continue
            if kind == "virtual" or sql.upper().lstrip().startswith("CREATE VIRTUAL"):
                type_ = "virtual table"
            if type_ in _REASONS:
                self._leave(name, type_, _REASONS[type_], table if type_ == "trigger" else None)
            elif type_ == "index":
                indexes[name] = sql
            else:
                self._tables[name.lower()] = self._reading(name, sql)
        return tuple(self._table(reading, indexes) for reading in self._tables.values())

    def _reading(self, name: str, sql: str) -> _Reading:
        reading = _Reading(name, sql)
        reading.constraints = constraints(sql)
        depth, tail = 0, list[str]()
        for token in tokens(sql):
            depth += token.word("(") - token.word(")")
            if token.word(")"):
                tail = []
            elif not depth:
                tail.append(token.text.upper())
        reading.without_rowid = "WITHOUT" in tail and "ROWID" in tail
        for constraint in reading.constraints:
            if constraint.kind == "COLLATE":
                reading.collations[constraint.columns[0]] = identifier(constraint.body[0]).upper()
        rows = self._rows(_COLUMNS, name)
        keyed = sorted((row for row in rows if row[4]), key=lambda row: int(str(row[4])))
        reading.primary_key = tuple(str(row[0]) for row in keyed)
        has_key_index = any(row[2] == "pk" for row in self._rows(_KEYS, name))
        for column, declared, not_null, default, key, hidden in rows:
            column, declared = str(column), str(declared)
            parsed = sqlite_type(declared)
            collation = reading.collations.get(column.lower(), "BINARY")
            reading.types[column.lower()] = (column, parsed, collation != "BINARY")
            if collation != "BINARY":
                reason = f"COLLATE {collation} is not carried: comparisons in PostgreSQL tell case and spaces apart"
                self._leave(f"{name}.{column}", "collation", reason, name, "lossy")
            if hidden:
                reason = "generated by an expression of SQLite; carried as plain values"
                self._leave(f"{name}.{column}", "generated column", reason, name, "lossy")
            # A rowid by another name: no index of its own, and SQLite numbers it.
            alias = bool(key) and len(keyed) == 1 and not has_key_index and not reading.without_rowid
            reading.columns.append(
                Column(
                    column,
                    declared,
                    nullable=not (not_null or key),
                    default=None if alias else self._default(name, column, default, parsed),
                    identity=Identity() if alias else None,
                )
            )
        return reading

    def _default(self, table: str, column: str, written: object, declared: SqliteType) -> str | None:
        if written is None:
            return None
        try:
            return default_expression(str(written), declared)
        except Untranslatable as reason:
            self._leave(f"{table}.{column}", "default", str(reason), table, "lossy")
            return None

    def _table(self, reading: _Reading, indexes: Mapping[str, str]) -> Table:
        unique: list[Key] = []
        made: list[Index] = []
        for name, is_unique, origin, partial in self._rows(_KEYS, reading.name):
            name = str(name)
            parts = self._rows(_PARTS, name)
            self._note_collations(reading, name, parts)
            if origin == "u":
                columns = tuple(str(part[1]) for part in parts)
                unique.append(Key(self._key_name(reading, "UNIQUE", columns), columns))
            elif origin == "c" and (
                index := self._index(
                    reading, name, indexes.get(name, ""), parts, bool(is_unique), bool(partial)
                )
            ):
                made.append(index)
        key = None
        if reading.primary_key:
            key = Key(self._key_name(reading, "PRIMARY", reading.primary_key), reading.primary_key)
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

    def _note_collations(self, reading: _Reading, index: str, parts: Sequence[tuple[object, ...]]) -> None:
        for _, column, _, collation in parts:
            of_column = reading.collations.get(str(column).lower(), "BINARY")
            if column is not None and str(collation).upper() not in ("BINARY", of_column):
                reason = f"COLLATE {collation} of {column} is not carried"
                self._leave(index, "collation", reason, reading.name, "lossy")

    @staticmethod
    def _key_name(reading: _Reading, kind: str, columns: Sequence[str]) -> str | None:
        wanted = tuple(c.lower() for c in columns)
        return next((c.name for c in reading.constraints if c.kind == kind and c.columns == wanted), None)

    def _index(
        self,
        reading: _Reading,
        name: str,
        sql: str,
        parts: Sequence[tuple[object, ...]],
        unique: bool,
        partial: bool,
    ) -> Index | None:
        keys, predicate = index_parts(sql)
        made: list[IndexPart] = []
        try:
            for (_, column, descending, _), written in zip(parts, keys, strict=True):
                if column is not None:
                    made.append(IndexPart(str(column), descending=bool(descending)))
                    continue
                expression = [t for t in written if not t.word("ASC", "DESC")]
                made.append(
                    IndexPart(
                        None,
                        translate(expression, reading.types, condition=False),
                        descending=bool(descending),
                    )
                )
            where = translate(predicate, reading.types) if partial else None
        except Untranslatable as reason:
            self._leave(name, "index", f"{reason}; create it in the target by hand", reading.name)
            return None
        return Index(name, tuple(made), unique=unique, predicate=where)

    def _checks(self, reading: _Reading) -> list[Check]:
        found: list[Check] = []
        for constraint in reading.constraints:
            if constraint.kind != "CHECK":
                continue
            try:
                found.append(Check(constraint.name, translate(constraint.body, reading.types)))
            except Untranslatable as reason:
                written = " ".join(token.text for token in constraint.body)
                name = constraint.name or f"{reading.name}: {written[:80]}"
                self._leave(name, "check constraint", str(reason), reading.name)
        return found

    def _foreign_keys(self, reading: _Reading) -> list[ForeignKey]:
        """In order of declaration, which is what `id` counts down from."""
        declared = [c for c in reading.constraints if c.kind == "FOREIGN"]
        grouped: dict[object, list[tuple[object, ...]]] = {}
        for row in self._rows(_REFERENCES, reading.name):
            grouped.setdefault(row[0], []).append(row)
        found: list[ForeignKey] = []
        for position, rows in enumerate(grouped.values()):
            columns = tuple(reading.types[str(row[2]).lower()][0] for row in rows)
            written = declared[position] if position < len(declared) else None
            if written is not None and written.columns != tuple(c.lower() for c in columns):
                written = None
            name = written.name if written else None
            parent = self._tables.get(str(rows[0][1]).lower())
            label = name or f"{reading.name} ({', '.join(columns)})"
            if parent is None:
                self._leave(label, "foreign key", f"its table {rows[0][1]} is not carried", reading.name)
                continue
            targets = tuple(str(row[3]) for row in rows) if rows[0][3] is not None else parent.primary_key
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
                    tuple(parent.types[t.lower()][0] for t in targets),
                    on_update=str(rows[0][4]).upper(),
                    on_delete=str(rows[0][5]).upper(),
                    deferrable=bool(written and written.deferrable),
                    initially_deferred=bool(written and written.initially_deferred),
                )
            )
        return found

    def _mismatch(
        self, child: _Reading, columns: Sequence[str], parent: _Reading, targets: Sequence[str]
    ) -> str | None:
        """Why PostgreSQL could not take this foreign key, or None."""
        if len(targets) != len(columns) or any(t.lower() not in parent.types for t in targets):
            return f"its columns in {parent.name} do not exist"
        wanted = {t.lower() for t in targets}
        if wanted != {c.lower() for c in parent.primary_key} and not any(
            row[1] and not row[3] and {str(p[1]).lower() for p in self._rows(_PARTS, str(row[0]))} == wanted
            for row in self._rows(_KEYS, parent.name)
        ):
            return f"its columns in {parent.name} are not unique"
        for column, target in zip(columns, targets, strict=True):
            one, other = child.types[column.lower()][1], parent.types[target.lower()][1]
            if _kind(one) != _kind(other):
                return f"{column} is {one.declared or 'without a type'} and {target} {other.declared or 'without a type'}"
        return None


def _kind(declared: SqliteType) -> str:
    """Types that one foreign key may join: PostgreSQL needs an operator for them."""
    if declared.affinity in (Affinity.INTEGER, Affinity.REAL) or declared.family is Family.NUMERIC:
        return "number"
    return "text" if declared.affinity is Affinity.TEXT else declared.family.value


def read_catalog(connection: sqlite3.Connection) -> Catalog:
    """Tables of the file with all that hangs on them, and what is left out."""
    reader = _Reader(connection)
    tables = reader.read()
    return Catalog(SCHEMA, tables, tuple(reader.left_out))
