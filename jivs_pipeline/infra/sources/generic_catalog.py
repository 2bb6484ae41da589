"""The catalog of a database whose queries all give the same columns (`core/driver_dialects.py`).

What belongs here: those columns into `core.model`. What does not: the queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.model import (
    Catalog,
    Column,
    ForeignKey,
    Identity,
    Index,
    IndexPart,
    Key,
    LeftOut,
    Table,
)
from jivs_pipeline.core.names import fits_identifier, short_hash
from jivs_pipeline.infra.sources.odbc_link import TextLink

__all__ = ["read_catalog"]

_Row = tuple[Any, ...]
_LEFT = "it is not carried; create it in the target by hand"
_PLAIN = (
    "defaults and CHECKs are not carried through this driver, and generated columns become plain ones with their values;"
    " write them in the target by hand"
)
_ACTIONS = frozenset({"NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"})


def read_catalog(link: TextLink, dialect: Dialect, schema: str) -> Catalog:
    """Tables of the schema with columns, keys, references and indexes; a warning says that there is no more."""

    def ask(query: str) -> list[_Row]:
        return link.rows(query.replace("{schema}", dialect.literal(schema))) if query else []

    listed = ask(dialect.tables)
    columns, keys = _by_table(ask(dialect.columns)), _by_table(ask(dialect.keys))
    references, indexes = _by_table(ask(dialect.references)), _by_table(ask(dialect.indexes))
    taken = {str(name) for name, *_ in listed}
    tables: list[Table] = []
    for name, comment in listed:
        primary, unique = _keys(keys.get(name, []), taken, name)
        tables.append(
            Table(
                schema,
                name,
                tuple(_column(row) for row in columns.get(name, [])),
                primary_key=primary,
                unique_keys=tuple(unique),
                foreign_keys=tuple(_references(references.get(name, []))),
                indexes=tuple(_indexes(indexes.get(name, []), taken, name)),
                comment=comment or None,
            )
        )
    left_out = [LeftOut(str(name), str(kind).lower(), _LEFT) for name, kind in ask(dialect.others)]
    left_out.append(LeftOut(schema, "defaults, checks and generated columns", _PLAIN, severity="lossy"))
    kept = [_resolved(table, tables, left_out) for table in tables]
    return Catalog(schema, tuple(kept), tuple(left_out))


def _by_table(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for table, *rest in rows:
        found.setdefault(str(table), []).append(tuple(rest))
    return found


def _column(row: _Row) -> Column:
    name, type_, nullable, numbered, comment = row
    return Column(
        name,
        type_ or "",
        nullable=nullable == "YES",
        identity=Identity() if numbered == "YES" else None,
        comment=comment or None,
    )


def _unique_name(taken: set[str], table: str, name: str) -> str:
    """Names of indexes are unique in their table only in some databases; in a schema in PostgreSQL."""
    for wanted in (name, f"{table}_{name}"):
        if wanted not in taken and fits_identifier(wanted):
            break
    else:
        wanted = f"{name.encode()[:40].decode(errors='ignore')}_{short_hash(table, name)}"
    taken.add(wanted)
    return wanted


def _keys(rows: Sequence[_Row], taken: set[str], table: str) -> tuple[Key | None, list[Key]]:
    primary = tuple(str(column) for _, kind, column in rows if kind == "P")
    grouped: dict[str, list[str]] = {}
    for name, kind, column in rows:
        if kind == "U":
            grouped.setdefault(str(name), []).append(str(column))
    unique = [Key(_unique_name(taken, table, n), tuple(columns)) for n, columns in grouped.items()]
    return Key(None, primary) if primary else None, unique


def _references(rows: Sequence[_Row]) -> list[ForeignKey]:
    grouped: dict[str, list[_Row]] = {}
    for name, *rest in rows:
        grouped.setdefault(str(name), []).append(tuple(rest))
    found: list[ForeignKey] = []
    for parts in grouped.values():
        _, schema, table, _, on_delete, on_update = parts[0]
        found.append(
            ForeignKey(
                None,
                tuple(str(part[0]) for part in parts),
                str(schema),
                str(table),
                tuple(str(part[3]) for part in parts),
                on_delete=_action(on_delete),
                on_update=_action(on_update),
            )
        )
    return found


def _action(word: Any) -> str:
    spelled = str(word or "NO ACTION").replace("_", " ").upper()
    return spelled if spelled in _ACTIONS else "NO ACTION"


def _indexes(rows: Sequence[_Row], taken: set[str], table: str) -> list[Index]:
    grouped: dict[str, list[_Row]] = {}
    for name, *rest in rows:
        grouped.setdefault(str(name), []).append(tuple(rest))
    return [
        Index(
            _unique_name(taken, table, name),
            tuple(IndexPart(str(column), descending=order == "YES") for _, column, order in parts),
            unique=parts[0][0] == "YES",
        )
        for name, parts in grouped.items()
        if all(column is not None for _, column, _ in parts)
    ]


def _resolved(table: Table, tables: Sequence[Table], left_out: list[LeftOut]) -> Table:
    """References with the columns of the key they point at; without those that no key makes unique."""
    kept: list[ForeignKey] = []
    for key in table.foreign_keys:
        parent = next((t for t in tables if t.name.lower() == key.target_table.lower()), None)
        if parent is None or (parent.schema != key.target_schema):
            kept.append(key)
            continue
        keys = [k.columns for k in (parent.primary_key, *parent.unique_keys) if k is not None]
        wanted = key.target_columns if all(key.target_columns) else (keys[0] if keys else ())
        names = {c.name.lower(): c.name for c in parent.columns}
        wanted = tuple(names.get(c.lower(), c) for c in wanted)
        if any(set(k) == set(wanted) for k in keys):
            kept.append(replace(key, target_table=parent.name, target_columns=wanted))
        else:
            label = f"{table.name}.{'_'.join(key.columns)}"
            left_out.append(
                LeftOut(label, "foreign key", f"its columns in {parent.name} are not unique", table.name)
            )
    return replace(table, foreign_keys=tuple(kept))
