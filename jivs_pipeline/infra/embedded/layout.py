"""The files of one home's control directory, and the values in them.

What belongs here: names, modes and formats of what clients and supervisor share in `<home>/embedded`.
What does not: the servers' own data (`placement.py`) and the locking (`locks.py`).

The control directory belongs to the user who runs `jivs`, also when the servers run as another one: the
passwords are in it, and a supervisor that is root must never write where the servers' user can.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from jivs_pipeline.core.errors import ResourceError

__all__ = ["Failure", "Kept", "Layout", "State", "last_lines", "sync_directory", "tail"]

_PRIVATE = 0o700
_TAIL_BYTES = 16_384
_TELLING = ("FATAL", "PANIC", "ERROR", "error:", "could not bind", "Could not create server")
_Value = TypeVar("_Value", "State", "Kept", "Failure")


@dataclass(frozen=True, slots=True)
class Kept:
    """What has to outlive the servers.

    `data` is absolute, or relative to the control directory so that a home can be moved. The ports are kept
    because the URLs that clients hold should stay right.
    """

    postgres_password: str = field(repr=False)
    valkey_password: str = field(repr=False)
    data: str
    initialised: bool = False
    postgres_port: int = 0
    valkey_port: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Published while both servers accept connections, and only then."""

    supervisor_pid: int
    supervisor_start: str
    postgres_pid: int
    postgres_port: int
    postgres_password: str = field(repr=False)
    valkey_pid: int
    valkey_port: int
    valkey_password: str = field(repr=False)
    data: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last supervisor gave up; `attempt` tells a new failure from an old one."""

    attempt: str
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one home."""

    home: Path

    @property
    def control(self) -> Path:
        """The directory of all the others."""
        return self.home / "embedded"

    @property
    def users_lock(self) -> Path:
        """Shared by every client; exclusive to a supervisor that leaves."""
        return self.control / "users"

    @property
    def supervisor_lock(self) -> Path:
        """Exclusive to the supervisor, for life."""
        return self.control / "supervisor"

    @property
    def state(self) -> Path:
        """`State`, while there is one."""
        return self.control / "state.json"

    @property
    def failure(self) -> Path:
        """`Failure`, if the last start was one."""
        return self.control / "failure.json"

    @property
    def kept(self) -> Path:
        """`Kept`, from the first start on."""
        return self.control / "servers.json"

    def log(self, name: str) -> Path:
        """The log of `supervisor`, `postgres` or `valkey`."""
        return self.control / f"{name}.log"

    def prepare(self) -> None:
        """Make the control directory, ours and 0700.

        Raises:
            ResourceError: it belongs to somebody else.
            OSError: it cannot be made.
        """
        self.home.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        self.control.mkdir(mode=_PRIVATE, exist_ok=True)
        found = self.control.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            # Also for root: its files in there would lock the owner out.
            raise ResourceError(
                f"the embedded servers in {self.control} belong to another user",
                hint="Run as that user, or set JIVS_HOME to a directory of your own",
            )
        if stat.S_IMODE(found.st_mode) != _PRIVATE:
            self.control.chmod(_PRIVATE)

    def read_state(self) -> State | None:
        """What is published, perhaps by a supervisor that is dead."""
        return _read(self.state, State)

    def read_kept(self) -> Kept | None:
        """What is kept, or None before the first start."""
        return _read(self.kept, Kept)

    def read_failure(self) -> Failure | None:
        """The last failure, or None."""
        return _read(self.failure, Failure)

    def write(self, path: Path, value: State | Kept | Failure) -> None:
        """Replace `path` as a whole, 0600; after a crash of the machine it holds the old or the new value."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(dataclasses.asdict(value), file)
                file.flush()
                if isinstance(value, Kept):  # the others mean nothing after a crash
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if isinstance(value, Kept):
            sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tail(log: Path, *, since: int = 0) -> str:
    """The end of a log, from byte `since` on; empty when it cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_lines(text: str) -> str:
    """The last two telling lines of a log, joined; empty when there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if any(sign in line for sign in _TELLING)]
    return "; ".join((telling or lines)[-2:]).rstrip(".")


def _read(path: Path, kind: type[_Value]) -> _Value | None:
    try:
        document: Any = json.loads(path.read_text(encoding="ascii"))
        return kind(**document)
    except (FileNotFoundError, ValueError, TypeError):
        return None
