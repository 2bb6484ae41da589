"""A PostgreSQL server of a test's own, to be stopped, crashed and starved.

What belongs here: one server's life. What does not: what is done to it and why.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline.infra.embedded.binaries import usable_binaries
from jivs_pipeline.infra.embedded.postgres import Postgres
from jivs_pipeline.infra.embedded.process import server_user
from jivs_pipeline.infra.embedded.server import free_port
from jivs_pipeline_tests.fix_postgresql import at_database

_PASSWORD = "own"


class OwnServer:
    """A server on a port of its own; `url` stays right when it restarts. It dies with this process."""

    def __init__(self, directory: Path) -> None:
        self.user = server_user()
        self._postgres = Postgres(directory, directory / "log", self.user, usable_binaries(self.user))
        self._postgres.prepare(_PASSWORD, expected=False)
        self._launch(free_port())
        self._numbers = 0

    @property
    def url(self) -> str:
        return f"postgresql://jivs:{_PASSWORD}@127.0.0.1:{self._postgres.port}/postgres"

    def database(self, options: str = "") -> str:
        """A new database's URL."""
        self._numbers += 1
        name = f"own_{self._numbers}"
        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}".encode())
        return at_database(self.url, name)

    def drop(self, url: str) -> None:
        """Remove a database that `database` has made."""
        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)".encode())

    def stop(self, how: signal.Signals) -> None:
        """SIGINT: fast; SIGQUIT: at once, as a crash."""
        assert self._postgres.process is not None
        self._postgres.process.send_signal(how)
        self._postgres.process.wait(30)

    def start(self) -> None:
        self._launch(self._postgres.port)

    def close(self) -> None:
        if self._postgres.is_running:
            self.stop(signal.SIGQUIT)

    def _launch(self, port: int) -> None:
        self._postgres.launch(port)
        self._postgres.settle(time.monotonic() + 60, port_fixed=False, is_stopping=lambda: False)


def directory_of_servers() -> Path:
    """A new directory that the servers' user can get to, as opposed to pytest's."""
    user = server_user()
    made = Path(tempfile.mkdtemp(prefix="jivs-faults-", dir="/tmp"))
    if user is not None:
        os.chown(made, user.uid, user.gid)
    return made


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    directory = directory_of_servers()
    server = None
    try:
        server = OwnServer(directory)
        yield server
    finally:
        if server is not None:
            server.close()
        shutil.rmtree(directory)
