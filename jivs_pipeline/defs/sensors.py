"""Sensors: when to look. What they do is elsewhere (`queue.py`, `reaper.py`, `retries.py`, `engine`).

Where a database does not answer, a look sees nothing and says so; the next one comes in a few seconds.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.requests import Asked, RequestStatus
from jivs_pipeline.defs.jobs import migration
from jivs_pipeline.defs.partitions import MIGRATIONS
from jivs_pipeline.defs.queue import ask_for_interrupted, tend
from jivs_pipeline.defs.reaper import end_dead_runs, settle_lost
from jivs_pipeline.defs.retries import ask_again
from jivs_pipeline.defs.tags import request_tags
from jivs_pipeline.engine.scheduling import ask_for_due
from jivs_pipeline.runtime import Runtime

__all__ = ["SENSORS"]

_LOOK_SECONDS, _POLL_SECONDS = 3.0, 0.25
"""A tick that takes more than the daemon's 5 s, with all that is around the look, costs the next one."""
_T = TypeVar("_T")


def _looking(look: Callable[[Runtime], _T]) -> _T | dg.SkipReason:
    try:
        with Runtime.from_environment() as runtime:
            return look(runtime)
    except JivsError as error:
        return dg.SkipReason(f"Nothing was looked at: {error}")


@dg.sensor(
    job_name="migration",
    # The daemon evaluates sensors every 5 s, and skips one whose interval has not quite passed.
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches a run for every request, and writes down what has become of those launched.",
)
def migration_requests(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    def look(runtime: Runtime) -> dg.SensorResult | dg.SkipReason:
        queue, control, instance = runtime.requests, runtime.control, context.instance
        deadline = time.monotonic() + _LOOK_SECONDS
        if again := ask_for_interrupted(queue, control, instance):
            context.log.info(f"Go on after an interruption: {', '.join(again)}")
        # For most of the time between two looks of the daemon's, so that a request does not wait for the next.
        while not (launch := tend(queue, control, instance)):
            while not any(a.status is RequestStatus.QUEUED for a in queue.unfinished()):
                if time.monotonic() >= deadline:
                    return dg.SkipReason("No request waits for a run")
                time.sleep(_POLL_SECONDS)
        return dg.SensorResult(
            run_requests=[_run_request(a) for a in launch],
            dynamic_partitions_requests=[MIGRATIONS.build_add_request([a.key for a in launch])],
        )

    return _looking(look)


def _run_request(asked: Asked) -> dg.RunRequest:
    return dg.RunRequest(
        # For ever at most one run, however often it is asked for.
        run_key=str(asked.ref),
        partition_key=asked.key,
        run_config={"ops": {"plan": {"config": {"spec": _without_nulls(asked.spec)}}}},
        tags=request_tags(asked.ref, asked.key, asked.priority),
    )


def _without_nulls(value: Any) -> Any:
    """Dagster takes no null inside of a configuration; in a spec it means the same as leaving the key out."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _on_end(status: dg.DagsterRunStatus, name: str) -> dg.SensorDefinition:
    """Writes down the end of a run as soon as it is known, also while `migration_requests` is switched off."""

    @dg.run_status_sensor(
        run_status=status,
        name=name,
        monitored_jobs=[migration],
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Gives the request of a run that has ended, and its migration, the state that they should have.",
    )
    def ended(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        def look(runtime: Runtime) -> None:
            tend(runtime.requests, runtime.control, context.instance)

        return _looking(look)

    return ended


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone, whatever killed it, so that they are tried again;"
    " and has those retried whose time has come.",
)
def reaper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    def look(runtime: Runtime) -> dg.SkipReason:
        settled = settle_lost(runtime.services(), runtime.control, context.instance)
        lease = runtime.settings.lease_seconds
        ended = end_dead_runs(runtime.control, context.instance, lease_seconds=lease)
        asked = ask_again(context.instance)
        if settled or ended or asked:
            context.log.warning(f"Gone: migrations {settled}, runs {ended}; to be retried: {asked}")
        return dg.SkipReason(f"{len(settled)} migrations and {len(ended)} runs were gone")

    return _looking(look)


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Delivers events that their run could not deliver, and those that Redis has lost.",
)
def event_fallback(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    def look(runtime: Runtime) -> dg.SkipReason:
        swept, left = runtime.relay.sweep(), runtime.control.outbox.backlog()
        if swept.failed:
            context.log.warning(f"{left.undelivered} events wait, the oldest for {left.oldest_seconds:.0f} s")
        return dg.SkipReason(
            f"Migrations whose events were sent: {swept.sent}, posted: {swept.posted}; {left.undelivered} events wait"
        )

    return _looking(look)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the loads of migrations whose spec has a schedule, each due time once.",
)
def scheduled_migrations(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    def look(runtime: Runtime) -> dg.SkipReason:
        if due := ask_for_due(runtime.control.due_loads):
            context.log.info(f"Due: {dict(due)}")
        return dg.SkipReason(f"Loads that were due: {', '.join(due)}" if due else "No load is due")

    return _looking(look)


SENSORS: tuple[Any, ...] = (
    migration_requests,
    _on_end(dg.DagsterRunStatus.SUCCESS, "migration_succeeded"),
    _on_end(dg.DagsterRunStatus.FAILURE, "migration_failed"),
    _on_end(dg.DagsterRunStatus.CANCELED, "migration_canceled"),
    reaper,
    event_fallback,
    scheduled_migrations,
)
