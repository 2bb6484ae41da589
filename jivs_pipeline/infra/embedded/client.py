"""Opening the embedded servers of a home, from any number of processes.

What belongs here: joining the users of a home, starting its supervisor if there is none, the URLs.
What does not: running servers (`supervisor.py`) and connecting to them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from jivs_pipeline.core.errors import ConflictError, JivsError, ResourceError, TerminalError
from jivs_pipeline.infra.embedded.layout import Failure, Layout, State, last_lines, tail
from jivs_pipeline.infra.embedded.locks import try_lock, wait_lock
from jivs_pipeline.infra.embedded.loopback import ensure_loopback
from jivs_pipeline.infra.embedded.process import is_alive

__all__ = ["Embedded", "EmbeddedUrls", "open_embedded", "remove_embedded", "was_started"]

_POLL_SECONDS = 0.01
_START_ATTEMPTS = 5
# Of our environment, for the supervisor: it lives longer than we do, and needs none of our secrets.
_INHERITED = (
    "HOME",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
)
_PACKAGE_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class EmbeddedUrls:
    """Where the servers are, passwords included (and therefore not in the repr).

    `target` is the demo's target database; a user's own targets are elsewhere.
    """

    control: str = field(repr=False)
    dagster: str = field(repr=False)
    target: str = field(repr=False)
    redis: str = field(repr=False)


class Embedded:
    """A client's hold on the servers of a home: they run at least until `close`, or until we die.

    A child made by `fork` alone shares the hold; the servers then stay until it is gone as well.
    """

    def __init__(self, urls: EmbeddedUrls, descriptor: int) -> None:
        self._urls = urls
        self._descriptor: int | None = descriptor

    @property
    def urls(self) -> EmbeddedUrls:
        """Right also after a crash of a server: it comes back on its port."""
        return self._urls

    def close(self) -> None:
        """Let go; again does nothing. The servers stop soon after their last client; this does not wait."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_embedded(home: Path, *, timeout_seconds: float = 60.0) -> Embedded:
    """Join the users of a home's servers, and start those servers if they do not run.

    Safe from any number of processes and threads at once. `home` is JIVS_HOME and made if missing.

    Raises:
        ResourceError: no space, no permission, no port, somebody else's home.
        TerminalError: the servers do not start or were not ready in time; the message has the end of the log.
    """
    layout = Layout(Path(os.path.realpath(home)))
    deadline = time.monotonic() + timeout_seconds
    ensure_loopback()
    with _explained(layout):
        layout.prepare()
        users = wait_lock(layout.users_lock, shared=True, deadline=deadline)
        if users is None:
            raise TerminalError(
                f"the embedded servers in {layout.control} were still stopping after {timeout_seconds:g} s",
                hint=f"Try again; the log is {layout.log('supervisor')}",
            )
        try:
            state = _await_state(layout, deadline, timeout_seconds)
        except BaseException:
            os.close(users)
            raise
    return Embedded(_urls(state), users)


def was_started(home: Path) -> bool:
    """Whether servers of this home have been started before, so that there may be something in them."""
    return Layout(home).kept.exists()


def remove_embedded(home: Path, *, timeout_seconds: float = 60.0) -> None:
    """Delete a home's servers with all their data, wherever it is. Waits until they have stopped.

    Raises:
        ConflictError: somebody still uses them, or the data may be another home's.
        ResourceError: no permission.
    """
    layout = Layout(Path(os.path.realpath(home)))
    if not layout.control.exists():
        return
    deadline = time.monotonic() + timeout_seconds
    with _explained(layout):
        layout.prepare()  # refuses those of somebody else
        # The supervisor's lock first: holding that of the users would keep it from leaving.
        supervisor = wait_lock(layout.supervisor_lock, shared=False, deadline=deadline)
        users = None if supervisor is None else try_lock(layout.users_lock, shared=False)
        try:
            if users is None:
                raise ConflictError(
                    f"the embedded servers in {layout.control} are in use",
                    hint="End the jivs processes that use them",
                )
            from jivs_pipeline.infra.embedded.placement import remove_data  # rarely needed

            remove_data(layout)
            shutil.rmtree(layout.control)
        finally:
            for descriptor in (users, supervisor):
                if descriptor is not None:
                    os.close(descriptor)


def _await_state(layout: Layout, deadline: float, timeout_seconds: float) -> State:
    """Whoever gets the supervisor's lock starts one and hands the lock over; all wait for its state file."""
    seen = layout.read_failure()
    log = layout.log("supervisor")
    log_start = log.stat().st_size if log.exists() else 0
    starts = 0
    while True:
        lock = try_lock(layout.supervisor_lock, shared=False)
        if lock is not None:
            try:
                failure = layout.read_failure()
                if failure is not None and (failure != seen or starts == _START_ATTEMPTS):
                    raise _as_error(failure)
                if starts == _START_ATTEMPTS:
                    raise _did_not_start(layout, "did not stay up", log_start)
                starts += 1
                # Under the lock: while a supervisor lives, what is published is never its predecessor's.
                layout.state.unlink(missing_ok=True)
                _start_supervisor(layout, lock, deadline)
            finally:
                os.close(lock)
        elif (state := layout.read_state()) and is_alive(state.supervisor_pid, state.supervisor_start):
            return state
        if time.monotonic() >= deadline:
            raise _did_not_start(layout, f"were not ready after {timeout_seconds:g} s", log_start)
        time.sleep(_POLL_SECONDS)


def _start_supervisor(layout: Layout, lock: int, deadline: float) -> None:
    """In a session of its own, so that Ctrl-C in our terminal does not reach the servers."""
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Whatever way our modules were found, the supervisor finds the same ones.
    environment["PYTHONPATH"] = os.pathsep.join([str(_PACKAGE_ROOT), *filter(os.path.isabs, sys.path)])
    log = os.open(layout.log("supervisor"), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    # Not 0, 1 or 2, which it may be when we run without them, and which the child replaces.
    inherited = fcntl.fcntl(lock, fcntl.F_DUPFD_CLOEXEC, 3)
    # -P: whatever lies in the working directory is not ours. UTF-8, because the locale is stripped.
    command = [sys.executable, "-P", "-X", "utf8", "-m", "jivs_pipeline.infra.embedded.supervisor"]
    try:
        subprocess.run(
            [*command, str(layout.home), str(inherited)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd="/",
            pass_fds=(inherited,),
            start_new_session=True,
            timeout=max(1.0, deadline - time.monotonic()),
            check=False,  # the caller sees whether there is a supervisor, and tries again
        )
    except subprocess.TimeoutExpired:
        pass  # killed; the caller's deadline has come as well
    finally:
        os.close(log)
        os.close(inherited)


def _urls(state: State) -> EmbeddedUrls:
    from jivs_pipeline.infra.embedded.postgres import CONTROL, DAGSTER, SUPERUSER, TARGET

    base = f"postgresql://{SUPERUSER}:{state.postgres_password}@127.0.0.1:{state.postgres_port}"
    return EmbeddedUrls(
        control=f"{base}/{CONTROL}",
        dagster=f"{base}/{DAGSTER}",
        target=f"{base}/{TARGET}",
        redis=f"redis://:{state.valkey_password}@127.0.0.1:{state.valkey_port}/0",
    )


def _as_error(failure: Failure) -> JivsError:
    kinds: dict[str, type[JivsError]] = {kind.code: kind for kind in (ResourceError, ConflictError)}
    return kinds.get(failure.code, TerminalError)(failure.message, hint=failure.hint)


def _did_not_start(layout: Layout, what: str, log_start: int) -> TerminalError:
    lines = last_lines(tail(layout.log("supervisor"), since=log_start))
    return TerminalError(
        f"the embedded servers in {layout.control} {what}" + (f": {lines}" if lines else ""),
        hint=f"The logs are in {layout.control}",
    )


@contextlib.contextmanager
def _explained(layout: Layout) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"the embedded servers cannot use {error.filename or layout.control}: {error.strerror}",
            hint="" if error.errno == errno.ENOSPC else "Check who owns it and who may write it",
        ) from error
