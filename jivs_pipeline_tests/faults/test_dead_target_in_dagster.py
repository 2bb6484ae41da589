"""A dead target under `jivs up`: a run fails fast with one sentence, and is retried by itself once that may help.

What belongs here: the whole way through Dagster's daemon. What does not: the breaker (`test_breaker.py`), and which runs
are retried when (`test_retries.py`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from jivs_pipeline.core.breaker import Policy
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline_tests.acceptance.rows import assert_same_table
from jivs_pipeline_tests.faults.servers import OwnServer
from jivs_pipeline_tests.fix_breakers import MakeBreakers, fail, state
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_stack import Stack, stack_up
from jivs_pipeline_tests.sqlite_files import make_file

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def stack(jivs: Jivs, own_server: OwnServer) -> Iterator[Stack]:
    script = "CREATE TABLE towns (id INTEGER PRIMARY KEY); INSERT INTO towns VALUES (1), (2)"
    source = make_file(jivs.directory / "towns.sqlite", script)
    with stack_up(jivs, source, own_server.database()) as stack:
        yield stack


def launch(stack: Stack, schema: str) -> str:
    key = f"k-{uuid4().hex[:12]}"
    return stack.migrate(key, target_schema=schema)


def retry_of(stack: Stack, run_id: str) -> str:
    """The run that follows a failed one by itself, and not before its time."""
    deadline = time.monotonic() + 240
    while not (retry := stack.tags(run_id).get("dagster/auto_retry_run_id")):
        assert time.monotonic() < deadline, stack.tags(run_id)
        time.sleep(0.5)
    assert time.time() >= int(stack.tags(run_id)["jivs/retry_after"].split()[1])
    return retry


@pytest.mark.timeout(900)
def test_a_run_is_retried_when_its_target_may_be_back(
    stack: Stack, own_server: OwnServer, make_breakers: MakeBreakers
) -> None:
    """First nobody answers, then the breaker is open, then both are well."""
    own_server.stop(signal.SIGINT)
    launched = time.time()
    unanswered = launch(stack, "unanswered")
    assert stack.wait(unanswered, 200)["status"] == "FAILURE"
    assert "cannot be reached" in stack.story(unanswered)
    tags = stack.tags(unanswered)
    assert (tags["dagster/will_retry"], tags["jivs/retry"]) == ("false", "waiting")
    whose, _, after = tags["jivs/retry_after"].partition(" ")
    assert whose == unanswered
    assert launched + Policy().open_ms / 1000 <= int(after) <= time.time() + Policy().open_ms / 1000 + 1

    endpoint = make_breakers().endpoint(parse_url(stack.target, "warehouse"))
    fail(endpoint, 5 - state(endpoint.breakers, endpoint.name)["calls"])
    rejected = launch(stack, "rejected")
    assert stack.wait(rejected, 200)["status"] == "FAILURE"
    told = stack.story(rejected)
    assert "of the last 5 calls; it is tried again at 2" in told, told
    assert "It is run again by itself after 2" in told

    own_server.start()
    for run_id in (rejected, unanswered):
        run = run_id
        while stack.wait(run, 200)["status"] == "FAILURE":
            run = retry_of(stack, run)
        assert run != run_id
        assert stack.tags(run_id)["jivs/retry"] in {"asked", "settled"}
    for schema in ("unanswered", "rejected"):
        assert_same_table(stack.source, stack.target, "towns", schema=schema)
