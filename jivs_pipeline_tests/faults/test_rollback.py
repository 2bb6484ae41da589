"""Rows 5 and 17: cancel and rollback at random moments give the target back; stale workers that wake in them write nothing.

What belongs here: what is taken back, whatever happened before and meanwhile. What does not: what a user reads
(`acceptance/test_cancel.py`).
"""

from __future__ import annotations

import random
import time
from functools import cache
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.rows import catalog
from jivs_pipeline_tests.faults.cases import Case, Cases
from jivs_pipeline_tests.fix_engine import GO_ON, KILL, Forked
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

LEASE = 1.0
PLACES = (
    "inside_undo",
    "forget_before_commit",
    "forget_after_commit",
    "take_over_after_commit",
    "after_commit",
)
"""Where a rollback is killed."""


def theirs(case: Case) -> dict[str, Any]:
    """Catalog and data of the target without the ledger. Files of tables that were emptied are others afterwards."""
    found = catalog(case.target)
    with psycopg.connect(case.target) as db:
        ours = db.execute(
            "SELECT conname FROM pg_constraint WHERE connamespace = to_regnamespace('jivs_ledger')"
        ).fetchall()
        numbers = db.execute(
            "SELECT schemaname, sequencename, last_value FROM pg_sequences WHERE schemaname <> 'jivs_ledger' ORDER BY 1, 2"
        ).fetchall()
        oids = db.execute(
            "SELECT relname, oid::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
    return {
        "objects": [(*o[:3], *o[4:]) for o in found["objects"] if o[0] != "jivs_ledger"],
        "schemas": [s for s in found["schemas"] if s[0] != "jivs_ledger"],
        "columns": [c for c in found["columns"] if not c[0].startswith("jivs_ledger")],
        "keys": [k for k in found["keys"] if (k[0],) not in ours],
        "rows": [r for r in found["rows"] if r[0][0] != "jivs_ledger"],
        "triggers": found["triggers"],
        "numbers": numbers,
        "oids": oids,
    }


def _prepared(cases: Cases, one: Round, **options: Any) -> Any:
    """A case whose appended rows a key tells apart, so that they can be taken back."""
    mode = one.rng.choice(["create", "replace", "truncate"])
    return cases.case(one, mode, **options)


def test_cancel_and_rollback_at_random(cases: Cases) -> None:
    """Wherever the run was, whoever is killed: in the end the target is as before, and the key begins anew."""

    @cache
    def undisturbed(dialect: str) -> float:
        with cases.case(Round(17, -1, r.rng, faults=0), "create", dialect) as case:
            run = case.start()
            assert run.wait() == 0, run
            return time.monotonic() - run.began

    for r in rounds(17, quick=3):
        with r, _prepared(cases, r) as case:
            before = theirs(case)
            run = case.start()
            assert run.wait_begun(), run
            run.ends_within(r.rng.uniform(0, undisturbed(case.source.dialect)))
            _cancel(case, run)
            if r.rng.random() < 0.4:
                _kill_a_rollback(case)
            _roll_back(case)
            assert theirs(case) == before
            assert not case.staged
            if r.number % 4 == 0:
                case.complete()


def _cancel(case: Case, run: Forked) -> None:
    """By the command, by a kill, or not at all because it was faster."""
    if case.round.rng.random() < 0.3:
        run.signal(KILL)
        run.wait()
        case.round.note(f"killed in {run.phases[-1]}")
        return
    command = case.start(verb="cancel")
    code, ended = command.wait(), run.wait()
    case.round.note(f"cancel → {code}, run → {ended} in {run.phases[-1]}")
    # It may have finished first: then there is nothing to cancel, and what is done is taken back all the same.
    assert (code, ended) in {(0, 130), (3, 0)}, f"{command}\n{run}"
    if code == 0:
        assert not case.staged, "a cancelled run left rows in staging"


def _kill_a_rollback(case: Case) -> None:
    place = case.round.rng.choice(PLACES)
    rollback = case.start(f"{place}@{case.round.rng.randint(1, 4)}:kill", verb="rollback")
    case.round.note(f"rollback killed at {place} → {rollback.wait()}")


def _roll_back(case: Case) -> None:
    rollback = case.start(verb="rollback")
    code = rollback.wait()
    status = case.control("SELECT status FROM jivs.migrations WHERE key = %(key)s")
    assert status == ("rolled_back",), f"{status} {rollback}"
    # The one that was killed may have come to the end.
    assert code in {0, 3}, rollback


def test_every_place_of_a_rollback_is_killed_at(cases: Cases) -> None:
    for place in PLACES:
        one = Round(17, -1, random.Random(place), faults=0)
        with one, cases.case(one, "replace", "postgresql") as case:
            before = theirs(case)
            assert case.start().wait() == 0
            rollback = case.start(f"{place}:kill", verb="rollback")
            assert rollback.wait() == -KILL, f"{place} was not passed: {rollback}"
            _roll_back(case)
            assert theirs(case) == before
            case.complete()


def test_a_stale_worker_that_wakes_inside_a_rollback_touches_nothing(cases: Cases) -> None:
    """It stands still in the load, in a step or before it cleans up; it wakes in the middle of the rollback or after it."""
    for one in rounds(5, quick=2):
        with one, _prepared(cases, one, lease=LEASE) as case:
            before = theirs(case)
            stale = _stopped(case)
            rollback = _rollback_of_the_stale(case)
            inside = one.rng.random() < 0.5 and rollback.poll() is None
            if not inside:
                rollback.go_on()
                assert rollback.wait() == 0, rollback
            one.note(f"woken {'inside of' if inside else 'after'} the rollback")
            stale.signal(GO_ON)
            assert stale.wait() == 3, stale
            rollback.go_on()
            assert rollback.wait() == 0, rollback
            assert theirs(case) == before, "the stale worker changed something"
            assert stale.document["error"]["code"] == "fenced", stale
            assert case.control("SELECT status FROM jivs.migrations WHERE key = %(key)s") == ("rolled_back",)
            case.complete()


def _stopped(case: Case) -> Forked:
    rng = case.round.rng
    place = rng.choice(
        [
            f"after_ledger_before_copy@{rng.randint(2, 10)}", f"after_fence@{rng.randint(2, 12)}",
            f"before_commit@{rng.randint(2, 20)}", f"inside_step@{rng.randint(2, 6)}", "before_discard@2",
        ]
    )  # fmt: skip
    run = case.start(f"{place}:sleep=30")
    run.wait_asleep()
    run.stop()
    run.go_on()
    case.round.note(f"stopped at {place}")
    return run


def _rollback_of_the_stale(case: Case) -> Forked:
    """A rollback that waits in one of its first steps; begun again while the stale worker's lease is not over.

    It has ended where there was but one step to take back and it was to wait in the second.
    """
    place = f"inside_undo@{case.round.rng.randint(1, 2)}:sleep=30"
    deadline = time.monotonic() + LEASE + 15
    while True:
        rollback = case.start(place, verb="rollback")
        while rollback.poll() is None and not any("asleep" in line for line in rollback.lines()):
            rollback.ends_within(0.02)
        if rollback.poll() in {None, 0}:
            return rollback
        assert rollback.wait() == 3, rollback
        assert time.monotonic() < deadline, f"no rollback: {rollback}"
