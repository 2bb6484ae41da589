"""The real Prometheus scrapes `jivs up` while migrations run, fail, stick and recover.

What belongs here: what an operator sees in the dashboard and in alerts. What does not: thresholds and how long something
has to last (`monitoring/*.test.yml`), and what counters count (`integration/test_exporter_counts.py`).
"""

from __future__ import annotations

import json
import math
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.infra.embedded.postgres import CONTROL, DAGSTER
from jivs_pipeline_tests.fix_cli import Jivs, new_home, with_parts
from jivs_pipeline_tests.fix_prometheus import MONITORING, Programs, Prometheus, scraping, wait_for
from jivs_pipeline_tests.fix_stack import Stack, free_port, processes_of, stack_up
from jivs_pipeline_tests.sqlite_files import make_file

SOURCE = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
INSERT INTO towns SELECT i, printf('%0100d', i) FROM n;
"""
LEASE = "6"


@dataclass
class Watched:
    """A stack and who watches it."""

    stack: Stack
    prometheus: Prometheus
    metrics_port: int

    def launch(self, **more: Any) -> tuple[str, str]:
        key = f"w-{uuid4().hex[:10]}"
        return key, self.stack.migrate(key, **{"target_schema": key.replace("-", "_"), **more})

    def control(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(with_parts(self.stack.jivs.server, database=CONTROL)) as db:
            return db.execute(query.encode(), values).fetchall()

    @property
    def daemon(self) -> int:
        (pid,) = [p for p, c in processes_of(self.stack.jivs.home).items() if "dagster._daemon" in c]
        return pid


@pytest.fixture
def watched(
    programs: Programs, make_target: Callable[[], str], tmp_path: Path
) -> Callable[..., AbstractContextManager[Watched]]:
    """Starts a stack that is watched; `quick`: with a short lease, and alerts that do not wait.

    In a home of its own, because what other tests have left would be run, and counted.
    """
    target = make_target()

    @contextmanager
    def start(*, quick: bool) -> Iterator[Watched]:
        source = make_file(tmp_path / "towns.sqlite", SOURCE)
        port = free_port()
        env = {"JIVS_METRICS_PORT": str(port), "JIVS_LEASE_SECONDS": LEASE if quick else "300"}
        with (
            new_home(tmp_path) as (home, server),
            stack_up(Jivs(home, tmp_path, server), source, target, env) as stack,
            scraping(programs, port, tmp_path / "prometheus", quick=quick) as prometheus,
        ):
            yield Watched(stack, prometheus, port)

    return start


def _expressions() -> dict[str, list[str]]:
    dashboard = json.loads((MONITORING / "grafana-dashboard-workflow.json").read_text())
    chosen = {"$target": ".*", "$migration": ".*"}
    found: dict[str, list[str]] = {}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in chosen.items():
                expression = expression.replace(variable, value)
            found.setdefault(panel["title"], []).append(expression)
    return found


@pytest.mark.timeout(600)
def test_panels_have_data_and_alerts_fire_and_end(
    watched: Callable[..., AbstractContextManager[Watched]],
) -> None:
    """One story, because the parts of it take their time: run, fail, stick, recover."""
    with watched(quick=True) as seen:
        _story(seen)


def _story(watched: Watched) -> None:
    prometheus = watched.prometheus
    with urllib.request.urlopen(
        f"http://127.0.0.1:{watched.metrics_port}/health/ready", timeout=30
    ) as answer:
        assert json.load(answer)["components"]["code_location"] == {"status": "ok"}

    # Run and fail: two that complete, one that finds its tables in the way, one that takes its time.
    first, first_run = watched.launch()
    slow, _ = watched.launch(limits={"source_rows_per_second": 20}, chunk_bytes=65536)
    assert watched.stack.wait(first_run)["status"] == "SUCCESS", watched.stack.story(first_run)
    second_run = watched.launch()[1]
    _, failed_run = watched.launch(target_schema=first.replace("-", "_"))
    assert watched.stack.wait(second_run)["status"] == "SUCCESS", watched.stack.story(second_run)
    assert watched.stack.wait(failed_run)["status"] == "FAILURE"
    panels = _expressions()
    assert len(panels) == 12

    def empty() -> list[str]:
        return [e for found in panels.values() for e in found if not _numbers(prometheus.query(e))]

    wait_for(lambda: not empty(), empty, 60)
    (row,) = prometheus.query(f'migration_info{{key="{slow}"}}')
    assert (row["metric"]["target"], row["metric"]["source"]) == ("warehouse", "legacy")
    failure_rate = panels["Failure rate"][0]
    wait_for(lambda: 0.05 < (prometheus.number(failure_rate) or 0) < 1, lambda: "a failure rate", 30)
    wait_for(lambda: "JivsFailureRateCritical" in prometheus.firing(), lambda: prometheus.firing().keys(), 30)
    assert not {"JivsMigrationStuck", "JivsDaemonDead", "JivsComponentDown"} & prometheus.firing().keys()

    # Stick: who would notice stands still, and the worker is killed.
    before = prometheus.number("migrations_failed_total")
    daemon = watched.daemon
    os.kill(daemon, signal.SIGSTOP)
    try:
        ((worker,),) = watched.control("SELECT pid FROM jivs.migration_locks WHERE key = %s", slow)
        os.kill(worker, signal.SIGKILL)
        # As if it had stood still for ten minutes already; it has not been heard of from now on anyhow.
        with psycopg.connect(with_parts(watched.stack.jivs.server, database=DAGSTER)) as db:
            db.execute(
                "UPDATE daemon_heartbeats SET body = jsonb_set(body::jsonb, '{timestamp}',"
                " to_jsonb((body::jsonb ->> 'timestamp')::float8 - 600))::text"
            )
        wanted = {"JivsMigrationStuck", "JivsDaemonDead"}
        wait_for(lambda: wanted <= prometheus.firing().keys(), lambda: prometheus.firing().keys(), 60)
        (stuck,) = prometheus.firing()["JivsMigrationStuck"]
        assert slow in stuck["annotations"]["summary"]
        assert stuck["annotations"]["command"] == f"jivs events {slow}"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{watched.metrics_port}/health/ready", timeout=30)
    finally:
        os.kill(daemon, signal.SIGCONT)

    # Recover: the daemon tells that it lives, and settles the dead run; both alerts end.
    wait_for(lambda: not wanted & prometheus.firing().keys(), lambda: prometheus.firing().keys(), 120)
    wait_for(
        lambda: prometheus.number("migrations_failed_total") == (before or 0) + 1,
        lambda: (before, prometheus.number("migrations_failed_total")),
        30,
    )
    with suppress(AssertionError):
        watched.stack.jivs("cancel", slow, "--no-wait", seconds=30)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_alerts_as_they_are_written(watched: Callable[..., AbstractContextManager[Watched]]) -> None:
    """Nothing is hurried: the daemon is told dead after three minutes, the migration stuck after six."""
    wanted = {"JivsMigrationStuck", "JivsDaemonDead", "JivsHeartbeatLost"}
    with watched(quick=False) as seen:
        slow, _ = seen.launch(limits={"source_rows_per_second": 20}, chunk_bytes=65536)
        wait_for(lambda: seen.prometheus.query(f'migration_info{{key="{slow}"}}'), lambda: "it runs", 90)
        daemon = seen.daemon
        os.kill(daemon, signal.SIGSTOP)
        try:
            ((worker,),) = seen.control("SELECT pid FROM jivs.migration_locks WHERE key = %s", slow)
            os.kill(worker, signal.SIGKILL)
            wait_for(
                lambda: wanted <= seen.prometheus.firing().keys(),
                lambda: seen.prometheus.firing().keys(),
                480,
            )
        finally:
            os.kill(daemon, signal.SIGCONT)
        wait_for(
            lambda: not wanted & seen.prometheus.firing().keys(), lambda: seen.prometheus.firing().keys(), 180
        )
        with suppress(AssertionError):
            seen.stack.jivs("cancel", slow, "--no-wait", seconds=30)


def _numbers(samples: list[dict[str, Any]]) -> list[float]:
    return [value for s in samples if not math.isnan(value := float(s["value"][1]))]
