"""Rows 10, 11 and 23: requests by the hundred, and a stack whose parts are killed under them.

What belongs here: `jivs up` with servers of its own, clients that submit, and that each request ends once. What does
not: single steps of the queue (`integration/test_requests.py`, `integration/test_queue.py`).
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.core.requests import Submission
from jivs_pipeline.core.spec import Limits, Spec
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.embedded.postgres import TARGET
from jivs_pipeline.infra.request_cache import RequestCache
from jivs_pipeline_tests.acceptance.rows import assert_same_table
from jivs_pipeline_tests.faults.servers import OwnServer, directory_of_servers
from jivs_pipeline_tests.fix_cli import Jivs, new_home, with_parts
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_faults import FULL, Round, rounds
from jivs_pipeline_tests.fix_redis import OwnRedis
from jivs_pipeline_tests.fix_stack import RUNS, Stack, processes_of, stack_up
from jivs_pipeline_tests.sqlite_files import make_file

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

SOURCE = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
INSERT INTO towns SELECT i, printf('town %d', i) FROM n;
"""
SUBMITTED = 100
KEYS, STRIKES = (5, 20) if FULL else (1, 2)
"""Of each round of rows 10 and 23."""
TOGETHER, LIMIT = (100, 50) if FULL else (6, 2)
FAST, SLOW = 250, 100
"""Rows per second that all read from the source together. A run takes seconds to start, so only slow ones fill all slots."""
PARTS = ("dagster._daemon", "code-server start", "redis", "postgresql")
ENDED = {"completed", "failed", "cancelled"}


@dataclass
class Site:
    """A stack whose control database, Dagster storage and Redis can be killed, and clients of its queue."""

    stack: Stack
    server: OwnServer
    redis: OwnRedis
    control_url: str
    keys: list[str] = field(default_factory=list)

    def new_keys(self, number: int) -> list[str]:
        made = [f"q{uuid4().hex[:10]}" for _ in range(number)]
        self.keys += made
        return made

    def submit(self, key: str, idempotency_key: str | None = None, rate: int | None = None) -> Submission:
        """As `jivs submit` does, without the time that a process takes to start; again until it is answered."""
        control, cache = Control(self.control_url), RequestCache(self.redis.url)
        try:
            control.open()
            spec = Spec(
                key=key, source="legacy", target="warehouse", target_schema=key, parallelism=1,
                limits=Limits(source_rows_per_second=rate),
            )  # fmt: skip
            return control.requests(cache).submit(spec, idempotency_key=idempotency_key)
        finally:
            control.close()
            cache.close()

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the control database says; it may be away just now."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.control_url, connect_timeout=5) as db:
                    return db.execute(query, parameters).fetchall()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def states(self, keys: list[str]) -> dict[str, str]:
        found = self.rows("SELECT key, status FROM jivs.migration_requests WHERE key = ANY(%s)", keys)
        return dict(found)

    def wait_ended(self, keys: list[str], seconds: float) -> None:
        def ended() -> bool:
            states = self.states(keys)
            return len(states) == len(keys) and set(states.values()) <= ENDED

        def story() -> str:
            left = sorted(k for k, s in self.states(keys).items() if s not in ENDED)
            requests = self.rows(
                "SELECT key, status, attempt, run_id, error FROM jivs.migration_requests WHERE key = ANY(%s)",
                left,
            )
            migrations = self.rows(
                "SELECT key, status, run_id, epoch, error FROM jivs.migrations WHERE key = ANY(%s)", left
            )
            return "\n".join([*map(str, requests), *map(str, migrations), *self.stack.last_words(left)])

        deadline = time.monotonic() + seconds
        while not ended():
            assert time.monotonic() < deadline, f"not ended within {seconds:g} s: {story()}"
            time.sleep(0.5)

    def check_once(self, keys: list[str]) -> None:
        """Each request is completed, began a migration, ended one, and its rows are exact."""
        counted = self.rows(
            """SELECT r.key, r.status, m.status, m.error,
                      (SELECT count(*) FROM jivs.migration_requests q WHERE q.key = r.key),
                      (SELECT count(*) FROM jivs.migration_events e WHERE e.key = r.key AND e.type = 'migration.completed')
                 FROM jivs.migration_requests r JOIN jivs.migrations m USING (key) WHERE r.key = ANY(%s)""",
            keys,
        )
        assert {c[0]: c[1:] for c in counted} == dict.fromkeys(keys, ("completed", "completed", None, 1, 1))
        for key in keys:
            assert_same_table(self.stack.source, self.stack.target, "towns", schema=key)

    def kill(self, part: str, r: Round) -> None:
        """Kill one part of the site, and start it again where nobody else does."""
        if part == "redis":
            self.redis.kill()
            time.sleep(r.rng.uniform(0, 3))
            self.redis.start()
            if r.rng.random() < 0.3:
                self.redis.flush()
        elif part == "postgresql":
            self.server.stop(r.rng.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(r.rng.uniform(0, 3))
            self.server.start()
        else:
            for pid, command in processes_of(self.stack.jivs.home).items():
                if part in command:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("queue")
    # A home of its own, so that every process that works for it is the stack's.
    with new_home(directory) as (home, target_server):
        yield from make_site(directory, home, target_server)


def make_site(directory: Path, home: Path, target_server: str) -> Iterator[Site]:
    servers = directory_of_servers(), directory_of_servers()
    source = make_file(directory / "towns.sqlite", SOURCE)
    server, redis = OwnServer(servers[0]), OwnRedis(servers[1])
    control_url = server.database()
    env = {
        "JIVS_CONTROL_URL": control_url,
        "JIVS_DAGSTER_URL": server.database(),
        "JIVS_REDIS_URL": redis.url,
    }
    try:
        target = with_parts(target_server, database=TARGET)
        with stack_up(Jivs(home, directory, target_server), source, target, env) as stack:
            yield Site(stack, server, redis, control_url)
    finally:
        server.close()
        redis.close()
        for path in servers:
            shutil.rmtree(path)


def test_one_idempotency_key_is_one_run(site: Site) -> None:
    """Row 10: sent a hundred times in parallel, with FLUSHALL in between."""
    for r in rounds(10, quick=1):
        with r:
            r.faults = KEYS
            keys = site.new_keys(KEYS)
            sent = [key for key in keys for _ in range(SUBMITTED)]
            r.rng.shuffle(sent)
            flush_at = r.rng.randrange(len(sent))

            def submit(number: int, sent: list[str] = sent, flush_at: int = flush_at) -> Submission:
                if number == flush_at:
                    site.redis.flush()
                return site.submit(sent[number], f"client of {sent[number]}")

            with ThreadPoolExecutor(10) as pool:
                answers = list(pool.map(submit, range(len(sent))))
            assert len({a.request_id for a in answers}) == KEYS
            assert sum(not a.duplicate for a in answers) == KEYS
            site.wait_ended(keys, 120)
            site.check_once(keys)
            for key in keys:
                runs = site.stack.ask(RUNS, filter={"tags": [{"key": "jivs/migration_key", "value": key}]})
                assert len(runs["runsOrError"]["results"]) == 1, runs


class Watcher:
    """How many migrations run, and how many sessions their servers have, while the block lasts."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self.running = self.control = self.target = self.memory = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert self.error is None

    def _run(self) -> None:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        try:
            with (
                psycopg.connect(self._site.control_url, autocommit=True) as control,
                psycopg.connect(self._site.stack.target, autocommit=True) as target,
            ):
                while not self._over.wait(0.2):
                    running = "SELECT count(*) FROM jivs.migrations WHERE status = 'running'"
                    self.running = max(self.running, _number(control, running))
                    self.control = max(self.control, _number(control, sessions))
                    self.target = max(self.target, _number(target, sessions))
                    self.memory = max(self.memory, _memory(self._site.stack.jivs.home))
        except BaseException as error:
            self.error = error
            raise


def _number(db: psycopg.Connection[Any], query: str) -> int:
    row = db.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _memory(home: Path) -> int:
    """Bytes that the stack's processes have for themselves."""
    total = 0
    for pid in processes_of(home):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            total += (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    return total


def test_many_at_once(site: Site) -> None:
    """Row 11: never more than the limit at once, whoever asks; all complete."""
    site.rows("UPDATE jivs.limits SET value = %s WHERE name = 'runs' RETURNING 1", LIMIT)
    for r in rounds(11, quick=1):
        slow = not FULL or r.number == 2
        with r, Watcher(site) as watcher:
            keys = site.new_keys(TOGETHER)
            began = time.monotonic()
            with ThreadPoolExecutor(10) as pool:
                list(pool.map(partial(site.submit, rate=SLOW if slow else FAST), keys))
            r.note(f"{TOGETHER} submitted in {time.monotonic() - began:.1f} s")
            site.wait_ended(keys, 20 * TOGETHER)
            r.note(
                f"ended after {time.monotonic() - began:.1f} s; at most {watcher.running} ran,"
                f" {watcher.control} and {watcher.target} sessions, {watcher.memory >> 20} MiB"
            )
            site.check_once(keys)
            assert watcher.running <= LIMIT
            assert not slow or watcher.running == LIMIT
            epochs = site.rows("SELECT DISTINCT epoch FROM jivs.migrations WHERE key = ANY(%s)", keys)
            assert epochs == [(1,)], "a migration was begun twice"


def test_parts_are_killed_under_load(site: Site) -> None:
    """Row 23: whatever part dies while requests keep coming, every request ends once."""
    for r in rounds(23, quick=1):
        with r:
            r.faults = STRIKES
            keys: list[str] = []
            for number in range(STRIKES):
                came = site.new_keys(2)
                keys += came
                for key in came:
                    site.submit(key)
                time.sleep(r.rng.uniform(0, 8))
                part = PARTS[number % len(PARTS)] if FULL else r.rng.choice(PARTS)
                r.note(f"kill {part}")
                site.kill(part, r)
            site.wait_ended(keys, 240 + 10 * len(keys))
            site.check_once(keys)
    until(lambda: not site.rows("SELECT FROM jivs.migration_locks"), "no lock is left", 60)


def test_ctrl_c_ends_the_stack_and_its_migrations_go_on_at_the_next_start(site: Site) -> None:
    """Within ten seconds, with nothing left; by themselves, as another attempt at the same request."""
    site.rows("UPDATE jivs.limits SET value = 50 WHERE name = 'runs' RETURNING 1")
    [key] = site.new_keys(1)
    site.submit(key, rate=50)
    running = "SELECT FROM jivs.migrations WHERE key = %s AND phase = 'extract'"
    until(lambda: site.rows(running, key), f"{key} reads", 90)
    began = time.monotonic()
    site.stack.stop()
    # The stack kills after eight seconds what has not ended by then; a loaded machine needs a moment for it.
    assert time.monotonic() - began < 15
    assert site.stack.started.process.returncode == 0
    assert processes_of(site.stack.jivs.home) == {}
    assert site.rows("SELECT status FROM jivs.migrations WHERE key = %s", key) == [("paused",)]
    site.stack.start()
    site.wait_ended([key], 150)
    site.check_once([key])
    attempts = "SELECT attempt, status FROM jivs.migration_requests WHERE key = %s"
    assert site.rows(attempts, key) == [(2, "completed")]
