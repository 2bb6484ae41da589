"""What of a catalog needs an extension or a collation that the target does not have.

What belongs here: leaving it out aloud. What does not: objects beside the tables (`objects.py`) and which columns are
carried (`planning.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from jivs_pipeline.core.model import Catalog, Column, LeftOut, Need, Table
from jivs_pipeline.core.names import qualified

__all__ = ["asks", "fitted", "missing", "quoted"]


def missing(extension: str) -> str:
    """Why something that needs `schema.name` is left out, and what to do."""
    schema, _, name = extension.partition(".")
    return f"it needs extension {name} in schema {schema}, which the target lacks; create it there first"


def asks(catalog: Catalog) -> bool:
    """Whether what the target has beside tables makes a difference."""
    return bool(catalog.objects or catalog.extensions) or any(map(_is_collated, catalog.tables))


def _is_collated(table: Table) -> bool:
    return any(c.collation for c in table.columns) or any(p.collation for i in table.indexes for p in i.parts)


def fitted(catalog: Catalog, found: Collection[tuple[str, str]], target_schema: str) -> Catalog:
    """The catalog without parts of tables that need other extensions or collations than those that the target has.

    Args:
        found: (kind, name) of what the target has; extensions as `schema.name`.
        target_schema: where the catalog's own collations will be.
    """
    lost: list[LeftOut] = []
    there = {name for kind, name in found if kind == "extension"}
    tables = tuple(_fitted(t, [n for n in t.needs if n.extension not in there], lost) for t in catalog.tables)
    collations = _collations(catalog, found, target_schema)
    tables = tuple(_collated(t, collations, lost) for t in tables)
    lost += [
        LeftOut(
            e.partition(".")[2], "extension", f"the target does not have it in schema {e.partition('.')[0]}"
        )
        for e in catalog.extensions
        if e not in there
    ]
    return replace(catalog, tables=tables, left_out=(*catalog.left_out, *lost))


def _collations(
    catalog: Catalog, found: Collection[tuple[str, str]], target_schema: str
) -> Mapping[str, str]:
    """How the catalog calls the collations that will be there -> how the target does."""
    own = {o.name for o in catalog.objects if o.kind == "collation" and o.needs.issubset(found)}
    return {
        **{name: name for kind, name in found if kind == "collation" and name.startswith("pg_catalog.")},
        **{quoted(name): f"{quoted(target_schema)}.{quoted(name)}" for name in own},
    }


def quoted(name: str) -> str:
    """As PostgreSQL's `format_type` and `regcollation` write a name that is not plain."""
    return '"' + name.replace('"', '""') + '"'


def _collated(table: Table, collations: Mapping[str, str], lost: list[LeftOut]) -> Table:
    """The table with the target's names of its collations; where there is none, its default one takes over."""

    def named(collation: str | None, part: str, kind: str) -> str | None:
        if collation is not None and collation not in collations:
            reason = f"the target has no collation {collation}; its default is used"
            name = f"{qualified(table.schema, table.name)}.{part}"
            lost.append(LeftOut(name, kind, reason, table.name, "lossy"))
        return collations.get(collation or "")

    if not _is_collated(table):
        return table
    return replace(
        table,
        columns=tuple(replace(c, collation=named(c.collation, c.name, "collation")) for c in table.columns),
        indexes=tuple(
            replace(
                i, parts=tuple(replace(p, collation=named(p.collation, i.name, "index")) for p in i.parts)
            )
            for i in table.indexes
        ),
    )


def _fitted(table: Table, needs: Iterable[Need], lost: list[LeftOut]) -> Table:
    gone: dict[str, set[str]] = {}
    for need in needs:
        names = gone.setdefault(need.kind, set())
        if need.name not in names:
            name = f"{qualified(table.schema, table.name)}.{need.name}"
            lost.append(LeftOut(name, need.kind, missing(need.extension), table.name))
            names.add(need.name)
    if not gone:
        return table
    checks, indexes = gone.get("check constraint", ()), gone.get("index", ())
    return replace(
        table,
        columns=tuple(_plain(c, gone) for c in table.columns),
        checks=tuple(c for c in table.checks if c.name not in checks),
        indexes=tuple(i for i in table.indexes if i.name not in indexes),
    )


def _plain(column: Column, gone: Mapping[str, Collection[str]]) -> Column:
    return replace(
        column,
        default=None if column.name in gone.get("default", ()) else column.default,
        generated=None if column.name in gone.get("generated column", ()) else column.generated,
    )
