"""Where breakers are kept: in Redis for all processes, or in this process while Redis is gone.

What belongs here: one step of the model as one atomic step of a store. What does not: the model (`core/breaker.py`,
`breaker.lua`) and choosing a store (`breakers.py`).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from jivs_pipeline.core import breaker as model
from jivs_pipeline.core.breaker import (
    Admitted,
    Breaker,
    BreakerState,
    Outcome,
    Policy,
    Rejected,
    Ticket,
    Transition,
)
from jivs_pipeline.infra.redis_client import redis_client

__all__ = ["LocalStore", "RedisStore", "Store", "Waiting"]

_SCRIPT = files("jivs_pipeline.infra").joinpath("breaker.lua")
_STATE, _WAITING = "jivs:breaker:state:", "jivs:breaker:transitions"
_PROBE = re.compile(r"([^=;]+)=(\d+);")
_BATCH = 100
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A transition that is not in the control database yet; `raw` is what its store knows it by."""

    name: str
    transition: Transition
    raw: str


class Store(Protocol):
    """Breakers by name. Every verb is atomic."""

    @property
    def waits(self) -> bool:
        """Whether transitions wait to be recorded, as far as is known without asking."""
        ...

    def admit(self, name: str, ticket: str) -> tuple[Admitted | Rejected, int]:
        """The decision, and the time that it was made at."""
        ...

    def record(self, name: str, ticket: Ticket, outcome: Outcome) -> None:
        """Count a call."""
        ...

    def forget(self, name: str, ticket: Ticket) -> None:
        """Give a ticket back."""
        ...

    def reset(self, name: str, reason: str) -> None:
        """Close a breaker."""
        ...

    def breakers(self) -> dict[str, Breaker]:
        """All that were used of late."""
        ...

    def waiting(self) -> list[Waiting]:
        """Transitions that nobody has recorded, oldest first; not always all at once."""
        ...

    def recorded(self, done: Sequence[Waiting]) -> None:
        """They are in the control database now."""
        ...


class LocalStore:
    """The model itself behind a lock."""

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._breakers: dict[str, Breaker] = {}
        self._waiting: list[Waiting] = []

    @property
    def waits(self) -> bool:
        """Whether transitions wait to be recorded."""
        return bool(self._waiting)

    def admit(self, name: str, ticket: str) -> tuple[Admitted | Rejected, int]:
        """See `Store`."""
        with self._lock:
            now = self._clock()
            breaker, decision, changes = model.admit(self._of(name), self._policy, now, ticket)
            self._keep(name, breaker, changes)
            return decision, now

    def record(self, name: str, ticket: Ticket, outcome: Outcome) -> None:
        """See `Store`."""
        with self._lock:
            self._keep(name, *model.record(self._of(name), self._policy, self._clock(), ticket, outcome))

    def count(self, name: str, outcome: Outcome) -> None:
        """Count a call that another store has admitted; only a closed breaker takes it."""
        with self._lock:
            ticket = Ticket("", self._of(name).period, probe=False)
            self._keep(name, *model.record(self._of(name), self._policy, self._clock(), ticket, outcome))

    def forget(self, name: str, ticket: Ticket) -> None:
        """See `Store`."""
        with self._lock:
            self._keep(name, model.forget(self._of(name), ticket), ())

    def reset(self, name: str, reason: str) -> None:
        """See `Store`."""
        with self._lock:
            self._keep(name, *model.reset(self._of(name), self._clock(), reason))

    def clear(self, reason: str) -> None:
        """Forget all breakers: another store is in charge."""
        with self._lock:
            for name, breaker in self._breakers.items():
                self._keep(name, *model.reset(breaker, self._clock(), reason))
            self._breakers.clear()

    def breakers(self) -> dict[str, Breaker]:
        """See `Store`."""
        with self._lock:
            return dict(self._breakers)

    def waiting(self) -> list[Waiting]:
        """See `Store`."""
        with self._lock:
            return list(self._waiting)

    def recorded(self, done: Sequence[Waiting]) -> None:
        """See `Store`."""
        with self._lock:
            self._waiting = [w for w in self._waiting if w not in done]

    def _of(self, name: str) -> Breaker:
        return self._breakers.get(name, Breaker())

    def _keep(self, name: str, breaker: Breaker, changes: Iterable[Transition]) -> None:
        self._breakers[name] = breaker
        self._waiting += [Waiting(name, change, "") for change in changes]


class RedisStore:
    """One script in Redis or Valkey, which has the same model.

    Args:
        url: of the server.
        answer_seconds: longest wait for an answer; every method raises `redis.RedisError` after it.
        clock: instead of the server's time, for tests.
    """

    def __init__(
        self, url: str, policy: Policy, *, answer_seconds: float, clock: Clock | None = None
    ) -> None:
        # A step whose answer was lost may have been done: nothing is counted twice.
        self._redis = redis_client(url, answer_seconds=answer_seconds, again=0)
        self._script = self._redis.register_script(_SCRIPT.read_text(encoding="utf-8"))
        p = policy
        self._policy = [
            p.window, p.least, p.failure_percent, p.slow_percent, p.open_ms, p.probes, p.ticket_ms, p.keep_ms
        ]  # fmt: skip
        self._clock = clock
        self._waits = False

    @property
    def waits(self) -> bool:
        """See `Store`."""
        return self._waits

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def admit(self, name: str, ticket: str) -> tuple[Admitted | Rejected, int]:
        """See `Store`."""
        verdict, until, state, calls, failures, slow, period, now = self._step("admit", name, ticket)
        if verdict:
            return Admitted(Ticket(ticket, int(period), probe=verdict == 2)), int(now)
        return Rejected(int(until), BreakerState(state), calls, failures, slow), int(now)

    def record(self, name: str, ticket: Ticket, outcome: Outcome) -> None:
        """See `Store`."""
        self._step("record", name, ticket.id, ticket.period, outcome)

    def forget(self, name: str, ticket: Ticket) -> None:
        """See `Store`."""
        self._step("forget", name, ticket.id)

    def reset(self, name: str, reason: str) -> None:
        """See `Store`."""
        self._step("reset", name, reason)

    def breakers(self) -> dict[str, Breaker]:
        """See `Store`."""
        found: dict[str, Breaker] = {}
        for key in sorted(self._redis.scan_iter(match=f"{_STATE}*", count=1000)):
            values: Any = self._redis.hgetall(key)
            if values:
                found[key.removeprefix(_STATE)] = _parse(values)
        return found

    def waiting(self) -> list[Waiting]:
        """See `Store`."""
        found: Any = self._redis.lrange(_WAITING, 0, _BATCH - 1)
        self._waits = bool(found)
        return [_transition(raw) for raw in found]

    def recorded(self, done: Sequence[Waiting]) -> None:
        """See `Store`."""
        pipeline = self._redis.pipeline()
        for one in done:
            pipeline.lrem(_WAITING, 1, one.raw)
        pipeline.execute()

    def _step(self, verb: str, name: str, *arguments: object) -> list[Any]:
        now = "" if self._clock is None else self._clock()
        found: Any = self._script(
            keys=[f"{_STATE}{name}", _WAITING],
            args=[verb, name, now, *self._policy, *map(str, arguments)],
        )
        *answer, waiting = found
        self._waits = waiting > 0
        return answer


def _parse(values: dict[str, str]) -> Breaker:
    numbers = {name: int(values[name]) for name in ("opened_at", "period", "passed", "touched")}
    probes = tuple((id_, int(expires)) for id_, expires in _PROBE.findall(values["probes"]))
    return Breaker(BreakerState(values["state"]), values["calls"], probes=probes, **numbers)


def _transition(raw: str) -> Waiting:
    v = json.loads(raw)
    change = Transition(BreakerState(v["before"]), BreakerState(v["after"]), v["reason"], int(v["at"]))
    return Waiting(v["name"], change, raw)
