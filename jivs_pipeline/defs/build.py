"""Puts the code location together; tests and `jivs run` override its resources."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from jivs_pipeline.defs.io_manager import HandleIOManager, handles_directory
from jivs_pipeline.defs.jobs import migration
from jivs_pipeline.defs.maintenance import MAINTENANCE_JOBS, MAINTENANCE_SCHEDULES
from jivs_pipeline.defs.partitions import migration_asset
from jivs_pipeline.defs.resources import session_resource
from jivs_pipeline.defs.sensors import SENSORS
from jivs_pipeline.defs.steering_jobs import STEERING

__all__ = ["build_defs"]


@dg.io_manager
def _handles(context: dg.InitResourceContext) -> HandleIOManager:
    if context.instance is None:
        raise dg.DagsterInvariantViolationError("handles are kept in the instance's directory")
    return HandleIOManager(handles_directory(Path(context.instance.root_directory)))


def build_defs(
    resource_overrides: Mapping[str, Any] | None = None,
    tables: Sequence[dg.AssetSpec] = (),
    checks: Sequence[dg.AssetChecksDefinition] = (),
) -> dg.Definitions:
    """The definitions of the code location.

    Args:
        resource_overrides: instead of `session` or `handles`.
        tables, checks: assets of the loaded tables and their checks.
    """
    resources = {"session": session_resource(), "handles": _handles}
    return dg.Definitions(
        assets=[migration_asset, *tables],
        asset_checks=checks,
        jobs=[migration, *STEERING, *MAINTENANCE_JOBS],
        schedules=MAINTENANCE_SCHEDULES,
        sensors=SENSORS,
        resources={**resources, **(resource_overrides or {})},
    )
