"""Counters of a run, under a clock that the test moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from jivs_pipeline.engine.progress import Progress, TableProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock) -> Progress:
    return Progress(clock)


def test_rows_and_bytes_add_up_by_table(progress):
    progress.enter("load", {"a": 10, "b": 5})
    progress.add("a", 3, 30)
    progress.add("a", 2, 20)
    progress.add("b", 1, 9)
    assert progress.tables() == [TableProgress("a", 5, 10, 50), TableProgress("b", 1, 5, 9)]
    assert (progress.rows, progress.bytes) == (6, 59)


def test_a_table_that_was_not_expected_is_counted_too(progress):
    progress.enter("load", {})
    progress.add("a", 3, 30)
    assert progress.tables() == [TableProgress("a", 3, 0, 30)]


def test_a_new_phase_begins_at_zero(progress):
    progress.enter("extract", {"a": 10})
    progress.add("a", 10, 100)
    progress.enter("load", {"a": 10})
    assert progress.phase == "load"
    assert (progress.rows, progress.bytes) == (0, 0)


def test_seconds_of_a_phase_that_is_entered_twice_add_up(progress, clock):
    for seconds in (2, 3):
        progress.enter("load", {})
        clock.now += seconds
        assert progress.leave("load") == seconds
    assert progress.phases == {"load": 5}
    assert progress.seconds == 5


def test_samples_are_taken_every_quarter_second_and_at_both_ends(progress, clock):
    clock.now += 1
    progress.enter("load", {})
    for _ in range(10):
        clock.now += 0.1
        progress.add("a", 1, 2)
    progress.leave("load")
    samples = progress.samples()
    assert samples[0] == (1.0, 0, 0)
    assert samples[-1] == (2.0, 10, 20)
    steps = [b[0] - a[0] for a, b in pairwise(samples[:-1])]
    assert min(steps) >= 0.25
    assert len(samples) == 5


def test_samples_stay_bounded_and_keep_both_ends_without_doubles(progress, clock):
    progress.enter("load", {})
    for step in range(1, 3001):
        clock.now += 1
        progress.add("a", 1, 1)
        samples = progress.samples()
        assert len(samples) <= 400
        assert samples[0] == (0.0, 0, 0)
        assert samples[-1] == (step, step, step)
    assert samples == sorted(set(samples))
    assert len(samples) >= 200


def test_workers_lose_no_row(progress):
    progress.enter("load", {"a": 0})
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [progress.add("a", 1, 2) for _ in range(2000)])
    assert (progress.rows, progress.bytes) == (16000, 32000)


def test_what_is_read_is_a_copy(progress):
    progress.enter("load", {"a": 1})
    progress.tables().clear()
    progress.samples().clear()
    assert len(progress.tables()) == len(progress.samples()) == 1
