"""Reading MySQL's catalog into `core.model`.

What belongs here: `information_schema` to tables, keys and indexes, and what is left out with its reason. What does
not: looking at rows (`mysql_census`), translating expressions (`mysql_expressions`), views and routines
(`mysql_objects`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pymysql

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
    SchemaObject,
    Table,
)
from jivs_pipeline.core.names import fits_identifier, short_hash
from jivs_pipeline.core.types_mysql import MysqlType, mysql_type
from jivs_pipeline.infra.sources.mysql_expressions import (
    UntranslatableError,
    check_expression,
    default_expression,
    read_default,
    sql_text,
)
from jivs_pipeline.infra.sources.mysql_objects import checks_of, on_update_trigger, other_objects, views_of
from jivs_pipeline.infra.sources.mysql_session import Session, literal, quoted
from jivs_pipeline.infra.sources.mysql_view_kinds import column_value
from jivs_pipeline.infra.sources.mysql_views import Relation

__all__ = ["MERGE", "ReadCatalog", "read_catalog"]

_TABLES = """
SELECT TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE, ''), COALESCE(TABLE_COMMENT, ''), COALESCE(CREATE_OPTIONS, '')
FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}
AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY TABLE_NAME
"""
_COLUMNS = """
SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, COALESCE(EXTRA, ''),
    COALESCE(GENERATION_EXPRESSION, ''), COALESCE(COLUMN_COMMENT, ''), COALESCE(COLLATION_NAME, '')
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
# EXPRESSION is of MySQL 8 only; there and here a key over an expression has no column.
_INDEXES = """
SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, COALESCE(COLLATION, 'A'), INDEX_TYPE,
    COALESCE(INDEX_COMMENT, '')
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX
"""
_REFERENCES = """
SELECT k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME,
    k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE
FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
    ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME
    AND r.TABLE_NAME = k.TABLE_NAME
WHERE k.TABLE_SCHEMA = {schema} AND k.REFERENCED_TABLE_NAME IS NOT NULL
ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION
"""
_INDEXED = 200_000
_FULLTEXT = (
    "a FULLTEXT index becomes a GIN index over the words as they are (to_tsvector('simple', …)), of long texts over"
    f" the first {_INDEXED:,} characters; MATCH … AGAINST has to be written anew with @@"
)
_NO_INDEX = {
    "SPATIAL": (
        "a SPATIAL index is not carried, because geometries become EWKB in bytea; with PostGIS in the target:"
        " CREATE INDEX … USING gist ((column::geometry))"
    ),
    "": "an index over an expression has no sure equivalent; create one in the target by hand",
}
MERGE = frozenset({"MRG_MyISAM", "MERGE"})

_Row = tuple[str | None, ...]


def _text(value: str | None) -> str:
    return value or ""


@dataclass(frozen=True, slots=True)
class ReadCatalog:
    """The catalog, and by table the columns that number themselves or refer to one that does."""

    catalog: Catalog
    numbered: Mapping[str, frozenset[str]]


@dataclass(slots=True)
class _Names:
    """Names that PostgreSQL keeps unique in a schema: tables and indexes; MySQL's are unique in their table only."""

    taken: set[str]

    def unique(self, table: str, name: str) -> str:
        """`name`, or one with the table's where another has it or it is too long."""
        for wanted in (name, f"{table}_{name}"):
            if wanted not in self.taken and fits_identifier(wanted):
                break
        else:
            wanted = f"{name.encode()[:40].decode(errors='ignore')}_{short_hash(table, name)}"
        self.taken.add(wanted)
        return wanted


@dataclass(slots=True)
class _Reader:
    session: Session
    schema: str
    mariadb: bool
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    objects: list[SchemaObject] = field(default_factory=list[SchemaObject])
    types: dict[str, dict[str, MysqlType]] = field(default_factory=dict[str, dict[str, MysqlType]])

    def rows(self, query: str) -> dict[str, list[_Row]]:
        """Rows of a query by their first column, the table."""
        found: dict[str, list[_Row]] = {}
        for table, *rest in self.session.texts(query.format(schema=literal(self.schema))):
            found.setdefault(str(table), []).append(tuple(rest))
        return found

    def leave(
        self, name: str, kind: str, reason: str, table: str, severity: Literal["lossy", "refused"] = "refused"
    ) -> None:
        self.left_out.append(LeftOut(name, kind, reason, table, severity))

    # ── columns ─────────────────────────────────────────────────────────────────────────────────────────

    def columns(self, table: str, rows: Iterable[_Row], json: frozenset[str]) -> list[Column]:
        found: list[Column] = []
        foreign: dict[str, list[str]] = {}
        for row in rows:
            name, written, nullable, _, extra, generation, comment, collation = map(_text, row)
            type_ = "json" if name in json else written
            declared = self.types.setdefault(table, {})[name] = mysql_type(type_)
            numbered = "auto_increment" in extra.lower()
            if numbered and not declared.integer:
                reason = f"PostgreSQL numbers no column of type {type_}; its values are carried"
                self.leave(f"{table}.{name}", "auto_increment", reason, table, "lossy")
                numbered = False
            if generation:
                reason = f"generated by an expression of MySQL ({generation}); carried as plain values"
                self.leave(f"{table}.{name}", "generated column", reason, table, "lossy")
            if "on update" in extra.lower():
                self.objects.append(on_update_trigger(table, name, declared))
            if collation and not collation.endswith("_bin") and declared.family not in {"enum", "set"}:
                foreign.setdefault(collation, []).append(name)
            found.append(
                Column(
                    name,
                    type_,
                    nullable=nullable == "YES",
                    default=None if numbered or generation else self._default(table, name, row[3], extra),
                    identity=Identity() if numbered else None,
                    comment=comment or None,
                )
            )
        for collation, names in foreign.items():
            reason = f"{', '.join(names)}: {collation} is not carried: PostgreSQL will compare byte by byte"
            self.leave(table, "collation", reason, table, "lossy")
        return found

    def _default(self, table: str, name: str, written: str | None, extra: str) -> str | None:
        default = read_default(written, extra, mariadb=self.mariadb)
        if default is None:
            return None
        try:
            return default_expression(default, self.types[table][name])
        except UntranslatableError as reason:
            self.leave(f"{table}.{name}", "default", str(reason), table, "lossy")
            return None

    # ── keys and indexes ────────────────────────────────────────────────────────────────────────────────

    def indexes(
        self, table: str, rows: Iterable[_Row], names: _Names
    ) -> tuple[Key | None, list[Key], list[Index]]:
        """Primary key, unique keys, other indexes."""
        grouped: dict[str, list[_Row]] = {}
        for name, *rest in rows:
            grouped.setdefault(str(name), []).append(tuple(rest))
        primary: Key | None = None
        unique: list[Key] = []
        plain: list[Index] = []
        for name, parts in grouped.items():
            _, _, _, _, kind, comment = parts[0]
            if kind == "FULLTEXT":
                plain.append(self._words(table, names.unique(table, name), parts))
                continue
            if kind not in {"BTREE", "HASH"} or any(part[1] is None for part in parts):
                self.leave(f"{table}.{name}", "index", _NO_INDEX.get(str(kind), _NO_INDEX[""]), table)
                continue
            columns = tuple(str(part[1]) for part in parts)
            prefixed = any(part[2] is not None for part in parts)
            is_unique = parts[0][0] == "0"
            if is_unique and not prefixed:
                if name == "PRIMARY":
                    primary = Key(None, columns)
                else:
                    unique.append(Key(names.unique(table, name), columns, comment=comment or None))
                continue
            keys = tuple(self._part(table, part) for part in parts)
            plain.append(Index(names.unique(table, name), keys, unique=is_unique, comment=comment or None))
            if prefixed:
                reason = "an index over the beginnings of values becomes one over left() of them"
                self.leave(f"{table}.{name}", "index", reason, table, "lossy")
        return primary, unique, plain

    def _words(self, table: str, name: str, parts: Sequence[_Row]) -> Index:
        """The nearest there is to a FULLTEXT index. Of long texts the beginning, because a tsvector ends at 1 MB."""
        self.leave(f"{table}.{name}", "index", _FULLTEXT, table, "lossy")
        texts = [f"""coalesce("{str(part[1]).replace('"', '""')}", '')""" for part in parts]
        whole = " || ' ' || ".join(texts)
        expression = f"to_tsvector('simple', left({whole}, {_INDEXED}))"
        return Index(name, (IndexPart(None, expression),), method="gin", comment=parts[0][5] or None)

    def _part(self, table: str, part: _Row) -> IndexPart:
        _, column, length, order, *_ = part
        descending = order == "D"
        if length is None:
            return IndexPart(str(column), descending=descending)
        name = '"' + str(column).replace('"', '""') + '"'
        text = self.types[table][str(column)].text
        expression = f"left({name}, {length})" if text else f"substring({name} from 1 for {length})"
        return IndexPart(None, expression, descending=descending)

    @staticmethod
    def references(rows: Iterable[_Row]) -> list[ForeignKey]:
        grouped: dict[str, list[_Row]] = {}
        for name, *rest in rows:
            grouped.setdefault(str(name), []).append(tuple(rest))
        return [
            ForeignKey(
                name if fits_identifier(name) else None,
                tuple(str(part[0]) for part in parts),
                str(parts[0][1]),
                str(parts[0][2]),
                tuple(str(part[3]) for part in parts),
                on_delete=str(parts[0][4]),
                on_update=str(parts[0][5]),
            )
            for name, parts in grouped.items()
        ]

    def checks(self, table: str, rows: Iterable[tuple[str, str]]) -> list[Check]:
        """CHECKs that PostgreSQL surely means the same by, and one per ENUM that lists its values."""
        found: list[Check] = []
        for name, clause in rows:
            try:
                expression = check_expression(clause, self.types[table])
            except UntranslatableError as reason:
                self.leave(f"{table}.{name}", "check constraint", str(reason), table)
                continue
            found.append(Check(name if fits_identifier(name) else None, expression))
        enums = {c: t for c, t in self.types[table].items() if t.family == "enum"}
        for column, holds_invalid in self._invalid(table, list(enums)).items():
            members = [*enums[column].members, *([""] if holds_invalid else [])]
            quoted_name = '"' + column.replace('"', '""') + '"'
            found.append(
                Check(None, f"{quoted_name} IN ({', '.join(map(sql_text, dict.fromkeys(members)))})")
            )
        return found

    def _invalid(self, table: str, columns: Sequence[str]) -> dict[str, bool]:
        """By ENUM column, whether it holds the error value, which a CHECK must let in."""
        if not columns:
            return {}
        asked = ", ".join(f"COALESCE(MAX(({quoted(c)} + 0) = 0), 0)" for c in columns)
        try:
            row = self.session.texts(f"SELECT {asked} FROM {quoted(self.schema, table)}")[0]
        except pymysql.err.OperationalError:
            if self.session.lost:
                raise
            return {}  # this user may not read it: the survey says so
        return {c: value == "1" for c, value in zip(columns, row, strict=True)}


def read_catalog(session: Session, schema: str, *, mariadb: bool) -> ReadCatalog:
    """Tables of the schema with all that hangs on them, and what is left out."""
    reader = _Reader(session, schema, mariadb)
    listed = session.texts(_TABLES.format(schema=literal(schema)))
    columns, indexes, references = reader.rows(_COLUMNS), reader.rows(_INDEXES), reader.rows(_REFERENCES)
    checks = checks_of(session, schema, mariadb=mariadb)
    names = _Names({str(name) for name, *_ in listed})
    tables: list[Table] = []
    for row in listed:
        name, kind, engine, comment, options = map(_text, row)
        if engine in MERGE:
            reader.left_out.append(
                LeftOut(name, "merge table", "it repeats the rows of other tables; make a view of them")
            )
            continue
        if "partitioned" in options:
            reader.leave(name, "partitioning", "it becomes one plain table", name, "lossy")
        if kind == "SYSTEM VERSIONED":
            reader.leave(name, "system versioning", "only its current rows are carried", name, "lossy")
        valid, others = checks.get(name, (frozenset[str](), []))
        found = reader.columns(name, columns.get(name, []), valid)
        primary, unique, plain = reader.indexes(name, indexes.get(name, []), names)
        tables.append(
            Table(
                schema,
                name,
                tuple(found),
                primary_key=primary,
                unique_keys=tuple(unique),
                foreign_keys=tuple(reader.references(references.get(name, []))),
                checks=tuple(reader.checks(name, others)),
                indexes=tuple(plain),
                comment=comment or None,
            )
        )
    kept = [_with_sure_references(t, tables, reader) for t in tables]
    relations = {t.name: _relation(t, columns.get(t.name, [])) for t in kept}
    views, others = views_of(session, schema, relations)
    reader.left_out += [*others, *other_objects(session, schema)]
    return ReadCatalog(
        Catalog(schema, tuple(kept), tuple(reader.left_out), objects=(*reader.objects, *views)),
        _numbered(kept),
    )


def _relation(table: Table, rows: Iterable[_Row]) -> Relation:
    """The table as views see it."""
    collations = {str(name): collation for name, *_, collation in rows}
    values = {c.name: column_value(c.name, c.type, collations.get(c.name) or "") for c in table.columns}
    return Relation(values, table.primary_key.columns if table.primary_key else ())


def _with_sure_references(table: Table, tables: Sequence[Table], reader: _Reader) -> Table:
    """The table without foreign keys that PostgreSQL could not take: to columns that no key makes unique."""
    kept: list[ForeignKey] = []
    for key in table.foreign_keys:
        parent = next(
            (t for t in tables if (t.schema, t.name) == (key.target_schema, key.target_table)), None
        )
        if parent is not None:
            keys = [k for k in (parent.primary_key, *parent.unique_keys) if k is not None]
            if not any(set(k.columns) == set(key.target_columns) for k in keys):
                label = f"{table.name}.{key.name or '_'.join(key.columns)}"
                reader.leave(label, "foreign key", f"its columns in {parent.name} are not unique", table.name)
                continue
        kept.append(key)
    return replace(table, foreign_keys=tuple(kept))


def _numbered(tables: Sequence[Table]) -> dict[str, frozenset[str]]:
    """Columns that number themselves, and those that refer to one, directly or not: they are of one type."""
    found = {(t.name, c.name) for t in tables for c in t.columns if c.identity is not None}
    links = [
        ((t.name, c), (k.target_table, target))
        for t in tables
        for k in t.foreign_keys
        for c, target in zip(k.columns, k.target_columns, strict=True)
    ]
    before = -1
    while len(found) != before:
        before = len(found)
        found |= {child for child, parent in links if parent in found}
    return {t.name: frozenset(c for name, c in found if name == t.name) for t in tables}
