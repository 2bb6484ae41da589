"""kill -9 of the processes of `jivs up` while several migrations run: they end completed by themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.infra.embedded.postgres import CONTROL
from jivs_pipeline_tests.acceptance.rows import assert_same_table, ledger
from jivs_pipeline_tests.fix_cli import with_parts
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_faults import FULL, Round, rounds
from jivs_pipeline_tests.fix_stack import Stack, countries_and_towns, processes_of, stack_of

pytestmark = pytest.mark.faults

WORKER, CODE = ("multiprocessing.spawn",), ("code-server start", "api grpc")
KILLED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("worker and code server", WORKER + CODE),
    ("full stack", ("",)),
    ("worker", WORKER),
    ("code server", CODE),
    ("daemon", ("dagster._daemon",)),
)
"""By round; a part of the command line tells the processes."""
TOGETHER, KILLS = (3, 5) if FULL else (2, 1)
REAPED_SECONDS = 60.0
PAUSE = 0.5
"""Between two questions to the stack, in seconds."""
T = TypeVar("T")
IN_PROGRESS = {"STARTING", "STARTED", "CANCELING"}


@pytest.fixture(scope="module")
def stack(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(jivs_home, tmp_path_factory.mktemp("killed"), countries_and_towns(12000, 240)) as stack:
        yield stack


@pytest.mark.timeout(7200)
def test_migrations_outlive_the_processes_of_their_stack(stack: Stack) -> None:
    """Completed, exact rows, dead runs ended within a minute, nothing left at the target or on the machine."""
    for r in rounds(3, quick=1):
        with r:
            _round(stack, r)


def _round(stack: Stack, r: Round) -> None:
    r.faults = KILLS
    began = time.monotonic()
    keys: dict[str, str] = {}
    schemas: dict[str, str] = {}
    for number in range(KILLS):
        for _ in range(TOGETHER - len(_unfinished(stack, keys))):
            schema = f"s{r.number}_{len(keys)}_{uuid4().hex[:8]}"
            key = schema.replace("_", "-")
            keys[_launch(stack, schema)], schemas[key] = key, schema
        # From before the first worker is there until the last run is done.
        delay = r.rng.uniform(1.0, 7.0)
        time.sleep(delay)
        _strike(stack, r, KILLED[(r.number * KILLS + number) % len(KILLED)], keys, delay)
    until(
        lambda: _states(stack, keys.values()) == {"completed"},
        lambda: f"completed: {r}\n{_told(stack, keys)}",
        150 + 30 * len(keys),
        PAUSE,
    )
    r.note(f"all completed after {time.monotonic() - began:.1f} s")
    for key, schema in schemas.items():
        for table in ("countries", "towns"):
            assert_same_table(stack.source, stack.target, table, schema=schema)
        assert ledger(stack.target, key)
    until(
        lambda: not _progressing(stack, set(keys.values())), f"no run in progress: {r}", REAPED_SECONDS, PAUSE
    )
    until(lambda: not _sessions(stack), f"no session at the target: {r}", 20, PAUSE)
    until(lambda: not _processes(stack, WORKER), f"no worker left: {r}", 20, PAUSE)
    r.note(f"nothing left after {time.monotonic() - began:.1f} s")


def _strike(
    stack: Stack, r: Round, what: tuple[str, tuple[str, ...]], keys: Mapping[str, str], delay: float
) -> None:
    """Kill some processes; whoever died of it is found within a minute."""
    name, patterns = what
    r.note(f"kill {name} after {delay:.2f} s")
    _kill(stack, patterns)
    if name == "full stack":
        stack.started.wait(10)
        stack.start()
        stack.started.wait_for("Dagster UI", 120)
    began = time.monotonic()
    doomed = {run for run in keys if _status(stack, run) in IN_PROGRESS and not _works(stack, run)}
    until(
        lambda: not {run for run in doomed if _status(stack, run) in IN_PROGRESS},
        lambda: f"reaped: {r}",
        REAPED_SECONDS,
        PAUSE,
    )
    r.note(f"{len(doomed)} dead runs ended after {time.monotonic() - began:.1f} s")


def _unfinished(stack: Stack, keys: Mapping[str, str]) -> set[str]:
    """Migrations of those launched that are not completed yet."""
    with psycopg.connect(with_parts(stack.jivs.server, database=CONTROL)) as db:
        done = db.execute(
            "SELECT key FROM jivs.migrations WHERE status = 'completed' AND key = ANY(%s)",
            (list(keys.values()),),
        ).fetchall()
    return set(keys.values()) - {key for (key,) in done}


def _launch(stack: Stack, schema: str) -> str:
    key = schema.replace("_", "-")
    return _patiently(lambda: stack.migrate(key, target_schema=schema, chunk_bytes=65536, parallelism=1))


def _processes(stack: Stack, patterns: tuple[str, ...]) -> list[int]:
    mine = processes_of(stack.jivs.home)
    return [
        pid for pid, command in mine.items() if any(p in command for p in patterns) and pid != os.getpid()
    ]


def _kill(stack: Stack, patterns: tuple[str, ...]) -> None:
    for pid in _processes(stack, patterns):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _ask(stack: Stack, query: str, **variables: Any) -> Any:
    return _patiently(lambda: stack.ask(query, **variables))


def _patiently(ask: Callable[[], T]) -> T:
    """The web server's answer; it needs a moment when its code server is gone. A migration launched twice runs once."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except (OSError, AssertionError):
            assert time.monotonic() < deadline
            time.sleep(0.5)


RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"


def _status(stack: Stack, run: str) -> str:
    return _ask(stack, RUN, id=run)["runOrError"]["status"]


def _works(stack: Stack, run: str) -> bool:
    """Whether the process that the run has named lives; one that has named none may yet."""
    tags = {t["key"]: t["value"] for t in _ask(stack, RUN, id=run)["runOrError"]["tags"]}
    worker = tags.get("jivs/worker", "").split()
    return bool(worker) and Path(f"/proc/{worker[1]}").exists()


def _progressing(stack: Stack, keys: set[str]) -> list[Any]:
    query = """{ runsOrError(filter: {statuses: [STARTING, STARTED, CANCELING, QUEUED, NOT_STARTED]}) {
        ... on Runs { results { runId status tags { key value } } } } }"""
    runs = _ask(stack, query)["runsOrError"]["results"]
    return [run for run in runs if any(tag["value"] in keys for tag in run["tags"])]


def _states(stack: Stack, keys: Any) -> set[str]:
    with psycopg.connect(with_parts(stack.jivs.server, database=CONTROL)) as db:
        found = db.execute("SELECT status FROM jivs.migrations WHERE key = ANY(%s)", (list(keys),)).fetchall()
    states = {status for (status,) in found}
    return states if len(found) == len(list(keys)) else states | {"absent"}


def _sessions(stack: Stack) -> list[Any]:
    with psycopg.connect(stack.target) as db:
        return db.execute(
            """SELECT pid, application_name, state FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
        ).fetchall()


def _told(stack: Stack, keys: Mapping[str, str]) -> str:
    """What a person has to go by: every run of the migrations, and what the daemon has said."""
    query = "{ runsOrError(limit: 200) { ... on Runs { results { runId status tags { key value } } } } }"
    runs = _ask(stack, query)["runsOrError"]["results"]
    mine = [run for run in runs if any(tag["value"] in set(keys.values()) for tag in run["tags"])]
    told = [f"{run['runId']} {run['status']} {run['tags']}\n{stack.story(run['runId'])}" for run in mine]
    log = (stack.jivs.home / "dagster" / "daemon.log").read_text()
    return "\n".join([*told, log[-6000:]])
