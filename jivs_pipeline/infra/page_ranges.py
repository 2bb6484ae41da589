"""One question about all rows of a table, answered by several sessions at once, each for a range of the table's pages.

What belongs here: the ranges, and that all sessions see the same. What does not: the question, and getting sessions.

Not PostgreSQL's own parallel workers: where rows are hashed as texts, they would hand these to the one process that hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from psycopg import sql

from jivs_pipeline.infra.postgresql import BEGIN, RANGE_SCANS, Session

__all__ = ["answered", "is_worth_it"]

Question = Callable[[sql.Composable | None], sql.Composed]
"""The query that answers for the rows of a condition, or for all."""

_WORTH_BYTES = 16 << 20
_PAGES = "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::int8, pg_export_snapshot()"


def is_worth_it(session: Session, relation: sql.Identifier) -> bool:
    """Whether the table is so large that another session is opened sooner than this one has read it. Where
    conditions on pages read all of them, it never is.
    """
    if session.info.server_version < RANGE_SCANS:
        return False
    found = session.execute("SELECT pg_relation_size(%s::regclass)", (relation.as_string(),)).fetchone()
    return bool(found and found[0] >= _WORTH_BYTES)


def answered(
    sessions: Sequence[Session], relation: sql.Identifier, question: Question, stop: Callable[[Session], None]
) -> list[tuple[Any, ...]]:
    """The lines of all answers, in no order.

    Args:
        sessions: at least one, none in a transaction; they are left in one where there are several.
        stop: ends the statement of a session that is not waited for any more.

    Raises:
        psycopg.Error: of the first that fails.
    """
    first, *others = sessions
    if not others:
        return first.execute(question(None)).fetchall()
    first.execute(BEGIN)
    pages, snapshot = first.execute(_PAGES, (relation.as_string(),)).fetchone() or (0, "")
    for other in others:
        other.execute(BEGIN)
        other.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))

    def ask(session: Session, within: sql.Composable) -> list[tuple[Any, ...]]:
        return session.execute(question(within)).fetchall()

    with ThreadPoolExecutor(len(sessions), thread_name_prefix="jivs-verify") as pool:
        asked = [
            pool.submit(ask, *pair) for pair in zip(sessions, _ranges(pages, len(sessions)), strict=True)
        ]
        try:
            done, _ = wait(asked, return_when=FIRST_EXCEPTION)
            for answer in done:
                answer.result()
        except BaseException:
            for session in sessions:
                stop(session)
            raise
    return [line for answer in asked for line in answer.result()]


def _ranges(pages: int, count: int) -> list[sql.Composable]:
    """Conditions of rows by where they are stored; the last has no end."""
    bounds = [sql.Literal(f"({pages * number // count},0)") for number in range(count)]
    begin, end = sql.SQL("ctid >= {}::tid"), sql.SQL(" AND ctid < {}::tid")
    return [
        begin.format(low) + (end.format(bounds[number + 1]) if number + 1 < count else sql.SQL(""))
        for number, low in enumerate(bounds)
    ]
