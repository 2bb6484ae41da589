"""How long a request waits on an idle stack until its migration has started.

One command, about two minutes: `.venv/bin/python benchmarks/submit_to_start.py [REQUESTS]`. It starts `jivs up` in a home of
its own and submits one small migration after the other, each at a random moment of the daemon's loop. Measured is the time
from before the submission to the event `migration.started`, and to the end; both as the control database dates them.
"""

from __future__ import annotations

import os
import platform
import random
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from jivs_pipeline.core.spec import Spec
from jivs_pipeline.runtime import DEMO_TARGET, Runtime

IDLE_SECONDS = 15.0
"""After the start of the stack, and after each migration a few more at random."""


def free_port() -> str:
    """A port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def wait_ready(port: str, stack: subprocess.Popen[bytes]) -> None:
    """Until the exporter of the stack says that all of it works."""
    while stack.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"jivs up ended with {stack.returncode}")


def measure(runtime: Runtime, key: str) -> tuple[float, float]:
    """Seconds from the submission to the start, and to the end."""
    began = time.time()
    runtime.requests.submit(Spec(key=key, source="legacy", target=DEMO_TARGET, target_schema=key))
    while True:
        at = {e["type"]: e["at"].timestamp() - began for e in runtime.control.events(key)}
        if "migration.failed" in at:
            sys.exit(f"{key} failed; see: jivs status {key}")
        if "migration.completed" in at:
            return at["migration.started"], at["migration.completed"]
        time.sleep(0.25)


def main(requests: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        with closing(sqlite3.connect(source := Path(directory) / "legacy.sqlite")) as lite:
            lite.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2);")
        os.environ |= {
            "JIVS_HOME": f"{directory}/home", "JIVS_CONNECTION_LEGACY": f"sqlite:///{source}",
            "JIVS_UI_PORT": free_port(), "JIVS_METRICS_PORT": free_port(),
        }  # fmt: skip
        jivs = Path(sys.executable).with_name("jivs")
        stack = subprocess.Popen([jivs, "up"], stdout=subprocess.DEVNULL)
        try:
            wait_ready(os.environ["JIVS_METRICS_PORT"], stack)
            time.sleep(IDLE_SECONDS)
            found: list[tuple[float, float]] = []
            with Runtime.from_environment() as runtime:
                for number in range(requests):
                    time.sleep(random.uniform(3, 8))
                    found.append(measure(runtime, f"m{number}"))
                    print(f"started after {found[-1][0]:.2f} s, ended after {found[-1][1]:.2f} s", flush=True)
        finally:
            stack.send_signal(signal.SIGINT)
            stack.wait(30)
    print(
        f"{requests} requests, {os.cpu_count()} cores, Python {platform.python_version()}, Dagster {version('dagster')}"
    )
    for what, seconds in (("start", [f[0] for f in found]), ("end", [f[1] for f in found])):
        print(
            f"{what}: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
