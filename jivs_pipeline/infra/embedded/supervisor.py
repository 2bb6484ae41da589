"""The process that owns the servers of one home: `python -m jivs_pipeline.infra.embedded.supervisor HOME`.

What belongs here: starting, watching, restarting, stopping. What does not: what a client does
(`client.py`), and what is special to a server (`postgres.py`, `valkey.py`).

It holds the lock `supervisor` for life, got from the client that started it, so there is one per home. It
publishes `state.json` while both servers are ready. Every poll it tries the exclusive lock on `users`; the
clients hold shared ones, so getting it means that none is left. It keeps that lock until it has exited: a
client that comes meanwhile waits, and then starts a new supervisor.

It has one thread: the servers' death signal is tied to the thread that forked them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import secrets
import signal
import sys
import time
from pathlib import Path

from jivs_pipeline.core.errors import JivsError, ResourceError
from jivs_pipeline.infra.embedded.binaries import usable_binaries
from jivs_pipeline.infra.embedded.layout import Failure, Layout, State
from jivs_pipeline.infra.embedded.locks import try_lock
from jivs_pipeline.infra.embedded.placement import place
from jivs_pipeline.infra.embedded.postgres import Postgres
from jivs_pipeline.infra.embedded.process import start_of
from jivs_pipeline.infra.embedded.server import Server, free_port
from jivs_pipeline.infra.embedded.valkey import Valkey

__all__ = ["Supervisor", "main"]

_POLL_SECONDS = 0.2
# For recovery after a crash, which may replay max_wal_size. A client's patience is its own affair: it may
# give up and come back, and finds the work done.
_READY_SECONDS = 900.0
_RESTART_ATTEMPTS = 7
_RESTART_DELAY_SECONDS = 0.25
_STABLE_SECONDS = 10.0


class Supervisor:
    """Both servers of one home, from start to stop."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stop_requested = False
        self._is_published = False
        self._placement = place(layout)
        placement = self._placement
        binaries = usable_binaries(placement.user)
        self._postgres = Postgres(placement.data, layout.log("postgres"), placement.user, binaries)
        self._valkey = Valkey(
            placement.data, layout.log("valkey"), placement.user, binaries, placement.kept.valkey_password
        )
        self._servers: tuple[Server, ...] = (self._postgres, self._valkey)
        self._ready_since: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def request_stop(self, *_: object) -> None:
        """Stop at the next poll although there are users; also a signal handler."""
        self._stop_requested = True

    def run(self) -> None:
        """Serve until nobody is left.

        Raises:
            JivsError: a server did not start, or does not stay up.
            OSError: the same, seen from below.
        """
        try:
            self._start()
            while not self._stop_requested and not self._nobody_left():
                self._watch()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()

    def _start(self) -> None:
        kept = self._placement.kept
        self._valkey.prepare()
        self._valkey.launch(free_port(kept.valkey_port))
        self._postgres.prepare(kept.postgres_password, expected=kept.initialised)
        self._postgres.launch(free_port(kept.postgres_port))
        if not all(self._settle(server, port_fixed=False) for server in self._servers):
            return
        now = dataclasses.replace(
            kept, initialised=True, postgres_port=self._postgres.port, valkey_port=self._valkey.port
        )
        if now != kept:
            self._layout.write(self._layout.kept, now)
        self._publish()

    def _stop(self) -> None:
        with contextlib.suppress(OSError):
            self._layout.state.unlink(missing_ok=True)
        for server in self._servers:
            server.request_stop()
        for server in self._servers:
            try:
                server.stop()
            except (JivsError, OSError) as error:
                _log(f"{server.name} did not stop: {error}")
        _log("stopped")

    def _settle(self, server: Server, *, port_fixed: bool) -> bool:
        ready = server.settle(
            time.monotonic() + _READY_SECONDS,
            port_fixed=port_fixed,
            is_stopping=lambda: self._stop_requested,
        )
        if ready:
            self._ready_since[server.name] = time.monotonic()
            _log(f"{server.name} is ready, pid {server.pid}")
        return ready

    def _publish(self) -> None:
        kept = self._placement.kept
        state = State(
            supervisor_pid=os.getpid(),
            supervisor_start=start_of(os.getpid()),
            postgres_pid=self._postgres.pid,
            postgres_port=self._postgres.port,
            postgres_password=kept.postgres_password,
            valkey_pid=self._valkey.pid,
            valkey_port=self._valkey.port,
            valkey_password=kept.valkey_password,
            data=str(self._placement.data),
        )
        self._layout.write(self._layout.state, state)
        self._layout.failure.unlink(missing_ok=True)
        self._is_published = True

    def _nobody_left(self) -> bool:
        # Never closed: it ends with this process, when the servers are gone.
        return try_lock(self._layout.users_lock, shared=False) is not None

    def _watch(self) -> None:
        for server in self._servers:
            if not server.is_running:
                self._is_published = False
                self._layout.state.unlink(missing_ok=True)  # new clients wait until it is back
                self._restart(server)
        if not self._is_published and all(server.is_running for server in self._servers):
            try:
                self._publish()
            except OSError as error:  # no space now; those who have the URLs can work, so try again
                _log(f"cannot publish: {error}")

    def _restart(self, server: Server) -> None:
        """On the same port, because clients know it; at once, but slower and slower if it does not last."""
        process = server.process
        _log(f"{server.name} ended by itself, code {process.returncode if process else None}")
        if time.monotonic() - self._ready_since[server.name] > _STABLE_SECONDS:
            self._failures[server.name] = 0
        while not self._stop_requested:
            failures = self._failures[server.name] = self._failures.get(server.name, 0) + 1
            if failures > 1:
                time.sleep(min(4.0, _RESTART_DELAY_SECONDS * 2 ** (failures - 2)))
            try:
                server.launch(server.port)
                self._settle(server, port_fixed=True)
            except (JivsError, OSError) as error:
                _log(f"{server.name} did not restart: {error}")
                if failures >= _RESTART_ATTEMPTS:
                    raise
            else:
                return


def main(arguments: list[str]) -> int:
    """Run as a process of its own; 0 after a clean stop.

    Args:
        arguments: the home, and the descriptor of its supervisor lock (without it, the lock is taken here).
    """
    # The client waits for this process only, and is not left with a child that it would have to reap.
    if os.fork():
        os._exit(0)
    layout = Layout(Path(arguments[0]))
    try:
        _detach()
        lock = int(arguments[1]) if len(arguments) > 1 else try_lock(layout.supervisor_lock, shared=False)
        if lock is None:
            return 0
        os.set_inheritable(lock, False)
        supervisor = Supervisor(layout)
        signal.signal(signal.SIGTERM, supervisor.request_stop)
        signal.signal(signal.SIGINT, supervisor.request_stop)
        supervisor.run()
    except (JivsError, OSError) as error:
        _log(f"failed: {error}")
        with contextlib.suppress(OSError):  # no space, or somebody removed the home
            layout.write(layout.failure, _failure(error))
        return 1
    return 0


def _failure(error: JivsError | OSError) -> Failure:
    attempt = secrets.token_hex(8)
    if isinstance(error, JivsError):
        return Failure(attempt, error.code, error.message, error.hint)
    return Failure(attempt, ResourceError.code, f"the embedded servers cannot run: {error}", "")


def _detach() -> None:
    """Undo what a client may have set for itself and the servers must not inherit."""
    os.chdir("/")
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGCHLD, signal.SIGQUIT, signal.SIGHUP):  # a shell's `&` ignores SIGQUIT
        signal.signal(number, signal.SIG_DFL)
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(ValueError, OSError):  # not all systems take back what they hand out
            resource.setrlimit(limit, (hard, hard))


def _log(text: str) -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    with contextlib.suppress(OSError):  # a full disk must not end what runs
        print(when, f"[{os.getpid()}]", text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
