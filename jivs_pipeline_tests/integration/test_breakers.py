"""Breakers around real connections, with a real Valkey, without one, and with one that is slow.

What belongs here: `infra/breakers.py` and what is written down of it. What does not: the rules
(`unit/test_breaker.py`), and the script against its model (`faults/test_breaker.py`).
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis

from jivs_pipeline.core.breaker import Policy
from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.errors import (
    BreakerOpen,
    ConfigError,
    ConnectionFailed,
    DataError,
    JivsError,
    TerminalError,
    TransientError,
)
from jivs_pipeline.infra.breaker_events import BreakerEvents
from jivs_pipeline.infra.breaker_store import Waiting
from jivs_pipeline.infra.breakers import Breakers, Endpoint, endpoint_name
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.embedded import open_embedded
from jivs_pipeline.infra.postgresql import connect
from jivs_pipeline.infra.sources.sqlite import SqliteSource
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_postgresql import Proxy, as_user, at_port

DEAD_REDIS = "redis://127.0.0.1:1/0"
TRANSITIONS = "jivs:breaker:transitions"
QUICK = Policy(open_ms=100, ticket_ms=500)
Make = Callable[..., Breakers]


def nobody(_: Sequence[Waiting]) -> None:
    """A control database that is always gone."""
    raise TransientError("the control database: lost the connection")


@pytest.fixture
def url(jivs_home: tuple[Path, str]) -> Iterator[str]:
    with open_embedded(jivs_home[0]) as servers:
        yield servers.urls.redis


@pytest.fixture
def server(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.delete(TRANSITIONS)
        yield client
        client.delete(TRANSITIONS)


@pytest.fixture
def make(url: str, server: Any) -> Iterator[Make]:
    made: list[Breakers] = []

    def make(
        at: str | None = url, write: Any = nobody, policy: Policy | None = None, **more: Any
    ) -> Breakers:
        made.append(Breakers(at, write, policy, **{"answer_seconds": 5, **more}))
        return made[-1]

    yield make
    for breakers in made:
        breakers.close()


@pytest.fixture
def redis_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """A way to the Valkey that can be stalled."""
    parts = urlsplit(url)
    proxy = Proxy((parts.hostname or "127.0.0.1", parts.port or 6379))
    yield proxy, at_port(url, proxy.port)
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


# Around real connections


def test_a_server_that_is_gone_is_left_alone_after_five_calls(make: Make) -> None:
    """First the sentence that it always was, then one that says when it is tried again; in all processes."""
    connection, first, second = nowhere(), make(), make()
    calling = first.endpoint(connection).call
    for _ in range(5):
        with pytest.raises(ConnectionFailed, match="cannot be reached"):
            connect(connection, application_name="t", calling=calling)
    name = endpoint_name(connection)
    for breakers in (first, second):
        with pytest.raises(BreakerOpen) as caught:
            connect(
                connection, application_name="t", calling=breakers.endpoint(connection).call, reconnect=True
            )
        assert caught.value.message.startswith(
            f"Endpoint {name!r} has failed 5 of the last 5 calls; it is tried again at 20"
        )
        assert caught.value.hint.endswith(f"jivs breaker reset {name}")
        assert caught.value.until is not None
        assert 0 < caught.value.until.timestamp() - time.time() <= 60
    shown = state(second, name)
    assert {k: shown[k] for k in ("state", "calls", "failures", "slow")} == {
        "state": "open", "calls": 5, "failures": 5, "slow": 0,
    }  # fmt: skip
    assert (shown["next_probe_at"] - shown["opened_at"]).total_seconds() == 60
    assert "s3cret" not in f"{caught.value}{shown}"


def test_who_is_not_let_in_says_nothing_against_the_server(make: Make, database: str) -> None:
    breakers = make()
    wrong = parse_url(as_user(database, "nobody_here", "wrong"), "shop")
    missing = parse_url(f"{database}_missing", "missing")
    for connection in (wrong, missing):
        for _ in range(6):
            with pytest.raises(ConnectionFailed) as caught:
                connect(
                    connection,
                    application_name="t",
                    calling=breakers.endpoint(connection).call,
                    reconnect=True,
                )
            assert not caught.value.outage
    assert not {endpoint_name(wrong), endpoint_name(missing)} & {b["name"] for b in breakers.listing()}


def test_a_server_that_does_not_answer_in_time_has_failed(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = parse_url(
            f"postgresql://me:x@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2", "silent"
        )
        breakers = make()
        with pytest.raises(ConnectionFailed, match="does not answer"):
            connect(connection, application_name="t", calling=breakers.endpoint(connection).call)
        assert state(breakers, endpoint_name(connection))["failures"] == 1


def test_sqlite_files_have_breakers_too(make: Make, tmp_path: Path) -> None:
    """A file that stays locked has failed; one that does not exist has not."""
    import sqlite3

    path, breakers = tmp_path / "a.sqlite", make()
    connection = Connection("legacy", "sqlite", "", path=path)
    calling = breakers.endpoint(connection).call
    for _ in range(6):
        with pytest.raises(ConnectionFailed, match="does not exist"):
            SqliteSource(connection, calling=calling)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("BEGIN EXCLUSIVE")
        for _ in range(5):
            with pytest.raises(ConnectionFailed, match="stayed locked"):
                SqliteSource(connection, timeout_seconds=0.01, calling=calling)
        with pytest.raises(BreakerOpen, match="has failed 5 of the last 5 calls"):
            SqliteSource(connection, timeout_seconds=0.01, calling=calling)


# Counting


def test_slow_calls_open_it_as_well(make: Make) -> None:
    endpoint = make(policy=Policy(slow_ms=0)).endpoint(nowhere())
    for _ in range(5):
        assert works(endpoint)
    assert "was slow in 5 of the last 5 calls" in refused(endpoint).message


def test_data_errors_and_interrupts_are_not_counted_and_keep_no_place(make: Make) -> None:
    breakers = make(policy=QUICK)
    endpoint = breakers.endpoint(nowhere())
    fail(endpoint, 20, DataError("a value"))
    fail(endpoint, 20, KeyboardInterrupt())
    fail(endpoint)
    refused(endpoint)
    until(lambda: state(breakers, endpoint.name)["next_probe_at"].timestamp() < time.time(), "its time", 10)
    for _ in range(10):
        fail(endpoint, 1, DataError("a value"))
    assert state(breakers, endpoint.name)["state"] == "half_open"
    assert all(works(endpoint) for _ in range(3))
    assert state(breakers, endpoint.name)["state"] == "closed"


def test_a_call_in_a_call_that_is_refused_is_not_counted_twice(make: Make) -> None:
    breakers = make()
    outer, inner = breakers.endpoint(nowhere()), breakers.endpoint(nowhere())
    fail(inner)
    for _ in range(6):
        with pytest.raises(BreakerOpen), outer.call(), inner.call():
            raise AssertionError("the call was made")
    assert outer.name not in {b["name"] for b in breakers.listing()}


# Redis


def test_open_it_rejects_in_less_than_ten_milliseconds_even_if_redis_hangs(
    make: Make, redis_proxy: tuple[Proxy, str]
) -> None:
    proxy, at = redis_proxy
    endpoint = make(at).endpoint(nowhere())
    fail(endpoint)
    refused(endpoint)
    for stall in (lambda: None, proxy.stall):
        stall()
        took: list[float] = []
        for _ in range(100):
            began = time.perf_counter()
            refused(endpoint)
            took.append(time.perf_counter() - began)
        # The machine may be busy with something else now and then; a round trip to a hanging Redis takes 5 s here.
        assert sorted(took)[94] < 0.010, sorted(took)[-10:]
        assert max(took) < 2


@pytest.mark.parametrize("how", ["refused", "hangs"])
def test_without_redis_each_process_decides_alone(
    make: Make, redis_proxy: tuple[Proxy, str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    proxy, at = redis_proxy
    if how == "hangs":
        proxy.stall()
    breakers = make(at if how == "hangs" else DEAD_REDIS, policy=QUICK, answer_seconds=0.1)
    endpoint = breakers.endpoint(nowhere())
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        fail(endpoint)
        refused(endpoint)
        until(lambda: works(endpoint), "a probe", 10)
        assert works(endpoint)
        assert works(endpoint)
        fail(endpoint, 4)
        assert works(endpoint)
    assert time.monotonic() - began < 10
    assert [r.message for r in caplog.records if "Redis does not answer" in r.message] == [
        r.message for r in caplog.records
    ]
    assert len(caplog.records) == 1
    with pytest.raises(TerminalError, match="Redis does not answer"):
        breakers.listing()
    with pytest.raises(TerminalError, match="Redis does not answer"):
        breakers.reset()


def test_when_redis_is_lost_between_call_and_result_the_result_counts_here(
    make: Make, redis_proxy: tuple[Proxy, str]
) -> None:
    proxy, at = redis_proxy
    endpoint = make(at, answer_seconds=0.1).endpoint(nowhere())

    def lose_both() -> None:
        proxy.stall()
        raise TransientError("down")

    with pytest.raises(TransientError), endpoint.call():
        lose_both()
    fail(endpoint, 4)
    refused(endpoint)


def test_when_redis_is_back_it_decides_again(make: Make, redis_proxy: tuple[Proxy, str]) -> None:
    proxy, at = redis_proxy
    alone, shared = make(at, answer_seconds=0.5, quiet_seconds=0.2), make()
    connection = nowhere()
    proxy.stall()
    endpoint = alone.endpoint(connection)
    fail(endpoint, 2)
    proxy._stalled.clear()
    fail(shared.endpoint(connection))
    until(lambda: not works(endpoint), "the shared breaker", 20)
    refused(endpoint)


def test_reset_closes_it_for_all_that_come(make: Make) -> None:
    first, second = make(), make()
    connection = nowhere()
    endpoint = first.endpoint(connection)
    fail(endpoint)
    refused(endpoint)
    assert first.reset(endpoint.name) == [endpoint.name]
    assert works(endpoint)
    assert works(second.endpoint(connection))
    assert state(second, endpoint.name)["state"] == "closed"
    with pytest.raises(ConfigError, match="There is no circuit breaker 'gon'"):
        second.reset("gon")
    assert endpoint.name in second.reset()


def test_the_keys_expire(make: Make, server: Any) -> None:
    endpoint = make().endpoint(nowhere())
    fail(endpoint, 1)
    assert 0 < server.pttl(f"jivs:breaker:state:{endpoint.name}") <= 7 * 24 * 3600 * 1000


# What is written down


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
    make: Make, control: str, url: str, shared: bool
) -> None:
    breakers = make(
        url if shared else None, BreakerEvents(lambda: control, io_timeout_seconds=5).write, QUICK
    )
    endpoint = breakers.endpoint(nowhere())
    _live(endpoint)
    breakers.close()
    assert _written(control, endpoint.name) == _LIFE


def test_two_that_write_at_once_write_each_transition_once(make: Make, control: str, server: Any) -> None:
    silent = make(policy=QUICK)
    endpoint = silent.endpoint(nowhere())
    _live(endpoint)
    assert server.llen(TRANSITIONS) >= 3
    several = [make(write=BreakerEvents(lambda: control, io_timeout_seconds=20).write) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda b: works(b.endpoint(nowhere())), several))
    until(lambda: server.llen(TRANSITIONS) == 0, "all written", 30)
    for breakers in several:
        breakers.close()
    assert _written(control, endpoint.name) == _LIFE


def test_a_dead_control_database_delays_nobody_and_gets_it_later(
    make: Make, control: str, server: Any
) -> None:
    """The first process finds the control database silent, and ends; the next writes it down."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = f"postgresql://me:x@127.0.0.1:{silent.getsockname()[1]}/x"
        first = make(write=BreakerEvents(lambda: dead, io_timeout_seconds=2).write, policy=QUICK)
        endpoint = first.endpoint(nowhere())
        began = time.monotonic()
        _live(endpoint)
        assert time.monotonic() - began < 2
        first.close()
        assert server.llen(TRANSITIONS) >= 3
    second = make(write=BreakerEvents(lambda: control, io_timeout_seconds=20).write)
    assert works(second.endpoint(nowhere()))
    second.close()
    assert _written(control, endpoint.name) == _LIFE
    assert server.llen(TRANSITIONS) == 0


def test_what_cannot_be_written_is_tried_again_but_not_all_the_time(make: Make) -> None:
    tries: list[int] = []

    def write(waiting: Sequence[Waiting]) -> None:
        tries.append(len(waiting))
        if len(tries) < 3:
            raise JivsError("not now")

    breakers = make(None, write, quiet_seconds=0.2)
    endpoint = breakers.endpoint(nowhere())
    fail(endpoint)
    other = breakers.endpoint(nowhere())
    began = time.monotonic()
    until(lambda: works(other) and len(tries) == 3, "a third try", 10)
    assert time.monotonic() - began >= 0.4
    assert tries == [1, 1, 1]
    breakers.close()
