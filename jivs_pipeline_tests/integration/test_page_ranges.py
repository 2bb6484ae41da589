"""Questions about a large table that several sessions answer together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.model import Column, Key, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.infra.page_ranges import answered, is_worth_it
from jivs_pipeline.infra.postgresql import Session, connect
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline.infra.target_sessions import interrupt

ROWS = 150_000
RELATION = sql.Identifier("public", "large")


@pytest.fixture
def large(database: str) -> str:
    """A database with a table of 20 MB, and one of a page."""
    with psycopg.connect(database) as db:
        db.execute("CREATE TABLE large (id bigint PRIMARY KEY, t text)")
        db.execute("INSERT INTO large SELECT n, repeat(n::text, 20) FROM generate_series(1, %s) n", (ROWS,))
        db.execute("CREATE TABLE small AS SELECT * FROM large LIMIT 3")
    return database


@pytest.fixture
def sessions(large: str) -> Iterator[list[Session]]:
    opened = [connect(parse_url(large, "x"), application_name="test", read_only=True) for _ in range(3)]
    yield opened
    for session in opened:
        session.close()


def _counting(within: sql.Composable | None) -> sql.Composed:
    where = sql.SQL(" WHERE {}").format(within) if within is not None else sql.SQL("")
    return sql.SQL("SELECT count(*), sum(id) FROM public.large") + where


def test_a_small_table_is_not_worth_it(sessions: list[Session]) -> None:
    assert is_worth_it(sessions[0], RELATION)
    assert not is_worth_it(sessions[0], sql.Identifier("public", "small"))


def test_every_row_is_in_one_range_whoever_writes_meanwhile(sessions: list[Session], large: str) -> None:
    """Rows that move to other pages, come or go while the sessions begin, are seen by all as they were before."""
    with psycopg.connect(large, autocommit=True) as writer:

        def question(within: sql.Composable | None) -> sql.Composed:
            writer.execute("UPDATE large SET t = t || 'x' WHERE id % 10 = 0")
            writer.execute("DELETE FROM large WHERE id % 10 = 1")
            return _counting(within)

        parts = answered(sessions, RELATION, question, interrupt)
    assert len(parts) == 3
    assert all(count > ROWS / 4 for count, _ in parts)
    assert [sum(column) for column in zip(*parts, strict=True)] == [ROWS, ROWS * (ROWS + 1) // 2]


def test_one_session_answers_alone(sessions: list[Session]) -> None:
    assert answered(sessions[:1], RELATION, _counting, interrupt) == [(ROWS, ROWS * (ROWS + 1) // 2)]


def test_one_that_fails_stops_the_others(sessions: list[Session]) -> None:
    began = time.monotonic()

    def question(within: sql.Composable | None) -> sql.Composed:
        last = within is not None and " < " not in within.as_string()
        return sql.Composed([sql.SQL("SELECT 1 / 0" if last else "SELECT pg_sleep(60)")])

    with pytest.raises(psycopg.errors.DivisionByZero):
        answered(sessions, RELATION, question, interrupt)
    assert time.monotonic() - began < 30


def _plan(by: ChunkBy) -> TablePlan:
    columns = (Column("id", "bigint", nullable=False), Column("t", "text"))
    return TablePlan(
        source_schema="s", source_table="large", target_schema="public", target_table="large",
        columns=tuple(ColumnPlan(source=c.name, target=c.name, source_type=c.type, target_type=c.type) for c in columns),
        lane=Lane.ARROW, wire=Wire.BINARY, spelling=Spelling.CHAIN, chunk_by=by,
        chunk_columns=("id",) if by is ChunkBy.KEY else (),
        chunks=(Chunk(index=0, upper=("1000",)), Chunk(index=1, lower=("1000",))),
        definition=Table("public", "large", columns, primary_key=Key("large_pkey", ("id",))),
    )  # fmt: skip


@contextmanager
def _watched(database: str) -> Iterator[list[int]]:
    """How many sessions verify, looked at again and again while the block runs."""
    counts: list[int] = []
    over = threading.Event()

    def watch() -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jivs verify' AND state = 'active'"
        with psycopg.connect(database, autocommit=True) as db:
            while not over.wait(0.005):
                counts.append(db.execute(query).fetchone()[0])  # pyright: ignore[reportOptionalSubscript]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield counts
    finally:
        over.set()
        watcher.join()


@pytest.mark.parametrize("by", [ChunkBy.KEY, ChunkBy.WHOLE])
def test_digests_of_several_sessions_are_those_of_one(large: str, by: ChunkBy) -> None:
    """Outside of a run, and with permits for one worker and for three."""
    found: list[tuple[Digest, ...]] = []
    used: list[int] = []
    for workers in (None, 1, 3):
        target = PostgresqlTarget(parse_url(large, "warehouse"), io_timeout_seconds=10)
        try:
            if workers is not None:
                target.take_permits(workers)
            with _watched(large) as counts:
                found.append(target.digests_now(_plan(by)))
            used.append(max(counts))
        finally:
            target.close()
    assert found[0] == found[1] == found[2]
    assert sum(found[0], Digest()).rows == ROWS
    assert len(found[0]) == (2 if by is ChunkBy.KEY else 1)
    assert used[:2] == [1, 1]
    assert used[2] > 1
