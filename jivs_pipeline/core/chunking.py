"""How many chunks a table is cut into. Where they are cut does not belong here: that is the source's."""

from __future__ import annotations

__all__ = ["chunk_bytes_for", "chunk_count"]

_SMALLEST = 8 << 20
_SHARED_BY = (4, 2)


def chunk_count(size: int, chunk_bytes: int) -> int:
    """Chunks of at most `chunk_bytes`, as many as workers can share evenly: of three, two workers take as long as of four.

    None is cut smaller than 8 MiB for that, for each costs a transaction.

    Args:
        size: of the table, in bytes.
    """
    least = -(-size // max(chunk_bytes, 1))
    even = (-(-least // workers) * workers for workers in _SHARED_BY)
    return next((count for count in even if size >= count * _SMALLEST), least)


def chunk_bytes_for(size: int, chunk_bytes: int) -> int:
    """How large those chunks are."""
    return -(-size // max(chunk_count(size, chunk_bytes), 1))
