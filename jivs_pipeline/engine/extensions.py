"""What of a catalog needs an extension that the target does not have.

What belongs here: leaving it out aloud. What does not: objects beside the tables (`objects.py`) and which columns are
carried (`planning.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from jivs_pipeline.core.model import Catalog, Column, LeftOut, Need, Table
from jivs_pipeline.core.names import qualified

__all__ = ["fitted", "missing"]


def missing(extension: str) -> str:
    """Why something that needs `schema.name` is left out, and what to do."""
    schema, _, name = extension.partition(".")
    return f"it needs extension {name} in schema {schema}, which the target lacks; create it there first"


def fitted(catalog: Catalog, there: Collection[str]) -> Catalog:
    """The catalog without parts of tables that need other extensions than those that are `there` (`schema.name`)."""
    lost: list[LeftOut] = []
    tables = tuple(_fitted(t, [n for n in t.needs if n.extension not in there], lost) for t in catalog.tables)
    lost += [
        LeftOut(
            e.partition(".")[2], "extension", f"the target does not have it in schema {e.partition('.')[0]}"
        )
        for e in catalog.extensions
        if e not in there
    ]
    return replace(catalog, tables=tables, left_out=(*catalog.left_out, *lost))


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
