"""Circuit breakers of endpoints, shared by all processes as long as Redis answers.

What belongs here: asking before a call, counting it afterwards, doing without Redis. What does not: the rules
(`core/breaker.py`), the stores (`breaker_store.py`) and what is called.

Redis is asked twice a call and never waited for: when it does not answer at once, this process decides by itself for
a while. That is enough, because breakers only save time; what is right is kept right elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
import redis

from jivs_pipeline.core.breaker import (
    Admitted,
    BreakerState,
    Outcome,
    Policy,
    Rejected,
    Ticket,
    is_outage,
)
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import BreakerOpen, ConfigError, JivsError, NotReady, TerminalError
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.infra.breaker_store import LocalStore, RedisStore, Store, Waiting
from jivs_pipeline.infra.redis_client import Silence

__all__ = ["Breakers", "Endpoint", "endpoint_name", "name_of_endpoint"]

_LOG = logging.getLogger("jivs_pipeline")
_LAST_SECONDS = 3.0
_T = TypeVar("_T")

Write = Callable[[Sequence[Waiting]], None]


def endpoint_name(connection: Connection) -> str:
    """The breaker's name: a connection's, and which place it means, as another home's may mean another."""
    return name_of_endpoint(connection.name, connection.fingerprint)


def name_of_endpoint(connection: str, fingerprint: str) -> str:
    """The same from what the control database knows of a connection."""
    return f"{connection}@{fingerprint[:8]}"


@dataclass(frozen=True, slots=True)
class _Open:
    """A breaker that is known to be open, until when by `time.monotonic`."""

    rejected: Rejected
    until: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The breaker of one endpoint. `call` is what those who open connections get."""

    name: str
    breakers: Breakers

    @contextmanager
    def call(self) -> Generator[None]:
        """Make one bounded call in the block; its time and its errors are counted.

        Raises:
            BreakerOpen: the endpoint is left alone for now; the block was not entered.
        """
        ticket, store = self.breakers.admit(self.name)
        began = time.monotonic()
        outcome: Outcome | None = None
        try:
            yield
            self.breakers.is_there(self.name)
            outcome = Outcome.of(failed=False, slow=self.breakers.is_slow(began))
        except BaseException as error:
            if is_outage(error) and (ticket.probe or not self.breakers.is_waited_for(self.name, error)):
                outcome = Outcome.of(failed=True, slow=self.breakers.is_slow(began))
            raise
        finally:
            self.breakers.settle(self.name, ticket, store, outcome)


class Breakers:
    """The breakers that this process asks. Thread-safe.

    Args:
        url: of Redis or Valkey; None to decide alone.
        write: takes transitions to the control database; may fail, and is then called again later.
        policy: see there.
        answer_seconds: how long Redis may take to answer.
        patience_seconds: how long runs wait for a server that was there; until then their looks are not held against it.
        quiet_seconds: how long Redis, or the control database, is left alone when it did not.
        clock: milliseconds, for tests; of Redis and of this process otherwise.
    """

    def __init__(
        self,
        url: str | None,
        write: Write,
        policy: Policy | None = None,
        *,
        answer_seconds: float = 0.25,
        patience_seconds: float = 30.0,
        quiet_seconds: float = 5.0,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self._write = write
        self._quiet_seconds = quiet_seconds
        self._patience = patience_seconds
        self._away: dict[str, float] = {}
        self._shared = (
            RedisStore(url, self.policy, answer_seconds=answer_seconds, clock=clock) if url else None
        )
        self._local = LocalStore(self.policy, clock or _steady_clock())
        self._known: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._silence = Silence("this process watches its endpoints alone", quiet_seconds)
        self._alone = False
        self._writer: threading.Thread | None = None
        self._more = False
        self._write_after = 0.0

    def close(self) -> None:
        """Close the connections; what is being written down is waited for, but not for long."""
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.join(_LAST_SECONDS)
        if self._shared is not None:
            self._shared.close()

    def endpoint(self, connection: Connection) -> Endpoint:
        """The breaker of a connection's endpoint."""
        return Endpoint(endpoint_name(connection), self)

    # Around a call

    def admit(self, name: str) -> tuple[Ticket, Store]:
        """A ticket for one call, and the store that wants its result.

        Raises:
            BreakerOpen: there is none now.
        """
        with self._lock:
            known = self._known.get(name)
        if known is not None and time.monotonic() < known.until:
            raise self._refusal(name, known.rejected)
        (decision, now), store = self._ask(lambda store: store.admit(name, uuid.uuid4().hex))
        if isinstance(decision, Admitted):
            return decision.ticket, store
        if decision.state is BreakerState.OPEN:
            # Nothing but its time ends this: Redis need not be asked again, and cannot make us wait.
            until = time.monotonic() + max(0, decision.until - now) / 1000
            with self._lock:
                self._known[name] = _Open(decision, until)
        raise self._refusal(name, decision)

    def settle(self, name: str, ticket: Ticket, store: Store, outcome: Outcome | None) -> None:
        """Count the call of a ticket; None gives the ticket back. Never fails."""
        if outcome is None and not ticket.probe:
            return
        try:
            if outcome is None:
                store.forget(name, ticket)
            else:
                store.record(name, ticket, outcome)
        except redis.RedisError as error:
            self._unanswered(error)
            if outcome is not None and not ticket.probe:
                self._local.count(name, outcome)
        self._write_down()

    def is_slow(self, began: float) -> bool:
        """Whether a call that began at that `time.monotonic` took too long."""
        return (time.monotonic() - began) * 1000 >= self.policy.slow_ms

    def is_waited_for(self, name: str, error: BaseException) -> bool:
        """Whether an error says that a server restarts, and has not said so for too long."""
        if not isinstance(error, NotReady):
            return False
        now = time.monotonic()
        with self._lock:
            return now - self._away.setdefault(name, now) <= self._patience

    def is_there(self, name: str) -> None:
        """An endpoint answers; it is waited for anew the next time."""
        with self._lock:
            self._away.pop(name, None)

    # For people

    def listing(self) -> list[dict[str, Any]]:
        """The breakers that were used of late: name, state, calls, failures, slow, opened_at, next_probe_at.

        Raises:
            TerminalError: Redis does not answer.
        """
        found = self._insist(lambda store: store.breakers())
        return [
            {
                "name": name,
                "state": str(breaker.state),
                "calls": len(breaker.calls),
                "failures": breaker.failures,
                "slow": breaker.slow,
                "opened_at": _time(breaker.opened_at) if breaker.state is not BreakerState.CLOSED else None,
                "next_probe_at": _time(at) if (at := breaker.next_probe_at(self.policy)) else None,
            }
            for name, breaker in sorted(found.items())
        ]

    def reset(self, name: str | None = None) -> list[str]:
        """Close a breaker, or all; returns their names. A process that was rejected before asks when its time is over.

        Raises:
            ConfigError: there is no such breaker.
            TerminalError: Redis does not answer.
        """
        names = sorted(self._insist(lambda store: store.breakers()))
        if name is not None and name not in names:
            raise ConfigError(
                f"There is no circuit breaker {name!r}", hint=did_you_mean(name, names, "known breakers")
            )
        wanted = names if name is None else [name]
        for one in wanted:
            self._insist(lambda store, one=one: store.reset(one, "reset by hand"))
            with self._lock:
                self._known.pop(one, None)
        self._write_down()
        return wanted

    # Stores

    def _ask(self, question: Callable[[Store], _T]) -> tuple[_T, Store]:
        if self._shared is not None and not self._silence.lasts:
            try:
                answer = question(self._shared)
            except redis.RedisError as error:
                self._unanswered(error)
            else:
                self._answered()
                self._write_down()
                return answer, self._shared
        answer = question(self._local)
        self._write_down()
        return answer, self._local

    def _insist(self, question: Callable[[Store], _T]) -> _T:
        if self._shared is None:
            return question(self._local)
        try:
            return question(self._shared)
        except redis.RedisError as error:
            raise TerminalError(
                "Redis does not answer, so that every process has circuit breakers of its own",
                hint="Check JIVS_REDIS_URL",
            ) from error

    def _unanswered(self, error: redis.RedisError) -> None:
        with self._lock:
            self._alone = True
        self._silence.begin(error)

    def _answered(self) -> None:
        with self._lock:
            alone, self._alone = self._alone, False
        if alone:
            self._local.clear("Redis answers again")

    def _refusal(self, name: str, rejected: Rejected) -> BreakerOpen:
        limit = self.policy.failure_percent * rejected.calls
        slow = rejected.failures * 100 < limit and rejected.slow > 0
        what = f"was slow in {rejected.slow}" if slow else f"has failed {rejected.failures}"
        until = _time(rejected.until)
        when = f"{until:%Y-%m-%d %H:%M:%S} UTC"
        return BreakerOpen(
            f"Endpoint {name!r} {what} of the last {rejected.calls} calls; it is tried again at {when}",
            hint=f"Run it again then, or at once with: jivs breaker reset {name}",
            until=until,
        )

    # Transitions

    def _write_down(self) -> None:
        """Have transitions that wait written down beside the call, which must not wait for the control database."""
        if not (self._local.waits or (self._shared is not None and self._shared.waits)):
            return
        with self._lock:
            if time.monotonic() < self._write_after:
                return
            self._more = True
            if self._writer is None:
                self._writer = threading.Thread(target=self._writing, name="jivs-breakers", daemon=True)
                self._writer.start()

    def _writing(self) -> None:
        while True:
            with self._lock:
                if not self._more:
                    self._writer = None
                    return
                self._more = False
            for store in (self._local, self._shared):
                with suppress(redis.RedisError):
                    if store is not None:
                        self._empty(store)

    def _empty(self, store: Store) -> None:
        while waiting := store.waiting():
            try:
                self._write(waiting)
            except (psycopg.Error, JivsError) as error:
                # They stay where they are; the next call of any process comes by here again.
                with self._lock:
                    self._write_after = time.monotonic() + self._quiet_seconds
                _LOG.debug("The control database does not take breaker events: %s", error)
                return
            store.recorded(waiting)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _steady_clock() -> Callable[[], int]:
    """The time of day in milliseconds, which nobody sets back."""
    offset = time.time() - time.monotonic()
    return lambda: int((time.monotonic() + offset) * 1000)
