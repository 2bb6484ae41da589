"""Runs that a person interrupts, and faults of the moment that nobody has to notice.

What belongs here: Ctrl-C and errors that pass. What does not: runs that die (`test_kill_*.py`).
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import ledger, tables_of
from jivs_pipeline_tests.faults.cases import Case, Cases, uncounted
from jivs_pipeline_tests.fix_cli import Ended, Jivs, Started
from jivs_pipeline_tests.fix_engine import KILL, until

pytestmark = pytest.mark.faults


@pytest.fixture
def case(cases: Cases) -> Iterator[Case]:
    with cases.case(uncounted(2), "create", "sqlite") as made:
        yield made


def _start(case: Case, jivs: Jivs, failpoint: str = "") -> Started:
    environment = {**case.environment, **({"JIVS_FAILPOINT": failpoint} if failpoint else {})}
    return jivs.start("run", jivs.spec(**case.spec), "--json", env=environment)


def _press(started: Started, number: int = signal.SIGINT) -> tuple[Ended, float]:
    pressed = time.monotonic()
    started.signal(number)
    ended = started.wait()
    return ended, time.monotonic() - pressed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c(case: Case, jivs: Jivs, number: int) -> None:
    """Exit 130 within 5 s, paused, and nothing but the rest is loaded by the next run."""
    started = _start(case, jivs, "after_commit@12:sleep=2,after_commit@13:sleep=2")
    with psycopg.connect(case.target, autocommit=True) as db:
        there = "SELECT to_regclass('jivs_ledger.chunks') IS NOT NULL"
        until(lambda: db.execute(there).fetchone() == (True,), "the ledger is there", 60)
        some = "SELECT count(*) >= 5 FROM jivs_ledger.chunks"
        until(lambda: db.execute(some).fetchone() == (True,), "some chunks are loaded", 60)
    ended, took = _press(started, number)
    assert ended.code == 130, ended
    assert took < 5, f"took {took:.1f} s"
    assert "Traceback" not in ended.stderr
    check_run(ended.document, "paused")
    before = ledger(case.target, case.key)
    run = case.start()
    assert run.wait() == 0, run
    assert run.document["resumed"] is True
    case.judge(run)
    after = ledger(case.target, case.key)
    for table, chunks in before.items():
        assert set(chunks) <= set(after[table]), f"{table} was loaded again"


def test_ctrl_c_while_the_server_is_busy(case: Case, jivs: Jivs) -> None:
    """A statement that takes its time in the target does not keep the user waiting."""
    assert case.start("after_commit@8:kill").wait() == -KILL
    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(case.target) as lock, psycopg.connect(case.target, autocommit=True) as watch:
        for table in tables_of(lock):
            lock.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier("public", table)))
        started = _start(case, jivs)
        until(lambda: watch.execute(waiting).fetchone() == (True,), "something waits for the lock", 60)
        assert started.process.poll() is None
        release = threading.Timer(8, lock.rollback)
        release.start()
        try:
            ended, took = _press(started)
        finally:
            release.cancel()
            release.join()
            lock.rollback()
    assert took < 5, f"took {took:.1f} s"
    assert ended.code == 130, ended
    case.complete()


def test_errors_that_pass_are_tried_again(case: Case) -> None:
    """A fault of the moment at any place costs a retry, not the run."""
    places = (
        "before_staging_rename@2",
        "after_ledger_before_copy@2",
        "after_copy_before_commit@4",
        "after_commit@3",
        "inside_step@3",
    )
    run = case.start(",".join(f"{p}:error" for p in places))
    assert run.wait() == 0, run
    case.judge(run)
    retries = case.control("SELECT retries FROM jivs.migrations WHERE key = %(key)s")[0]
    assert retries >= 4
