"""Processes forked from one that has imported what they need: what costs a new one 1.5 s of imports is theirs at once.

What belongs here: this end of a zygote's socket, and a child's end. What does not: what the children do (`warm.py`,
`faults/zygote.py`).
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(repr=False)
class Child:
    """One process; it is told apart by its pid as long as nobody starts more after its end than there are pids."""

    zygote: Zygote
    pid: int
    began: float = field(default_factory=time.monotonic)

    def poll(self) -> int | None:
        """Its exit code, minus the signal's number, or None while it lives."""
        self.zygote.listen(0)
        return self.zygote.codes.get(self.pid)

    def ends_within(self, seconds: float) -> bool:
        """Wait that long at most; whether it has ended."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and (left := deadline - time.monotonic()) > 0:
            self.zygote.listen(left)
        return self.poll() is not None

    def signal(self, number: int) -> None:
        """To a process that has ended already, nothing is sent."""
        self.zygote.say({"pid": self.pid, "signal": int(number)})


class Zygote:
    """The process that forks. Its children die with it, and it dies with this process.

    Args:
        module: what it runs, which must call `serve`.
        directory: where it says what is wrong.
    """

    def __init__(self, module: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.codes: dict[int, int] = {}
        self._errors = directory / "zygote.err"
        self._pids: list[int] = []
        self._heard = b""
        self._lock = threading.RLock()
        self._socket, theirs = socket.socketpair()
        with theirs, self._errors.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                cwd=ROOT, env=dict(environment),
            )  # fmt: skip

    def fork(self, request: Mapping[str, Any]) -> Child:
        """A child that does what is asked for; see `serve` for what every request has."""
        with self._lock:
            known = len(self._pids)
            self.say({"child": request})
            while len(self._pids) == known:
                self.listen(30)
            return Child(self, self._pids[-1])

    def say(self, request: Mapping[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise AssertionError(self._last_words()) from None

    def listen(self, seconds: float) -> None:
        """Take in what the zygote has said, waiting for it up to `seconds`."""
        # Not for long at once: another thread may hear what this one waits for.
        select.select([self._socket], [], [], min(seconds, 0.1))
        with self._lock, suppress(BlockingIOError):
            received = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            assert received, self._last_words()
            *lines, self._heard = (self._heard + received).split(b"\n")
            for answer in map(json.loads, lines):
                if "code" in answer:
                    self.codes[answer["pid"]] = answer["code"]
                else:
                    self.codes.pop(answer["pid"], None)  # the id is used again
                    self._pids.append(answer["pid"])

    def _last_words(self) -> str:
        return f"the zygote is gone, exit code {self._process.poll()}: {self._errors.read_text()[-3000:]}"

    def stop(self) -> None:
        """End it and, by that, all its children; stopped ones, too."""
        self._socket.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()


def environment_of(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours in a home of its own, without what a developer has set for jivs or PostgreSQL."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("JIVS_", "PG", "DAGSTER"))}
    return {**ours, "JIVS_HOME": str(home), **(more or {})}
