"""What a process does about its memory before it works: fast imports, and large blocks that go back to the system.

What does not belong here: anything that it does afterwards.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["give_back_large_blocks", "uncollected"]

_M_MMAP_THRESHOLD = -3


@contextmanager
def uncollected() -> Iterator[None]:
    """For blocks that import: what they make stays for good, and looking for garbage in it is a sixth of a start.

    Afterwards it is left out of later collections, too. Inside of another such block, nothing is changed.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def give_back_large_blocks() -> None:
    """Have glibc return each block of a megabyte and more to the system when it is freed. Others do so by themselves.

    By default it raises that limit to the largest block it has seen, up to 32 MB, and keeps what is below: a table with
    values of 10 MB left 200 MB in the process.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)
