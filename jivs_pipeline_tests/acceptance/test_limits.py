"""Runs that keep to `limits`: rows and bytes a second, and connections, as the source and the target count them.

What belongs here: whole runs of the engine, alone and side by side. What does not: the arithmetic
(`unit/test_pace.py`), Redis (`integration/test_rates.py`) and the permits (`integration/test_permits.py`).
"""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.infra.embedded.postgres import CONTROL
from jivs_pipeline_tests.fix_cli import database_of, with_parts
from jivs_pipeline_tests.fix_engine import Engine, Forked, until

TOO_FAST, TOO_SLOW = 1.05, 0.75
"""The limit holds within 5 %; how near below it a run comes is also the machine's affair, which others use, too."""

FILL = """
CREATE TABLE {0} (id bigint PRIMARY KEY, v text);
INSERT INTO {0} SELECT i, md5(i::text) || repeat('x', 60) FROM generate_series(1, {1}) i;
"""


@pytest.fixture
def shop(make_target: Callable[[], str]) -> str:
    """A PostgreSQL source: 3 tables, 24,000 rows of about 110 bytes."""
    url = make_target()
    with psycopg.connect(url, autocommit=True) as db:
        for number in range(3):
            db.execute(FILL.format(f"t{number}", 8000).encode())
    return url


@pytest.fixture
def start(engine: Engine, target: str) -> Callable[..., Forked]:
    def start(
        source: str,
        number: int = 0,
        parallelism: int = 3,
        patience: float = 60,
        target: str = target,
        **limits: int,
    ) -> Forked:
        spec = {
            "key": f"k{number}-{uuid4().hex[:10]}", "source": "legacy", "target": "warehouse", "limits": limits,
            "parallelism": parallelism, "chunk_bytes": 1 << 18, "target_schema": f"into_{number}",
        }  # fmt: skip
        return engine.start(
            spec,
            {
                "JIVS_CONNECTION_LEGACY": source,
                "JIVS_CONNECTION_WAREHOUSE": target,
                "JIVS_LOAD_TIMEOUT_SECONDS": f"{patience:g}",
            },
        )

    return start


def extracted(run: Forked) -> tuple[int, int, float]:
    """Rows, staged bytes and seconds of a run's extraction."""
    assert run.wait(100) == 0, run
    document = run.document
    return document["rows"], document["bytes"], document["phases"]["extract"]


class Watched:
    """What a server says of the sessions in one database, as often as it can be asked."""

    def __init__(self, url: str, query: str) -> None:
        self.seen: list[tuple[float, int]] = []
        self._url, self._query = url, query.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: bool(self.seen), "a first look", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as db:
            while not self._over.wait(0.01):
                row = db.execute(self._query).fetchone()
                self.seen.append((time.monotonic(), int(row[0]) if row and row[0] is not None else 0))

    @property
    def most(self) -> int:
        assert self.seen
        return max(count for _, count in self.seen)


SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@pytest.mark.parametrize("kind", ["rows", "bytes"])
def test_a_postgresql_source_is_read_no_faster_than_it_bears(
    kind: str, shop: str, start: Callable[..., Forked]
) -> None:
    """Copy lane, by the rows and bytes that the source has sent; never more connections than it was asked for."""
    limit = 6000 if kind == "rows" else 700_000
    with Watched(shop, SESSIONS) as watched:
        run = start(shop, **{f"source_{kind}_per_second": limit, "source_connections": 2})
        rows, size, seconds = extracted(run)
    assert rows == 24_000
    rate = (rows if kind == "rows" else size) / seconds
    assert limit * TOO_SLOW < rate < limit * TOO_FAST, (rate / limit, seconds)
    assert watched.most == 2


def test_a_file_is_read_no_faster_either(tmp_path: Path, start: Callable[..., Forked]) -> None:
    """Arrow lane."""
    with closing(sqlite3.connect(path := tmp_path / "s.sqlite")) as lite:
        for table in ("a", "b"):
            lite.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v TEXT)")
            lite.executemany(f"INSERT INTO {table} VALUES (?, ?)", ((i, f"{i:090}") for i in range(6000)))
        lite.commit()
    rows, _, seconds = extracted(start(f"sqlite:///{path}", source_rows_per_second=3000))
    assert rows == 12_000
    assert 3000 * TOO_SLOW < rows / seconds < 3000 * TOO_FAST, seconds


def test_two_migrations_share_what_their_source_bears(
    shop: str, start: Callable[..., Forked], jivs_home: tuple[Path, str]
) -> None:
    """Two processes, each with a limit of its own, are together no faster than one; nor do they have more connections."""
    with Watched(shop, SESSIONS) as watched:
        runs = [
            start(shop, n, source_rows_per_second=10_000, source_connections=3, parallelism=2)
            for n in range(2)
        ]
        assert sum(extracted(run)[0] for run in runs) == 48_000
    assert watched.most <= 3
    with psycopg.connect(with_parts(jivs_home[1], database=CONTROL)) as db:
        (seconds,) = db.execute(
            "SELECT extract(epoch FROM max(started_at + make_interval(secs => seconds)) - min(started_at))::float8"
            "  FROM jivs.migration_performance_metrics WHERE phase = 'extract' AND key = ANY (%s)",
            ([run.document["key"] for run in runs],),
        ).fetchall()[0]
    assert 10_000 * TOO_SLOW < 48_000 / seconds < 10_000 * TOO_FAST, seconds


def test_a_pause_is_not_kept_waiting(shop: str, start: Callable[..., Forked]) -> None:
    """At 20 rows a second a chunk would take minutes."""
    run = start(shop, source_rows_per_second=20)
    run.wait_for("extract")
    time.sleep(0.5)
    run.signal(signal.SIGINT)
    began = time.monotonic()
    assert run.wait(20) == 130, run
    assert time.monotonic() - began < 10


def test_a_source_that_is_full_is_waited_for_and_then_named(shop: str, start: Callable[..., Forked]) -> None:
    """The first reads for 6 s on the only connection; the second waits, the third has no patience."""
    first = start(shop, 0, source_rows_per_second=4000, source_connections=1)
    first.wait_for("extract")
    time.sleep(1)  # between planning and reading it has none for a moment
    second = start(shop, 1, source_connections=1)
    third = start(shop, 2, source_connections=1, patience=0.5)
    assert third.wait(60) == 1, third
    error = third.document["error"]
    assert error["code"] == "crowded"
    assert error["message"].startswith("Of the 1 connections that source 'legacy' may have")
    assert "are held by k0-" in error["message"]
    assert first.wait(60) == 0, first
    assert second.wait(60) == 0, second


def test_a_small_target_is_not_exhausted(
    shop: str, start: Callable[..., Forked], make_target: Callable[[], str], jivs_home: tuple[Path, str]
) -> None:
    """Five runs that want six connections each of the twelve that it has; it would refuse the thirteenth."""
    target, role = make_target(), f"loader_{uuid4().hex[:8]}"
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 12".encode())
        db.execute(f'ALTER DATABASE "{database_of(target)}" OWNER TO {role}'.encode())
    try:
        with Watched(target, SESSIONS) as watched:
            into = with_parts(target, user=role, password="p")
            runs = [start(shop, n, parallelism=4, source_connections=9, target=into) for n in range(5)]
            assert [run.wait(100) for run in runs] == [0] * 5, runs
        # Each of those that wait reads the ledger once before.
        assert watched.most <= 12
        with psycopg.connect(with_parts(jivs_home[1], database=CONTROL)) as db:
            keys = [run.document["key"] for run in runs]
            errors = db.execute(
                "SELECT error FROM jivs.migration_retries WHERE key = ANY (%s)", (keys,)
            ).fetchall()
        assert all("connections that target" in error for (error,) in errors), errors
    finally:
        with psycopg.connect(target, autocommit=True) as db:
            db.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER".encode())
            db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
