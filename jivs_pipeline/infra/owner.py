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
from jivs_pipeline.infra.embedded.process import start_ticks

__all__ = ["is_dead", "this_process"]


def _boot_id() -> str:
    # The pid namespace is part of it: in another container the same pid is another process.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown-{uuid.getnode():x}"


def this_process() -> Owner:
    """The calling process as an owner of something new."""
    try:
        start = start_ticks(os.getpid())
    except OSError:
        start = None
    start = start or f"{time.time():.0f}"
    return Owner(str(uuid.uuid4()), socket.gethostname(), _boot_id(), os.getpid(), start)


def is_dead(boot_id: str, pid: int, process_start: str) -> bool:
    """Whether the process is *proved* dead: same boot here, and no process of that start lives."""
    if boot_id.startswith("unknown-") or boot_id != _boot_id():
        return False
    try:
        return start_ticks(pid) != process_start
    except OSError:
        return False
