"""Events as users and consumers see them: the command, the stream after a run, the sensor when Redis was away.

What belongs here: the outside. What does not: how events get there (`integration/test_events.py`).
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.sensors import event_fallback
from jivs_pipeline.infra.embedded import open_embedded
from jivs_pipeline_tests.acceptance.test_commands import SOURCE
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.sqlite_files import make_file

AWAY = {"JIVS_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def stream(jivs_home: tuple[Path, str]) -> Iterator[Any]:
    with (
        open_embedded(jivs_home[0]) as servers,
        redis.Redis.from_url(servers.urls.redis, decode_responses=True) as client,
    ):
        yield client


def _entries(stream: Any, key: str) -> list[dict[str, str]]:
    return [event for _, event in stream.xrange("jivs:events") if event["key"] == key]


def _arguments(jivs: Jivs, target: str, key: str, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    return jivs.spec(key=key, source="legacy", target="warehouse"), env


def test_a_run_leaves_its_events_in_the_stream(
    jivs: Jivs, target: str, key: str, tmp_path: Path, stream: Any
) -> None:
    """All of them, to the last, when the command has ended; without a daemon."""
    spec, env = _arguments(jivs, target, key, tmp_path)
    jivs("run", spec, "--json", code=0, env=env)
    events = jivs("events", key, "--json", code=0).document["events"]
    assert events[-1]["type"] == "migration.completed"
    assert all(e["delivered"] for e in events)
    found = _entries(stream, key)
    assert [(e["id"], int(e["seq"]), e["type"], json.loads(e["data"])) for e in found] == [
        (e["id"], e["seq"], e["type"], e["data"]) for e in events
    ]


def test_following_shows_what_comes_and_ends_with_ctrl_c(
    jivs: Jivs, target: str, key: str, tmp_path: Path
) -> None:
    """One document a line, each event once; Ctrl-C is no failure."""
    spec, env = _arguments(jivs, target, key, tmp_path)
    held = {**env, "JIVS_FAILPOINT": "after_ledger_before_copy@1:sleep=4"}
    run = jivs.start("run", spec, "--json", env=held)
    run.wait_for("load")
    following = jivs.start("events", key, "--follow", "--json")
    following.wait_for("migration.started")
    run.wait()
    following.wait_for("migration.completed")
    following.signal(signal.SIGINT)
    ended = following.wait(20)
    assert ended.code == 0, ended
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    wanted = jivs("events", key, "--json", code=0).document["events"]
    assert [(e["id"], e["type"], e["at"]) for e in lines] == [(e["id"], e["type"], e["at"]) for e in wanted]


def test_a_webhook_that_cannot_be_one_is_said_at_once(jivs: Jivs) -> None:
    """Before anything is touched, and without quoting it: its URL may be a secret."""
    for env in (
        {"JIVS_WEBHOOK_URL": "ftp://hooks.example/t0ken", "JIVS_WEBHOOK_SECRET": "s"},
        {"JIVS_WEBHOOK_URL": "https://hooks.example/t0ken"},
    ):
        said = jivs("status", code=2, env=env).stderr
        assert "JIVS_WEBHOOK_URL" in said
        assert "t0ken" not in said


def test_what_redis_missed_the_sensor_delivers(
    jivs: Jivs,
    target: str,
    key: str,
    tmp_path: Path,
    stream: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run does its work without Redis; one tick of `event_fallback` later the stream is complete."""
    assert event_fallback in (build_defs().sensors or ())
    assert event_fallback.minimum_interval_seconds == 10
    assert event_fallback.default_status is dg.DefaultSensorStatus.RUNNING
    spec, env = _arguments(jivs, target, key, tmp_path)
    assert jivs("run", spec, "--json", code=0, env={**env, **AWAY}).document["status"] == "completed"
    events = jivs("events", key, "--json", code=0).document["events"]
    assert not any(e["delivered"] for e in events)
    monkeypatch.setenv("JIVS_HOME", str(jivs.home))
    deadline = time.monotonic() + 30
    while len(_entries(stream, key)) < len(events):
        assert time.monotonic() < deadline
        with dg.DagsterInstance.ephemeral() as instance:
            said = event_fallback(dg.build_sensor_context(instance=instance))
        assert isinstance(said, dg.SkipReason)
    assert "0 events wait" in str(said.skip_message)
    assert [e["id"] for e in _entries(stream, key)] == [e["id"] for e in events]
    assert all(e["delivered"] for e in jivs("events", key, "--json", code=0).document["events"])
