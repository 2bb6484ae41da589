"""A Valkey of a test's own, to be killed, stopped and flushed.

What belongs here: one server's life, and what is in its stream. What does not: what is done to it and why.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from jivs_pipeline.infra.embedded.binaries import usable_binaries
from jivs_pipeline.infra.embedded.process import server_user
from jivs_pipeline.infra.embedded.server import free_port
from jivs_pipeline.infra.embedded.valkey import Valkey
from jivs_pipeline_tests.faults.servers import directory_of_servers


class OwnRedis:
    """A server on a port of its own; `url` stays right when it restarts. It dies with this process."""

    def __init__(self, directory: Path) -> None:
        user = server_user()
        self._valkey = Valkey(directory, directory / "log", user, usable_binaries(user), "own")
        self._valkey.prepare()
        self._launch(free_port(), fixed=False)

    @property
    def url(self) -> str:
        return f"redis://:own@127.0.0.1:{self._valkey.port}/0"

    @property
    def files(self) -> list[Path]:
        """Where it keeps what it was told."""
        return sorted(self._valkey.directory.rglob("*.incr.aof"))

    def client(self) -> Any:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def entries(self) -> list[dict[str, str]]:
        """All that is in the stream."""
        with self.client() as client:
            return [fields for _, fields in client.xrange("jivs:events")]

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        assert self._valkey.process is not None
        self._valkey.process.wait(30)

    def stand_still(self) -> None:
        """It accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def start(self) -> None:
        self._launch(self._valkey.port, fixed=True)

    def close(self) -> None:
        if self._valkey.is_running:
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._valkey.process is not None
        os.kill(self._valkey.process.pid, number)

    def _launch(self, port: int, *, fixed: bool) -> None:
        self._valkey.launch(port)
        deadline = time.monotonic() + 30
        assert self._valkey.settle(deadline, port_fixed=fixed, is_stopping=lambda: False)


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    directory = directory_of_servers()
    server = None
    try:
        server = OwnRedis(directory)
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(directory)
