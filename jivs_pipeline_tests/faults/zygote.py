"""The zygote whose children each are one run of the engine.

What belongs here: the run as `defs/ops.py` has it, without Dagster, whose start would cost seconds per kill.
What does not: forking (`jivs_pipeline_tests/zygote.py`), or what happens to a run (`fix_engine.py` and the tests).
"""

from __future__ import annotations

import datetime as dt
import json
import os
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
from jivs_pipeline_tests.zygote import serve

__all__ = ["migrate", "postgresql", "psycopg_pool", "sqlite"]  # imported so that no child has to


def _run(run: dict[str, Any]) -> int:
    """What the ops do, in one process: begin, the phases, close; an error is recorded by `abort`."""

    def say(**line: Any) -> None:
        os.write(1, json.dumps(line, default=str).encode() + b"\n")

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


def _child(request: dict[str, Any]) -> int:
    if request["clock"]:
        _shift_clocks(request["clock"])
    try:
        return _run(request)
    except BaseException:  # noqa: BLE001 - this process ends here, and says why
        os.write(2, traceback.format_exc().encode())
        return ExitCode.FAILED


if __name__ == "__main__":
    os._exit(_child(serve()))
