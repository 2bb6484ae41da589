"""The embedded Valkey: its settings and how to know that it is ready.

What belongs here: the server. What does not: streams, scripts and everything else that is kept in it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from jivs_pipeline.infra.embedded.binaries import Binaries
from jivs_pipeline.infra.embedded.process import ServerUser, server_environment, spawn, stop_strays
from jivs_pipeline.infra.embedded.server import Server

__all__ = ["Valkey"]

_READY = b"+OK\r\n+PONG\r\n"
# `dir` stays the working directory, so that no path has to be quoted. Without the title the port would
# show up in the process list.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
appendonly yes
appendfsync everysec
save ""
daemonize no
loglevel warning
set-proc-title no
"""


class Valkey(Server):
    """One server in `<data>/valkey`."""

    name: ClassVar[str] = "Valkey"
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = (
        (signal.SIGTERM, 10.0),
        (signal.SIGKILL, 5.0),
    )

    def __init__(
        self, data: Path, log: Path, user: ServerUser | None, binaries: Binaries, password: str
    ) -> None:
        super().__init__(data / "valkey", log, user)
        self._binaries = binaries
        self._password = password

    def prepare(self) -> None:
        """Make its directory."""
        try:
            self.directory.mkdir(mode=0o700)
        except FileExistsError:
            return
        if self.user is not None:
            os.chown(self.directory, self.user.uid, self.user.gid, follow_symlinks=False)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server on `self.port`."""
        reader, writer = os.pipe()
        try:
            # Through a pipe, the password is neither in argv nor in one more file.
            os.write(writer, _CONFIGURATION.format(port=self.port, password=self._password).encode())
            os.close(writer)
            writer = -1
            return spawn(
                [self._binaries.valkey, "-"],
                directory=self.directory,
                environment=server_environment(),
                user=self.user,
                stdin=reader,
                log=self.log,
                # Loses nothing: what was answered is in the kernel's hands already.
                death_signal=signal.SIGKILL,
            )
        finally:
            os.close(reader)
            if writer != -1:
                os.close(writer)

    def is_ready(self) -> bool:
        """Whether it knows our password, and has loaded its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.25) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                # While it loads its file it says LOADING instead.
                while len(answer) < len(_READY) and (part := connection.recv(256)):
                    answer += part
        except OSError:
            return False
        return answer == _READY

    def clean(self) -> None:
        """End what is left of an earlier server."""
        stop_strays(self.directory, "valkey-server")
