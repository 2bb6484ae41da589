"""A process beside a run that ends those of its server processes in the target that the run no longer can.

What belongs here: starting it, and what it does. What does not: when a server process is overdue (`core/watch.py`).

A run that is stopped in the middle of a COPY, by a debugger or a frozen machine, keeps its transaction and its locks:
neither statement_timeout nor a cancel ends it there (both were tried), only terminating its server process does. The
watchdog also ends all of them at once when the run is gone. It is told what to watch on its standard input, which
nobody else sees, and lives no longer than the other end of that pipe.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.watch import Backend, Overdue, WatchLimits
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session, connect

__all__ = ["Watchdog", "start_watchdog"]

_SQL = load_blocks("jivs_pipeline.infra", "watchdog.sql")
_LONGEST_POLL_SECONDS = 1.0
_STOP_SECONDS = 5.0
_DONE = b"done\n"


@dataclass(frozen=True, slots=True)
class Watchdog:
    """The run's handle on it."""

    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """The run has closed its connections by itself; nothing is left to watch."""
        pipe = self.process.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.write(_DONE)
                pipe.flush()
            with suppress(OSError):
                pipe.close()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_watchdog(
    connection: Connection, key: str, epoch: int, *, io_timeout_seconds: float, load_timeout_seconds: float
) -> Watchdog:
    """Start the process; it watches the backends that the ledger lists for this key and epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jivs_pipeline.infra.watchdog"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C and a stopped terminal reach the run's group, which it must outlast.
        start_new_session=True,
    )
    orders = {
        "url": connection.url, "name": connection.name, "key": key, "epoch": epoch,
        "io": io_timeout_seconds, "load": load_timeout_seconds,
    }  # fmt: skip
    if process.stdin is not None:
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
    return Watchdog(process)


def main() -> None:
    """Watch until the run has closed its end of the pipe; end all its backends where it did not say that it is done."""
    # Unbuffered: a buffer would swallow what was said in the same breath, and leave nothing to wake up for.
    pipe = os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    orders = json.loads(pipe.readline())
    limits = WatchLimits(orders["io"], orders["load"])
    connection = Connection(orders["name"], "postgresql", orders["url"])
    watch = _Watch(lambda: _connect(connection, limits.io), orders["key"], orders["epoch"], Overdue(limits))
    poll = min(_LONGEST_POLL_SECONDS, limits.io / 4)
    while not select.select([pipe], [], [], poll)[0]:
        with suppress(psycopg.Error, JivsError):
            watch.look(time.monotonic())
    if os.read(pipe.fileno(), len(_DONE)) != _DONE:
        deadline = time.monotonic() + limits.io
        while not watch.end_all() and time.monotonic() < deadline:
            time.sleep(poll)


class _Watch:
    """The server processes of one run."""

    def __init__(self, open_session: Callable[[], Session], key: str, epoch: int, overdue: Overdue) -> None:
        self._open_session = open_session
        self._names = {"key": key, "epoch": epoch}
        self._overdue = overdue
        self._session: Session | None = None

    def look(self, now: float) -> None:
        """End what is overdue."""
        db = self._connected()
        version = db.info.server_version
        progress = "progress" if version >= 140000 else "no_progress"
        for row in db.execute(_SQL[progress], self._names).fetchall():
            backend = Backend(*row)
            if self._overdue.reason(backend, now) is not None:
                db.execute(_SQL["terminate"], {"pid": backend.pid, "start": backend.start})

    def end_all(self) -> bool:
        """End every backend of this epoch; False when the server cannot be reached."""
        try:
            self._connected().execute(_SQL["terminate_all"], self._names)
        except (psycopg.Error, JivsError):
            return False
        return True

    def _connected(self) -> Session:
        if self._session is None or self._session.closed:
            self._session = self._open_session()
        return self._session


def _connect(connection: Connection, seconds: float) -> Session:
    return connect(
        connection,
        application_name="jivs watchdog",
        io_timeout_seconds=seconds,
        reconnect=True,
        read_only=True,
    )


if __name__ == "__main__":
    main()
