"""The watchdog beside a run: which of the run's server processes it ends, when, and that nothing of it stays.

What belongs here: `infra/watchdog.py` in its own process, beside a run in another. What does not: the policy
(`unit/test_watch.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.infra import ddl, watchdog
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline.infra.watchdog import Watchdog, start_watchdog
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.integration.test_target import _CONTROL, _load, _one, _rows, _table

Db = psycopg.Connection[Any]
Start = Callable[..., subprocess.Popen[str]]

_RUN = """
import json, sys, time
from psycopg import sql
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.infra import ddl
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline.infra.watchdog import start_watchdog
from jivs_pipeline_tests.integration.test_target import _CONTROL, _table, Chunk

orders = json.loads(sys.stdin.readline())

def watch(connection, key, epoch):
    return start_watchdog(
        connection, key, epoch, io_timeout_seconds=orders["io"], load_timeout_seconds=orders["load"])

def pieces():
    for _ in range(orders["pieces"]):
        yield b"1\\tx\\n" * 8192
        print("copying", flush=True)
        time.sleep(orders["pause"])

# Its own limits are far away: what ends it is the watchdog.
target = PostgresqlTarget(
    parse_url(orders["url"], "warehouse"), io_timeout_seconds=600, load_timeout_seconds=600, watch=watch)
target.claim("shop", _CONTROL, 1, "owner1")
target.apply(ddl.create("shop", _table())[0], "g")
try:
    if orders["pieces"]:
        rows = 8192 * orders["pieces"]
        target.load_chunk(_table(), Chunk(index=0), "g", rows, 1, "d", pieces())
    else:
        print("busy", flush=True)
        target.apply(ddl.Step("public.t", "long", (sql.SQL("SELECT pg_sleep(600)"),)), "g")
    print("loaded", flush=True)
except JivsError as error:
    print(type(error).__name__, flush=True)
target.close()
"""


@pytest.fixture
def start(database: str) -> Iterator[Start]:
    """Starts runs that copy so many pieces with a pause after each, or keep the server busy where there are none."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *, pieces: int = 0, pause: float = 0, io: float = 600, load: float = 600
    ) -> subprocess.Popen[str]:
        run = subprocess.Popen(
            [sys.executable, "-c", _RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        started.append(run)
        orders = {"url": database, "io": io, "load": load, "pieces": pieces, "pause": pause}
        assert run.stdin
        print(json.dumps(orders), file=run.stdin, flush=True)
        return run

    yield start
    for run in started:
        run.kill()
        run.communicate()


@pytest.fixture
def db(database: str) -> Iterator[Db]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def _hears(run: subprocess.Popen[str], word: str) -> None:
    assert run.stdout
    assert run.stdout.readline() == f"{word}\n"


def _last_word(run: subprocess.Popen[str]) -> str:
    return run.communicate(timeout=30)[0].splitlines()[-1]


def _sessions(db: Db) -> set[int]:
    """The run's server processes."""
    found = db.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'jivs/%'"
    )
    return {pid for (pid,) in found.fetchall()}


def test_a_client_that_stands_still_inside_a_copy_is_ended(start: Start, database: str, db: Db) -> None:
    """No statement_timeout, no cancel and no closing socket ends it there; its locks go with it."""
    run = start(io=1.5, pieces=100, pause=0.2)
    _hears(run, "copying")
    run.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert len(_sessions(db)) == 1
    until(lambda: not _sessions(db), "no session left", 12)
    assert time.monotonic() - stopped > 1, "it was not given its time"
    with psycopg.connect(database) as other:
        other.execute("SET lock_timeout = '1s'")
        other.execute("LOCK TABLE public.t, jivs_ledger.migrations IN ACCESS EXCLUSIVE MODE")
    assert _rows(db) == []
    run.send_signal(signal.SIGCONT)
    assert _last_word(run) == "TransientError"


def test_a_slow_copy_goes_on(start: Start, db: Db) -> None:
    """Its pauses together are longer than the timeout, none of them is."""
    run = start(io=2, pieces=8, pause=0.5)
    assert _last_word(run) == "loaded"
    assert _one(db, "SELECT count(*) FROM public.t") == 8 * 8192


def test_a_load_that_takes_too_long_is_ended(start: Start, db: Db) -> None:
    """Although it never stands still."""
    run = start(load=2, pieces=600, pause=0.05)
    _hears(run, "copying")
    began = time.monotonic()
    assert _last_word(run) == "TransientError"
    assert 1 < time.monotonic() - began < 15
    assert _rows(db) == []


def test_when_the_run_dies_all_its_sessions_end(start: Start, database: str, db: Db) -> None:
    """A server that is busy does not look at its socket and would work on; those of others are not touched."""
    run = start()
    _hears(run, "busy")
    with psycopg.connect(database, application_name="jivs/others", autocommit=True) as innocent:
        pid = innocent.info.backend_pid
        add = (
            "INSERT INTO jivs_ledger.backends SELECT %s, %s, pid, backend_start + %s::interval, %s"
            " FROM pg_stat_activity WHERE pid = %s"
        )
        db.execute(
            "INSERT INTO jivs_ledger.migrations (key, control_id, epoch, owner) VALUES ('other', %s, 1, 'o')",
            (_CONTROL,),
        )
        for key, epoch, late, name in (
            ("shop", 2, "0", "jivs/others"),
            ("other", 1, "0", "jivs/others"),
            ("shop", 1, "1 s", "jivs/others"),
        ):
            db.execute(add, (key, epoch, late, name, pid))
        until(lambda: len(_sessions(db)) == 2, "two sessions", 5)
        (its,) = _sessions(db) - {pid}
        run.kill()
        until(lambda: its not in _sessions(db), "its session is gone", 12)
        time.sleep(0.3)
        assert innocent.execute("SELECT 1").fetchone() == (1,)


def test_a_watchdog_that_is_stopped_at_once_has_heard_it(database: str, db: Db) -> None:
    """It starts later than its run says that it is done."""
    target = PostgresqlTarget(parse_url(database, "warehouse"), io_timeout_seconds=10)
    try:
        target.claim("shop", _CONTROL, 1, "owner1")
        target.apply(ddl.create("shop", _table())[0], "g")
        before = _sessions(db)
        dog = start_watchdog(
            parse_url(database, "w"), "shop", 1, io_timeout_seconds=1, load_timeout_seconds=1
        )
        dog.stop()
        dog.stop()
        time.sleep(0.2)
        assert _sessions(db) == before
    finally:
        target.close()


@pytest.fixture
def watched(database: str) -> Iterator[tuple[PostgresqlTarget, list[Watchdog]]]:
    """A target that has a watchdog since its first write, and the watchdogs that were started."""
    dogs: list[Watchdog] = []

    def watch(connection: Connection, key: str, epoch: int) -> Watchdog:
        dogs.append(start_watchdog(connection, key, epoch, io_timeout_seconds=1, load_timeout_seconds=600))
        return dogs[-1]

    target = PostgresqlTarget(parse_url(database, "warehouse"), io_timeout_seconds=10, watch=watch)
    target.claim("shop", _CONTROL, 1, "owner1")
    target.apply(ddl.create("shop", _table())[0], "g")
    yield target, dogs
    target.close()
    for dog in dogs:
        dog.process.kill()
        dog.process.wait()


def test_stop_ends_the_watchdog_and_nothing_else(
    watched: tuple[PostgresqlTarget, list[Watchdog]], db: Db
) -> None:
    """A run that has said that it is done keeps its sessions: what they still do is its own business."""
    target, (dog,) = watched
    before = _sessions(db)
    assert len(before) == 1
    until(
        lambda: (
            _one(db, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jivs watchdog'") > 0
        ),
        "a watchdog",
        15,
    )
    dog.stop()
    assert dog.process.returncode == 0
    time.sleep(0.3)
    assert _sessions(db) == before
    assert _load(target, _table(), [(1, "x")])


def test_idle_sessions_are_left_alone(watched: tuple[PostgresqlTarget, list[Watchdog]], db: Db) -> None:
    """Only who is silent inside of a transaction is overdue. One watchdog is enough for all sessions."""
    target, dogs = watched
    before = _sessions(db)
    time.sleep(2.5)
    assert _sessions(db) == before
    assert _load(target, _table(), [(1, "x")])
    assert len(dogs) == 1


def test_close_ends_the_watchdog(watched: tuple[PostgresqlTarget, list[Watchdog]]) -> None:
    target, (dog,) = watched
    target.close()
    assert dog.process.returncode == 0


def test_a_watchdog_that_hangs_is_killed(
    watched: tuple[PostgresqlTarget, list[Watchdog]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is over does not wait for it for long."""
    monkeypatch.setattr(watchdog, "_STOP_SECONDS", 0.2)
    _, (dog,) = watched
    dog.process.send_signal(signal.SIGSTOP)
    dog.stop()
    assert dog.process.returncode == -signal.SIGKILL


def test_the_orders_are_nobody_elses(watched: tuple[PostgresqlTarget, list[Watchdog]], database: str) -> None:
    """Whoever lists processes sees neither the URL nor its password."""
    _, (dog,) = watched
    shown = Path(f"/proc/{dog.process.pid}/cmdline").read_bytes()
    shown += Path(f"/proc/{dog.process.pid}/environ").read_bytes()
    assert b"jivs_pipeline.infra.watchdog" in shown
    assert database.encode() not in shown
    assert os.getpgid(dog.process.pid) != os.getpgid(0), "Ctrl-C would reach it"
