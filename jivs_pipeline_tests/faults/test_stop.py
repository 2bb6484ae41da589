"""Row 4: a worker that stands still beyond its lease is replaced in time, and writes nothing when it wakes.

What belongs here: SIGSTOP while it loads, takeover, SIGCONT. What does not: one that wakes during a rollback.
"""

from __future__ import annotations

import time

import pytest

from jivs_pipeline_tests.faults.cases import Case, Cases
from jivs_pipeline_tests.fix_engine import GO_ON, Forked
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

LEASE = 1.0
TAKEOVER = 10.0
PLACES = {
    "inside_upgrade": 1,
    "inside_claim": 1,
    "after_ledger_before_copy": 10,  # between the check of the epoch and the COPY
    "after_copy_before_commit": 10,
    "before_commit": 10,
    "after_commit": 10,
    "inside_step": 6,
    "checkpoint_before_commit": 8,  # with the migration's row locked in the control database
    "control_before_commit": 20,
}
"""Where a stop hurts, and how often a run comes by at least."""


def test_a_stopped_worker_is_replaced_and_refused(cases: Cases) -> None:
    for one in rounds(4, quick=2):
        with one, cases.case(one, lease=LEASE) as case:
            stale, stopped = _stopped(case, at_random=one.number % 2 == 1)
            beaten = case.silence()
            successor = case.take_over(LEASE + TAKEOVER)
            took = time.monotonic() - stopped
            one.note(f"taken over after {took:.2f} s")
            assert took >= LEASE - beaten, "a live lease was stolen"
            if one.rng.random() < 0.3:
                one.note("woken while the successor runs")
                _wake(stale)
                assert successor.wait() == 0, successor
            else:
                assert successor.wait() == 0, successor
                before = case.everything()
                _wake(stale)
                after = case.everything()
                assert {k for k in after if after[k] != before[k]} == set(), (
                    "the stale worker changed something"
                )
            case.judge(successor)


def _stopped(case: Case, *, at_random: bool) -> tuple[Forked, float]:
    """A run that stands still inside the load, at a place inside of a transaction or anywhere, and since when."""
    rng = case.round.rng
    place = f"before_commit@{rng.randint(20, 25)}" if at_random else _place(case.round)
    run = case.start(f"{place}:sleep=3")
    if at_random:
        # The load cannot end before: it will wait at the place.
        run.wait_for("load")
        run.ends_within(rng.uniform(0, 0.2))
        case.round.note("stopped at random")
    else:
        run.wait_asleep()
        case.round.note(f"stopped at {place}")
    run.stop()
    return run, time.monotonic()


def _place(one: Round) -> str:
    place = sorted(PLACES)[one.number // 2 % len(PLACES)]
    return f"{place}@{one.rng.randint(1, PLACES[place])}"


def _wake(stale: Forked) -> None:
    begun = bool(stale.phases)
    stale.signal(GO_ON)
    code = stale.wait()
    if begun:
        assert (code, stale.document["error"]["code"]) == (3, "fenced"), stale
    elif code != 0:
        # It had not claimed anything yet, so it is a starter like any other, who may also find nothing left to do.
        assert (code, stale.document["error"]["code"] in {"conflict", "fenced"}) == (3, True), stale
