"""What both servers have in common: launch on a port, wait until ready, stop, and explain a failure.

What belongs here: the life of one server process. What does not: when to start or stop which
(`supervisor.py`), and what is special to one of them (`postgres.py`, `valkey.py`).
"""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from jivs_pipeline.core.errors import JivsError, ResourceError, TerminalError
from jivs_pipeline.infra.embedded.layout import last_lines, tail
from jivs_pipeline.infra.embedded.process import ServerUser

__all__ = ["Server", "free_port"]

# Below every system's range for outgoing connections, so that none of those takes the port during a restart.
_PORTS = range(20_000, 30_000)
_PORT_ATTEMPTS = 8
# An empty cluster is 80 MB; less than that is worth saying when something fails.
_SCARCE_BYTES = 100_000_000
_LOG_BYTES = 5_000_000
_POLL_SECONDS = 0.005
_PORT_TAKEN = "Address already in use"
_RESOURCE_SIGNS = (
    "No space left on device",
    "Disk quota exceeded",
    "Permission denied",
    "Operation not permitted",
    "Read-only file system",
    "Cannot allocate memory",
    "Too many open files",
    "could not create shared memory",
    "could not map anonymous shared memory",
    "wrong ownership",
    "invalid permissions",
    _PORT_TAKEN,
)


class Server(ABC):
    """One server program, at most one process at a time."""

    name: ClassVar[str]
    # What is sent to stop it, in turn, with the seconds that each gets.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, directory: Path, log: Path, user: ServerUser | None) -> None:
        self.directory = directory
        self.log = log
        self.user = user
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @abstractmethod
    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process on `self.port`."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the started process itself, and no stranger on its port, accepts clients."""

    @abstractmethod
    def clean(self) -> None:
        """End processes and remove pid files of an earlier life."""

    @property
    def pid(self) -> int:
        """Of the process, or 0."""
        return self.process.pid if self.process else 0

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and not ended; ready or not."""
        return self.process is not None and self.process.poll() is None

    def launch(self, port: int) -> None:
        """Start on `port`; `settle` waits for it."""
        self.clean()
        self.port = port
        self.mark_log()
        self.process = self.spawn()

    def settle(self, deadline: float, *, port_fixed: bool, is_stopping: Callable[[], bool]) -> bool:
        """Wait until ready. A port that somebody took first is replaced unless it is fixed.

        Returns:
            False when `is_stopping` said to give up.

        Raises:
            ResourceError, TerminalError: it did not start; the message has the end of its log.
        """
        attempts = 1
        while not is_stopping():
            if not self.is_running:
                if port_fixed or attempts == _PORT_ATTEMPTS or not self._port_was_taken():
                    raise self.failure("did not start")
                attempts += 1
                self.launch(free_port())
            elif self.is_ready():
                return True
            elif time.monotonic() > deadline:
                raise self.failure("was not ready in time")
            time.sleep(_POLL_SECONDS)
        return False

    def stop(self) -> None:
        """After `request_stop`: wait until it has stopped, and insist."""
        if self.process is None:
            return
        for number, (wanted, seconds) in enumerate(self.stop_signals):
            if number:
                self.process.send_signal(wanted)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            break
        self.clean()

    def request_stop(self) -> None:
        """Send the first signal and return, so that servers stop together."""
        if self.process is not None:
            self.process.send_signal(self.stop_signals[0][0])

    def mark_log(self) -> None:
        """Explain later failures from here on only; start a new log when this one has grown."""
        try:
            self._log_start = self.log.stat().st_size
        except FileNotFoundError:
            self._log_start = 0
        if self._log_start > _LOG_BYTES:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
            self._log_start = 0

    def failure(self, what: str) -> JivsError:
        """The error for a failed step, from the log since `mark_log`."""
        text = tail(self.log, since=self._log_start)
        # First, because on a full disk the log cannot say so.
        shortage = self._shortage()
        reasons = "".join(f": {reason}" for reason in (shortage, last_lines(text)) if reason)
        is_resource = shortage or any(sign in text for sign in _RESOURCE_SIGNS)
        kind = ResourceError if is_resource else TerminalError
        return kind(f"the embedded {self.name} server {what}{reasons}", hint=f"The log is {self.log}")

    def _shortage(self) -> str:
        free = shutil.disk_usage(self.directory.parent).free
        return (
            f"only {free // 1_000_000} MB are free in {self.directory.parent}" if free < _SCARCE_BYTES else ""
        )

    def _port_was_taken(self) -> bool:
        return _PORT_TAKEN in tail(self.log, since=self._log_start)


def free_port(preferred: int = 0) -> int:
    """A port of the loopback that nobody listens on: `preferred` if it is free, else a random one."""
    for port in (preferred, *(_PORTS.start + secrets.randbelow(len(_PORTS)) for _ in range(200))):
        if port == 0:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As the servers do: connections in TIME_WAIT of our last life are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise ResourceError("there is no free port on 127.0.0.1 for an embedded server")
