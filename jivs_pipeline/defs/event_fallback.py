"""The sensor `event_fallback`: when to look for events that were not delivered. What it does is in `engine/relay.py`."""

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.runtime import Runtime

__all__ = ["event_fallback"]


@dg.sensor(
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Delivers events that their run could not deliver, and those that Redis has lost.",
)
def event_fallback(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    try:
        with Runtime.from_environment() as runtime:
            swept, left = runtime.relay.sweep(), runtime.control.outbox.backlog()
    except JivsError as error:
        return dg.SkipReason(f"Nothing was looked at: {error}")
    if swept.failed:
        context.log.warning(f"{left.undelivered} events wait, the oldest for {left.oldest_seconds:.0f} s")
    return dg.SkipReason(
        f"Migrations whose events were sent: {swept.sent}, posted: {swept.posted}; {left.undelivered} events wait"
    )
