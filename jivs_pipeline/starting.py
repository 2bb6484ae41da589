"""Starting fast: what a process does about its imports. What does not belong here: anything that it does afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]


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
