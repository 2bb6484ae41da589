"""Row 16: wall clocks that are wrong or jump decide nothing: no live lease is stolen, no dead one kept.

What belongs here: runs whose clocks are wrong, all those of Python in the process (`zygote._shift_clocks`). What does
not: the databases' clocks; the control database's is the one that leases are measured by.
"""

from __future__ import annotations

import time

import pytest

from jivs_pipeline_tests.faults.cases import Case, Cases
from jivs_pipeline_tests.fix_engine import GO_ON
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

OFF = 400.0
TAKEOVER = 10.0
Clock = list[tuple[float, float]]


def _clock(one: Round, first: float = 0) -> Clock:
    """Far ahead or far behind from the start, and in some runs it jumps to the other side."""
    first = first or one.rng.choice((OFF, -OFF))
    steps = [(0.0, first)]
    if one.rng.random() < 0.6:
        steps.append((one.rng.uniform(0.05, 1.0), -first))
    one.note(f"clock {steps}")
    return steps


def _worse(one: Round, off: float) -> float:
    """The first rounds go in the direction that would do harm if the holder's clock were believed."""
    return off if one.number // 2 % 2 == 0 else -off


def test_wrong_clocks_decide_nothing(cases: Cases) -> None:
    for one in rounds(16, quick=2):
        alive = one.number % 2 == 0
        with one, cases.case(one, lease=3.0 if alive else 1.0) as case:
            (_keeps if alive else _loses)(case)


def _keeps(case: Case) -> None:
    """A live holder keeps its migration for longer than its lease, whatever it and the others believe."""
    lease = case.lease or 0
    place = f"after_ledger_before_copy@{case.round.rng.randint(1, 20)}"
    holder = case.start(f"{place}:sleep=60", clock=_clock(case.round, _worse(case.round, -OFF)))
    holder.wait_asleep()
    until = time.monotonic() + lease + 1
    while time.monotonic() < until:
        starter = case.start(clock=_clock(case.round))
        assert starter.wait() == 3, starter
        assert starter.document["error"]["code"] == "conflict", starter
        holder.ends_within(lease / 5)
    holder.go_on()
    assert holder.wait() == 0, holder
    case.judge(holder)


def _loses(case: Case) -> None:
    """One that stands still loses it to a run with another wrong clock: after its lease, and in time."""
    lease = case.lease or 0
    place = f"before_commit@{case.round.rng.randint(2, 20)}"
    stale = case.start(f"{place}:sleep=60", clock=_clock(case.round, _worse(case.round, OFF)))
    stale.wait_asleep()
    stale.stop()
    stopped = time.monotonic()
    silent = case.silence()
    successor = case.take_over(lease + TAKEOVER, _clock(case.round))
    took = time.monotonic() - stopped
    assert took >= lease - silent, f"stolen after {took:.2f} s"
    assert successor.wait() == 0, successor
    stale.go_on()
    stale.signal(GO_ON)
    assert stale.wait() == 3, stale
    case.judge(successor)
