"""Removes old runs from Dagster's own storage, which it never does by itself.

What belongs here: which runs may go, and everything that goes with one. What does not: old ticks, which Dagster purges
(`retention` in dagster.yaml), and when it happens (`maintenance.py`).

A run goes last, after its logs and events: one that is killed in between is found again the next night.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime

import dagster as dg
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from jivs_pipeline.defs.tags import MIGRATION_KEY, PARTITION
from jivs_pipeline.infra.failpoints import failpoint

__all__ = ["delete_old_runs", "location_label"]

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 200


def location_label(run: dg.DagsterRun) -> str | None:
    """What marks the runs of this run's code location; None for a run that none has launched."""
    return run.remote_job_origin.repository_origin.get_label() if run.remote_job_origin else None


def delete_old_runs(
    instance: dg.DagsterInstance,
    last_runs: Callable[[Sequence[str]], Collection[str]],
    *,
    label: str | None,
    before: datetime,
    most: int,
) -> int:
    """Delete ended runs whose last change was before `before`, the oldest first.

    Args:
        last_runs: those of the runs that were the last to work on their migration; they stay.
        label: only runs of this code location; None for those of none.
        most: how many at most; the rest is left to the next night.

    Returns:
        How many were deleted.
    """
    chosen: list[str] = []
    latest: dict[tuple[str, str], str] = {}
    # All are chosen before the first is deleted, because the pages are counted by runs.
    for page in _pages(instance, label, before):
        kept = last_runs([run.run_id for run in page])
        for run in page:
            group = _group(run)
            if group not in latest:
                latest[group] = _latest(instance, *group)
            if run.run_id not in kept and run.run_id != latest[group]:
                chosen.append(run.run_id)
        if len(chosen) >= most:
            break
    for run_id in chosen[:most]:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        failpoint("delete_run_after_logs")
        instance.event_log_storage.delete_events(run_id)
        failpoint("delete_run_after_events")
        instance.delete_run(run_id)
    return len(chosen[:most])


def _group(run: dg.DagsterRun) -> tuple[str, str]:
    """Runs of which the latest always stays: those of a migration, or of a job that has none."""
    key = run.tags.get(MIGRATION_KEY) or run.tags.get(PARTITION)
    return (MIGRATION_KEY if MIGRATION_KEY in run.tags else PARTITION, key) if key else ("", run.job_name)


def _latest(instance: dg.DagsterInstance, tag: str, name: str) -> str:
    filters = dg.RunsFilter(tags={tag: name}) if tag else dg.RunsFilter(job_name=name)
    return instance.get_run_records(filters, limit=1)[0].dagster_run.run_id


def _pages(
    instance: dg.DagsterInstance, label: str | None, before: datetime
) -> Iterator[list[dg.DagsterRun]]:
    tags = {REPOSITORY_LABEL_TAG: label} if label else None
    filters = dg.RunsFilter(statuses=_ENDED, tags=tags, updated_before=before)
    cursor: str | None = None
    while records := instance.get_run_records(filters, limit=_PAGE, ascending=True, cursor=cursor):
        runs = [record.dagster_run for record in records]
        cursor = runs[-1].run_id
        yield [run for run in runs if label or run.remote_job_origin is None]
