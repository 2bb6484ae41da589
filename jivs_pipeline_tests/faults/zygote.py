"""A process that has imported everything and forks one run of the engine per request.

What belongs here: the run as `defs/ops.py` has it, without Dagster, whose start would cost seconds per kill.
What does not: what happens to it (`fix_engine.py` and the tests). The zygote has one thread and nothing open, so
that its children are as good as new processes; they die with it, and it ends when its socket does.

Requests and answers are lines of JSON on the inherited socket: `{"run": {…}}` answers `{"pid": …}`,
`{"pid": …, "signal": …}` answers nothing, and a child's end is told by `{"pid": …, "code": …}`. Signals go through
the zygote because only the parent knows that a pid has not been given away.
"""

from __future__ import annotations

import ctypes
import datetime as dt
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg_pool

from jivs_pipeline.core.errors import ExitCode, InterruptedRun, JivsError, TerminalError
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine import migrate
from jivs_pipeline.engine.replay import replay
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.engine.steering import cancel
from jivs_pipeline.infra import failpoints
from jivs_pipeline.infra.sources import postgresql, sqlite
from jivs_pipeline.runtime import Runtime

__all__ = ["migrate", "postgresql", "psycopg_pool", "sqlite"]  # imported so that no child has to

_PR_SET_PDEATHSIG = 1


def serve(requests: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    gc.collect()
    gc.freeze()
    wakes, waker = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    children: set[int] = set()
    waiting = b""
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(wakes, selectors.EVENT_READ)
    while True:
        selector.select()
        with suppress(BlockingIOError):
            os.read(wakes, 4096)
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                _answer(requests, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})
        try:
            received = requests.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if not received:
            os._exit(0)
        *lines, waiting = (waiting + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "signal" in request:
                if request["pid"] in children:
                    os.kill(request["pid"], request["signal"])
            else:
                pid = _fork(request["run"], requests, selector, (wakes, waker))
                children.add(pid)
                _answer(requests, {"pid": pid})


def _answer(requests: socket.socket, answer: dict[str, int]) -> None:
    requests.sendall(json.dumps(answer).encode() + b"\n")


def _fork(
    run: dict[str, Any], requests: socket.socket, selector: selectors.BaseSelector, pipe: tuple[int, int]
) -> int:
    parent = os.getpid()
    if pid := os.fork():
        return pid
    code: int = ExitCode.FAILED
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        selector.close()
        requests.close()
        for end in pipe:
            os.close(end)
        out = os.open(run["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(os.open(run["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        os.environ.clear()
        os.environ.update(run["environment"])
        if run["clock"]:
            _shift_clocks(run["clock"])
        code = _run(run, out)
    except BaseException:  # noqa: BLE001 - this process ends here, and says why
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _run(run: dict[str, Any], out: int) -> int:
    """What the ops do, in one process: begin, the phases, close; an error is recorded by `abort`."""

    def say(**line: Any) -> None:
        os.write(out, json.dumps(line, default=str).encode() + b"\n")

    def sleep(seconds: float) -> None:
        # Whoever waits at a failpoint says so, and nobody has to guess when to strike, or to wait for the end.
        say(asleep=seconds)
        _wait_for(run["go"], seconds)

    failpoints.time = SimpleNamespace(sleep=sleep)  # pyright: ignore[reportAttributeAccessIssue]
    code: int = ExitCode.DONE
    key = run["spec"]["key"]
    if run["verb"] != "run":
        return _steer(run["verb"], key, run["environment"], say)
    with Runtime.from_environment(environment=run["environment"]) as runtime:
        if run["gate"]:
            runtime.control.control_id()
            say(at_gate=True)
            _wait_for(run["gate"], 60)
        migration = runtime.migration(parse_spec(run["spec"]), run["id"])
        try:
            if migration.begin():
                say(phase="begun")
                for phase in Phase:
                    say(phase=phase.value)
                    getattr(migration, phase.value)()
            say(document=migration.document())
        except KeyboardInterrupt:
            migration.abort(InterruptedRun("The run was interrupted", hint=f"Go on with: jivs resume {key}"))
            code = ExitCode.INTERRUPTED
        except Exception as error:  # noqa: BLE001 - as the ops do, and the command after them
            migration.abort(error)
            told = migration.error or TerminalError(f"{type(error).__name__}: {error}")
            say(**told.document())
            code = told.exit_code
            os.write(2, traceback.format_exc().encode())
        finally:
            migration.close()
            say(passed=failpoints._passed)
    return code


def _steer(verb: str, key: str, environment: dict[str, str], say: Callable[..., None]) -> int:
    """What the commands `cancel`, `rollback` and `quarantine replay` do."""
    code: int = ExitCode.DONE
    with Runtime.from_environment(environment=environment) as runtime:
        services = runtime.services()
        say(phase="begun")
        try:
            if verb == "cancel":
                cancel(services, key, wait_seconds=60)
            elif verb == "replay":
                say(outcome=replay(services, key, "replay").document(key))
            else:
                rollback(services, key, "rollback")
        except JivsError as error:
            say(**error.document())
            code = error.exit_code
            os.write(2, traceback.format_exc().encode())
        say(passed=failpoints._passed)
    return code


def _wait_for(file: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not Path(file).exists() and time.monotonic() < deadline:
        time.sleep(0.002)


def _shift_clocks(steps: list[tuple[float, float]]) -> None:
    """Make every wall clock of this process wrong: from each step's second on, by its shift in seconds.

    The clocks of the tests' machine stay as they are, and monotonic time has no other value on a wrong machine.
    """
    began, real_time, real_datetime = time.monotonic(), time.time, dt.datetime

    def shift() -> float:
        passed = time.monotonic() - began
        return [by for since, by in steps if since <= passed][-1]

    def wrong_time() -> float:
        return real_time() + shift()

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real_datetime)

    class WrongDatetime(real_datetime, metaclass=Meta):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
            return real_datetime.fromtimestamp(wrong_time(), tz)

        @classmethod
        def utcnow(cls) -> dt.datetime:
            return cls.now(dt.UTC).replace(tzinfo=None)

    wrong = {
        real_time: wrong_time,
        time.time_ns: lambda: int(wrong_time() * 1e9),
        real_datetime: WrongDatetime,
    }
    for module in list(sys.modules.values()):
        # Whoever imported a clock by its name has it in a variable.
        for name, value in list(vars(module).items()):
            with suppress(TypeError):  # what has no hash is no clock
                if value in wrong:
                    setattr(module, name, wrong[value])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
