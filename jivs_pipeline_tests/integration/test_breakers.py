"""Breakers around real connections, with a real Valkey, without one, and with one that is slow.

What belongs here: `infra/breakers.py` and what is written down of it. What does not: the rules
(`unit/test_breaker.py`), and the script against its model (`faults/test_breaker.py`).
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jivs_pipeline.core.breaker import Policy
from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.errors import (
    BreakerOpen,
    ConfigError,
    ConnectionFailed,
    DataError,
    NotReady,
    TerminalError,
    TransientError,
)
from jivs_pipeline.infra.breakers import endpoint_name
from jivs_pipeline.infra.postgresql import connect
from jivs_pipeline.infra.sources.sqlite import SqliteSource
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.fix_breakers import (
    DEAD_REDIS,
    QUICK,
    MakeBreakers,
    fail,
    nowhere,
    refused,
    state,
    works,
)
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_postgresql import Proxy, as_user

LATE = 0.2
"""Seconds by which a process may ask again later than the breaker says: it knows when from an answer on the way."""

# Around real connections


def test_a_server_that_is_gone_is_left_alone_after_five_calls(make_breakers: MakeBreakers) -> None:
    """First the sentence that it always was, then one that says when it is tried again; in all processes."""
    connection, first, second = nowhere(), make_breakers(), make_breakers()
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


def test_who_is_not_let_in_says_nothing_against_the_server(
    make_breakers: MakeBreakers, database: str
) -> None:
    breakers = make_breakers()
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


def test_a_server_that_does_not_answer_in_time_has_failed(make_breakers: MakeBreakers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = parse_url(
            f"postgresql://me:x@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2", "silent"
        )
        breakers = make_breakers()
        with pytest.raises(ConnectionFailed, match="does not answer"):
            connect(connection, application_name="t", calling=breakers.endpoint(connection).call)
        assert state(breakers, endpoint_name(connection))["failures"] == 1


def test_sqlite_files_have_breakers_too(make_breakers: MakeBreakers, tmp_path: Path) -> None:
    """A file that stays locked has failed; one that does not exist has not."""
    import sqlite3

    path, breakers = tmp_path / "a.sqlite", make_breakers()
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


def test_slow_calls_open_it_as_well(make_breakers: MakeBreakers) -> None:
    endpoint = make_breakers(policy=Policy(slow_ms=0)).endpoint(nowhere())
    for _ in range(5):
        assert works(endpoint)
    assert "was slow in 5 of the last 5 calls" in refused(endpoint).message


def test_data_errors_and_interrupts_are_not_counted_and_keep_no_place(make_breakers: MakeBreakers) -> None:
    breakers = make_breakers(policy=QUICK)
    endpoint = breakers.endpoint(nowhere())
    fail(endpoint, 20, DataError("a value"))
    fail(endpoint, 20, KeyboardInterrupt())
    fail(endpoint)
    refused(endpoint)
    until(
        lambda: state(breakers, endpoint.name)["next_probe_at"].timestamp() + LATE < time.time(),
        "its time",
        10,
    )
    for _ in range(10):
        fail(endpoint, 1, DataError("a value"))
    assert state(breakers, endpoint.name)["state"] == "half_open"
    assert all(works(endpoint) for _ in range(3))
    assert state(breakers, endpoint.name)["state"] == "closed"


def test_a_call_in_a_call_that_is_refused_is_not_counted_twice(make_breakers: MakeBreakers) -> None:
    breakers = make_breakers()
    outer, inner = breakers.endpoint(nowhere()), breakers.endpoint(nowhere())
    fail(inner)
    for _ in range(6):
        with pytest.raises(BreakerOpen), outer.call(), inner.call():
            raise AssertionError("the call was made")
    assert outer.name not in {b["name"] for b in breakers.listing()}


def test_a_server_that_is_waited_for_has_not_failed_until_patience_ends(make_breakers: MakeBreakers) -> None:
    """A restart is no outage to those who were connected; what outlasts their patience is."""
    breakers = make_breakers(patience_seconds=0.5)
    endpoint = breakers.endpoint(nowhere())
    for _ in range(2):
        fail(endpoint, 20, NotReady("restarts"))
        assert works(endpoint)  # which ends the waiting
    time.sleep(0.1)
    fail(endpoint, 1, NotReady("restarts"))
    time.sleep(0.6)
    fail(endpoint, 2, NotReady("restarts"))
    shown = state(breakers, endpoint.name)
    assert (shown["calls"], shown["failures"]) == (4, 2)
    fail(endpoint, 1, NotReady("restarts"))
    refused(endpoint)


def test_a_probe_that_finds_it_restarting_has_failed(make_breakers: MakeBreakers) -> None:
    breakers = make_breakers(policy=QUICK)
    endpoint = breakers.endpoint(nowhere())
    fail(endpoint)
    until(
        lambda: state(breakers, endpoint.name)["next_probe_at"].timestamp() + LATE < time.time(),
        "its time",
        10,
    )
    fail(endpoint, 1, NotReady("restarts"))
    refused(endpoint)


# Redis


def test_open_it_rejects_in_less_than_ten_milliseconds_even_if_redis_hangs(
    make_breakers: MakeBreakers, redis_proxy: tuple[Proxy, str]
) -> None:
    proxy, at = redis_proxy
    endpoint = make_breakers(at).endpoint(nowhere())
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
    make_breakers: MakeBreakers, redis_proxy: tuple[Proxy, str], caplog: pytest.LogCaptureFixture, how: str
) -> None:
    proxy, at = redis_proxy
    if how == "hangs":
        proxy.stall()
    breakers = make_breakers(at if how == "hangs" else DEAD_REDIS, policy=QUICK, answer_seconds=0.1)
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
    make_breakers: MakeBreakers, redis_proxy: tuple[Proxy, str]
) -> None:
    proxy, at = redis_proxy
    endpoint = make_breakers(at, answer_seconds=0.1).endpoint(nowhere())

    def lose_both() -> None:
        proxy.stall()
        raise TransientError("down")

    with pytest.raises(TransientError), endpoint.call():
        lose_both()
    fail(endpoint, 4)
    refused(endpoint)


def test_when_redis_is_back_it_decides_again(
    make_breakers: MakeBreakers, redis_proxy: tuple[Proxy, str]
) -> None:
    proxy, at = redis_proxy
    alone, shared = make_breakers(at, answer_seconds=0.5, quiet_seconds=0.2), make_breakers()
    connection = nowhere()
    proxy.stall()
    endpoint = alone.endpoint(connection)
    fail(endpoint, 2)
    proxy._stalled.clear()
    fail(shared.endpoint(connection))
    until(lambda: not works(endpoint), "the shared breaker", 20)
    refused(endpoint)


def test_reset_closes_it_for_all_that_come(make_breakers: MakeBreakers) -> None:
    first, second = make_breakers(), make_breakers()
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


def test_nobody_starts_servers_for_breakers(tmp_path: Path) -> None:
    """`jivs plan` touches nothing: it decides alone, and so does its writer of transitions."""
    with Runtime.from_environment(environment={"JIVS_HOME": str(tmp_path / "home")}) as runtime:
        endpoint = runtime.breakers.endpoint(nowhere())
        fail(endpoint)
        refused(endpoint)
    assert not (tmp_path / "home").exists()


def test_the_keys_expire(make_breakers: MakeBreakers, redis_server: Any) -> None:
    endpoint = make_breakers().endpoint(nowhere())
    fail(endpoint, 1)
    assert 0 < redis_server.pttl(f"jivs:breaker:state:{endpoint.name}") <= 7 * 24 * 3600 * 1000
