"""Row 13: the breaker in Redis, used by 20 processes, takes the very steps of the reference model.

What belongs here: the script against the model, and processes that die in the middle of a probe. What does not: the
rules (`unit/test_breaker.py`) and what is built around them (`integration/test_breakers.py`).
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import pytest

from jivs_pipeline.core import breaker as model
from jivs_pipeline.core.breaker import Admitted, Breaker, BreakerState, Outcome, Policy, Ticket
from jivs_pipeline.infra.breaker_store import RedisStore
from jivs_pipeline_tests.breaker_workers import Worker, working
from jivs_pipeline_tests.fix_breakers import TRANSITIONS
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = pytest.mark.faults

STEPS, PROCESSES = 500, 20


class Reference:
    """The model beside the real thing."""

    def __init__(self, rng: random.Random, policy: Policy) -> None:
        self.rng, self.policy = rng, policy
        self.breaker = Breaker()
        self.now = rng.randrange(10**12, 2 * 10**12)
        p = policy
        edges = (p.open_ms, p.ticket_ms, p.keep_ms)
        self.passing = (*[0] * 12, 1, p.open_ms // 2, *edges, p.open_ms - 1, p.ticket_ms - 1)
        self.tickets: list[Ticket] = []
        self.transitions: list[dict[str, str]] = []
        self.seen: set[BreakerState] = set()
        self.bad, self.how = 0.5, tuple(Outcome)[1:]

    def step(self, name: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """One random step of the model: what a process has to do, and what has to come out there."""
        rng = self.rng
        if rng.random() < 0.05:
            self.bad = rng.choice((0, 0.3, 0.5, 0.9))
            self.how = rng.choice(((Outcome.SLOW,), (Outcome.FAILED,), tuple(Outcome)[1:]))
        # The server's clock may be set back, too.
        self.now += rng.choice(self.passing) * (1 if rng.random() < 0.97 else -1)
        verb = rng.choices(("admit", "record", "forget", "reset"), (50, 50, 3, 0.5))[0]
        changes: tuple[model.Transition, ...] = ()
        request: dict[str, Any] = {"verb": "step", "name": name, "now": self.now}
        expected: dict[str, Any] = {}
        if verb == "reset":
            self.breaker, changes = model.reset(self.breaker, self.now, "reset by hand")
            do: dict[str, Any] = {"ticket": None}
        elif verb == "admit" or not self.tickets:
            verb = "admit"
            self.breaker, decision, changes = model.admit(self.breaker, self.policy, self.now, f"t{number}")
            if isinstance(decision, Admitted):
                self.tickets.append(decision.ticket)
                expected = {"admitted": asdict(decision)}
            else:
                expected = {"rejected": asdict(decision)}
            do = {"ticket": f"t{number}"}
        else:
            # Mostly one of the last: results of earlier states are not counted.
            late = rng.random() < 0.1
            ticket = self.tickets.pop(
                rng.randrange(len(self.tickets)) if late else -rng.randint(1, min(3, len(self.tickets)))
            )
            do = {"ticket": asdict(ticket)}
            if verb == "record":
                good = rng.random() >= self.bad
                outcome = Outcome.OK if good else rng.choice(self.how)
                do["outcome"] = str(outcome)
                self.breaker, changes = model.record(self.breaker, self.policy, self.now, ticket, outcome)
            else:
                self.breaker = model.forget(self.breaker, ticket)
        if rng.random() < 0.02:
            self.tickets.clear()  # their processes were killed
        self.transitions += [
            {"name": name, "before": c.before, "after": c.after, "reason": c.reason, "at": str(c.at)}
            for c in changes
        ]
        self.seen.add(self.breaker.state)
        return {**request, "step": verb, **do}, expected


def _policy(rng: random.Random) -> Policy:
    """The product's own, or another: the script must read all of it."""
    if rng.random() < 0.5:
        return Policy()
    return Policy(
        window=rng.randint(4, 12), least=rng.randint(1, 4), failure_percent=rng.choice((20, 34, 50, 60)),
        slow_percent=rng.choice((20, 34, 50, 60)), open_ms=rng.choice((10, 5_000)), probes=rng.randint(1, 5),
        ticket_ms=rng.choice((1_000, 40_000)), keep_ms=rng.choice((10_000, 600_000)),
    )  # fmt: skip


@pytest.mark.timeout(3600)
def test_twenty_processes_take_the_steps_of_the_model(redis_url: str, redis_server: Any) -> None:
    for one in rounds(13, quick=STEPS):
        with one:
            one.faults = STEPS
            policy = _policy(one.rng)
            with working(PROCESSES, redis_url, policy) as workers:
                _compare(one, redis_url, redis_server, policy, workers)


def _compare(one: Round, redis_url: str, redis_server: Any, policy: Policy, workers: list[Worker]) -> None:
    name = f"e-{uuid4().hex[:8]}"
    reference = Reference(one.rng, policy)
    store = RedisStore(redis_url, policy, answer_seconds=30)
    for number in range(STEPS):
        do, expected = reference.step(name, number)
        worker = one.rng.choice(workers)
        answer = worker.ask(**do)
        context = f"{policy}, step {number}: {do}"
        assert answer == expected, context
        # A closed breaker that nobody has ever recorded anything of is not kept.
        assert store.breakers().get(name, Breaker()) == reference.breaker, context
    store.close()
    written = [json.loads(raw) for raw in redis_server.lrange(TRANSITIONS, 0, -1)]
    assert [w for w in written if w["name"] == name] == reference.transitions
    assert reference.seen == set(BreakerState)
    one.note(f"{len(reference.transitions)} transitions")


def test_twenty_processes_at_once_never_have_more_than_three_probes(
    redis_url: str, redis_server: Any
) -> None:
    name = f"e-{uuid4().hex[:8]}"
    policy = Policy(open_ms=30)
    with working(PROCESSES, redis_url, policy) as workers:
        for number, worker in enumerate(workers):
            worker.tell(verb="storm", name=name, seed=f"{name} {number}", seconds=3)
        told = [worker.hear() for worker in workers]
    assert max(t["most"] for t in told) == policy.probes, told
    assert sum(t["probes"] for t in told) > 20, told
    assert sum(t["rejected"] for t in told) > 20, told
    after = [json.loads(raw)["after"] for raw in redis_server.lrange(TRANSITIONS, 0, -1)]
    assert {"open", "half_open"} <= set(after)


def test_it_recovers_after_three_killed_probes(redis_url: str, redis_server: Any) -> None:
    """By the server's own clock: their tickets run out, and others get their places."""
    name = f"e-{uuid4().hex[:8]}"
    policy = Policy(open_ms=100, ticket_ms=1_500)
    store = RedisStore(redis_url, policy, answer_seconds=30)
    for number in range(policy.least):
        decision, _ = store.admit(name, f"first-{number}")
        assert isinstance(decision, Admitted)
        store.record(name, decision.ticket, Outcome.FAILED)
    with working(policy.probes, redis_url, policy) as workers:
        for number, worker in enumerate(workers):
            request = {"verb": "step", "step": "admit", "name": name, "now": None}
            asked = iter(range(10**6))

            def admitted(
                worker: Worker = worker, request: Any = request, number: int = number, asked: Any = asked
            ) -> bool:
                answer = worker.ask(**request, ticket=f"dead-{number}-{next(asked)}")
                return "admitted" in answer and answer["admitted"]["ticket"]["probe"]

            until(admitted, "a probe", 10)
        began = time.monotonic()
        for worker in workers:
            worker.tell(verb="die")
        decision, now = store.admit(name, "too early")
        assert not isinstance(decision, Admitted)
        assert now < decision.until <= now + policy.ticket_ms
    for number in range(policy.probes):
        tickets = list[Ticket]()

        def again(number: int = number, tickets: list[Ticket] = tickets) -> bool:
            decision, _ = store.admit(name, f"new-{number}")
            if isinstance(decision, Admitted):
                tickets.append(decision.ticket)
            return isinstance(decision, Admitted)

        until(again, "a place for another probe", 10)
        store.record(name, tickets[0], Outcome.OK)
    assert time.monotonic() - began > 0.2
    assert store.breakers()[name].state is BreakerState.CLOSED
    store.close()


def test_a_step_does_not_depend_on_who_takes_it(redis_url: str, redis_server: Any) -> None:
    """A breaker that one process has opened is open for the next."""
    name = f"e-{uuid4().hex[:8]}"
    with working(2, redis_url, Policy()) as (first, second):
        for number in range(5):
            ticket = first.ask(verb="step", step="admit", name=name, now=None, ticket=f"t{number}")[
                "admitted"
            ]["ticket"]
            first.ask(verb="step", step="record", name=name, now=None, ticket=ticket, outcome="f")
        assert "rejected" in second.ask(verb="step", step="admit", name=name, now=None, ticket="x")
