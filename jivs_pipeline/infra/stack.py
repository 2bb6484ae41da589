"""The local stack of `jivs up`: code server, web server and daemon of Dagster, and the exporter, as children of one process.

What belongs here: starting, watching, restarting and stopping them. What does not: what they run.

Once all of them have been ready, nothing but a signal ends the stack: a part that keeps dying, as all may while their
database is away, is started again after a growing wait.

One code server for both, because each would otherwise start its own. Every child leads a process group,
so that a run's worker, which is a grandchild, is reached by the same signal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jivs_pipeline.core.errors import ConflictError, JivsError, TerminalError
from jivs_pipeline.core.settings import Settings
from jivs_pipeline.infra.embedded.process import spawn

__all__ = ["run_stack"]

_HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.5
_STEADY_SECONDS = 60.0
"""Deaths that are longer ago do not count."""
_LONGEST_WAIT_SECONDS = 15.0
_RELOAD_SECONDS = 30.0
"""Each makes a code server of its own, which takes seconds of a core and 200 MB for as long as its runs last."""


@dataclass(slots=True)
class _Child:
    name: str
    argv: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    deaths: list[float] = field(default_factory=list[float])
    due: float | None = None
    """When it is started again, where it is dead."""
    left: list[int] = field(default_factory=list[int])
    """Groups of those that died: a run's worker outlives its code server."""


class _Stop(Exception):
    """Somebody asked the stack to end."""


def run_stack(settings: Settings, environment: Mapping[str, str], catalog: Callable[[], object]) -> None:
    """Run until SIGINT or SIGTERM; then stop everything within ten seconds.

    Args:
        environment: what Dagster's processes need on top of ours, such as DAGSTER_HOME.
        catalog: what the code location was loaded with; it is loaded again whenever this has changed.

    Raises:
        ConflictError: a port is taken.
        TerminalError: a part does not start.
    """
    _check_port(settings.ui_port, "JIVS_UI_PORT")
    _check_port(settings.metrics_port, "JIVS_METRICS_PORT")
    home = Path(environment["DAGSTER_HOME"])
    code_port = _free_port()
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - grpc_server:\n      host: {_HOST}\n      port: {code_port}\n      location_name: jivs_pipeline\n"
    )
    children = _children(code_port, settings, workspace)

    def stop(_signal: int, _frame: object) -> None:
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        for child, port in zip(children, (code_port, None, None, settings.ui_port), strict=True):
            _start(child, environment, home)
            if port is not None:
                # The others complain loudly when the code server is not there yet.
                _wait_listening(child, port, home)
        _wait_loaded(settings.ui_port, home)
        print(f"Metrics: http://{_HOST}:{settings.metrics_port}/metrics", flush=True)
        print(f"Dagster UI: http://{_HOST}:{settings.ui_port}   (Ctrl-C stops everything)", flush=True)
        _tend(children, environment, home, code_port, _Reloads(settings.ui_port, catalog))
    except _Stop:
        print("Stopping", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _stop_all(children)


def _children(code_port: int, settings: Settings, workspace: Path) -> list[_Child]:
    form = "json" if settings.log_format == "json" else "colored"
    python, flags = sys.executable, ("--log-level", "warning", "--log-format", form)
    # `code-server start` and not `api grpc`: only the former loads definitions anew without a restart.
    code = ("code-server", "start", "-m", "jivs_pipeline.definitions", "-h", _HOST, "-p", str(code_port))
    return [
        _Child("code-server", [python, "-m", "dagster", *code, "--location-name", "jivs_pipeline", *flags]),
        _Child("daemon", [python, "-m", "dagster._daemon", "run", "-w", str(workspace), *flags]),
        _Child("exporter", [python, "-m", "jivs_pipeline.cli", "metrics"]),
        _Child(
            "webserver",
            [
                python,
                "-m",
                "dagster_webserver",
                "-h",
                _HOST,
                "-p",
                str(settings.ui_port),
                "-w",
                str(workspace),
                *flags,
            ],
        ),
    ]


def _start(child: _Child, environment: Mapping[str, str], home: Path) -> None:
    child.process = spawn(
        child.argv,
        directory=home,
        environment={**os.environ, **environment},
        user=None,
        stdin=subprocess.DEVNULL,
        log=home / f"{child.name}.log",
        death_signal=signal.SIGTERM,
        own_group=True,
    )


def _tend(
    children: Sequence[_Child], environment: Mapping[str, str], home: Path, code_port: int, reloads: _Reloads
) -> None:
    """Start again what dies, until a signal comes."""
    code, daemon, *_ = children
    code_is_new = False
    while True:
        time.sleep(_POLL_SECONDS)
        for child in children:
            if _revive(child, environment, home) and child is code:
                code_is_new = True
        if code_is_new and _listens(code_port):
            # The daemon looks at the code server once a minute, and where that is away just then, it neither retries
            # runs nor evaluates sensors for another minute.
            code_is_new = False
            if daemon.due is None:
                _stop_all([daemon])
                _start(daemon, environment, home)
        reloads.look()


def _revive(child: _Child, environment: Mapping[str, str], home: Path) -> bool:
    """Start a dead child again once its wait is over; whether it was started."""
    now = time.monotonic()
    if child.due is None:
        if child.process is None or child.process.poll() is None:
            return False
        recent = [t for t in child.deaths if now - t < _STEADY_SECONDS]
        child.deaths = [*recent, now]
        wait = min(_LONGEST_WAIT_SECONDS, 2.0 ** (len(recent) - 1)) if recent else 0.0
        again = f"in {wait:g} s; see the end of {home / f'{child.name}.log'}" if wait else "now"
        print(f"The {child.name} ended; it is started again {again}", flush=True)
        child.left = [*filter(_is_orphaned, child.left), child.process.pid]
        child.due = now + wait
    if now < child.due:
        return False
    child.due = None
    _start(child, environment, home)
    return True


class _Reloads:
    """Has the code location loaded again whenever the catalog has changed."""

    def __init__(self, port: int, catalog: Callable[[], object]) -> None:
        self._port, self._catalog = port, catalog
        self._known: object = None
        self._due = 0.0

    def look(self) -> None:
        """Once in a while. Where the control database does not answer, the tables are looked at later."""
        if time.monotonic() < self._due:
            return
        try:
            found = self._catalog()
        except JivsError as error:
            print(f"The loaded tables were not looked at: {error}", flush=True)
        else:
            before, self._known = self._known, found
            if before in (None, found):
                return
            _reload(self._port)
        self._due = time.monotonic() + _RELOAD_SECONDS


def _wait_listening(child: _Child, port: int, home: Path) -> None:
    log = home / f"{child.name}.log"
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if child.process is not None and child.process.poll() is not None:
            raise TerminalError(f"The {child.name} does not start", hint=f"See the end of {log}")
        if _listens(port):
            return
        time.sleep(_POLL_SECONDS / 5)
    raise TerminalError(f"The {child.name} does not answer", hint=f"See the end of {log}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


def _wait_loaded(port: int, home: Path) -> None:
    """The web server listens before it knows the code location; a launch would find no job until then."""
    query = (
        '{ repositoryOrError(repositorySelector: {repositoryName: "__repository__",'
        ' repositoryLocationName: "jivs_pipeline"}) { __typename } }'
    )
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        answer = _ask(port, query)
        if answer.get("repositoryOrError", {}).get("__typename") == "Repository":
            return
        time.sleep(_POLL_SECONDS)
    raise TerminalError("The code location does not load", hint=f"See the end of {home / 'code-server.log'}")


def _reload(port: int) -> None:
    """Have the web server load the code location again. A failure is not worth stopping for: it comes again."""
    _ask(
        port, 'mutation { reloadRepositoryLocation(repositoryLocationName: "jivs_pipeline") { __typename } }'
    )


def _ask(port: int, query: str) -> dict[str, Any]:
    """The data of a GraphQL answer; empty where there is none."""
    request = urllib.request.Request(
        f"http://{_HOST}:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
            return json.load(answer).get("data") or {}
    except (OSError, ValueError) as error:
        print(f"The web server did not answer: {error}", flush=True)
        return {}


def _stop_all(children: Sequence[_Child]) -> None:
    alive = [c.process for c in reversed(children) if c.process is not None]
    orphans = [group for c in children for group in c.left if _is_orphaned(group)]
    for group in [*orphans, *(p.pid for p in alive)]:
        _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for process in alive:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
    while any(map(_is_orphaned, orphans)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS / 5)
    for group in filter(_is_orphaned, orphans):
        _signal_group(group, signal.SIGKILL)
    for process in alive:
        # Also where the leader is gone: a worker may have outlived it.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait(2)


def _is_orphaned(group: int) -> bool:
    """Whether a group lives whose leader, our child, is dead. With a leader it is another's, by the same number."""
    try:
        os.kill(group, 0)
    except ProcessLookupError:
        return _signal_group(group, 0)
    except PermissionError:
        pass
    return False


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _check_port(port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            raise ConflictError(
                f"Port {port} is in use", hint=f"Stop what listens there or set {variable}"
            ) from None
