"""Events for tests of their way: made in the outbox, and looked at where they arrive.

What belongs here: what several test modules need of them. What does not: cases.
"""

from __future__ import annotations

from typing import Any

import psycopg

__all__ = ["add_events", "check_order", "undelivered"]


def add_events(db: psycopg.Connection[Any], key: str, number: int) -> None:
    """Events of one migration, numbered on from those that are there."""
    db.execute(
        "INSERT INTO jivs.migrations (key, source_name, target_name, spec, spec_hash)"
        " VALUES (%s, 'a', 'b', '{}', 'h') ON CONFLICT DO NOTHING",
        (key,),
    )
    db.execute(
        "WITH m AS (UPDATE jivs.migrations SET event_seq = event_seq + %(n)s WHERE key = %(key)s RETURNING event_seq)"
        " INSERT INTO jivs.migration_events (key, seq, type, data) SELECT %(key)s, event_seq - %(n)s + i,"
        " 'migration.phase', jsonb_build_object('n', i) FROM m, generate_series(1, %(n)s) i",
        {"key": key, "n": number},
    )


def check_order(entries: list[dict[str, str]], wanted: dict[str, int]) -> None:
    """Every event of every migration, in order and none twice."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        found.setdefault(entry["key"], []).append(int(entry["seq"]))
    assert found == {key: list(range(1, last + 1)) for key, last in wanted.items()}


def undelivered(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT count(*) FROM jivs.migration_events WHERE delivered_at IS NULL").fetchone()
    assert row is not None
    return row[0]
