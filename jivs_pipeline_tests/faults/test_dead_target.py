"""A target that is gone: runs fail fast with one sentence, and work again once it is back.

What belongs here: what a user and a run see of the circuit breaker. What does not: the breaker (`test_breaker.py`).
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.core.breaker import Policy
from jivs_pipeline.core.errors import BreakerOpen, ConnectionFailed, JivsError, TransientError
from jivs_pipeline.defs.failures import as_failure
from jivs_pipeline.infra.breaker_events import BreakerEvents
from jivs_pipeline.infra.breakers import Breakers
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.acceptance.contract import check_error
from jivs_pipeline_tests.faults.here import Going, Here, MakeHere
from jivs_pipeline_tests.faults.servers import OwnServer
from jivs_pipeline_tests.faults.worker import walk
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_engine import until

pytestmark = pytest.mark.faults

FIRST_RETRY_SECONDS = 2.0


def _run(here: Here, policy: Policy, failpoint: str = "") -> dict[str, Any]:
    """As `worker.migrate`, with a breaker whose times a test can wait for."""
    told = {**here.told, "JIVS_FAILPOINT": failpoint}
    with Runtime.from_environment(environment=told) as runtime:
        events = BreakerEvents(lambda: told["JIVS_CONTROL_URL"], io_timeout_seconds=10)
        runtime.__dict__["breakers"] = Breakers(
            runtime.redis_url,
            events.write,
            policy,
            answer_seconds=5,
            patience_seconds=runtime.settings.io_timeout_seconds,
        )
        return walk(runtime.migration(here.spec, uuid4().hex))


def _events(here: Here) -> list[tuple[str, str]]:
    with psycopg.connect(here.environment["JIVS_CONTROL_URL"]) as db:
        return db.execute(
            "SELECT before, after FROM jivs.circuit_breaker_events WHERE name LIKE 'warehouse@%' ORDER BY at, id"
        ).fetchall()


def _loading(own_server: OwnServer, run: Going) -> None:
    """Until the run has begun to write."""
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        writers = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'jivs/%'"
        until(lambda: admin.execute(writers).fetchone() or not run.running, "a writer", 60)
    assert run.running


def test_a_target_that_does_not_come_back_is_left_alone(make_here: MakeHere, own_server: OwnServer) -> None:
    """The run waits for as long as it waits for anybody; the next one is not let through to it."""
    here = make_here("sqlite", target=own_server.database(), JIVS_IO_TIMEOUT_SECONDS="2")
    policy = Policy(window=1, least=1, open_ms=8_000, probes=1)
    run = Going(lambda: _run(here, policy, "after_fence@2:sleep=1"))
    _loading(own_server, run)
    own_server.stop(signal.SIGQUIT)
    run.wait(30)
    assert isinstance(run.error, TransientError), run.error
    # Another run of Dagster's may help.
    assert as_failure(run.error).allow_retries
    began = time.monotonic()
    with pytest.raises(BreakerOpen) as caught:
        _run(here, policy)
    assert time.monotonic() - began < FIRST_RETRY_SECONDS
    assert "Endpoint 'warehouse@" in caught.value.message
    assert "has failed 1 of the last 1 calls; it is tried again at 2" in caught.value.message
    assert as_failure(caught.value).allow_retries
    own_server.start()

    def again() -> bool:
        try:
            return _run(here, policy)["status"] == "completed"
        except BreakerOpen:
            return False

    until(again, "a run that works again", 60, 0.5)
    here.check()
    assert _events(here)[:1] == [("closed", "open")]
    assert _events(here)[-2:] == [("open", "half_open"), ("half_open", "closed")]


def test_a_target_that_restarts_is_waited_for(make_here: MakeHere, own_server: OwnServer) -> None:
    """However touchy the breaker is: who was connected gives a restart its time, and the run goes on."""
    here = make_here("sqlite", target=own_server.database())
    run = Going(lambda: _run(here, Policy(window=1, least=1), "after_fence@2:sleep=1"))
    _loading(own_server, run)
    own_server.stop(signal.SIGQUIT)
    time.sleep(2.5)
    own_server.start()
    run.succeeded(60)
    here.check()
    assert _events(here) == []


def test_a_target_that_others_found_dead_is_not_even_tried(
    make_here: MakeHere, own_server: OwnServer
) -> None:
    here = make_here("sqlite", target=own_server.database())
    policy = Policy(open_ms=3_000)
    own_server.stop(signal.SIGINT)
    for _ in range(policy.least):
        with pytest.raises(JivsError) as first:
            _run(here, policy)
        assert (first.value.code, first.value.exit_code) == ("connection", 2)
        assert "cannot be reached" in first.value.message
    own_server.start()
    began = time.monotonic()
    with pytest.raises(BreakerOpen) as caught:
        _run(here, policy)
    assert time.monotonic() - began < FIRST_RETRY_SECONDS
    assert caught.value.exit_code == 1
    until(lambda: caught.value.until and caught.value.until.timestamp() < time.time(), "its time", 10)
    assert _run(here, policy)["status"] == "completed"
    here.check()


def test_the_command_says_it_in_one_sentence_and_resets_it(
    jivs: Jivs, own_server: OwnServer, tmp_path: Path, make_here: MakeHere
) -> None:
    here = make_here("sqlite", target=own_server.database())
    env = here.told
    spec = jivs.spec(key=here.key, source="legacy", target="warehouse")
    own_server.stop(signal.SIGINT)
    for _ in range(4):
        with pytest.raises(ConnectionFailed):
            _run(here, Policy())
    ended = jivs("run", spec, env=env, code=2)
    assert "cannot be reached" in ended.stderr
    ended = jivs("run", spec, env=env, code=2)
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1, ended
    assert "has failed 5 of the last 5 calls; it is tried again at 2" in ended.stderr
    listed = jivs("breaker", "list", "--json", env=env, code=0).document["breakers"]
    (mine,) = [b for b in listed if b["name"] in ended.stderr]
    assert (mine["state"], mine["calls"], mine["failures"], mine["slow"]) == ("open", 5, 5, 0)
    assert mine["opened_at"] < mine["next_probe_at"]
    shown = jivs("breaker", "list", env=env, code=0).stdout
    assert f"{mine['name']}  open  5 failed and 0 slow of 5, tried again at 2" in shown
    own_server.start()
    error = check_error(jivs("run", spec, "--json", env=env, code=2).document)
    assert "it is tried again at" in error["message"]
    assert jivs("breaker", "reset", mine["name"], "--json", env=env, code=0).document == {
        "reset": [mine["name"]]
    }
    jivs("run", spec, env=env, code=0)
    here.check()
    assert _events(here) == [("closed", "open"), ("open", "closed")]
    missing = jivs("breaker", "reset", "nobody@nowhere", "--json", env=env, code=2)
    assert check_error(missing.document)["message"] == "There is no circuit breaker 'nobody@nowhere'"
