"""The jobs `nightly_housekeeping` and `weekly_reverification`, and the schedules that launch them.

What belongs here: one op per step, and what it tells. What does not: the steps (`engine/`, `infra/`, `old_runs.py`).

The steps of the night do not depend on each other, so one that fails does not keep the others from their work.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.defs.failures import as_failure
from jivs_pipeline.defs.io_manager import remove_old_handles
from jivs_pipeline.defs.old_runs import delete_old_runs, location_label
from jivs_pipeline.defs.story import comparison_metadata, recheck
from jivs_pipeline.engine.reverification import Outcome, reverify_completed
from jivs_pipeline.engine.sweeping import sweep
from jivs_pipeline.infra.staging import Staging
from jivs_pipeline.runtime import Runtime

__all__ = ["MAINTENANCE_JOBS", "MAINTENANCE_SCHEDULES"]

_LONGEST = {"dagster/max_runtime": str(12 * 3600)}
"""A worker that died with its code server would hold a slot for ever."""


@contextmanager
def _opened() -> Iterator[Runtime]:
    try:
        with Runtime.from_environment() as runtime:
            yield runtime
    except JivsError as error:
        raise as_failure(error) from error


# Every night


@dg.op(
    out=dg.Out(dg.Nothing), description="Delete old rows of the control tables that nobody needs any more."
)
def control_tables(context: dg.OpExecutionContext) -> None:
    with _opened() as runtime:
        days = runtime.settings.retention_days
        deleted = runtime.control.housekeeping.apply_retention(days)
        waiting = runtime.control.housekeeping.unposted(days)
    if waiting:
        context.log.warning(
            f"{waiting} events older than {days} days wait for the webhook; docs/running.md says how to take it out"
        )
    context.log.info(f"Deleted rows older than {days} days: {deleted}")
    context.add_output_metadata({"days": days, "waiting for the webhook": waiting, **deleted})


class RunsConfig(dg.Config):
    """How many runs one night deletes at most."""

    most: int = 2000


@dg.op(out=dg.Out(dg.Nothing), description="Delete old runs of Dagster with their logs, events and handles.")
def dagster_runs(context: dg.OpExecutionContext, config: RunsConfig) -> None:
    with _opened() as runtime:
        before = datetime.now(UTC) - timedelta(days=runtime.settings.retention_days)
        deleted = delete_old_runs(
            context.instance,
            runtime.control.housekeeping.last_runs,
            label=location_label(context.run),
            before=before,
            most=config.most,
        )
    handles = remove_old_handles(Path(context.instance.root_directory), before)
    context.log.info(f"Deleted {deleted} runs that ended before {before:%Y-%m-%d}, and {handles} handles")
    context.add_output_metadata({"runs": deleted, "handles": handles, "before": before.isoformat()})


@dg.op(out=dg.Out(dg.Nothing), description="Remove staged rows of migrations that have ended or are unknown.")
def staging_area(context: dg.OpExecutionContext) -> None:
    with _opened() as runtime:
        staging = Staging(runtime.settings.staging_directory)
        removed = sweep(staging, runtime.control.housekeeping, datetime.now(UTC))
    context.log.info(f"Removed {removed} extractions that nobody will load any more")
    context.add_output_metadata({"extractions": removed})


@dg.op(out=dg.Out(dg.Nothing), description="Bring the view migration_statistics up to date.")
def statistics(context: dg.OpExecutionContext) -> None:
    with _opened() as runtime:
        refreshed = runtime.control.housekeeping.refresh_statistics()
    context.log.info("Refreshed migration_statistics" if refreshed else "Somebody else refreshes it now")
    context.add_output_metadata({"refreshed": refreshed})


@dg.job(
    executor_def=dg.in_process_executor,
    tags=_LONGEST,
    description="Deletes what is old: rows of control tables, runs of Dagster, staged rows. Safe at any time.",
)
def nightly_housekeeping() -> None:
    control_tables()
    dagster_runs()
    staging_area()
    statistics()


# Every week


class ReverificationConfig(dg.Config):
    """Which migrations, and for how long.

    Migrations that were compared in the last `days` are left out; after `hours` no further one is begun.
    """

    days: float = 6.0
    hours: float = 8.0


@dg.op(out=dg.Out(dg.Nothing), description="Compare source and target of every completed migration again.")
def completed_migrations(context: dg.OpExecutionContext, config: ReverificationConfig) -> None:
    deadline = time.monotonic() + config.hours * 3600
    found: list[Any] = []
    with _opened() as runtime:
        noted = runtime.control.housekeeping
        for one in reverify_completed(
            runtime.services(), noted, days=config.days, go_on=lambda: time.monotonic() < deadline
        ):
            found.append(one)
            say = context.log.info if one.outcome is Outcome.EQUAL else context.log.warning
            say(f"{one.key}: {one.outcome}. {one.detail}")
            for table in one.tables:
                check: Any = recheck(one.target, table)  # the type of `log_event` forgets checks
                context.log_event(check)
        left = noted.to_reverify(config.days)
    skipped = {c.key for c in found if c.outcome is Outcome.SKIPPED}
    context.add_output_metadata(comparison_metadata(found, sorted(set(left) - skipped)))
    if different := [c for c in found if c.outcome is Outcome.DIFFERENT]:
        sentence = "; ".join(f"{c.key}: {c.detail}" for c in different)
        raise dg.Failure(
            f"{len(different)} of {len(found)} migrations are not equal to their source any more. {sentence}",
            allow_retries=False,
        )


@dg.job(
    executor_def=dg.in_process_executor,
    tags={"dagster/max_runtime": str(48 * 3600)},
    description="Compares completed migrations with their sources again; a difference fails the run and names the tables.",
)
def weekly_reverification() -> None:
    completed_migrations()


MAINTENANCE_JOBS = (nightly_housekeeping, weekly_reverification)

MAINTENANCE_SCHEDULES = (
    dg.ScheduleDefinition(
        name="nightly_housekeeping",
        job=nightly_housekeeping,
        cron_schedule="17 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every night at 03:17 UTC.",
    ),
    dg.ScheduleDefinition(
        name="weekly_reverification",
        job=weekly_reverification,
        cron_schedule="37 4 * * 0",
        execution_timezone="UTC",
        # Reads both databases completely: whoever has them decides whether they can bear it.
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Sundays at 04:37 UTC, where it is switched on.",
    ),
)
