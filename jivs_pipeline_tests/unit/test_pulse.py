"""The pulse of a run: what it hears at a heartbeat, and what the run does about it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from jivs_pipeline.core.claims import Claim, Owner
from jivs_pipeline.core.errors import CancelledRun, FencedError, PausedRun, TerminalError
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.pulse import Pulse
from jivs_pipeline_tests.fix_engine import until

CLAIM = Claim("k", 7, "r", Owner("o", "h", "b", 1, "1"), resumed=False, plan=None, same_spec=True)


class _Outside:
    """Control database and lease: answers each heartbeat with the next of `answers`, then with None."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers
        self.story: list[Any] = []

    def heartbeat(self, claim: Claim) -> str | None:
        assert claim is CLAIM
        self.story.append("beat")
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew(self, claim: Claim) -> None:
        assert claim is CLAIM
        self.story.append("lease")

    def progress(self, _: Claim, rows: int, size: int) -> None:
        self.story.append((rows, size))


@pytest.fixture
def begin() -> Iterator[Callable[..., tuple[Guard, _Outside, Pulse]]]:
    pulses: list[Pulse] = []

    def begin(*answers: Any, progress: Progress | None = None) -> tuple[Guard, _Outside, Pulse]:
        guard, outside = Guard(), _Outside(list(answers))
        both = cast("Any", outside)
        pulses.append(Pulse(both, both, CLAIM, guard, progress or Progress(), 0.01))
        return guard, outside, pulses[-1]

    yield begin
    for pulse in pulses:
        pulse.stop()


Begin = Callable[..., tuple[Guard, _Outside, Pulse]]


def _stopped(guard: Guard) -> None:
    def is_stopped() -> bool:
        try:
            guard.check()
        except (CancelledRun, FencedError, PausedRun):
            return True
        return False

    until(is_stopped, "stop", 10)


def test_a_run_that_was_overtaken_stops_inside_of_its_chunk(begin: Begin):
    """And beats no more: the lock is another's."""
    interrupted = threading.Event()
    guard, outside, pulse = begin(None, None, None, FencedError("overtaken"))
    guard.on_interrupt(interrupted.set)
    _stopped(guard)
    with pytest.raises(FencedError):
        guard.check_inside()
    assert interrupted.wait(10)
    pulse._thread.join(10)
    assert not pulse._thread.is_alive()
    assert outside.story == ["beat", "lease"] * 3 + ["beat"]


def test_a_pause_waits_for_the_end_of_a_chunk(begin: Begin):
    guard, _, _ = begin("pause")
    _stopped(guard)
    with pytest.raises(PausedRun):
        guard.check()
    guard.check_inside()


def test_a_cancel_does_not(begin: Begin):
    guard, _, _ = begin(None, "cancel")
    _stopped(guard)
    with pytest.raises(CancelledRun):
        guard.check_inside()


def test_a_control_database_that_is_away_stops_nothing(begin: Begin):
    """What the run writes is fenced anyhow; the next beat tries again."""
    guard, outside, _ = begin(TerminalError("gone"), TerminalError("gone"))
    until(lambda: outside.story.count("lease") >= 2, "two beats more", 10)
    guard.check()
    assert outside.story[:3] == ["beat", "beat", "beat"]


def test_rows_are_told_while_they_are_moved(begin: Begin):
    progress = Progress()
    _, outside, _ = begin(progress=progress)
    until(lambda: outside.story.count("lease") >= 2, "beats", 10)
    assert set(outside.story) == {"beat", "lease"}
    progress.enter(Phase.LOAD, {"t": 10})
    progress.add("t", 7, 70)
    until(lambda: (7, 70) in outside.story, "rows", 10)


def test_no_beat_after_stop(begin: Begin):
    _, outside, pulse = begin()
    until(lambda: outside.story, "a beat", 10)
    pulse.stop()
    before = len(outside.story)
    threading.Event().wait(0.05)
    assert len(outside.story) == before
