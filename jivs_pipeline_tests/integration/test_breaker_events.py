"""Transitions of breakers in a real control database: each once, and none lost while it was away.

What belongs here: `infra/breaker_events.py` and when it is called. What does not: the breakers (`test_breakers.py`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.errors import (
    JivsError,
)
from jivs_pipeline.infra.breaker_events import BreakerEvents
from jivs_pipeline.infra.breaker_store import Waiting
from jivs_pipeline.infra.breakers import Endpoint
from jivs_pipeline.infra.control import Control
from jivs_pipeline_tests.fix_breakers import (
    QUICK,
    TRANSITIONS,
    MakeBreakers,
    fail,
    nowhere,
    works,
)
from jivs_pipeline_tests.fix_engine import until


@pytest.fixture
def control(database: str) -> Iterator[str]:
    opened = Control(database)
    opened.open()
    opened.close()
    return database


def _written(url: str, name: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url) as db:
        return db.execute(
            "SELECT before, after, reason FROM jivs.circuit_breaker_events WHERE name = %s ORDER BY at, id",
            (name,),
        ).fetchall()


_LIFE = [
    ("closed", "open", "5 of the last 5 calls failed"),
    ("open", "half_open", "its time is over"),
    ("half_open", "closed", "3 probes succeeded"),
]


def _live(endpoint: Endpoint) -> None:
    fail(endpoint)
    until(lambda: works(endpoint), "a probe", 10)
    assert works(endpoint)
    assert works(endpoint)


@pytest.mark.parametrize("shared", [True, False])
def test_every_transition_is_in_the_control_database(
    make_breakers: MakeBreakers, control: str, redis_url: str, shared: bool
) -> None:
    breakers = make_breakers(
        redis_url if shared else None, BreakerEvents(lambda: control, io_timeout_seconds=5).write, QUICK
    )
    endpoint = breakers.endpoint(nowhere())
    _live(endpoint)
    breakers.close()
    assert _written(control, endpoint.name) == _LIFE


def test_two_that_write_at_once_write_each_transition_once(
    make_breakers: MakeBreakers, control: str, redis_server: Any
) -> None:
    silent = make_breakers(policy=QUICK)
    endpoint = silent.endpoint(nowhere())
    _live(endpoint)
    assert redis_server.llen(TRANSITIONS) >= 3
    several = [
        make_breakers(write=BreakerEvents(lambda: control, io_timeout_seconds=20).write) for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda b: works(b.endpoint(nowhere())), several))
    until(lambda: redis_server.llen(TRANSITIONS) == 0, "all written", 30)
    for breakers in several:
        breakers.close()
    assert _written(control, endpoint.name) == _LIFE


def test_a_dead_control_database_delays_nobody_and_gets_it_later(
    make_breakers: MakeBreakers, control: str, redis_server: Any
) -> None:
    """The first process finds the control database silent, and ends; the next writes it down."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"postgresql://me:x@127.0.0.1:{silent.getsockname()[1]}/x"
        first = make_breakers(write=BreakerEvents(lambda: dead, io_timeout_seconds=2).write, policy=QUICK)
        endpoint = first.endpoint(nowhere())
        began = time.monotonic()
        _live(endpoint)
        assert time.monotonic() - began < 2
        first.close()
        assert redis_server.llen(TRANSITIONS) >= 3
    second = make_breakers(write=BreakerEvents(lambda: control, io_timeout_seconds=20).write)
    assert works(second.endpoint(nowhere()))
    second.close()
    assert _written(control, endpoint.name) == _LIFE
    assert redis_server.llen(TRANSITIONS) == 0


def test_what_cannot_be_written_is_tried_again_but_not_all_the_time(make_breakers: MakeBreakers) -> None:
    tries: list[tuple[float, int]] = []

    def write(waiting: Sequence[Waiting]) -> None:
        tries.append((time.monotonic(), len(waiting)))
        if len(tries) < 3:
            raise JivsError("not now")

    breakers = make_breakers(None, write, quiet_seconds=0.2)
    endpoint = breakers.endpoint(nowhere())
    fail(endpoint)
    other = breakers.endpoint(nowhere())
    until(lambda: works(other) and len(tries) == 3, "a third try", 10)
    assert [waiting for _, waiting in tries] == [1, 1, 1]
    assert all(after - before >= 0.2 for (before, _), (after, _) in pairwise(tries))
    breakers.close()
