"""Runs of the engine without Dagster, forked from a process that has imported everything: about 0.3 s each.

What belongs here: starting such a run, signalling it, how it ended. What does not: the run (`faults/zygote.py`),
and what its rows must be (`faults/cases.py`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

KILL, GO_ON = signal.SIGKILL, signal.SIGCONT
ROOT = Path(__file__).resolve().parent.parent


def until(condition: Callable[[], object], what: object, seconds: float = 30, pause: float = 0.01) -> None:
    """Ask until the answer is true; fails with `what`, or what it returns, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what() if callable(what) else what}"
        time.sleep(pause)


@dataclass(repr=False)
class Forked:
    """One run of the engine."""

    engine: Engine
    pid: int
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)

    def poll(self) -> int | None:
        """Its exit code, minus the signal's number, or None while it lives."""
        self.engine.listen(0)
        return self.engine.codes.get(self.pid)

    def wait(self, seconds: float = 60) -> int:
        """Until it ends; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while (code := self.engine.codes.get(self.pid)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"did not end within {seconds:g} s: {self}"
            self.engine.listen(left)
        return code

    def ends_within(self, seconds: float) -> bool:
        """Wait that long at most; whether it has ended."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and (left := deadline - time.monotonic()) > 0:
            self.engine.listen(left)
        return self.poll() is not None

    def signal(self, number: int) -> None:
        """To a process that has ended already, nothing is sent."""
        self.engine.say({"pid": self.pid, "signal": int(number)})

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
        return f"engine run {self.pid} → {self.engine.codes.get(self.pid)}, said {said} {errors}"


class Engine:
    """The zygote. Its children die with it, and it dies with this process."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory = directory
        self.home = home
        self.codes: dict[int, int] = {}
        self._pids: list[int] = []
        self._heard = b""
        self._numbers = count()
        self._socket, theirs = socket.socketpair()
        with theirs, (directory / "zygote.err").open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jivs_pipeline_tests.faults.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                cwd=ROOT, env=self._environment({}),
            )  # fmt: skip

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("JIVS_", "PG", "DAGSTER"))}
        return {**ours, "JIVS_HOME": str(self.home), **more}

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
            "spec": spec, "environment": self._environment(environment), "id": uuid4().hex, "clock": clock or [],
            "verb": verb, "out": str(out), "err": str(err), "go": f"{out}.go", "gate": str(gate or ""),
        }  # fmt: skip
        known = len(self._pids)
        self.say({"run": run})
        while len(self._pids) == known:
            self.listen(30)
        return Forked(self, self._pids[-1], out, err)

    def say(self, request: Mapping[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise AssertionError(self._last_words()) from None

    def listen(self, seconds: float) -> None:
        """Take in what the zygote has said, waiting for it up to `seconds`."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return
        received = self._socket.recv(1 << 16)
        assert received, self._last_words()
        *lines, self._heard = (self._heard + received).split(b"\n")
        for answer in map(json.loads, lines):
            if "code" in answer:
                self.codes[answer["pid"]] = answer["code"]
            else:
                self.codes.pop(answer["pid"], None)  # the id is used again
                self._pids.append(answer["pid"])

    def _last_words(self) -> str:
        said = (self.directory / "zygote.err").read_text()[-3000:]
        return f"the zygote is gone, exit code {self._process.poll()}: {said}"

    def stop(self) -> None:
        """End it and, by that, all runs; stopped ones, too."""
        self._socket.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def engine(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The zygote of this worker, in the worker's home."""
    started = Engine(tmp_path_factory.mktemp("engine"), jivs_home[0])
    yield started
    started.stop()
