"""Row 1: a run of the engine that is killed at random moments loses, doubles and changes nothing.

What belongs here: one kind of fault, very often. What does not: whole commands (`test_kill_jivs.py`) and places
that have names (`test_places.py`).
"""

from __future__ import annotations

import time
from functools import cache

import pytest

from jivs_pipeline_tests.faults.cases import Case, Cases
from jivs_pipeline_tests.fix_engine import KILL
from jivs_pipeline_tests.fix_faults import FULL, Round, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

MOST_KILLS = 12


def test_kill_at_random(cases: Cases) -> None:
    """Several kills per migration, uniformly over the time that an undisturbed run takes."""

    @cache
    def undisturbed(dialect: str) -> float:
        with cases.case(Round(1, -1, r.rng), "create", dialect) as case:
            run = case.start()
            assert run.wait() == 0, run
            return time.monotonic() - run.began

    for r in rounds(1, quick=3):
        with r, cases.case(r) as case:
            r.faults = _kill(case, undisturbed(case.source.dialect), r.rng.randint(2, MOST_KILLS))
            case.complete(again=not FULL or r.number % 10 == 0)


def _kill(case: Case, seconds: float, kills: int) -> int:
    """Kill the migration's runs up to `kills` times; returns how often. One that is faster ends it before."""
    for done in range(kills):
        run = case.start()
        moment = case.round.rng.uniform(0, seconds)
        run.ends_within(moment)
        run.signal(KILL)
        code = run.wait()
        phase = run.phases[-1] if run.phases else "beginning"
        case.round.note(f"kill at {moment * 1000:.0f} ms in {phase} → {code}")
        if code == 0:
            return done
        assert code == -KILL, run
    return kills
