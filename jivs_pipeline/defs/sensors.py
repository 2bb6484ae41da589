"""Sensors: when to look. What they do is elsewhere (`reaper.py`)."""

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.defs.reaper import ask_again, end_dead_runs, settle_lost
from jivs_pipeline.runtime import Runtime

__all__ = ["reaper"]


@dg.sensor(
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone, whatever killed it, so that they are tried again.",
)
def reaper(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    try:
        with Runtime.from_environment() as runtime:
            settled = settle_lost(runtime.services(), runtime.control, context.instance)
            lease = runtime.settings.lease_seconds
            ended = end_dead_runs(runtime.control, context.instance, lease_seconds=lease)
            asked = ask_again(context.instance)
    except JivsError as error:
        return dg.SkipReason(f"Nothing was looked at: {error}")
    if settled or ended or asked:
        context.log.warning(f"Gone: migrations {settled}, runs {ended}; to be retried: {asked}")
    return dg.SkipReason(f"{len(settled)} migrations and {len(ended)} runs were gone")
