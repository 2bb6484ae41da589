"""The sensor `scheduled_migrations`: when to look for loads that are due. What it does is in `engine/scheduling.py`."""

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.engine.scheduling import ask_for_due
from jivs_pipeline.runtime import Runtime

__all__ = ["scheduled_migrations"]


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the loads of migrations whose spec has a schedule, each due time once.",
)
def scheduled_migrations(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    try:
        with Runtime.from_environment() as runtime:
            due = ask_for_due(runtime.control.due_loads)
    except JivsError as error:
        return dg.SkipReason(f"Nothing was looked at: {error}")
    if due:
        context.log.info(f"Due: {dict(due)}")
    return dg.SkipReason(f"Loads that were due: {', '.join(due)}" if due else "No load is due")
