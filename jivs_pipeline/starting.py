"""What a process does about its memory before it works: fast imports, and large blocks that go back to the system.

What does not belong here: anything that it does afterwards.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["give_back_large_blocks", "leave_pandas_out", "uncollected"]

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


def leave_pandas_out() -> None:
    """Have pyarrow do without pandas, which it looks for at its first array: 0.3 s and 35 MB that nothing here uses.

    Whoever imports pandas afterwards gets it, and so does `to_pandas`. Where it is imported already, nothing is changed.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    sys.meta_path.insert(0, _NoPandas)
    try:
        # Of one value: its own code for sequences looks for pandas a second time.
        pa.array([1])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """A finder of modules that says there is no pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
