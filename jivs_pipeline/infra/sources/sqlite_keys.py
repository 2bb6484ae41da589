"""Rows of SQLite that keys forbid in PostgreSQL: it does not enforce foreign keys, and tells texts apart that are one value.

What belongs here: SQL that finds their positions. What does not: which keys there are (`key_breaks`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.plan import ColumnPlan, Sifted, TablePlan
from jivs_pipeline.infra.sources.key_breaks import Reference
from jivs_pipeline.infra.sources.sqlite_census import source_rows
from jivs_pipeline.infra.sources.sqlite_digests import canonical
from jivs_pipeline.infra.sources.sqlite_open import column_name
from jivs_pipeline.infra.sources.sqlite_sieve import any_bad, position, sifting

__all__ = ["orphans", "twins"]


def twins(
    connection: sqlite3.Connection,
    table: TablePlan,
    key: Sequence[ColumnPlan],
    address: Sequence[str],
    encoding: str,
) -> Iterator[str]:
    """Positions of good rows whose key is that of a row before them. The connection returns texts as such.

    Only where SQLite's own key compares otherwise: `2020-01-01T00:00:00` and `2020-01-01 00:00:00` are one moment, and 1
    and '1' one text.
    """
    if not any(c.canon in {Canon.TIMESTAMP, Canon.TIME} or c.carrier == "text" for c in key):
        return
    spelled = [f"{canonical(table.source_table, c)} COLLATE BINARY" for c in key]
    good = f"({any_bad(table.source_table, table.columns, encoding)}) IS NOT TRUE"
    present = [f"{column_name(table.source_table, c.source)} NOT NULL" for c in key]
    places = ", ".join(f"{part} AS a{n}" for n, part in enumerate(address))
    numbered = f"row_number() OVER (PARTITION BY {', '.join(spelled)} ORDER BY {', '.join(address)})"
    inner = (
        f"SELECT {places}, {numbered} AS n {source_rows(table.source_table, [table.where, good, *present])}"
    )
    names = ", ".join(f"a{n}" for n in range(len(address)))
    for place in connection.execute(f"SELECT {names} FROM ({inner}) WHERE n > 1"):  # noqa: S608 - quoted names
        yield position(place)


def orphans(
    connection: sqlite3.Connection,
    reference: Reference,
    address: Sequence[str],
    parent_address: Sequence[str],
    without: Collection[str],
    encoding: str,
) -> Iterator[str]:
    """Positions of rows whose parent is not among those that are loaded. The connection returns texts as such."""
    table, parent = reference.table, reference.parent
    child = [column_name(table.source_table, c.source) for c in reference.columns]
    theirs = [column_name(parent.source_table, c.source) for c in reference.parent_columns]
    gone, parameters = sifting(parent_address, Sifted(index=0, without=tuple(without)))
    good = f"({any_bad(parent.source_table, parent.columns, encoding)}) IS NOT TRUE"
    there = source_rows(parent.source_table, [parent.where, good, *(f"{c} NOT NULL" for c in theirs), *gone])
    # By bytes, as PostgreSQL will.
    sought = ", ".join(f"{c} COLLATE BINARY" for c in child)
    missing = f"({sought}) NOT IN (SELECT {', '.join(theirs)} {there})"
    rows = source_rows(table.source_table, [table.where, *(f"{c} NOT NULL" for c in child), missing])
    for place in connection.execute(f"SELECT {', '.join(address)} {rows}", parameters):
        yield position(place)
