"""What a command costs: seconds, CPU of its processes and of the servers, and its peak memory.

What belongs here: starting one command and looking at /proc. What does not: which commands there are.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Cost", "cpu_of_tree", "run_measured"]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run. `cpu` is of the command with its children, `server_cpu` of the database servers meanwhile.

    `peak_bytes` is the largest sum of the resident memory of all its processes, looked at ten times a second; pages that
    several of them share count several times.
    """

    seconds: float
    cpu: float
    server_cpu: float
    peak_bytes: int


def run_measured(
    argv: Sequence[str],
    *,
    servers: Iterable[int],
    environment: Mapping[str, str],
    directory: Path,
    output: IO[bytes],
    timeout_seconds: float,
) -> tuple[int, Cost]:
    """Run a command to its end; its exit code and what it cost. `servers` are the pids of the servers' first processes."""
    servers = list(servers)
    before = sum(map(cpu_of_tree, servers))
    began = time.monotonic()
    process = subprocess.Popen(
        argv, env=dict(environment), cwd=directory, stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    peak, over = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, over))
    watcher.start()
    killer = threading.Timer(timeout_seconds, os.killpg, (process.pid, 9))
    killer.start()
    # wait4 and not wait: only it says what this one child, with its own children, has used.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    killer.cancel()
    over.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    server_cpu = sum(map(cpu_of_tree, servers)) - before
    return process.returncode, Cost(seconds, usage.ru_utime + usage.ru_stime, server_cpu, peak[0])


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a process and its descendants, also of those that have ended and were waited for."""
    total = 0.0
    for one in _tree(pid):
        try:
            fields = _stat(one)
        except OSError:
            continue
        total += sum(int(fields[n]) for n in (11, 12, 13, 14)) / _TICKS
    return total


def _watch(pid: int, peak: list[int], over: threading.Event) -> None:
    while not over.wait(_LOOK_SECONDS):
        peak[0] = max(peak[0], sum(map(_resident, _tree(pid))))


def _tree(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: a name may have blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _resident(pid: int) -> int:
    try:
        return int(_stat(pid)[21]) * _PAGE
    except OSError:
        return 0
