"""Locks that die with their holder: `flock` on a file of the control directory.

What belongs here: taking and handing over such locks. What does not: who may hold which one when; that
is the protocol of `client.py` and `supervisor.py`.

A pid file would have to be believed; the kernel drops a flock when the last descriptor closes, also after
kill -9. Descriptors are not inherited by programs that the holder starts. A `fork` without `exec` keeps
the lock, which is right: such a child still uses the servers.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

__all__ = ["try_lock", "try_lock_directory", "wait_lock"]

_POLL_SECONDS = 0.01


def try_lock(path: Path, *, shared: bool) -> int | None:
    """A descriptor that holds the lock of `path`, or None while somebody else holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(descriptor, path):
            return descriptor
        os.close(descriptor)  # removed between open and flock: a lock on it would protect nothing


def wait_lock(path: Path, *, shared: bool, deadline: float) -> int | None:
    """As `try_lock`, tried until `deadline` (monotonic seconds)."""
    while (descriptor := try_lock(path, shared=shared)) is None:
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)
    return descriptor


def try_lock_directory(path: Path) -> int | None:
    """An exclusive lock on a directory itself, without a file in it; None while somebody else holds it.

    For directories that belong to the servers' user: root must not create or open files in there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # NFS locks writable descriptors only. Unlocked is safe: this guards against a copied home alone.
        return descriptor
    return descriptor


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
