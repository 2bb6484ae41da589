"""Phase verify: count and digest of every loaded table in the target, against the source's own.

What belongs here: the comparison. What does not: computing a digest, which each database does itself
from canonical text; nothing in here looks at the staging area.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import TableMode, TablePlan
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.run import Run

__all__ = ["compare", "verify"]


def verify(run: Run) -> None:
    """Compare each loaded table; what differs is recorded and does not stop the comparison of the rest."""
    jobs = [partial(_table, run, t) for t in run.sound if t.target in run.loaded]
    run_all(jobs, run.spec.parallelism, run.guard)


def _table(run: Run, table: TablePlan) -> None:
    told = partial(run.checkpoints.retried, table.target, Phase.VERIFY, None)
    with_retries(partial(_compare, run, table), run.guard, told)


def _compare(run: Run, table: TablePlan) -> None:
    began = time.monotonic()
    manifest = run.extracted[table.target]
    counts_only = run.spec.verify == "count"
    found = (Digest(run.target.count(table)),) if counts_only else run.target.digests(table)
    arriving = manifest.arriving
    expected = [Digest(d.rows) for d in arriving] if counts_only else arriving
    result = compare(expected, found, counts_only=counts_only, rejected=manifest.rejected)
    if table.mode is TableMode.UPDATE or table.upsert:
        result |= {"moved_rows": manifest.rows, **run.target.changes(table)}
    run.progress.add(table.target, result["target_rows"], 0)
    run.checkpoints.done(
        table.target,
        Phase.VERIFY,
        manifest.generation,
        rows=result["target_rows"],
        size=0,
        chunks=len(manifest.chunks),
        seconds=time.monotonic() - began,
        data=result,
    )


def compare(
    expected: Sequence[Digest], found: Sequence[Digest], *, counts_only: bool, rejected: int = 0
) -> dict[str, Any]:
    """What two sides say of one table.

    Args:
        expected: the source's digest of each chunk.
        found: the target's, of each chunk or in one.
        rejected: rows of the source that are in quarantine, and in none of the digests.

    Returns:
        `equal`, rows and digests of both sides, and `different_chunks` where the target can tell chunks apart.
    """
    source, target = sum(expected, Digest()), sum(found, Digest())
    apart = len(found) == len(expected)
    different = [n for n, (a, b) in enumerate(zip(expected, found, strict=apart)) if apart and a != b]
    return {
        "equal": source == target and not different,
        "source_rows": source.rows + rejected,
        "target_rows": target.rows,
        "source_digest": None if counts_only else source.hex,
        "target_digest": None if counts_only else target.hex,
        "different_chunks": different,
    }
