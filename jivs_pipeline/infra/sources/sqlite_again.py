"""Rows of SQLite that are in quarantine, found again: by their key, or where they were stored.

What belongs here: finding a row. What does not: judging it anew (`rows_again`), what makes a row bad (`sqlite_sieve`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.quarantine import KeptRow, RawText, value_of
from jivs_pipeline.infra.sources.sqlite_census import bound_text, bound_value, source_rows
from jivs_pipeline.infra.sources.sqlite_open import column_name

__all__ = ["find"]


def find(
    connection: sqlite3.Connection, table: TablePlan, address: Sequence[str], row: KeptRow
) -> str | None:
    """Where the row is now; None where it is gone. The connection returns texts as such."""
    places = json.loads(row.position)
    where = f"({', '.join(address)}) = ({', '.join('?' * len(address))})"
    parameters: list[object] = [bound_value(part) for part in places]
    key = {name: value_of(value) for name, value in row.key.items()}
    known = {c.source for c in table.columns}
    # What is wrong with the row may be its key, and then it is looked for where it was.
    if len(address) == 1 and row.column not in key and known.issuperset(key) and _findable(key.values()):
        where = " AND ".join(f"{column_name(table.source_table, name)} IS ?" for name in key)
        parameters = list(key.values())
    listed = f"SELECT {', '.join(address)} {source_rows(table.source_table, [where, table.where])} LIMIT 1"
    found = connection.execute(listed, parameters).fetchone()
    return json.dumps([bound_text(part) for part in found]) if found else None


def _findable(values: Iterable[object]) -> bool:
    return not any(v is None or isinstance(v, RawText) for v in values)
