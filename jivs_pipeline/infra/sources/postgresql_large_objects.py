"""The large objects of a PostgreSQL source, looked at as if they were one table.

What belongs here: how many there are, how large, and in which chunks they are read. What does not: their rows
(`infra/large_objects.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import psycopg

from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Wire
from jivs_pipeline.core.ports import Refusal, Survey
from jivs_pipeline.infra.large_objects import PIECE, SIZES
from jivs_pipeline.infra.postgresql import Session

__all__ = ["survey_large_objects"]

_IN_A_CHUNK = 1000
"""Most objects of a chunk. A comment takes a lock in the target, and a server has room for some thousands."""
_COLUMNS = tuple(
    ColumnPlan(source=name, target=name, source_type=type_, target_type=type_, nullable=nullable)
    for name, type_, nullable in (
        ("loid", "bigint", False),
        ("piece", "bigint", False),
        ("comment", "text", True),
        ("data", "bytea", True),
    )
)


def survey_large_objects(
    session: Session, chunk_bytes: int, others: Sequence[int], *, utf8: bool
) -> Survey | None:
    """See `core.ports.HoldsLargeObjects`; in a transaction that is open.

    Chunks are of whole objects: a piece of one that is made in another transaction would have to wait for it.
    """
    try:
        sizes = [(int(oid), int(size)) for oid, size in session.cursor().stream(SIZES, size=1000)]
    except psycopg.errors.InsufficientPrivilege as error:
        reason = f"the source does not let us read it: {error.diag.message_primary}"
        return _survey([], chunk_bytes, reason, utf8=utf8)
    if not sizes:
        return None
    taken = sorted({oid for oid, _ in sizes}.intersection(others))
    return _survey(sizes, chunk_bytes, _taken(taken) if taken else None, utf8=utf8)


def _taken(oids: Sequence[int]) -> str:
    more = f" and {len(oids) - 1} more of those of the source" if len(oids) > 1 else ""
    return (
        f"the target has another large object {oids[0]}{more}; remove it there, or set large_objects: false in the spec"
        " to leave them out on purpose"
    )


def _survey(sizes: Sequence[tuple[int, int]], chunk_bytes: int, reason: str | None, *, utf8: bool) -> Survey:
    edges = (None, *((str(oid),) for oid in _bounds(sizes, chunk_bytes)), None)
    return Survey(
        rows=sum(max(1, -(-size // PIECE)) for _, size in sizes),
        rows_exact=True,
        bytes=sum(size for _, size in sizes),
        chunk_by=ChunkBy.KEY,
        chunk_columns=("loid",),
        chunks=tuple(
            Chunk(index=i, lower=lower, upper=upper) for i, (lower, upper) in enumerate(pairwise(edges))
        ),
        columns=_COLUMNS,
        lane=Lane.COPY,
        wire=Wire.BINARY,
        spelling=Spelling.RECORD if utf8 else Spelling.CANONICAL,
        refused=(Refusal("", reason),) if reason else (),
    )


def _bounds(sizes: Iterable[tuple[int, int]], chunk_bytes: int) -> Iterable[int]:
    """The first object of each chunk but the first one."""
    count = held = 0
    for oid, size in sizes:
        if count and (held + size > chunk_bytes or count >= _IN_A_CHUNK):
            yield oid
            count = held = 0
        count, held = count + 1, held + size
