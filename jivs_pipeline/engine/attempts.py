"""A job of one table: what is tried again, what fails the table, and what ends the run.

What belongs here: that decision, the same in every phase. What does not: waiting (`pool.py`) and the jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from structlog.contextvars import bound_contextvars

from jivs_pipeline.core.errors import ConflictError, DataError, JivsError, ResourceError, SnapshotLost
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.pool import STOPS, with_retries
from jivs_pipeline.engine.run import Run

__all__ = ["attempt"]


def attempt(
    run: Run,
    table: TablePlan,
    phase: Phase,
    job: Callable[[], object],
    *,
    chunk: int | None = None,
    rows_stand: bool = False,
) -> None:
    """Run a job of one table: transient errors are tried again, terminal ones fail the table only.

    Args:
        chunk: the index of the one that the job is about.
        rows_stand: whether the table's rows are loaded, so that only what is built on them would be missing.
    """
    if table.target in run.failures:
        return
    told = partial(run.checkpoints.retried, table.target, phase, chunk)
    try:
        with bound_contextvars(table=table.target, **({} if chunk is None else {"chunk": chunk})):
            with_retries(job, run.guard, told, but=(SnapshotLost,))
    except (ConflictError, ResourceError, *STOPS):
        raise
    except JivsError as error:
        # What an interrupted statement says is not the table's fault.
        run.guard.check_inside()
        if error.transient:
            raise
        # Bad rows are read anew by the next run: corrected, it is hoped.
        run.fail(table, phase, error, rows_stand=rows_stand and not isinstance(error, DataError))
