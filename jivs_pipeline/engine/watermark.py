"""Where a column says that rows are new: a hint of where to look, and never a proof that nothing is elsewhere.

What belongs here: asking the source, and putting keys together. What does not: comparing (`incremental.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise

from jivs_pipeline.core.plan import Chunk, Range, TablePlan
from jivs_pipeline.core.ports import Snapshot

__all__ = ["told_by_watermark"]

_MOST_ROWS = 50_000
_NEAR = 256
"""Keys no further apart than this are read as one range."""
_MOST_RANGES = 64


def told_by_watermark(
    table: TablePlan, snapshot: Snapshot, since: str | None, chunk: Chunk
) -> frozenset[Range]:
    """Ranges of the chunk key in which rows have a watermark of `since` or higher; none where it cannot help: no
    watermark, or so many rows that halving is as good.
    """
    if table.watermark is None or since is None:
        return frozenset()
    literal = "'" + since.replace("'", "''") + "'"
    fresh = f"{table.watermark} >= {literal}"
    where = f"({table.where}) AND {fresh}" if table.where else fresh
    key = [c for c in table.columns if c.target == table.chunk_key]
    found = snapshot.hashes(table.model_copy(update={"where": where}), chunk, key)
    keys = [int(texts[0]) for _, texts in islice(found, _MOST_ROWS + 1) if texts[0] is not None]
    return frozenset(_ranges(keys)) if len(keys) <= _MOST_ROWS else frozenset()


def _ranges(keys: Iterable[int]) -> list[Range]:
    """Neighbours together, and no more ranges than can be asked for one by one."""
    ordered = sorted(keys)
    if not ordered:
        return []
    gaps = sorted((b - a for a, b in pairwise(ordered)), reverse=True)[:_MOST_RANGES]
    near = max(_NEAR, gaps[-1] if len(gaps) == _MOST_RANGES else 0)
    ranges: list[Range] = []
    begin = ordered[0]
    for a, b in pairwise([*ordered, None]):
        if a is not None and (b is None or b - a > near):
            ranges.append((begin, a + 1))
            begin = b if b is not None else a
    return ranges
