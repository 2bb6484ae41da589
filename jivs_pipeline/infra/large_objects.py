"""Large objects of PostgreSQL: how both ends spell them as rows, and how a target makes and removes them.

What belongs here: SQL over `pg_largeobject`. What does not: whether they are carried (`engine/large_objects.py`), and fence
and transaction (`target.py`).

A large object travels as pieces, rows (loid bigint, piece bigint, comment text, data bytea) with `PIECE` bytes at most, so
that neither end ever holds a whole one. The first piece, number 0, bears its comment, and is there even if it is empty. They
are read and written through the server's functions: the catalog's own table is for superusers, and its pages are of a size
that another server need not have.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from psycopg import sql

from jivs_pipeline.core.errors import RefusedError
from jivs_pipeline.core.plan import Chunk
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session

__all__ = [
    "LANDING",
    "PIECE",
    "SIZES",
    "make",
    "of_chunk",
    "of_key",
    "others",
    "prepare",
    "remove_all",
    "remove_some",
]

PIECE = 1 << 20
"""Bytes of a piece. lo_put fills whole pages of the catalog as long as it is a multiple of 2 KiB."""
LANDING = sql.Identifier("pg_temp", "jivs_pieces")
"""Where the target's COPY puts the pieces of one chunk; it goes with the transaction."""
_SQL = load_blocks("jivs_pipeline.infra", "large_objects.sql")
_AT_A_TIME = 1000
"""Objects that one transaction removes: each takes a lock, and a server has room for 6,400 of them unless told otherwise."""

# The end of what is in it tells its size; lo_close, because a transaction may look at a million of them. OFFSET 0 keeps the
# calls in this order. 262144 is INV_READ, 2 is SEEK_END.
_SIZE = sql.SQL(
    "CROSS JOIN LATERAL (SELECT o.size, lo_close(o.fd) FROM (SELECT f.fd, lo_lseek64(f.fd, 0, 2) AS size"
    " FROM (SELECT lo_open(m.oid, 262144) AS fd OFFSET 0) AS f OFFSET 0) AS o OFFSET 0) AS s"
)
SIZES = sql.SQL("SELECT m.oid::int8, s.size FROM pg_largeobject_metadata AS m {} ORDER BY m.oid").format(
    _SIZE
)
"""A line `oid, bytes` for each."""
_PIECES = sql.SQL(
    "(SELECT m.oid::int8 AS loid, p.n AS piece,"
    " CASE p.n WHEN 0 THEN obj_description(m.oid, 'pg_largeobject') END AS comment,"
    " lo_get(m.oid, p.n * {piece}, {piece}) AS data"
    " FROM pg_largeobject_metadata AS m {size}"
    " CROSS JOIN LATERAL generate_series(0::int8, greatest(s.size - 1, 0) / {piece}) AS p (n){where}) AS pieces"
)


def of_chunk(chunk: Chunk) -> sql.Composed:
    """What follows FROM: the pieces of a chunk's objects, all in the database that are in its range."""
    bounds = [
        sql.SQL("m.oid {} {}::oid").format(sign, sql.Literal(bound[0]))
        for bound, sign in ((chunk.lower, sql.SQL(">=")), (chunk.upper, sql.SQL("<")))
        if bound is not None
    ]
    return _pieces(sql.SQL(" AND ").join(bounds) if bounds else None)


def of_key(key: str) -> sql.Composed:
    """What follows FROM: the pieces of those that a migration has made."""
    mine = sql.SQL("m.oid IN (SELECT l.loid FROM jivs_ledger.large_objects AS l WHERE l.key = {})")
    return _pieces(mine.format(sql.Literal(key)))


def _pieces(condition: sql.Composable | None) -> sql.Composed:
    where = sql.SQL(" WHERE {}").format(condition) if condition is not None else sql.SQL("")
    return _PIECES.format(piece=sql.Literal(PIECE), size=_SIZE, where=where)


def prepare(db: Session) -> None:
    """Make the landing table, in a transaction that is open."""
    db.execute(_SQL["landing"])


def make(db: Session, key: str) -> None:
    """Make the objects whose pieces are in the landing table, and note that they are the migration's.

    Raises:
        RefusedError: one of them is there already, and is not the migration's.
    """
    try:
        db.execute(_SQL["make"], {"key": key})
    except (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject) as error:
        raise RefusedError(
            "The target has got a large object with the number of one of the source's since the plan was made",
            hint="Remove it there, or set large_objects: false in the spec; then run again",
        ) from error
    db.execute(_SQL["fill"], {"size": PIECE})
    _describe(db)


def others(db: Session, key: str) -> tuple[int, ...]:
    """Those in the database that the migration has not made."""
    listed = db.execute(_SQL["has_list"]).fetchone()
    found = db.execute(_SQL["others"], {"key": key}) if listed and listed[0] else db.execute(_SQL["all"])
    return tuple(int(oid) for (oid,) in found.fetchall())


def _describe(db: Session) -> None:
    """Comments; few objects have one."""
    for loid, comment in db.execute(_SQL["comments"]).fetchall():
        statement = sql.SQL("COMMENT ON LARGE OBJECT {} IS {}")
        db.execute(statement.format(sql.Literal(loid), sql.Literal(comment)))


def remove_some(db: Session, key: str) -> int:
    """Remove some of those that a migration has made, as many as one transaction can; returns how many are forgotten."""
    row = db.execute(_SQL["remove"], {"key": key, "most": _AT_A_TIME}).fetchone()
    return int(row[0]) if row else 0


def remove_all(key: str, fenced: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Remove all of them, in as many transactions as it takes."""
    left = True
    while left:
        with fenced(f"large objects of {key}") as db:
            left = remove_some(db, key) > 0
