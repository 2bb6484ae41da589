"""Circuit breakers for tests: on the worker's own Valkey, on none, and calls that succeed or fail.

What belongs here: making breakers and calling through them. What does not: what must come out.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis

from jivs_pipeline.core.breaker import Policy
from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.errors import BreakerOpen, TransientError
from jivs_pipeline.infra.breaker_store import Waiting
from jivs_pipeline.infra.breakers import Breakers, Endpoint
from jivs_pipeline.infra.embedded import open_embedded
from jivs_pipeline_tests.fix_postgresql import Proxy, at_port

DEAD_REDIS = "redis://127.0.0.1:1/0"
TRANSITIONS = "jivs:breaker:transitions"
QUICK = Policy(open_ms=100, ticket_ms=500)
MakeBreakers = Callable[..., Breakers]


def nobody(_: Sequence[Waiting]) -> None:
    """A control database that is always gone."""
    raise TransientError("the control database: lost the connection")


@pytest.fixture
def redis_url(jivs_home: tuple[Path, str]) -> Iterator[str]:
    with open_embedded(jivs_home[0]) as servers:
        yield servers.urls.redis


@pytest.fixture
def redis_server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.delete(TRANSITIONS)
        yield client
        client.delete(TRANSITIONS)


@pytest.fixture
def make_breakers(redis_url: str, redis_server: Any) -> Iterator[MakeBreakers]:
    made: list[Breakers] = []

    def make(
        at: str | None = redis_url, write: Any = nobody, policy: Policy | None = None, **more: Any
    ) -> Breakers:
        made.append(Breakers(at, write, policy, **{"answer_seconds": 5, **more}))
        return made[-1]

    yield make
    for breakers in made:
        breakers.close()


@pytest.fixture
def redis_proxy(redis_url: str) -> Iterator[tuple[Proxy, str]]:
    """A way to the Valkey that can be stalled."""
    parts = urlsplit(redis_url)
    proxy = Proxy((parts.hostname or "127.0.0.1", parts.port or 6379))
    yield proxy, at_port(redis_url, proxy.port)
    proxy.close()


def nowhere() -> Connection:
    """An endpoint of a name and a port that nobody has."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    return parse_url(f"postgresql://me:s3cret@127.0.0.1:{port}/gone", f"gone-{uuid4().hex[:6]}")


def fail(endpoint: Endpoint, times: int = 5, error: BaseException | None = None) -> None:
    """So many calls that end with the error."""
    wanted = error or TransientError("down")
    for _ in range(times):
        with pytest.raises(type(wanted)), endpoint.call():
            raise wanted


def refused(endpoint: Endpoint) -> BreakerOpen:
    """The error instead of a call."""
    with pytest.raises(BreakerOpen) as caught, endpoint.call():
        raise AssertionError("the call was made")
    return caught.value


def works(endpoint: Endpoint) -> bool:
    with suppress(BreakerOpen), endpoint.call():
        return True
    return False


def state(breakers: Breakers, name: str) -> dict[str, Any]:
    return next(b for b in breakers.listing() if b["name"] == name)
