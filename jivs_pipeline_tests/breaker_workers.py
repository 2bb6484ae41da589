"""Processes that use one breaker through Redis. As a program it forks one child per socket it is given.

What belongs here: what such a process does when it is told. What does not: what must come out.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

from jivs_pipeline.core.breaker import Admitted, Outcome, Policy, Ticket
from jivs_pipeline.infra.breaker_store import RedisStore

ROOT = Path(__file__).resolve().parent.parent


class Worker:
    """One such process, seen from the test."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lines = end.makefile()

    def tell(self, **request: Any) -> None:
        self._end.sendall(json.dumps(request).encode() + b"\n")

    def hear(self) -> Any:
        line = self._lines.readline()
        assert line, "the worker is gone"
        return json.loads(line)

    def ask(self, **request: Any) -> Any:
        self.tell(**request)
        return self.hear()

    def close(self) -> None:
        self._lines.close()
        self._end.close()


@contextmanager
def working(count: int, url: str, policy: Policy) -> Iterator[list[Worker]]:
    """So many processes; they end with the block."""
    pairs = [socket.socketpair() for _ in range(count)]
    theirs = [pair[1].fileno() for pair in pairs]
    with subprocess.Popen(
        [sys.executable, "-m", "jivs_pipeline_tests.breaker_workers", *map(str, theirs)],
        pass_fds=theirs, stdin=subprocess.PIPE, cwd=ROOT,
    ) as program:  # fmt: skip
        assert program.stdin is not None
        program.stdin.write(json.dumps({"url": url, "policy": asdict(policy)}).encode() + b"\n")
        program.stdin.flush()
        for _, end in pairs:
            end.close()
        workers = [Worker(end) for end, _ in pairs]
        try:
            for worker in workers:
                worker._end.settimeout(60)
            yield workers
        finally:
            for worker in workers:
                worker.close()
            program.stdin.close()
            try:
                program.wait(20)
            finally:
                program.kill()


class _Child:
    def __init__(self, url: str, policy: Policy) -> None:
        self._now: int | None = None
        self._url, self._policy = url, policy
        self._store = RedisStore(url, policy, answer_seconds=30)
        self._timed = RedisStore(url, policy, answer_seconds=30, clock=lambda: self._now or 0)

    def answer(self, verb: str, **request: Any) -> Any:
        return getattr(self, verb)(**request)

    def step(self, name: str, now: int | None, step: str, ticket: Any, outcome: str = "o") -> Any:
        """One verb of the store, at a given time."""
        self._now = now
        store = self._store if now is None else self._timed
        if step == "admit":
            decision, _ = store.admit(name, ticket)
            kind = "admitted" if isinstance(decision, Admitted) else "rejected"
            return {kind: asdict(decision)}
        if step == "record":
            store.record(name, Ticket(**ticket), Outcome(outcome))
        elif step == "forget":
            store.forget(name, Ticket(**ticket))
        else:
            store.reset(name, "reset by hand")
        return {}

    def storm(self, name: str, seed: str, seconds: float) -> Any:
        """Call as often as it goes; tells how many probes were seen under way at once, by our own."""
        rng = random.Random(seed)
        most = probes = rejected = calls = 0
        with redis.Redis.from_url(self._url) as client:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                decision, _ = self._store.admit(name, f"{os.getpid()}-{calls + probes}")
                if not isinstance(decision, Admitted):
                    rejected += 1
                    time.sleep(rng.uniform(0, 0.01))
                    continue
                if decision.ticket.probe:
                    probes += 1
                    most = max(most, int(client.incr(f"{name}:under-way")))
                    time.sleep(rng.uniform(0, 0.01))
                    client.decr(f"{name}:under-way")
                    outcome = Outcome.FAILED if rng.random() < 0.2 else Outcome.OK
                else:
                    calls += 1
                    outcome = Outcome.FAILED
                self._store.record(name, decision.ticket, outcome)
        return {"most": most, "probes": probes, "rejected": rejected, "calls": calls}

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    ends = [int(fd) for fd in sys.argv[1:]]
    for fd in ends:
        if os.fork() == 0:
            for other in ends:
                if other != fd:
                    os.close(other)
            child = _Child(orders["url"], Policy(**orders["policy"]))
            with socket.socket(fileno=fd) as end, end.makefile() as lines:
                for line in lines:
                    end.sendall(json.dumps(child.answer(**json.loads(line))).encode() + b"\n")
            os._exit(0)
    for fd in ends:
        os.close(fd)
    sys.stdin.read()


if __name__ == "__main__":
    main()
