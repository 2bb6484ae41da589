"""Rates: the arithmetic of reservations, what a run makes of its limits, and that its waits end when it shall stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import PausedRun
from jivs_pipeline.core.pace import BURST_US, LONGEST_DEBT_US, PORTION_SECONDS, Portion, reserve
from jivs_pipeline.core.plan import Chunk, Lane, TablePlan, Wire
from jivs_pipeline.core.spec import Limits
from jivs_pipeline.engine.pace import Pace
from jivs_pipeline.engine.pool import Guard

_SECOND = 1_000_000


def test_reservations_follow_one_another():
    first = reserve(None, 0, 10)
    assert first == 10
    assert reserve(first, 0, 5) == 15
    assert reserve(first, 8, 5) == 15, "who comes early waits for who came before"


def test_unused_time_is_worth_a_burst_and_no_more():
    assert reserve(0, BURST_US // 2, 10) == 10, "what was not used is still there"
    assert reserve(0, 60 * _SECOND, 10) == 60 * _SECOND - BURST_US + 10


def test_a_clock_that_was_set_back_stops_nobody_for_long():
    assert reserve(400 * _SECOND, 0, 10) == LONGEST_DEBT_US + 10


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 60_000), st.integers(0, 3)), min_size=1))
def test_readers_who_wait_are_together_within_the_rate(steps: list[tuple[int, int, int]]):
    """Whoever reads, and however late they come: what was read and paid never exceeds the time, but for the burst."""
    free_at, now, paid = None, 0, 0
    ready = [0, 0, 0, 0]
    for idle, cost, reader in steps:
        now = max(now + idle, ready[reader])
        free_at = reserve(free_at, now, cost)
        ready[reader] = max(now, free_at)
        paid += cost
        assert paid <= max(ready) + BURST_US


class Taken:
    """Notes what was taken of the source's time."""

    def __init__(self, wait: float = 0.0) -> None:
        self.wait = wait
        self.seconds: list[Mapping[str, float]] = []

    def __call__(self, seconds: Mapping[str, float]) -> float:
        self.seconds.append(seconds)
        return self.wait


def test_amounts_become_time_and_small_ones_add_up():
    taken = Taken()
    pace = Pace(Limits(source_rows_per_second=1000, source_bytes_per_second=50_000), taken, Guard())
    pace.took(30, 100)
    assert taken.seconds == [], "30 ms are not worth a reservation"
    pace.took(20, 900)
    assert taken.seconds == [{"rows": 0.05, "bytes": 0.02}]
    pace.took(1, 0)
    pace.settle()
    assert taken.seconds[1:] == [{"rows": 0.001, "bytes": 0.0}], "in the end everything is paid"
    pace.settle()
    assert len(taken.seconds) == 2


def test_without_a_limit_nobody_is_asked():
    taken = Taken()
    pace = Pace(Limits(), taken, Guard())
    pace.took(10**9, 10**12)
    pace.settle()
    assert taken.seconds == []
    assert pace.portion == Portion()


def test_portions_are_a_fraction_of_a_second():
    pace = Pace(Limits(source_rows_per_second=10, source_bytes_per_second=1_000_000), Taken(), Guard())
    assert pace.portion == Portion(1, int(1_000_000 * PORTION_SECONDS))
    table = TablePlan(
        source_schema="s", source_table="t", target_schema="s", target_table="t", lane=Lane.ARROW, wire=Wire.BINARY,
        chunks=(Chunk(index=0),), rows=100, bytes=80_000, columns=(), spelling=Spelling.CANONICAL,
    )  # fmt: skip
    assert Portion(bytes=40_000).rows_of(table) == 50
    assert Portion(rows=7, bytes=40_000).rows_of(table) == 7
    assert Portion(bytes=1).rows_of(table) == 1
    assert Portion().rows_of(table) is None


@pytest.mark.parametrize("at_once", [False, True])
def test_a_wait_ends_when_the_run_shall_stop(at_once: bool):
    """Also for a pause: at a low rate the end of a chunk may be hours away."""
    guard = Guard()
    pace = Pace(Limits(source_rows_per_second=1), Taken(wait=600), guard)
    threading.Timer(0.1, guard.stop, [PausedRun("paused")], {"at_once": at_once}).start()
    began = time.monotonic()
    with pytest.raises(PausedRun):
        pace.took(600, 1)
    assert time.monotonic() - began < 5
