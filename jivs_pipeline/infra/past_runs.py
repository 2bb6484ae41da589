"""What migrations took before, from the control database.

What belongs here: reading it. What does not: what is made of it (`core/estimates.py`).
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from jivs_pipeline.core.estimates import PastRun
from jivs_pipeline.infra.control_claims import SQL

__all__ = ["read_past_runs", "read_since"]


def read_past_runs(db: psycopg.Connection[Any]) -> list[PastRun]:
    """The latest migrations that one run completed, the last one first.

    Raises:
        psycopg.Error: the control schema is none, or older than this.
    """
    with db.cursor(row_factory=dict_row) as cursor:
        return [PastRun(**row) for row in cursor.execute(SQL["past_runs"]).fetchall()]


def read_since(db: psycopg.Connection[Any], key: str) -> int:
    """The epoch with which the next load of an incremental migration begins; see `Claims.claim`.

    Raises:
        psycopg.Error: as above.
    """
    row = db.execute(SQL["begins_with"], {"key": key}).fetchone()
    return int(row[0]) if row else 0
