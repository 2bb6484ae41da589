"""How many chunks a table is cut into."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.chunking import chunk_bytes_for, chunk_count

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "chunk_bytes", "count"),
    [
        (0, 64 * _MIB, 0),
        (1, 64 * _MIB, 1),
        (16 * _MIB - 1, 64 * _MIB, 1),
        (16 * _MIB, 64 * _MIB, 2),
        (32 * _MIB, 64 * _MIB, 4),
        (65 * _MIB, 64 * _MIB, 4),
        (200 * _MIB, 64 * _MIB, 4),
        (257 * _MIB, 64 * _MIB, 8),
        (20 * _MIB, 4 * _MIB, 5),  # smaller than 8 MiB because that was asked for, not to come out even
        (3, 1, 3),
        (3, 0, 3),
    ],
)
def test_chunks_are_shared_evenly_where_they_are_large(size: int, chunk_bytes: int, count: int):
    assert chunk_count(size, chunk_bytes) == count
    if count:
        assert (count - 1) * chunk_bytes_for(size, chunk_bytes) < size
        assert count * chunk_bytes_for(size, chunk_bytes) >= size
