"""Permits for connections: never more than the limit over all processes, and none is lost with its holder.

What belongs here: `infra/permits.py`, and the sources and targets that ask it. What does not: whole runs
(`acceptance/test_limits.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import Crowded, JivsError, SnapshotLost, TransientError
from jivs_pipeline.core.permits import share
from jivs_pipeline.core.plan import Chunk
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.permits import EndpointPermits, PermitBook
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline_tests.acceptance.test_limits import SESSIONS, Watched
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.integration.postgresql_source import OpenSource, Run, table_plan
from jivs_pipeline_tests.permit_workers import permits_of

ROOT = Path(__file__).resolve().parents[2]
WHOLE = Chunk(index=0)
MakeBook = Callable[..., PermitBook]


@pytest.fixture
def control_url(make_database: Callable[[], str]) -> str:
    url = make_database()
    with closing(Control(url, timeout_seconds=20)) as control:
        control.open()
    return url


@pytest.fixture
def make_book(control_url: str) -> Iterator[MakeBook]:
    """Permit books as of several processes, over one control database."""
    opened: list[Control | PermitBook] = []

    def make(lease_seconds: float = 300) -> PermitBook:
        control = Control(control_url, timeout_seconds=20)
        control.open()
        book = control.permits(lease_seconds=lease_seconds, patience_seconds=20)
        opened.extend((book, control))
        return book

    yield make
    arm(None)
    for one in opened:
        one.close()


def _taken(control_url: str) -> list[tuple[str, int]]:
    with psycopg.connect(control_url) as db:
        return db.execute("SELECT key, permits FROM jivs.connection_permits ORDER BY key").fetchall()


def test_all_or_fewer_but_never_more(make_book: MakeBook, control_url: str) -> None:
    one, two = permits_of(make_book(), "one", 4), permits_of(make_book(), "two", 4)
    first = one.take(3)
    second = two.take(3)
    assert (first.count, second.count) == (3, 1)
    with pytest.raises(Crowded) as caught:
        permits_of(make_book(), "three", 4).take(1)
    assert caught.value.message == (
        "Of the 4 connections that source 'shop' may have, 1 more are needed for three and 4 are held by"
        f" one (3, process {os.getpid()} on {os.uname().nodename}),"
        f" two (1, process {os.getpid()} on {os.uname().nodename})"
    )
    assert caught.value.hint.endswith("raise limits.source_connections")
    assert caught.value.patience_seconds == 20
    first.give_back()
    first.give_back()
    assert _taken(control_url) == [("two", 1)]
    assert two.take(9).count == 3
    # Who is content with more has more; who is not waits until there are fewer.
    assert permits_of(make_book(), "four", 6).take(9).count == 2
    with pytest.raises(Crowded):
        one.take(1)


def test_with_fewer_than_it_needs_it_gets_none(make_book: MakeBook, control_url: str) -> None:
    permits = permits_of(make_book(), "one", 4)
    permits.take(2)
    with pytest.raises(Crowded):
        permits.take(5, least=3)
    assert permits.take(5, least=3, of=5).count == 3
    assert sum(n for _, n in _taken(control_url)) == 5


@pytest.mark.parametrize("place", ["control_before_commit", "control_after_commit"])
def test_a_commit_that_was_not_acknowledged_takes_once(
    place: str, make_book: MakeBook, control_url: str
) -> None:
    book = make_book()
    arm(f"{place}@1:error")
    assert permits_of(book, "one", 4).take(3).count == 3
    assert _taken(control_url) == [("one", 3)]


def test_permits_are_gone_with_their_process(make_book: MakeBook, control_url: str) -> None:
    """Killed on this machine: at once. Elsewhere nothing can be proved, so the lease has to run out."""
    pid = os.fork()
    if pid == 0:
        control = Control(control_url, timeout_seconds=20)
        control.open()
        permits_of(control.permits(lease_seconds=300, patience_seconds=1), "killed", 4).take(4)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert _taken(control_url) == [("killed", 4)]
    assert permits_of(make_book(), "next", 4).take(4).count == 4
    assert _taken(control_url) == [("next", 4)]
    with psycopg.connect(control_url) as db:
        db.execute("UPDATE jivs.connection_permits SET boot_id = 'elsewhere', lease_seconds = 60")
    with pytest.raises(Crowded):
        permits_of(make_book(), "after", 4).take(1)
    with psycopg.connect(control_url) as db:
        db.execute("UPDATE jivs.connection_permits SET heartbeat_at = now() - interval '61 seconds'")
    assert permits_of(make_book(), "after", 4).take(4).count == 4


def test_a_holder_that_lives_is_seen_to_live(make_book: MakeBook, control_url: str) -> None:
    permit = permits_of(make_book(lease_seconds=0.9), "slow", 4).take(4)
    with psycopg.connect(control_url, autocommit=True) as db:
        db.execute("UPDATE jivs.connection_permits SET boot_id = 'elsewhere'")
        time.sleep(1.5)
        with pytest.raises(Crowded):
            permits_of(make_book(), "other", 4).take(1)
        # Taken for dead by mistake: its connections are open, so it is counted again.
        db.execute("DELETE FROM jivs.connection_permits")
        until(lambda: _taken(control_url) == [("slow", 4)], "the permit is put back", 10)
        permit.give_back()
        assert _taken(control_url) == []
        time.sleep(0.7)
        assert _taken(control_url) == [], "what was given back stays so"


def test_what_is_left_at_the_end_is_given_back(make_book: MakeBook, control_url: str) -> None:
    book = make_book()
    permits_of(book, "one", 4).take(2)
    book.close()
    assert _taken(control_url) == []


def test_twenty_processes_never_have_more_than_four_connections(
    database: str, control_url: str, run: Run, open_source: OpenSource
) -> None:
    """As the source counts them, while all of them read as often as they can."""
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    source = open_source()
    plan = table_plan(source, "t").model_copy(update={"where": "pg_sleep(0.005) IS NOT NULL"})
    source.close()
    orders = {
        "control": control_url, "source": database, "plan": plan.model_dump(mode="json"),
        "limit": 4, "processes": 20, "seconds": 5,
    }  # fmt: skip
    ours = f"{SESSIONS} AND application_name = 'jivs source'"
    with Watched(database, ours) as watched:
        ended = subprocess.run(
            [sys.executable, "-m", "jivs_pipeline_tests.permit_workers"],
            input=json.dumps(orders).encode(), capture_output=True, cwd=ROOT, timeout=120, check=True,
        )  # fmt: skip
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(told) == 20, ended.stderr.decode()[-2000:]
    assert sum(t["got"] for t in told) >= 20
    assert sum(t["crowded"] for t in told) > 0
    assert watched.most == 4
    assert _taken(control_url) == []


# A source within its permits


class Counted:
    """Leave for so many, one after the other."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)
        self.held = 0

    def take(self, wanted: int, **_: int | None) -> _Permit:
        assert self.held == 0, "who holds a permit does not ask for another"
        if not (count := min(wanted, self.counts.pop(0))):
            raise Crowded("full")
        self.held += 1
        return _Permit(self, count)


class _Permit:
    def __init__(self, of: Counted, count: int) -> None:
        self._of, self.count = of, count

    def give_back(self) -> None:
        self._of.held -= 1


@pytest.fixture
def counted(database: str) -> Iterator[Callable[..., tuple[PostgresqlSource, Counted]]]:
    opened: list[PostgresqlSource] = []

    def make(*counts: int) -> tuple[PostgresqlSource, Counted]:
        permits = Counted(*counts)
        opened.append(PostgresqlSource(parse_url(database, "shop"), permits=permits))
        return opened[-1], permits

    yield make
    for source in opened:
        source.close()


Make = Callable[..., tuple[PostgresqlSource, Counted]]


def test_a_source_that_is_crowded_is_asked_later(counted: Make, run: Run) -> None:
    run("CREATE TABLE t (k int PRIMARY KEY)")
    source, permits = counted(0, 0, 1)
    with pytest.raises(Crowded):
        source.catalog(None)
    assert source.catalog(None).table("t")
    source.close()
    source.close()
    assert permits.held == 0


def test_a_snapshot_that_is_crowded_leaves_nothing_behind(counted: Make, run: Run, database: str) -> None:
    source, permits = counted(1, 0, 2)
    with pytest.raises(Crowded), source.snapshot(3):
        pass
    assert permits.held == 0
    with psycopg.connect(database) as db:
        assert db.execute(f"{SESSIONS} AND application_name = 'jivs source'".encode()).fetchone() == (0,)
    with source.snapshot(3):
        assert permits.held == 1
    assert permits.held == 0


def test_one_connection_is_enough(counted: Make, run: Run, database: str) -> None:
    """The session that made the snapshot reads it, and an error of the server's does not cost the view."""
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)")
    source, _ = counted(1, 1)
    plan = table_plan(source, "t")
    wrong = plan.model_copy(update={"where": "1 / (k - 900) IS NOT NULL"})
    with (
        Watched(
            database, SESSIONS.replace("datname", "application_name = 'jivs source' AND datname")
        ) as seen,
        source.snapshot(4) as snapshot,
    ):
        until(lambda: seen.most == 1, "a look at the session", 30)
        run("DELETE FROM t WHERE k > 500")
        for look in (snapshot.digest, snapshot.count, lambda p, c: list(snapshot.copy(p, c))):
            with pytest.raises(JivsError, match="division by zero"):
                look(wrong, WHOLE)
        assert snapshot.count(plan, WHOLE) == snapshot.digest(plan, WHOLE).rows == 1000
        assert sum(piece.rows for piece in snapshot.copy(plan, WHOLE)) == 1000
        run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'jivs source' AND datname = current_database()"
        )
        with pytest.raises(TransientError):
            snapshot.count(plan, WHOLE)
        with pytest.raises(SnapshotLost):
            snapshot.count(plan, WHOLE)
    assert seen.most == 1


def test_a_snapshot_outlives_the_session_that_made_it(counted: Make, run: Run) -> None:
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)")
    source, _ = counted(1, 2)
    plan = table_plan(source, "t")
    with source.snapshot(2) as snapshot:
        assert snapshot.count(plan, WHOLE) == 1000
        run("DELETE FROM t")
        run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_start = (SELECT min(backend_start)"
            " FROM pg_stat_activity WHERE application_name = 'jivs source' AND datname = current_database())"
        )
        found: list[int] = []
        for _ in range(6):
            try:
                found.append(snapshot.count(plan, WHOLE))
            except SnapshotLost:
                raise
            except TransientError:
                continue
        assert len(found) >= 4
        assert set(found) == {1000}


@pytest.mark.parametrize("wire", ["binary", "text"])
@pytest.mark.parametrize("rows", [0, 1, 2, 3000])
@pytest.mark.parametrize("columns", ["", "a smallint", "a smallint, b smallint, v text"])
def test_rows_of_a_copy_are_counted(wire: str, rows: int, columns: str, counted: Make, run: Run) -> None:
    """Whatever the rows look like: -1 as the last column looks like the end of a stream."""
    run(f"CREATE TABLE t ({columns})")
    values = ", ".join(["-1", "-1", "repeat('x', i % 300)"][: len(columns.split(",")) if columns else 0])
    run(f"INSERT INTO t SELECT {values} FROM generate_series(1, {rows}) i")
    source, _ = counted(1, 1)
    plan = table_plan(source, "t").model_copy(update={"wire": wire})
    with source.snapshot(1) as snapshot:
        pieces = list(snapshot.copy(plan, WHOLE))
    assert sum(piece.rows for piece in pieces) == rows
    assert len(pieces) < 5 or rows == 3000


# A target within its share


@pytest.mark.parametrize(("usable", "shared"), [(397, 298), (97, 73), (12, 9), (7, 4), (4, 3), (1, 3)])
def test_a_quarter_of_a_target_is_left_to_others(usable: int, shared: int) -> None:
    assert share(usable) == shared


def test_a_run_takes_what_its_target_can_spare(make_book: MakeBook, database: str, control_url: str) -> None:
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("SELECT 1")
        name = db.info.dbname
        db.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12'.encode())
    book = make_book()

    def target(key: str) -> PostgresqlTarget:
        permits = EndpointPermits(book, "target t@1", "target 't'", key, 0, "raise max_connections there")
        return PostgresqlTarget(parse_url(database, "t"), permits=permits)

    with closing(target("one")) as one, closing(target("two")) as two, closing(target("three")) as three:
        one.take_permits(4)
        one.take_permits(4)
        two.take_permits(4)
        assert _taken(control_url) == [("one", 6), ("two", 3)]
        with pytest.raises(Crowded, match="Of the 9 connections that target 't' may have, 3 more"):
            three.take_permits(4)
        one.close()
        three.take_permits(1)
        assert _taken(control_url) == [("three", 3), ("two", 3)]
        assert three.info().version
