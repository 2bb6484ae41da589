"""The embedded PostgreSQL: making the cluster, starting it, knowing when it is ready.

What belongs here: initdb, server settings, postmaster.pid. What does not: schemas and roles of ours.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.infra.embedded.binaries import Binaries
from jivs_pipeline.infra.embedded.layout import sync_directory
from jivs_pipeline.infra.embedded.process import ServerUser, server_environment, spawn, stop_strays
from jivs_pipeline.infra.embedded.server import Server

__all__ = ["CONTROL", "DAGSTER", "SUPERUSER", "TARGET", "Postgres"]

SUPERUSER = "jivs"
CONTROL, DAGSTER, TARGET = "jivs_control", "jivs_dagster", "jivs_target"
_NEW = "postgres.new-"
_READY_LINE = 7  # of postmaster.pid, from 0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # A socket's path may have 107 bytes; homes may have more. Nothing of ours needs one.
    "unix_socket_directories": "",
    # 50 runs with all that they need, should control database, Dagster's storage, target and source all be in here; see
    # docs/running.md. One costs some 20 kB as long as nobody uses it.
    "max_connections": "1000",
    "shared_buffers": "256MB",
    # A bulk load is WAL; checkpoints should follow the clock and not the volume.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "replica",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log must never hold row values: those are in ERROR messages, in statements and in DETAIL and
    # CONTEXT. In the server's order LOG comes above ERROR.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
}


class Postgres(Server):
    """One cluster in `<data>/postgres`."""

    name: ClassVar[str] = "PostgreSQL"
    # Fast: aborts transactions, writes a checkpoint. Immediate: as a crash, without either. Then the hammer.
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]] = (
        (signal.SIGINT, 30.0),
        (signal.SIGQUIT, 8.0),
        (signal.SIGKILL, 5.0),
    )

    def __init__(self, data: Path, log: Path, user: ServerUser | None, binaries: Binaries) -> None:
        super().__init__(data / "postgres", log, user)
        self._binaries = binaries

    def prepare(self, password: str, *, expected: bool) -> None:
        """Make the cluster and its databases if there is none; a kill in the middle leaves nothing half made.

        Raises:
            TerminalError: it should be there and is not, or is of another major version, or initdb failed.
            ResourceError: no space, no permission.
        """
        parent = self.directory.parent
        for left in parent.glob(f"{_NEW}*"):
            # What initdb had started outlives it for a moment, and would write again what is removed.
            for place in (parent, left):
                stop_strays(place, "postgres")
            shutil.rmtree(left, ignore_errors=True)
        if self.directory.exists():
            self._check_version()
            return
        if expected:
            raise TerminalError(
                f"the data of the embedded PostgreSQL server, {self.directory}, is gone",
                hint="Bring it back, or remove the directory `embedded` in JIVS_HOME for empty databases",
            )
        new = parent / f"{_NEW}{secrets.token_hex(8)}"
        self.mark_log()
        self._initdb(new, password)
        self._create_databases(new)
        new.rename(self.directory)
        sync_directory(parent)

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server on `self.port`."""
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return spawn(
            [self._binaries.postgres, "-D", self.directory, *settings],
            directory=self.directory,
            # The port comes by the environment, which other users cannot read, as opposed to argv.
            environment=server_environment(PGPORT=str(self.port)),
            user=self.user,
            stdin=subprocess.DEVNULL,
            log=self.log,
            # Immediate shutdown. SIGKILL would leave busy backends, which look for their parent when idle.
            death_signal=signal.SIGQUIT,
        )

    def is_ready(self) -> bool:
        """The first line must be our own child's pid: the file may be an old one."""
        lines = self._pid_file()
        return (
            len(lines) > _READY_LINE
            and lines[0].strip() == str(self.pid)
            and lines[_READY_LINE].strip() == "ready"
        )

    def clean(self) -> None:
        """End what is left of an earlier server, and remove its pid file.

        PostgreSQL does not start if any process has the pid in postmaster.pid; after a crash of the machine
        that may be somebody else. We hold the data's lock and have looked: nobody runs.
        """
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].strip().isdigit() else None
        stop_strays(self.directory, "postgres", hint_pid=pid)
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def _pid_file(self) -> list[str]:
        try:
            return (self.directory / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def _check_version(self) -> None:
        try:
            found = (self.directory / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise TerminalError(f"{self.directory} is not the data of a PostgreSQL server") from None
        wanted = self._binaries.major_version()
        if found != wanted:
            raise TerminalError(
                f"{self.directory} is the data of PostgreSQL {found}, and this release brings {wanted}",
                hint=f"Dump it with a release that brings {found}, or use another JIVS_HOME",
            )

    def _initdb(self, new: Path, password: str) -> None:
        reader, writer = os.pipe()
        try:
            if self.user is not None:
                # /dev/stdin is opened anew by name, and so with a check of the pipe's owner.
                os.fchown(reader, self.user.uid, self.user.gid)
            os.write(writer, f"{password}\n".encode())
            os.close(writer)
            writer = -1
            self._run(
                [
                    self._binaries.initdb,
                    f"--pgdata={new}",
                    f"--username={SUPERUSER}",
                    "--pwfile=/dev/stdin",
                    "--auth=scram-sha-256",
                    # Iterations slow down guessing, which a random password of 32 bytes does not fear; and they
                    # slow down every connection (5.6 ms to 2.3 ms), of which Dagster opens one per event.
                    "--set=scram_iterations=1",
                    "--no-instructions",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                ],
                stdin=reader,
                directory=new.parent,
            )
        finally:
            os.close(reader)
            if writer != -1:
                os.close(writer)

    def _create_databases(self, new: Path) -> None:
        """In single-user mode: no port, no password, no driver, and part of what is made as a whole."""
        reader, writer = os.pipe()
        try:
            statements = [f"CREATE DATABASE {name};\n" for name in (CONTROL, DAGSTER, TARGET)]
            os.write(writer, "".join(statements).encode())
            os.close(writer)
            writer = -1
            # exit_on_error: otherwise it would report success after a failed statement.
            self._run(
                [self._binaries.postgres, "--single", "-D", new, "-c", "exit_on_error=on", "postgres"],
                stdin=reader,
                directory=new,
            )
        finally:
            os.close(reader)
            if writer != -1:
                os.close(writer)

    def _run(self, argv: list[str | Path], *, stdin: int, directory: Path) -> None:
        process = spawn(
            argv,
            directory=directory,
            environment=server_environment(),
            user=self.user,
            stdin=stdin,
            log=self.log,
            death_signal=signal.SIGKILL,
        )
        if process.wait() != 0:
            raise self.failure("could not be set up")
