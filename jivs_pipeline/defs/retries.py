"""Which failed runs another run follows, and having Dagster's daemon launch it where it would not by itself.

What belongs here: runs that the daemon gave up, and runs whose time has not come. What does not: which errors are
worth another run (`failures.py`), and when to look (`sensors.py`).

The daemon decides about a run when it is reported failed, at once and once. A run that is reported failed once more
is decided about once more: that is how it is asked.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.errors import DagsterRunNotFoundError
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from jivs_pipeline.defs.tags import (
    RETRY_ON_FAILURE,
    SETTLED,
    WAITING,
    WILL_RETRY,
    asked_before,
    asked_tags,
    waits_until,
)

__all__ = ["ask_again", "has_retries_left", "may_be_retried", "next_retry"]

_RECENT = timedelta(minutes=15)
_MOST_ASKED = 30
_ALLOWED = {RETRY_ON_FAILURE: "true"}


def may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a failed run is not the last word: another run has followed, will follow or may yet follow by itself."""
    record = instance.get_run_record_by_id(run.run_id)
    if record is None or record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return False
    return (
        record.dagster_run.tags.get(WILL_RETRY) == "true"
        or _is_followed(instance, record.dagster_run)
        or next_retry(instance, record) is not None
    )


def has_retries_left(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the daemon would retry this run, were it to fail now of something that passes."""
    failed = run.with_status(dg.DagsterRunStatus.FAILURE).with_tags({**run.tags, **_ALLOWED})
    return auto_reexecution_should_retry_run(instance, failed, RunFailureReason.STEP_FAILURE)


def next_retry(instance: dg.DagsterInstance, record: dg.RunRecord) -> datetime | None:
    """From when on the daemon is to be asked for a run after this failed one; None if never."""
    run = record.dagster_run
    if _is_followed(instance, run):
        return None
    until = waits_until(run.tags, run.run_id)
    if until is not None:
        return until if has_retries_left(instance, run) else None
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    if not auto_reexecution_should_retry_run(instance, run, RunFailureReason(reason) if reason else None):
        return None
    touched = record.update_timestamp
    recent = datetime.now(UTC) - touched < _RECENT
    return touched if recent and asked_before(run.tags, run.run_id) < _MOST_ASKED else None


def ask_again(instance: dg.DagsterInstance) -> list[str]:
    """Have the daemon retry runs that it has given up although they may be retried, and those whose time has come.

    It gives up for good where the code server is away at that moment.

    Returns:
        Ids of the runs.
    """
    asked: list[str] = []
    now = datetime.now(UTC)
    for record in _candidates(instance, now):
        run, at = record.dagster_run, next_retry(instance, record)
        waited = waits_until(run.tags, run.run_id) is not None
        if at is None:
            if run.tags.items() >= WAITING.items():
                instance.add_run_tags(run.run_id, SETTLED)
        elif at <= now:
            times = asked_before(run.tags, run.run_id)
            # Killed in between, it is one that was given up.
            instance.add_run_tags(run.run_id, {**asked_tags(run.run_id, times + 1), **_ALLOWED, **SETTLED})
            why = "Its time has come" if waited else "The code server was away when it was to be retried"
            instance.report_run_failed(run, f"{why}: the run is retried")
            asked.append(run.run_id)
    return asked


def _candidates(instance: dg.DagsterInstance, now: datetime) -> list[dg.RunRecord]:
    """Failed runs that the daemon does not retry: all that wait, and those that failed lately."""
    failed = [dg.DagsterRunStatus.FAILURE]
    waiting = dg.RunsFilter(job_name="migration", statuses=failed, tags=WAITING)
    given_up = dg.RunsFilter(
        job_name="migration", statuses=failed, tags={WILL_RETRY: "false"}, updated_after=now - _RECENT
    )
    found = [*instance.get_run_records(waiting), *instance.get_run_records(given_up)]
    return list({record.dagster_run.run_id: record for record in found}.values())


def _is_followed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    try:
        group = instance.get_run_group(run.run_id)
    except DagsterRunNotFoundError:
        # Its root was deleted; the daemon does not retry such a run either.
        return True
    return group is None or any(other.parent_run_id == run.run_id for other in group[1])
