"""Parts of a COPY stream, apart from the ports so that the watchdog starts fast. Who makes them does not belong here."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CopiedRows", "Piece"]

Piece = bytes | bytearray | memoryview
"""A bytes-like part of a COPY stream, of any size."""


class CopiedRows(NamedTuple):
    """A part of a COPY stream that the source has sent, and how many rows end in it."""

    data: Piece
    rows: int
