"""Runs of the engine without Dagster, forked from a process that has imported everything: about 0.3 s each.

What belongs here: starting such a run, signalling it, how it ended. What does not: the run (`faults/zygote.py`),
and what its rows must be (`faults/cases.py`).
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jivs_pipeline_tests.fix_zygote import Child, Zygote, environment_of

KILL, GO_ON = signal.SIGKILL, signal.SIGCONT


def until(condition: Callable[[], object], what: object, seconds: float = 30, pause: float = 0.01) -> None:
    """Ask until the answer is true; fails with `what`, or what it returns, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what() if callable(what) else what}"
        time.sleep(pause)


@dataclass(repr=False)
class Forked:
    """One run of the engine."""

    child: Child
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def began(self) -> float:
        """When it was started, by the monotonic clock."""
        return self.child.began

    def poll(self) -> int | None:
        """Its exit code, minus the signal's number, or None while it lives."""
        return self.child.poll()

    def wait(self, seconds: float = 60) -> int:
        """Until it ends; fails after `seconds`."""
        assert self.child.ends_within(seconds), f"did not end within {seconds:g} s: {self}"
        code = self.child.poll()
        assert code is not None
        return code

    def ends_within(self, seconds: float) -> bool:
        """Wait that long at most; whether it has ended."""
        return self.child.ends_within(seconds)

    def signal(self, number: int) -> None:
        """To a process that has ended already, nothing is sent."""
        self.child.signal(number)

    def lines(self) -> list[dict[str, Any]]:
        """What it said so far; the last line may be cut off by a kill."""
        said: list[dict[str, Any]] = []
        with suppress(FileNotFoundError):
            for line in self.out.read_text().splitlines():
                with suppress(ValueError):
                    said.append(json.loads(line))
        return said

    @property
    def phases(self) -> list[str]:
        """The phases it has entered, after `begun`."""
        return [line["phase"] for line in self.lines() if "phase" in line]

    @property
    def document(self) -> dict[str, Any]:
        """What `jivs run` would print; the error document where it ended by an error."""
        found = [line.get("document", line) for line in self.lines() if line.keys() & {"document", "error"}]
        assert found, f"ended without a document: {self}"
        return found[-1]

    @property
    def passed(self) -> dict[str, int]:
        """How often it came by each failpoint, where one was set and it was not killed."""
        return next((line["passed"] for line in self.lines() if "passed" in line), {})

    def wait_begun(self, seconds: float = 30) -> bool:
        """Until it has taken its migration or ended; whether it has taken it."""
        until(lambda: self.poll() is not None or self.phases, f"beginning of {self}", seconds, 0.003)
        return bool(self.phases)

    def wait_asleep(self, seconds: float = 30) -> None:
        """Until it waits at a failpoint."""

        def there() -> bool:
            assert self.poll() is None, f"ended before it slept: {self}"
            return any("asleep" in line for line in self.lines())

        until(there, f"a sleep of {self}", seconds, 0.003)

    def go_on(self) -> None:
        """Sleep no longer at failpoints."""
        self.out.with_name(f"{self.out.name}.go").touch()

    def wait_at_gate(self) -> None:
        """Until it is ready to begin."""

        def there() -> bool:
            assert self.poll() is None, f"ended before the gate: {self}"
            return any("at_gate" in line for line in self.lines())

        until(there, f"{self} at the gate", 60, 0.003)

    def stop(self) -> None:
        """Stop it; it stands still when this returns."""
        self.signal(signal.SIGSTOP)

        def still() -> bool:
            assert self.poll() is None, f"ended before it was stopped: {self}"
            return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"

        until(still, f"stop of {self}", 10, 0.002)

    def wait_for(self, phase: str, seconds: float = 30) -> None:
        """Until it has entered the phase."""

        def there() -> bool:
            assert self.poll() is None or phase in self.phases, f"ended before {phase}: {self}"
            return phase in self.phases

        until(there, f"phase {phase} of {self}", seconds, 0.003)

    def __repr__(self) -> str:
        errors = self.err.read_text()[-2000:] if self.err.exists() else ""
        said = [line.get("phase") or str(line)[:600] for line in self.lines()]
        return f"engine run {self.pid} → {self.child.poll()}, said {said} {errors}"


class Engine:
    """Starts runs in a home."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        self.home = home
        self._numbers = count()
        self._zygote = Zygote("jivs_pipeline_tests.faults.zygote", directory, environment_of(home))

    def start(
        self,
        spec: Mapping[str, Any],
        environment: Mapping[str, str],
        clock: list[tuple[float, float]] | None = None,
        gate: Path | None = None,
        verb: str = "run",
    ) -> Forked:
        """Fork a run.

        Args:
            verb: what is done with the migration: `run`, `cancel`, `rollback` or `replay`.
            clock: makes its wall clocks wrong: from each second on, by so many seconds.
            gate: it is ready to begin, and does when this file is there.
        """
        number = next(self._numbers)
        out, err = (self.directory / f"{number}.{end}" for end in ("out", "err"))
        run = {
            "spec": spec, "environment": environment_of(self.home, environment), "id": uuid4().hex, "clock": clock or [],
            "verb": verb, "out": str(out), "err": str(err), "go": f"{out}.go", "gate": str(gate or ""),
        }  # fmt: skip
        return Forked(self._zygote.fork(run), out, err)

    def stop(self) -> None:
        """End all runs; stopped ones, too."""
        self._zygote.stop()


@pytest.fixture(scope="session")
def engine(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The zygote of this worker, in the worker's home."""
    started = Engine(tmp_path_factory.mktemp("engine"), jivs_home[0])
    yield started
    started.stop()
