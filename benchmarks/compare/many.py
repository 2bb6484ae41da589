"""Many small migrations queued at once, against one alone: what each costs in CPU.

What belongs here: this measurement, which is of the whole stack (`jivs up`) and not of a command.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg

from benchmarks.compare.measure import cpu_of_tree
from benchmarks.compare.ours import JIVS
from benchmarks.compare.servers import Postgres
from benchmarks.submit_to_start import free_port, wait_ready
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.runtime import Runtime

__all__ = ["many_at_once"]

_GOAL = 1.3
_IDLE_SECONDS = 10.0
_ROWS = 1000


def many_at_once(server: Postgres, how_many: int, environment: Mapping[str, str]) -> str:
    """One sentence with the numbers. What the stack costs while it is idle is measured before and taken off."""
    with tempfile.TemporaryDirectory() as directory:
        with closing(sqlite3.connect(source := Path(directory) / "small.sqlite")) as lite:
            lite.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
            lite.executemany("INSERT INTO t VALUES (?, ?)", ((n, f"name {n}") for n in range(_ROWS)))
            lite.commit()
        ours = {
            **environment, "JIVS_CONNECTION_SMALL": f"sqlite:///{source}", "JIVS_UI_PORT": free_port(),
            "JIVS_CONNECTION_MANY": server.create("bench_many"), "JIVS_METRICS_PORT": free_port(),
        }  # fmt: skip
        stack = subprocess.Popen([JIVS, "up"], env=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_ready(ours["JIVS_METRICS_PORT"], stack)
            time.sleep(_IDLE_SECONDS)
            idle = -_spent(stack, server)
            time.sleep(_IDLE_SECONDS)
            idle = (idle + _spent(stack, server)) / _IDLE_SECONDS
            _migrate(server, ours, 1, "warm")
            alone, alone_seconds = _cost(server, stack, ours, 1, "alone", idle)
            each, seconds = _cost(server, stack, ours, how_many, "many", idle)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(60)
        server.drop("bench_many")
    return (
        f"{how_many} migrations of {_ROWS:,} rows queued at once: {each:.2f} CPU s each, one alone {alone:.2f} CPU s: ratio"
        f" **{each / alone:.2f}** (goal ≤ {_GOAL}); {seconds:.0f} s for all, {alone_seconds:.1f} s for one alone;"
        f" the idle stack uses {idle:.2f} cores."
    )


def _cost(
    server: Postgres, stack: subprocess.Popen[bytes], environment: Mapping[str, str], number: int, name: str,
    idle: float,
) -> tuple[float, float]:  # fmt: skip
    before, began = _spent(stack, server), time.monotonic()
    _migrate(server, environment, number, name)
    seconds = time.monotonic() - began
    return (_spent(stack, server) - before - idle * seconds) / number, seconds


def _migrate(server: Postgres, environment: Mapping[str, str], number: int, name: str) -> None:
    """Submit, and wait until all are over. Submitting is not part of the stack's CPU, only of the server's."""
    keys = [f"bench-{name}-{os.getpid()}-{n}" for n in range(number)]
    with Runtime.from_environment(environment=environment) as runtime:
        for key in keys:
            runtime.requests.submit(
                Spec(key=key, source="small", target="many", target_schema=key.replace("-", "_"))
            )
    with psycopg.connect(server.at("jivs_control"), autocommit=True) as db:
        while True:
            states = dict(
                db.execute("SELECT key, status::text FROM jivs.migrations WHERE key = ANY(%s)", (keys,))
            )
            if failed := [k for k, s in states.items() if s in {"failed", "mismatch", "cancelled"}]:
                raise RuntimeError(f"{failed} did not complete")
            if [*states.values()].count("completed") == number:
                return
            time.sleep(0.25)


def _spent(stack: subprocess.Popen[bytes], server: Postgres) -> float:
    return cpu_of_tree(stack.pid) + cpu_of_tree(server.pid)
