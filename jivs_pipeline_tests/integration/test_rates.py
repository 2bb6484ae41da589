"""Reservations in a real Valkey: equal to their model, shared, and kept through what may happen to Redis."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis

from jivs_pipeline.core.pace import BURST_US, reserve
from jivs_pipeline.infra.rates import Rates
from jivs_pipeline_tests.fix_breakers import DEAD_REDIS
from jivs_pipeline_tests.fix_redis import OwnRedis

SECONDS = 3.2
TOO_FAST, TOO_SLOW = 1.05, 0.75


def _used(rates: list[Rates], meanwhile: Callable[[], Any] = lambda: None) -> float:
    """How much of each second two readers of each of them take, over some seconds; each waits as it is told.

    Time counts from the first reservation to the last wait's end, so that nothing is paid that was not waited for.
    """
    endpoint = f"shop@{uuid4().hex[:8]}"
    began, ends, taken = time.monotonic(), list[float](), list[float]()

    def read(one: Rates, rng: random.Random) -> None:
        while time.monotonic() < began + SECONDS:
            cost = rng.uniform(0.01, 0.04)
            time.sleep(one.reserve(endpoint, {"rows": cost, "bytes": cost / 3}))
            taken.append(cost)
        ends.append(time.monotonic())

    threads = [threading.Thread(target=read, args=(one, random.Random(n))) for n, one in enumerate(rates * 2)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 2)
    meanwhile()
    for thread in threads:
        thread.join(60)
    assert len(ends) == len(threads)
    return sum(taken) / (max(ends) - began)


def test_the_script_takes_the_steps_of_its_model(redis_url: str) -> None:
    rng, endpoint, now = random.Random(7), f"m@{uuid4().hex[:8]}", 1_800_000_000_000_000
    rates = Rates(redis_url, clock=lambda: now)
    free: dict[str, int | None] = {"rows": None, "bytes": None}
    for _ in range(300):
        # Sometimes long after the burst, and sometimes back.
        now += rng.choice((rng.randint(0, 50_000), rng.randint(0, 3 * BURST_US), -rng.randint(0, 90_000_000)))
        costs = {kind: rng.uniform(0, 0.3) for kind in rng.sample(sorted(free), rng.randint(1, 2))}
        for kind, cost in costs.items():
            free[kind] = reserve(free[kind], now, round(cost * 1e6))
        wait = max(0, max(free[k] or 0 for k in costs) - now) / 1e6
        assert rates.reserve(endpoint, costs) == pytest.approx(wait, abs=2e-6)
    rates.close()


def test_two_share_the_time_of_a_source(redis_url: str) -> None:
    both = [Rates(redis_url), Rates(redis_url)]
    assert TOO_SLOW < _used(both) < TOO_FAST
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert all(0 < client.pttl(name) <= 75_000 for name in client.keys("jivs:rate:*")), "nothing stays"
    for one in both:
        one.close()


def test_nothing_is_owed_to_a_source_that_was_not_read(redis_url: str) -> None:
    rates, endpoint = Rates(redis_url), f"idle@{uuid4().hex[:8]}"
    assert rates.reserve(endpoint, {"rows": 0.05}) == pytest.approx(0.05), (
        "there is no burst at the beginning"
    )
    time.sleep(0.5)
    assert rates.reserve(endpoint, {"rows": 0.05}) == 0
    assert rates.reserve(endpoint, {"rows": 0.25}) == pytest.approx(0.2, abs=0.03)
    rates.close()


def test_data_that_redis_loses_gives_nobody_more(own_redis: OwnRedis) -> None:
    both = [Rates(own_redis.url), Rates(own_redis.url)]
    assert TOO_SLOW < _used(both, own_redis.flush) < TOO_FAST
    for one in both:
        one.close()


@pytest.mark.parametrize("what", ["kill", "stand_still"])
def test_without_redis_a_process_keeps_the_limit_alone(
    what: str, own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    rates = Rates(own_redis.url)
    with caplog.at_level(logging.WARNING, "jivs_pipeline"):
        used = _used([rates], getattr(own_redis, what))
    assert used < TOO_FAST
    assert used > (TOO_SLOW if what == "kill" else 0.4), "one silence is waited for, not more"
    assert len([r for r in caplog.records if "keeps the limits of its sources alone" in r.message]) == 1
    rates.close()


def test_redis_that_was_never_there_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rates = Rates(DEAD_REDIS)
    with caplog.at_level(logging.WARNING, "jivs_pipeline"):
        assert TOO_SLOW < _used([rates]) < TOO_FAST
    assert len(caplog.records) == 1
    rates.close()
