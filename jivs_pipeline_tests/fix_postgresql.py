"""PostgreSQL for tests: one server per test run, a database of its own per test, and a proxy that misbehaves.

What belongs here: servers, databases and the wire to them. What does not: what tests put into them.

The server is the embedded one, so that a bare machine can run the tests; JIVS_TEST_POSTGRESQL_URL names another
(as a superuser), for instance to test with an older version.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.embedded import open_embedded
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource

MakeDatabase = Callable[..., str]


def at_database(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def at_port(url: str, port: int) -> str:
    """The same database, seen through another port of this machine."""
    parts = urlsplit(url)
    credentials, separator, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{separator}127.0.0.1:{port}"))


def as_user(url: str, user: str, password: str) -> str:
    """The same database, another user."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{address}"))


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """URL of a superuser at database `postgres`."""
    if url := os.environ.get("JIVS_TEST_POSTGRESQL_URL"):
        yield url
        return
    base = tmp_path_factory.getbasetemp()
    # The workers of one run share a server; the first starts it.
    home = (base if worker_id == "master" else base.parent) / "postgresql"
    with open_embedded(home) as servers:
        yield at_database(servers.urls.target, "postgres")


@pytest.fixture
def make_database(postgresql_server: str) -> Iterator[MakeDatabase]:
    """Makes databases that are gone after the test; `options` end CREATE DATABASE, e.g. `ENCODING 'LATIN1'`."""
    made: list[str] = []

    def make(options: str = "") -> str:
        name = f"test_{uuid4().hex[:16]}"
        with psycopg.connect(postgresql_server, autocommit=True) as server:
            server.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(
                    sql.Identifier(name), sql.SQL(options)
                )
            )
        made.append(name)
        return at_database(postgresql_server, name)

    yield make
    with psycopg.connect(postgresql_server, autocommit=True) as server:
        for name in made:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """URL of an empty database."""
    return make_database()


@dataclass
class Proxy:
    """A TCP proxy in front of a server, in threads of this process.

    `stall_after` lets that many bytes of the server's pass on each connection and then says nothing more.
    """

    server: tuple[str, int]
    stall_after: int | None = None
    listener: socket.socket = field(init=False)
    _silent: set[int] = field(default_factory=set)
    _pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    _stalled: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def stall(self) -> None:
        """From now on nothing passes in either direction, on connections old or new."""
        self._stalled.set()

    def stall_open(self) -> None:
        """From now on nothing passes on the connections that are open; new ones work."""
        self._silent = {client.fileno() for client, _ in self._pairs}

    def cut(self) -> None:
        """End every connection, on both sides."""
        for number in range(len(self._pairs)):
            self.cut_one(number)

    def cut_one(self, number: int) -> None:
        """End one connection, counted in the order in which they were made."""
        for end in self._pairs[number]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._closed.set()
        self.cut()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (self.listener, *(end for pair in self._pairs for end in pair)):
            end.close()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.server)
            except OSError:
                return
            self._pairs.append((client, server))
            self._start(self._relay, client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        passed, open_ends = 0, [client, server]
        while open_ends and not self._closed.is_set():
            ready, _, _ = select.select(open_ends, [], [], 0.05)
            limit = self.stall_after
            if (
                self._stalled.is_set()
                or client.fileno() in self._silent
                or (limit is not None and passed >= limit)
            ):
                self._closed.wait(0.02)
                continue
            for end in ready:
                other = server if end is client else client
                try:
                    data = end.recv(65536)
                    other.sendall(data)
                except OSError:
                    data = b""
                if end is server:
                    passed += len(data)
                if not data:
                    with contextlib.suppress(OSError):
                        other.shutdown(socket.SHUT_RDWR)
                    open_ends.remove(end)


@pytest.fixture
def make_proxy(postgresql_server: str) -> Iterator[Callable[..., Proxy]]:
    """Makes proxies in front of the server; use `at_port(url, proxy.port)`."""
    made: list[Proxy] = []

    def make(stall_after: int | None = None) -> Proxy:
        parts = urlsplit(postgresql_server)
        proxy = Proxy((parts.hostname or "127.0.0.1", parts.port or 5432), stall_after)
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def run(database: str) -> Iterator[Callable[[str], Any]]:
    """Runs SQL in the source."""
    with psycopg.connect(database, autocommit=True) as link:
        yield lambda statement: link.execute(statement.encode())


@pytest.fixture
def open_source(database: str) -> Iterator[Callable[..., PostgresqlSource]]:
    opened: list[PostgresqlSource] = []

    def make(url: str = database, io_timeout_seconds: float = 30) -> PostgresqlSource:
        opened.append(PostgresqlSource(parse_url(url, "shop"), io_timeout_seconds=io_timeout_seconds))
        return opened[-1]

    yield make
    for source in opened:
        source.close()
