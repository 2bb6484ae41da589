"""When a server process of a run is overdue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jivs_pipeline.core.watch import Backend, Overdue, WatchLimits

LIMITS = WatchLimits(io=10, load=100)
COPYING = Backend(7, "monday", copying=True, waiting=True, news="1 byte", transaction_seconds=0)


def test_a_client_that_says_nothing_is_overdue():
    """Not at the first look, which cannot tell how long it has been silent already."""
    overdue = Overdue(LIMITS)
    assert [overdue.reason(COPYING, now) for now in (50, 55, 59.9)] == [None] * 3
    assert overdue.reason(COPYING, 60) == "its client has sent nothing for 10 s"


def test_whoever_says_something_in_time_is_left_alone():
    overdue = Overdue(LIMITS)
    for now in range(0, 90, 9):
        assert overdue.reason(replace(COPYING, news=f"{now} bytes"), now) is None
    assert overdue.reason(replace(COPYING, news="81 bytes"), 91)


def test_who_works_or_has_no_transaction_is_not_waited_for():
    """The time begins anew with the next wait."""
    overdue, busy = Overdue(LIMITS), replace(COPYING, waiting=False)
    assert [overdue.reason(b, now) for now, b in enumerate([COPYING, busy])] == [None] * 2
    assert [overdue.reason(busy, now) for now in (20, 90)] == [None] * 2
    assert [overdue.reason(COPYING, now) for now in (91, 100)] == [None] * 2
    assert overdue.reason(COPYING, 101)


def test_an_open_transaction_outside_of_a_copy_is_waited_for_as_long():
    overdue, idle = Overdue(LIMITS), replace(COPYING, copying=False, transaction_seconds=1000)
    assert overdue.reason(idle, 0) is None
    assert overdue.reason(idle, 10)


def test_a_load_has_its_time():
    """Whether its client is silent or not."""
    for waiting in (True, False):
        slow = replace(COPYING, waiting=waiting, transaction_seconds=100)
        assert Overdue(LIMITS).reason(slow, 0) is None
        late = replace(slow, transaction_seconds=100.1)
        assert Overdue(LIMITS).reason(late, 0) == "its chunk has taken more than 100 s"
        # An index may take as long as it takes.
        assert Overdue(LIMITS).reason(replace(late, copying=False), 0) is None


@pytest.mark.parametrize("other", [replace(COPYING, pid=8), replace(COPYING, start="tuesday")])
def test_each_process_has_its_own_silence(other: Backend):
    """Ids are used again."""
    overdue = Overdue(LIMITS)
    overdue.reason(COPYING, 0)
    assert overdue.reason(other, 11) is None
    assert overdue.reason(COPYING, 11)
