"""Operating system processes: start one that dies with us, tell whether a pid is who it claims to be.

What belongs here: fork, exec, signals, users, /proc. What does not: what the servers are.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jivs_pipeline.core.errors import ResourceError

__all__ = [
    "ServerUser",
    "can_use",
    "is_alive",
    "server_environment",
    "server_user",
    "spawn",
    "start_of",
    "start_ticks",
    "stop_strays",
]

_PR_SET_PDEATHSIG = 1
_POLITE_SECONDS, _PATIENCE_SECONDS = 3.0, 20.0
_LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The ordinary user that the servers of root run as."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """Who the servers have to run as when we are root; None when we are not (they run as we do)."""
    if os.geteuid() != 0:
        return None
    for name in ("jivs", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise ResourceError(
        "PostgreSQL does not run as root, and there is neither a user jivs nor nobody",
        hint="Create one: useradd --system jivs",
    )


def server_environment(**extra: str) -> dict[str, str]:
    """The environment of a server: an allow-list.

    No locale, no PG*, and none of our user's secrets: the servers' user may be shared with other programs.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | extra


def spawn(
    argv: Sequence[str | Path],
    *,
    directory: Path,
    environment: Mapping[str, str],
    user: ServerUser | None,
    stdin: int,
    log: Path,
    death_signal: signal.Signals,
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a server as our child, which gets `death_signal` when we die, however we die.

    Must be called from the main thread: the kernel sends the signal when the *thread* that forked ends.
    With `own_group` the child leads a session and group of its own, so that all below it can be signalled.
    """
    parent = os.getpid()
    prctl = _prctl()

    def die_with_parent() -> None:
        # Runs after setuid, which would clear it. If the parent died before this line, nobody will tell us.
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with _open_log(log) as output:
        return subprocess.Popen(
            [os.fspath(argument) for argument in argv],
            cwd=directory,
            env=dict(environment),
            stdin=stdin,
            stdout=output,
            stderr=output,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
            umask=0o077,
            start_new_session=own_group,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - the supervisor has one thread
        )


def can_use(user: ServerUser | None, *wanted: tuple[Path, int]) -> bool:
    """Whether `user` gets to every path with its access mode (`os.R_OK` …).

    Mode bits would have to be interpreted, with ACLs and all parents; a child of that user just tries.
    """
    if user is None:
        return all(os.access(path, mode) for path, mode in wanted)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            code = 0 if all(os.access(path, mode) for path, mode in wanted) else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def start_ticks(pid: int) -> str | None:
    """Start time in clock ticks since boot, or None when no such process lives (a zombie is dead).

    Raises:
        OSError: it cannot be told: no /proc, no file left to open, or the process is hidden from us.
    """
    try:
        # As bytes: a process may call itself anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        raise
    return None if fields[0] in {"Z", "X"} else fields[19]


def start_of(pid: int) -> str:
    """`start_ticks` for those who need no proof of death: empty when it is gone, a zombie, or cannot be told."""
    try:
        return start_ticks(pid) or ""
    except OSError:
        return ""


def is_alive(pid: int, start: str) -> bool:
    """Whether `pid` is still the process that started at `start`."""
    if _LINUX:
        return bool(start) and start_of(pid) == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return True


def stop_strays(directory: Path, program: str, *, hint_pid: int | None = None) -> None:
    """End processes of `program` that still work in `directory`, ours from an earlier life.

    Only for who holds the lock of the directory: then no live supervisor owns them. A pid alone (`hint_pid`,
    from a pid file) proves nothing, so each is looked at: its program, and where it works.
    """
    sent = signal.SIGQUIT
    since = time.monotonic()
    while pids := _at_work(directory, program, hint_pid):
        # SIGQUIT lets PostgreSQL end its backends; what does not react is killed.
        elapsed = time.monotonic() - since
        if elapsed > _PATIENCE_SECONDS:
            raise ResourceError(f"old {program} processes of {directory} do not end: {pids}")
        if elapsed > _POLITE_SECONDS:
            sent = signal.SIGKILL
        for pid in pids:
            try:
                os.kill(pid, sent)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def _at_work(directory: Path, program: str, hint_pid: int | None) -> list[int]:
    if not _LINUX:
        return [hint_pid] if hint_pid is not None and _runs(hint_pid, program, directory) else []
    wanted = directory.stat()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # A deleted binary (after an upgrade) reads "… (deleted)"; zombies have no exe.
            if not Path(entry.path, "exe").readlink().name.startswith(program):
                continue
            where = Path(entry.path, "cwd").stat()
        except OSError:
            continue  # gone, or not ours to look at and so not ours
        if (where.st_dev, where.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(int(entry.name))
    return found


def _runs(pid: int, program: str, directory: Path) -> bool:
    """Without /proc: whether the command line of `pid` names the program and the directory."""
    listed = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    )
    command = listed.stdout.decode(errors="replace")
    return program in command and str(directory) in command


def _open_log(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")


def _prctl() -> Callable[..., int] | None:
    """The C library's prctl, or None where there is none (macOS: the next supervisor ends what is left)."""
    if not _LINUX:
        return None
    import ctypes  # clients import this module and do not need it

    call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return call
