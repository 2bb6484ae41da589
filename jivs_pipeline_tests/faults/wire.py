"""A wire to a PostgreSQL server that breaks in every way a network does, and at the very moment of a commit.

What belongs here: bytes and sockets, and as much of the protocol as it takes to see a COMMIT pass. What does not:
what the tests expect.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from urllib.parse import urlsplit

import pytest

from jivs_pipeline_tests.fix_postgresql import at_port

_COMMIT = b"Q" + struct.pack("!I", 11) + b"COMMIT\0"
_READY = b"Z" + struct.pack("!I", 5)
_GREETINGS = (80877103, 80877104)
"""Codes of the requests for TLS and GSS, which come before the startup message and have no type byte either."""


class Cut(StrEnum):
    """Where a connection ends around its COMMIT. The client cannot tell one from another."""

    NEVER_SENT = "the server never hears of it"
    SENT = "it is on its way"
    ANSWERED = "the answer is lost"


class Fault(StrEnum):
    """What the network does. `ALL` includes connections that are made meanwhile."""

    STALL_ALL = "nothing passes, on any connection"
    STALL_OPEN = "nothing passes on the connections that are open"
    DEAF = "nothing of the server's passes on the connections that are open"
    MUTE = "nothing of the client's passes on the connections that are open"
    RESET = "the connections that are open are reset"


class Frames:
    """Splits a client's stream so that a COMMIT is a part of its own; all parts together are the stream."""

    def __init__(self) -> None:
        self._held = b""
        self._body = 0
        self._greeting = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._held += data
        while self._held:
            if self._body:
                part, self._held = self._held[: self._body], self._held[self._body :]
                self._body -= len(part)
                yield part
                continue
            head = 4 if self._greeting else 5
            if len(self._held) < head:
                return
            size = struct.unpack("!I", self._held[head - 4 : head])[0] + head - 4
            if self._greeting:
                if len(self._held) < 8:
                    return
                self._greeting = struct.unpack("!I", self._held[4:8])[0] in _GREETINGS
            elif self._held[:1] == b"Q" and size == len(_COMMIT):
                if len(self._held) < size:
                    return
                yield self._held[:size]
                self._held = self._held[size:]
                continue
            self._body = size


class Wire:
    """A proxy in threads of this process; `url` is the server's through it.

    Args:
        url: of the server.
        cut: asked with the number of each COMMIT, from 0.
    """

    def __init__(self, url: str, cut: Callable[[int], Cut | None] = lambda _: None) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = at_port(url, self._listener.getsockname()[1])
        self.cut = cut
        self.commits = 0
        self.cuts: list[str] = []
        self.signs: list[float] = []
        """When the client made or gave up a connection."""
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._struck: set[socket.socket] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def strike(self, fault: Fault) -> int:
        """Begin a fault; returns how many connections it hits."""
        with self._lock:
            hit = [pair for pair in self._pairs if pair[0].fileno() >= 0]
            self._struck |= {client for client, _ in hit}
            self._fault = fault
        if fault is Fault.RESET:
            for pair in hit:
                for end in pair:
                    _reset(end)
        return len(hit)

    def heal(self) -> None:
        """Connections that are made from now on work; what was struck stays so."""
        with self._lock:
            if self._fault is Fault.STALL_ALL:
                self._fault = Fault.STALL_OPEN

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *(end for pair in self._pairs for end in pair)):
            end.close()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.signs.append(time.monotonic())
                self._pairs.append((client, server))
                if self._fault is Fault.STALL_ALL:
                    self._struck.add(client)
            self._start(self._relay, client, server)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        frames = Frames()
        gone = select.poll()
        # What was sent before a RST must not end this thread with anything but an OSError; the test may be over by now, too.
        with contextlib.suppress(OSError, ValueError):
            gone.register(client, select.POLLRDHUP)
            while not self._closed.is_set():
                listened = [client, server]
                if client in self._struck:
                    if gone.poll(0):
                        self.signs.append(time.monotonic())
                        return self._park(client, server)
                    listened = {Fault.DEAF: [client], Fault.MUTE: [server]}.get(self._fault, [])  # pyright: ignore
                    if not listened:
                        self._closed.wait(0.02)
                        continue
                for end in select.select(listened, [], [], 0.02)[0]:
                    data = end.recv(65536)
                    if not data:
                        return self._end(client, server)
                    if end is server:
                        client.sendall(data)
                        continue
                    for part in frames.feed(data):
                        if part == _COMMIT and (how := self._asked()) is not None:
                            return self._cut(how, client, server)
                        server.sendall(part)
        self._end(client, server)
        return None

    def _park(self, client: socket.socket, server: socket.socket) -> None:
        """The client has given up; a silent network does not tell the server."""
        client.close()
        self._closed.wait()
        server.close()

    def _asked(self) -> Cut | None:
        with self._lock:
            number, self.commits = self.commits, self.commits + 1
            how = self.cut(number)
            if how is not None:
                self.cuts.append(f"COMMIT {number}: {how}")
            return how

    def _cut(self, how: Cut, client: socket.socket, server: socket.socket) -> None:
        if how is not Cut.NEVER_SENT:
            server.sendall(_COMMIT)
        answer = b""
        while how is Cut.ANSWERED and _READY not in answer:
            more = server.recv(65536)
            if not more:
                break
            answer += more
        self._end(client, server)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    """RST instead of FIN, by way of a linger of no time."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD)
        end.close()


MakeWire = Callable[..., Wire]


@pytest.fixture
def make_wire() -> Iterator[MakeWire]:
    made: list[Wire] = []

    def make(url: str, cut: Callable[[int], Cut | None] = lambda _: None) -> Wire:
        made.append(Wire(url, cut))
        return made[-1]

    yield make
    for wire in made:
        wire.close()
