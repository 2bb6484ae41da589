"""How an op ends that does not succeed: as a failure with one sentence, or as a run that was stopped.

What belongs here: which of our errors Dagster's daemon may answer with another run. What does not: what the
migration becomes (`engine/migrate.py`).
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from jivs_pipeline.core.breaker import Policy, is_outage
from jivs_pipeline.core.errors import (
    CancelledRun,
    ConnectionFailed,
    InterruptedRun,
    JivsError,
    NoSlot,
    PausedRun,
    TransientError,
)
from jivs_pipeline.defs import story
from jivs_pipeline.defs.retries import has_retries_left
from jivs_pipeline.defs.tags import INTERRUPTED, NEVER_RETRY, wait_tags

__all__ = ["as_failure", "ending", "is_terminating", "retry_after"]

STOPS = (CancelledRun, PausedRun, InterruptedRun)
"""Somebody wanted the run to end: it ends as canceled, which is never answered with another run."""


def as_failure(error: JivsError, report: str | None = None) -> dg.Failure:
    """The failure of an op, with its report. Only transient errors are worth another attempt of the run."""
    metadata = {"code": error.code, "hint": error.hint or "none", **story.report_metadata(report)}
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=error.transient)


def retry_after(error: JivsError, now: datetime) -> datetime | None:
    """When another run may help, for errors that are still there right after; None for all others.

    An endpoint that did not answer before anything was touched is given the time that its breaker would give it:
    three retries within seconds would meet the same, and there are no more of them.
    """
    if isinstance(error, TransientError | NoSlot):
        return error.until
    if isinstance(error, ConnectionFailed) and is_outage(error):
        return now + timedelta(milliseconds=Policy().open_ms)
    return None


def is_terminating(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether somebody pressed Terminate, as opposed to a worker that is stopped with its machine or terminal."""
    run = instance.get_run_by_id(run_id)
    return run is not None and run.status in {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}


def ending(context: dg.OpExecutionContext, error: JivsError, report: str | None) -> BaseException:
    """What the op raises for `error`, after telling Dagster whether the run may be retried."""
    if isinstance(error, STOPS):
        context.log.warning(f"{error}. Report: {report}" if report else str(error))
        if not is_terminating(context.instance, context.run_id):
            if isinstance(error, InterruptedRun):
                context.instance.add_run_tags(context.run_id, {INTERRUPTED: context.run_id})
            # Dagster takes an interrupt that nobody has announced for a crash, and would retry the run.
            context.instance.report_run_canceling(context.run, str(error))
        return dg.DagsterExecutionInterruptedError(str(error))
    until = retry_after(error, datetime.now(UTC))
    # As it is stored: its first op may have changed how often it may be retried.
    run = context.instance.get_run_by_id(context.run_id) or context.run
    if until is not None and has_retries_left(context.instance, run):
        context.instance.add_run_tags(context.run_id, wait_tags(context.run_id, until))
        context.log.info(f"It is run again by itself after {until:%Y-%m-%d %H:%M:%S} UTC")
    elif not error.transient:
        context.instance.add_run_tags(context.run_id, NEVER_RETRY)
    return as_failure(error, report)
