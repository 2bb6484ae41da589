"""Who holds a lock: a process of a machine, identified so that its death can be proved.

A process id alone proves nothing, since ids are used again; with the boot and the start time of the
process it does. On another machine nothing can be proved from here, and the lease has to run out.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from pathlib import Path

from jivs_pipeline.core.claims import Owner

__all__ = ["is_dead", "this_process"]


def _boot_id() -> str:
    # The pid namespace is part of it: in another container the same pid is another process.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{uuid.getnode():x}"


def _process_start(pid: int) -> str | None:
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


def this_process() -> Owner:
    """The calling process as an owner of something new."""
    try:
        start = _process_start(os.getpid())
    except OSError:
        start = None
    start = start or f"{time.time():.0f}"
    return Owner(str(uuid.uuid4()), socket.gethostname(), _boot_id(), os.getpid(), start)


def is_dead(boot_id: str, pid: int, process_start: str) -> bool:
    """Whether the process is *proved* dead: same boot here, and no process of that start lives."""
    if boot_id.startswith("unknown-") or boot_id != _boot_id():
        return False
    try:
        return _process_start(pid) != process_start
    except OSError:
        return False
