"""How an op ends that does not succeed: as a failure with one sentence, or as a run that was stopped.

What belongs here: which of our errors Dagster's daemon may answer with another run. What does not: what the
migration becomes (`engine/migrate.py`).
"""

import dagster as dg

from jivs_pipeline.core.errors import CancelledRun, InterruptedRun, JivsError, PausedRun
from jivs_pipeline.defs.tags import INTERRUPTED, NEVER_RETRY

__all__ = ["as_failure", "ending", "is_terminating"]

STOPS = (CancelledRun, PausedRun, InterruptedRun)
"""Somebody wanted the run to end: it ends as canceled, which is never answered with another run."""


def as_failure(error: JivsError) -> dg.Failure:
    """The failure of an op. Only transient errors are worth another attempt of the run."""
    metadata = {"code": error.code, "hint": error.hint or "none"}
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=error.transient)


def is_terminating(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody pressed Terminate, as opposed to a worker that is stopped with its machine or terminal."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}


def ending(context: dg.OpExecutionContext, error: JivsError) -> BaseException:
    """What the op raises for `error`, after telling Dagster whether the run may be retried."""
    if isinstance(error, STOPS):
        context.log.warning(str(error))
        if not is_terminating(context.instance, context.run_id):
            if isinstance(error, InterruptedRun):
                context.instance.add_run_tags(context.run_id, {INTERRUPTED: context.run_id})
            # Dagster takes an interrupt that nobody has announced for a crash, and would retry the run.
            context.instance.report_run_canceling(context.run, str(error))
        return dg.DagsterExecutionInterruptedError(str(error))
    if not error.transient:
        context.instance.add_run_tags(context.run_id, NEVER_RETRY)
    return as_failure(error)
