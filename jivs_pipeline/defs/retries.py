"""Which failed runs another run follows, and having Dagster's daemon launch it where it would not by itself.

What belongs here: runs that the daemon gave up, and runs whose time has not come. What does not: which errors are
worth another run (`failures.py`), and when to look (`sensors.py`).

The daemon decides about a run when it is reported failed, at once and once. A run that is reported failed once more
is decided about once more: that is how it is asked. What it decides by is the tag WILL_RETRY, which is set after the
report is stored: a daemon that reads in between takes the tag of the time before. So the tag is set first, and who was
asked for is looked at until the other run is there.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.errors import DagsterRunNotFoundError
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from jivs_pipeline.defs.tags import (
    ASKED_FOR,
    RETRIED_BY,
    RETRY,
    RETRY_ON_FAILURE,
    SETTLED,
    WAITING,
    WILL_RETRY,
    asked_before,
    asked_tags,
    waits_until,
)

__all__ = ["ENDED", "ask_again", "has_retries_left", "may_be_retried", "may_go_on", "next_retry"]

ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
_RECENT = timedelta(minutes=15)
_PROMISED = timedelta(days=1)
_MOST_ASKED = 30
_OVERLOOKED = timedelta(seconds=60)
"""How long the daemon may take to launch a run that it was asked for."""
_ALLOWED = {RETRY_ON_FAILURE: "true"}
_LOOKED_AT = (WAITING[RETRY], ASKED_FOR[RETRY])


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


def may_go_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether this run or one that repeats it works, or another one will or may yet follow them by itself."""
    group = [run]
    with suppress(DagsterRunNotFoundError):
        _, found = instance.get_run_group(run.run_id) or (None, group)
        group = list(found)
    if any(one.status not in ENDED for one in group):
        return True
    followed = {one.parent_run_id for one in group}
    return any(one.run_id not in followed and may_be_retried(instance, one) for one in group)


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
    times, touched = asked_before(run.tags, run.run_id), record.update_timestamp
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    why = RunFailureReason(reason) if reason else None
    if times >= _MOST_ASKED or not auto_reexecution_should_retry_run(instance, run, why):
        return None
    if run.tags.get(WILL_RETRY) == "true":
        return touched + _OVERLOOKED
    return touched if times or datetime.now(UTC) - touched < _RECENT else None


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
        if at is None:
            if run.tags.get(RETRY) in _LOOKED_AT:
                over = {} if _is_followed(instance, run) else {WILL_RETRY: "false"}
                instance.add_run_tags(run.run_id, {**over, **SETTLED})
        elif at <= now:
            times = asked_before(run.tags, run.run_id) + 1
            instance.add_run_tags(
                run.run_id, {**asked_tags(run.run_id, times), **_ALLOWED, WILL_RETRY: "true"}
            )
            instance.report_run_failed(run, "The run is to be retried now")
            asked.append(run.run_id)
    return asked


def _candidates(instance: dg.DagsterInstance, now: datetime) -> list[dg.RunRecord]:
    """Failed runs that wait or were asked for, those that the daemon does not retry and that failed lately, and those that
    it would but has not.
    """
    failed = [dg.DagsterRunStatus.FAILURE]
    waiting = dg.RunsFilter(job_name="migration", statuses=failed, tags={RETRY: list(_LOOKED_AT)})
    given_up = dg.RunsFilter(
        job_name="migration", statuses=failed, tags={WILL_RETRY: "false"}, updated_after=now - _RECENT
    )
    # It says so before it does it, and may die in between, or find no code server.
    promised = dg.RunsFilter(
        job_name="migration", statuses=failed, tags={WILL_RETRY: "true"}, updated_after=now - _PROMISED
    )
    found = [*instance.get_run_records(waiting), *instance.get_run_records(given_up)]
    found += [r for r in instance.get_run_records(promised) if RETRIED_BY not in r.dagster_run.tags]
    return list({record.dagster_run.run_id: record for record in found}.values())


def _is_followed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    try:
        group = instance.get_run_group(run.run_id)
    except DagsterRunNotFoundError:
        # Its root was deleted; the daemon does not retry such a run either.
        return True
    return group is None or any(other.parent_run_id == run.run_id for other in group[1])
