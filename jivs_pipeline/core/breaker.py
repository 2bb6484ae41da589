"""The circuit breaker of an endpoint, as values and pure functions: time is an argument, nothing is kept.

What belongs here: when an endpoint is left alone, who may try it again, and what counts as a failure. What does not:
sharing it between processes (`infra/breakers.py`). `infra/breaker.lua` is this model once more, for Redis; a test
holds the two together, so whoever changes one changes both.

Times are whole milliseconds, rates whole per cent: both languages must come to the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum

from jivs_pipeline.core.errors import BreakerOpen, ConnectionFailed, TransientError

__all__ = [
    "Admitted",
    "Breaker",
    "BreakerState",
    "Calling",
    "Outcome",
    "Policy",
    "Rejected",
    "Ticket",
    "Transition",
    "admit",
    "forget",
    "is_outage",
    "record",
    "reset",
]


Calling = Callable[[], AbstractContextManager[object]]
"""Gives the block in which one bounded call to an endpoint is made; raises `BreakerOpen` instead of entering it.
`contextlib.nullcontext` is one, for endpoints that nobody watches."""


class BreakerState(StrEnum):
    """As in `circuit_breaker_events`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """How a counted call ended; one letter in the window of a breaker."""

    OK = "o"
    SLOW = "s"
    FAILED = "f"
    FAILED_SLOWLY = "b"

    @classmethod
    def of(cls, *, failed: bool, slow: bool) -> Outcome:
        """From both of its sides."""
        return (cls.FAILED_SLOWLY if slow else cls.FAILED) if failed else (cls.SLOW if slow else cls.OK)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a breaker opens and closes.

    Attributes:
        window: how many of the last calls are looked at.
        least: below so many calls it never opens.
        failure_percent: of failed calls, from which on it opens; `slow_percent` of slow ones.
        slow_ms: a bounded call, such as a connect, is slow from here on.
        open_ms: how long it stays open before probes are let through.
        probes: how many probes have to succeed, and may be on their way at once.
        ticket_ms: how long a probe may take before its place is given to another: its process may be dead.
        keep_ms: calls of a closed breaker are forgotten when there was none for so long.
    """

    window: int = 10
    least: int = 5
    failure_percent: int = 50
    slow_percent: int = 50
    slow_ms: int = 5_000
    open_ms: int = 60_000
    probes: int = 3
    ticket_ms: int = 30_000
    keep_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to make one call. `period` says from which state it is: later results do not count any more."""

    id: str
    period: int
    probe: bool


@dataclass(frozen=True, slots=True)
class Admitted:
    """The call may be made; its result has to be recorded with this ticket."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Rejected:
    """The call may not be made before `until`; `state` says whether probes may change that earlier."""

    until: int
    state: BreakerState
    calls: int
    failures: int
    slow: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state."""

    before: BreakerState
    after: BreakerState
    reason: str
    at: int


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one endpoint's breaker.

    Attributes:
        calls: outcomes of the last calls, the newest last.
        opened_at: when it opened last, 0 for never.
        period: counts changes of state.
        passed: probes that have succeeded since it is half-open.
        touched: when a call was counted last.
        probes: probes on their way, oldest first: (ticket, expires at). Those that were sent before it opened again
            are among them: they are not counted, but the endpoint still has to bear them.
    """

    state: BreakerState = BreakerState.CLOSED
    calls: str = ""
    opened_at: int = 0
    period: int = 0
    passed: int = 0
    touched: int = 0
    probes: tuple[tuple[str, int], ...] = ()

    @property
    def failures(self) -> int:
        """Failed calls in the window."""
        return self.calls.count(Outcome.FAILED) + self.calls.count(Outcome.FAILED_SLOWLY)

    @property
    def slow(self) -> int:
        """Slow calls in the window."""
        return self.calls.count(Outcome.SLOW) + self.calls.count(Outcome.FAILED_SLOWLY)

    def next_probe_at(self, policy: Policy) -> int | None:
        """When the next probe may go at the latest, or None when there is nothing to wait for."""
        if self.state is BreakerState.OPEN:
            return self.opened_at + policy.open_ms
        if self.state is BreakerState.HALF_OPEN and len(self.probes) + self.passed >= policy.probes:
            return min(expires for _, expires in self.probes)
        return None


_Changes = tuple[Transition, ...]


def admit(
    breaker: Breaker, policy: Policy, now: int, ticket: str
) -> tuple[Breaker, Admitted | Rejected, _Changes]:
    """Decide whether a call may be made.

    Args:
        ticket: a new id, for the call if it is admitted.
    """
    if breaker.state is BreakerState.CLOSED:
        return breaker, Admitted(Ticket(ticket, breaker.period, probe=False)), ()
    changes: _Changes = ()
    if breaker.state is BreakerState.OPEN:
        # A clock that was set back must not keep it open for longer.
        if 0 <= now - breaker.opened_at < policy.open_ms:
            return breaker, _rejected(breaker, policy), ()
        breaker, changes = _change(breaker, BreakerState.HALF_OPEN, now, "its time is over")
    alive = tuple(p for p in breaker.probes if now < p[1] <= now + policy.ticket_ms)
    breaker = replace(breaker, probes=alive)
    if len(alive) + breaker.passed >= policy.probes:
        return breaker, _rejected(breaker, policy), changes
    breaker = replace(breaker, probes=(*alive, (ticket, now + policy.ticket_ms)))
    return breaker, Admitted(Ticket(ticket, breaker.period, probe=True)), changes


def record(
    breaker: Breaker, policy: Policy, now: int, ticket: Ticket, outcome: Outcome
) -> tuple[Breaker, _Changes]:
    """Count a call that was admitted. What belongs to an earlier state, or comes after its ticket, is not counted."""
    if ticket.period != breaker.period:
        return forget(breaker, ticket), ()
    if breaker.state is BreakerState.CLOSED:
        calls = breaker.calls if 0 <= now - breaker.touched < policy.keep_ms else ""
        breaker = _counted(replace(breaker, calls=calls), policy, now, outcome)
        return _judged(breaker, policy, now)
    expires = dict(breaker.probes).get(ticket.id, 0)
    if not now < expires <= now + policy.ticket_ms:
        return breaker, ()
    breaker = _counted(forget(breaker, ticket), policy, now, outcome)
    if outcome is not Outcome.OK:
        # A slow answer, too: it would open again at once.
        return _change(breaker, BreakerState.OPEN, now, "a probe failed")
    breaker = replace(breaker, passed=breaker.passed + 1)
    if breaker.passed < policy.probes:
        return breaker, ()
    return _change(breaker, BreakerState.CLOSED, now, f"{policy.probes} probes succeeded")


def forget(breaker: Breaker, ticket: Ticket) -> Breaker:
    """Give a ticket back whose call says nothing about the endpoint: a wrong password, a value, an interrupt."""
    return replace(breaker, probes=tuple(p for p in breaker.probes if p[0] != ticket.id))


def reset(breaker: Breaker, now: int, reason: str) -> tuple[Breaker, _Changes]:
    """Close it and forget its calls."""
    if breaker.state is not BreakerState.CLOSED:
        return _change(breaker, BreakerState.CLOSED, now, reason)
    return replace(breaker, calls="", period=breaker.period + 1), ()


def is_outage(error: BaseException) -> bool:
    """Whether an error of a call is a failure of the endpoint. Any other tells nothing of it, and is not counted."""
    if isinstance(error, ConnectionFailed):
        return error.outage
    return isinstance(error, TransientError) and not isinstance(error, BreakerOpen)


def _rejected(breaker: Breaker, policy: Policy) -> Rejected:
    until = breaker.next_probe_at(policy) or 0
    return Rejected(until, breaker.state, len(breaker.calls), breaker.failures, breaker.slow)


def _counted(breaker: Breaker, policy: Policy, now: int, outcome: Outcome) -> Breaker:
    return replace(breaker, calls=(breaker.calls + outcome)[-policy.window :], touched=now)


def _judged(breaker: Breaker, policy: Policy, now: int) -> tuple[Breaker, _Changes]:
    calls = len(breaker.calls)
    if calls < policy.least:
        return breaker, ()
    if breaker.failures * 100 >= policy.failure_percent * calls:
        reason = f"{breaker.failures} of the last {calls} calls failed"
    elif breaker.slow * 100 >= policy.slow_percent * calls:
        reason = f"{breaker.slow} of the last {calls} calls were slow"
    else:
        return breaker, ()
    return _change(breaker, BreakerState.OPEN, now, reason)


def _change(breaker: Breaker, after: BreakerState, now: int, reason: str) -> tuple[Breaker, _Changes]:
    changed = replace(
        breaker,
        state=after,
        # What made it open stays to be told until it is closed.
        calls="" if after is BreakerState.CLOSED else breaker.calls,
        opened_at=now if after is BreakerState.OPEN else breaker.opened_at,
        period=breaker.period + 1,
        passed=0,
    )
    return changed, (Transition(breaker.state, after, reason, now),)
