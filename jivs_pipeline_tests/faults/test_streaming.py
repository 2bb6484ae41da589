"""Migrations without staging: kills, restarts of either end, and lost answers, while chunks go straight into the target.

What belongs here: what is special where a chunk is nowhere but in the target. What does not: places that have names
(`test_places.py`, which has streamed scenarios, too).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest

from jivs_pipeline.engine import pool
from jivs_pipeline_tests.acceptance.rows import ledger
from jivs_pipeline_tests.faults.cases import MODES, Case, Cases, uncounted
from jivs_pipeline_tests.faults.here import Going, Here, MakeHere
from jivs_pipeline_tests.faults.servers import OwnServer
from jivs_pipeline_tests.faults.wire import Cut, MakeWire
from jivs_pipeline_tests.fix_engine import KILL
from jivs_pipeline_tests.fix_faults import FULL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

STREAMED = {"staging": "none"}
ALL_OF_ITS_OWN_SECONDS = 60


def _streamed(here: Here) -> Here:
    here.options = STREAMED
    return here


def _generations(here: Here) -> set[str]:
    return {c[3] for chunks in ledger(here.target, here.key).values() for c in chunks}


def test_nothing_is_staged_and_all_rows_are_of_one_snapshot(make_here: MakeHere) -> None:
    here = _streamed(make_here("postgresql"))
    run = here.start()
    while run.sleep(0.001):
        assert not here.staged
    run.succeeded(0)
    here.check()
    assert len(_generations(here)) == 1
    assert run.document is not None
    assert run.document["consistency"] == "one snapshot"
    assert any("staging: none" in w["reason"] for w in run.document["warnings"])
    # The ledger learns the bytes of a chunk from its end.
    chunks = [c for there in ledger(here.target, here.key).values() for c in there if c[1]]
    assert len(chunks) > 4
    with psycopg.connect(here.target) as db:
        sizes = db.execute("SELECT sum(bytes), min(bytes) FROM jivs_ledger.chunks").fetchone()
    assert sizes is not None
    assert sizes[0] == run.document["bytes"]
    assert sizes[1] > 0


def test_one_connection_is_enough(make_here: MakeHere) -> None:
    here = make_here("postgresql")
    here.options = {**STREAMED, "limits": {"source_connections": 1}}
    here.start().succeeded(ALL_OF_ITS_OWN_SECONDS)
    here.check()


@pytest.mark.parametrize("mode", MODES)
def test_kill_at_random(cases: Cases, mode: str) -> None:
    """Whatever is loaded as a whole is kept, and no table is of two snapshots."""
    for _ in range(20 if FULL else 1):
        with (one := uncounted(1)), cases.case(one, mode, "postgresql", streamed=True) as case:
            for _ in range(one.rng.randint(2, 6)):
                _kill(case, one.rng.uniform(0, 1.5))
            case.complete(again=True)


def _kill(case: Case, seconds: float) -> None:
    run = case.start()
    run.ends_within(seconds)
    run.signal(KILL)
    assert run.wait() in {-KILL, 0}, run


def test_a_table_that_is_loaded_is_kept_and_one_that_was_begun_is_read_anew(cases: Cases) -> None:
    with (one := uncounted(1)), cases.case(one, "create", "postgresql", streamed=True) as case:
        # The last table has one chunk more to come; the parallel worker may be in the middle of one, too.
        case.die("after_copy_before_commit@9")
        before = ledger(case.target, case.key)
        kept = case.control(
            "SELECT array_agg(table_name ORDER BY table_name) FROM jivs.migration_checkpoints"
            " WHERE key = %(key)s AND phase = 'load'"
        )[0] or []  # fmt: skip
        assert before
        case.complete()
        after = ledger(case.target, case.key)
        for table, chunks in before.items():
            same = {c[3] for c in after[table]} == {c[3] for c in chunks}
            assert same == (table in kept), table


def _waits_in_copy(here: Here, run: Going) -> None:
    """Until a chunk is on its way into the target."""
    with psycopg.connect(here.target, autocommit=True) as db:
        copying = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%FROM STDIN%'"
        while run.sleep(0.002) and not db.execute(copying).fetchone():
            pass


@pytest.mark.parametrize("which", ["source", "target"])
def test_sessions_of_one_end_are_terminated(
    make_here: MakeHere, jivs_home: tuple[object, str], which: str
) -> None:
    """The target's are opened anew; with the source's the snapshot is lost, and what is not loaded is read from another."""
    here = _streamed(make_here("postgresql"))
    run = here.start(JIVS_FAILPOINT="after_copy_before_commit@4:sleep=1")
    _waits_in_copy(here, run)
    run.sleep(0.3)
    with psycopg.connect(jivs_home[1], autocommit=True) as admin:
        database = urlsplit(str(here.source if which == "source" else here.target)).path[1:]
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'jivs%%'",
            (database,),
        ).fetchall()
    assert ended
    run.succeeded(ALL_OF_ITS_OWN_SECONDS)
    here.check()
    if which == "target":
        # One session more than readers has kept the snapshot alive.
        assert len(_generations(here)) == 1


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_restarts(
    make_here: MakeHere, own_server: OwnServer, which: str, how: signal.Signals
) -> None:
    place = {which: own_server.database()}
    here = _streamed(make_here("postgresql", **place))
    run = here.start(JIVS_FAILPOINT="after_copy_before_commit@4:sleep=1")
    _waits_in_copy(here, run)
    run.sleep(0.2)
    own_server.stop(how)
    time.sleep(0.3)
    own_server.start()
    run.succeeded(ALL_OF_ITS_OWN_SECONDS)
    here.check()


def test_answers_to_commits_are_lost(
    make_here: MakeHere, make_wire: MakeWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk whose commit was not answered is not loaded twice, and its bytes are known all the same."""
    monkeypatch.setattr(pool, "ATTEMPTS", 12)
    monkeypatch.setattr(pool, "FIRST_DELAY_SECONDS", 0.001)
    here = _streamed(make_here("postgresql"))
    with uncounted(7) as one:
        dice: Callable[[int], Cut | None] = lambda _: (  # noqa: E731
            one.rng.choice(list(Cut)) if one.rng.random() < 0.3 else None
        )
        wire = make_wire(here.target, dice)
        here.urls = {"target": wire.url}
        run = here.start()
        run.wait(120)
        one.note(f"{wire.commits} commits; {'; '.join(wire.cuts)}")
        run.succeeded(0)
        here.check()
        assert run.document is not None
        with psycopg.connect(here.target) as db:
            assert db.execute("SELECT sum(bytes) FROM jivs_ledger.chunks").fetchone() == (
                run.document["bytes"],
            )
        wire.close()
