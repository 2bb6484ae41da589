"""Row 22: `jivs run` itself, Dagster and all, is killed at random moments of its whole duration.

What belongs here: the command as a user starts it. What does not: the engine without Dagster (`test_kill_engine.py`),
where a kill costs a fifth.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from jivs_pipeline_tests.faults.cases import Case, Cases
from jivs_pipeline_tests.fix_cli import Jivs, Started
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_faults import rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]

MOST_KILLS = 4
EARLY = 0.3
"""Share of the kills that may come before the command has looked at a database."""


def test_kill_the_command(cases: Cases, jivs: Jivs) -> None:
    durations: tuple[float, float] | None = None
    for one in rounds(22, quick=1):
        with one:
            if durations is None:
                with cases.case(one, "create", "sqlite") as case:
                    durations = _undisturbed(case, jivs)
            with cases.case(one) as case:
                # The first round is the one of `make test`.
                one.faults = _kill(
                    case, jivs, *durations, 2 if one.number == 0 else one.rng.randint(1, MOST_KILLS)
                )
                ended = _start(case, jivs).wait()
                assert ended.code == 0, ended
                case.judge(ended)


def _start(case: Case, jivs: Jivs) -> Started:
    return jivs.start("run", jivs.spec(**case.spec), "--json", env=case.environment)


def _undisturbed(case: Case, jivs: Jivs) -> tuple[float, float]:
    """Seconds of a whole run, and of the part after its first word."""
    started = _start(case, jivs)
    _await_work(started)
    spoke = time.monotonic()
    ended = started.wait()
    assert ended.code == 0, ended
    return ended.seconds, time.monotonic() - spoke


def _await_work(started: Started) -> None:
    until(lambda: started.err.stat().st_size or started.process.poll() is not None, started.argv, 60)


def _kill(case: Case, jivs: Jivs, whole: float, work: float, kills: int) -> int:
    """Kill the migration's runs up to `kills` times; returns how often. One that is faster ends it before."""
    rng = case.round.rng
    for done in range(kills):
        started = _start(case, jivs)
        if early := rng.random() < EARLY:
            moment = rng.uniform(0, whole)
        else:
            _await_work(started)
            moment = rng.uniform(0, work)
        with suppress(subprocess.TimeoutExpired):
            started.process.wait(moment)
        if started.process.poll() is None:
            _kill_tree(started.process.pid)
        ended = started.wait()
        said = ended.stderr.split()[-1:]
        case.round.note(f"{'early ' if early else ''}kill after {moment:.2f} s in {said} → {ended.code}")
        if ended.code == 0:
            return done
        assert ended.code == -signal.SIGKILL, ended
    return kills


def _kill_tree(pid: int) -> None:
    """A process and all that came from it, from the top, so that nobody starts anew."""
    below = _children(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in below:
        _kill_tree(child)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [
            int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()
        ]
    return []
