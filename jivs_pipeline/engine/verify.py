"""Phase verify: count and digest of every loaded table in the target, against the source's own.

What belongs here: the comparison. What does not: computing a digest, which each database does itself
from canonical text; nothing in here looks at the staging area.
"""

from __future__ import annotations

import time
from functools import partial

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.run import Run

__all__ = ["verify"]


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
    source = manifest.digest
    counts_only = run.spec.verify == "count"
    target = Digest(run.target.count(table)) if counts_only else run.target.digest(table)
    run.progress.add(table.target, target.rows, 0)
    run.checkpoints.done(
        table.target, Phase.VERIFY, manifest.generation, rows=target.rows, size=0, chunks=len(manifest.chunks),
        seconds=time.monotonic() - began,
        data={
            "equal": source == target,
            "source_rows": source.rows,
            "target_rows": target.rows,
            "source_digest": None if counts_only else source.hex,
            "target_digest": None if counts_only else target.hex,
        },
    )  # fmt: skip
