"""The model of the circuit breaker: when it opens, whom it lets through, when it closes."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.breaker import (
    Admitted,
    Breaker,
    BreakerState,
    Outcome,
    Policy,
    Rejected,
    Ticket,
    Transition,
    admit,
    forget,
    is_outage,
    record,
    reset,
)
from jivs_pipeline.core.errors import (
    BreakerOpen,
    ConnectionFailed,
    DataError,
    ResourceError,
    SnapshotLost,
    TransientError,
)

POLICY = Policy()
OK, SLOW, FAILED, BOTH = Outcome.OK, Outcome.SLOW, Outcome.FAILED, Outcome.FAILED_SLOWLY
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def after(*outcomes: Outcome, now: int = 1_000_000) -> tuple[Breaker, list[Transition]]:
    """A new breaker after these calls, all at one time."""
    breaker, changes = Breaker(), list[Transition]()
    for number, outcome in enumerate(outcomes):
        breaker, _, made = admit(breaker, POLICY, now, str(number))
        breaker, more = record(
            breaker, POLICY, now, Ticket(str(number), breaker.period, probe=False), outcome
        )
        changes += [*made, *more]
    return breaker, changes


def probe(breaker: Breaker, now: int, name: str) -> tuple[Breaker, Ticket]:
    breaker, decision, _ = admit(breaker, POLICY, now, name)
    assert isinstance(decision, Admitted)
    assert decision.ticket.probe
    return breaker, decision.ticket


@pytest.mark.parametrize(
    ("outcomes", "reason"),
    [
        ((FAILED,) * 4, None),
        ((FAILED,) * 5, "5 of the last 5 calls failed"),
        ((OK, OK, FAILED, FAILED, FAILED), "3 of the last 5 calls failed"),
        ((OK, OK, OK, FAILED, FAILED), None),
        ((OK, OK, OK, FAILED, FAILED, FAILED), "3 of the last 6 calls failed"),
        ((OK,) * 10 + (FAILED,) * 4, None),
        ((OK,) * 10 + (FAILED,) * 5, "5 of the last 10 calls failed"),
        ((SLOW,) * 5, "5 of the last 5 calls were slow"),
        ((OK,) * 10 + (SLOW,) * 4, None),
        ((OK,) * 10 + (SLOW,) * 5, "5 of the last 10 calls were slow"),
        ((OK,) * 10 + (SLOW, FAILED) * 2 + (SLOW, BOTH), None),
        ((OK,) * 10 + (SLOW, FAILED) * 3 + (BOTH, BOTH), "5 of the last 10 calls failed"),
    ],
)
def test_it_opens_at_half_of_at_least_five(outcomes: tuple[Outcome, ...], reason: str | None) -> None:
    breaker, changes = after(*outcomes)
    if reason is None:
        assert (breaker.state, changes) == (CLOSED, [])
    else:
        assert (breaker.state, [c.reason for c in changes]) == (OPEN, [reason])


def test_only_the_last_ten_calls_are_looked_at() -> None:
    breaker, _ = after(*(FAILED,) * 2, *(OK,) * 10, *(FAILED,) * 4)
    assert (breaker.state, breaker.calls) == (CLOSED, "oooooo" + "ffff")


def test_open_it_rejects_for_its_time_and_says_why() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=1000)
    expected = Rejected(until=61_000, state=OPEN, calls=5, failures=5, slow=0)
    for now in (1000, 31_000, 60_999):
        assert admit(breaker, POLICY, now, "x") == (breaker, expected, ())
    _, decision, changes = admit(breaker, POLICY, 61_000, "x")
    assert isinstance(decision, Admitted)
    assert changes == (Transition(OPEN, HALF_OPEN, "its time is over", 61_000),)


def test_a_clock_that_was_set_back_does_not_keep_it_open() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=1_000_000)
    breaker, decision, _ = admit(breaker, POLICY, 600_000, "x")
    assert isinstance(decision, Admitted)
    for name in "yz":
        breaker, _ = probe(breaker, 600_000, name)
    breaker, _ = probe(breaker, 100_000, "again")  # their tickets are of a time that has not come yet
    assert [t for t, _ in breaker.probes] == ["again"]


def test_half_open_three_probes_go_and_close_it() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    tickets = list[Ticket]()
    for name in "abc":
        breaker, ticket = probe(breaker, 60_000, name)
        tickets.append(ticket)
    _, decision, _ = admit(breaker, POLICY, 60_000, "d")
    assert decision == Rejected(until=90_000, state=HALF_OPEN, calls=5, failures=5, slow=0)
    for ticket in tickets[:2]:
        breaker, changes = record(breaker, POLICY, 60_001, ticket, OK)
        assert (breaker.state, changes) == (HALF_OPEN, ())
        # Two have passed: there is no room for more than the third.
        assert isinstance(admit(breaker, POLICY, 60_001, "d")[1], Rejected)
    breaker, changes = record(breaker, POLICY, 60_002, tickets[2], OK)
    assert changes == (Transition(HALF_OPEN, CLOSED, "3 probes succeeded", 60_002),)
    assert breaker.calls == ""


@pytest.mark.parametrize("outcome", [FAILED, SLOW, BOTH])
def test_one_probe_that_fails_opens_it_again(outcome: Outcome) -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    breaker, first = probe(breaker, 60_000, "a")
    breaker, second = probe(breaker, 60_000, "b")
    breaker, _ = record(breaker, POLICY, 60_001, first, OK)
    breaker, changes = record(breaker, POLICY, 60_002, second, outcome)
    assert changes == (Transition(HALF_OPEN, OPEN, "a probe failed", 60_002),)
    assert isinstance(admit(breaker, POLICY, 120_001, "x")[1], Rejected)
    assert isinstance(admit(breaker, POLICY, 120_002, "x")[1], Admitted)


def test_probes_of_an_earlier_time_still_take_their_places() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    slow_policy = replace(POLICY, ticket_ms=90_000)
    tickets = list[Ticket]()
    for name in "abc":
        breaker, decision, _ = admit(breaker, slow_policy, 60_000, name)
        assert isinstance(decision, Admitted)
        tickets.append(decision.ticket)
    breaker, _ = record(breaker, slow_policy, 60_001, tickets[0], FAILED)
    breaker, decision, _ = admit(breaker, slow_policy, 120_001, "d")
    assert isinstance(decision, Admitted)
    assert isinstance(admit(breaker, slow_policy, 120_002, "e")[1], Rejected)
    breaker, changes = record(breaker, slow_policy, 120_003, tickets[1], FAILED)
    assert (changes, breaker.state) == ((), HALF_OPEN)
    assert isinstance(admit(breaker, slow_policy, 120_004, "e")[1], Admitted)


def test_killed_probes_do_not_keep_it_shut() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    dead = list[Ticket]()
    for name in "abc":
        breaker, ticket = probe(breaker, 60_000, name)
        dead.append(ticket)
    assert isinstance(admit(breaker, POLICY, 89_999, "x")[1], Rejected)
    for name in "def":
        breaker, ticket = probe(breaker, 90_000, name)
        # One that comes to life again has nothing to say any more.
        breaker, changes = record(breaker, POLICY, 90_000, dead.pop(), FAILED)
        assert changes == ()
        breaker, _ = record(breaker, POLICY, 90_000, ticket, OK)
    assert breaker.state is CLOSED


def test_a_result_of_an_earlier_state_is_not_counted() -> None:
    _, decision, _ = admit(Breaker(), POLICY, 0, "early")
    assert isinstance(decision, Admitted)
    opened, _ = after(*(FAILED,) * 5)
    for outcome in Outcome:
        assert record(opened, POLICY, 1_000_001, decision.ticket, outcome) == (opened, ())
    half_open, _ = probe(opened, 1_060_000, "p")
    assert record(half_open, POLICY, 1_060_001, decision.ticket, FAILED) == (half_open, ())


def test_a_probe_whose_call_tells_nothing_makes_room() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    for name in "abc":
        breaker, ticket = probe(breaker, 60_000, name)
    breaker = forget(breaker, ticket)
    breaker, _ = probe(breaker, 60_001, "d")
    assert breaker.state is HALF_OPEN


def test_calls_of_long_ago_are_forgotten() -> None:
    breaker, _ = after(*(FAILED,) * 4, now=0)
    late, _ = record(breaker, POLICY, POLICY.keep_ms, Ticket("x", 0, probe=False), FAILED)
    assert (late.state, late.calls) == (CLOSED, "f")
    in_time, _ = record(breaker, POLICY, POLICY.keep_ms - 1, Ticket("x", 0, probe=False), FAILED)
    assert in_time.state is OPEN


def test_reset_closes_it_and_forgets() -> None:
    breaker, _ = after(*(FAILED,) * 5)
    closed, changes = reset(breaker, 7, "reset by hand")
    assert changes == (Transition(OPEN, CLOSED, "reset by hand", 7),)
    assert (closed.calls, closed.state) == ("", CLOSED)
    assert reset(closed, 8, "reset by hand") == (replace(closed, period=closed.period + 1), ())


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (TransientError("a deadlock"), True),
        (SnapshotLost("gone"), True),
        (ConnectionFailed.unanswered("down", hint=""), True),
        (ConnectionFailed("wrong password"), False),
        (BreakerOpen("left alone"), False),
        (DataError("a value"), False),
        (ResourceError("disk full"), False),
        (KeyboardInterrupt(), False),
        (ValueError(), False),
    ],
)
def test_what_counts_as_a_failure(error: BaseException, counted: bool) -> None:
    assert is_outage(error) is counted


Steps = st.lists(
    st.tuples(st.sampled_from(["admit", "record", "forget"]), st.integers(0, 40_000), st.integers(0, 5),
              st.sampled_from(Outcome)),
    max_size=120,
)  # fmt: skip


@given(Steps)
def test_never_more_than_three_probes_and_always_a_way_back(
    steps: list[tuple[str, int, int, Outcome]],
) -> None:
    breaker, now, ids = Breaker(), 1_000_000, count()
    tickets = list[tuple[Ticket, int]]()
    for verb, passing, which, outcome in steps:
        now += passing
        before = breaker
        changes: tuple[Transition, ...] = ()
        if verb == "admit":
            breaker, decision, changes = admit(breaker, POLICY, now, str(next(ids)))
            if isinstance(decision, Admitted):
                tickets.append((decision.ticket, now + POLICY.ticket_ms))
            else:
                assert now < decision.until <= now + max(POLICY.open_ms, POLICY.ticket_ms)
        elif tickets:
            ticket, _ = tickets.pop(which % len(tickets))
            if verb == "record":
                breaker, changes = record(breaker, POLICY, now, ticket, outcome)
            else:
                breaker = forget(breaker, ticket)
        under_way = [t for t, expires in tickets if t.probe and now < expires]
        # Those of an earlier half-open time, too.
        assert len(under_way) + breaker.passed <= POLICY.probes
        assert len(breaker.calls) <= POLICY.window
        assert breaker.period == before.period + len(changes)
        assert [c.before for c in changes[:1]] == [before.state][: len(changes)]
        assert [c.after for c in changes[-1:]] == [breaker.state][: len(changes)]
    # From wherever it is: once all times are over, three good calls close it.
    now += POLICY.keep_ms
    for _ in range(POLICY.probes):
        breaker, decision, _ = admit(breaker, POLICY, now, str(next(ids)))
        assert isinstance(decision, Admitted)
        breaker, _ = record(breaker, POLICY, now, decision.ticket, OK)
    assert breaker.state is CLOSED


def test_in_half_open_it_is_closed_after_the_last_probe_even_if_some_passed_long_ago() -> None:
    breaker, _ = after(*(FAILED,) * 5, now=0)
    for number, now in enumerate((60_000, 600_000, 6_000_000)):
        breaker, ticket = probe(breaker, now, str(number))
        breaker, _ = record(breaker, POLICY, now, ticket, OK)
    assert breaker.state is CLOSED
