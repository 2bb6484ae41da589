"""Puts the code location together; tests and `jivs run` override its resources."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from jivs_pipeline.defs.io_manager import HandleIOManager
from jivs_pipeline.defs.jobs import migration
from jivs_pipeline.defs.partitions import migration_asset
from jivs_pipeline.defs.resources import session_resource

__all__ = ["build_defs"]


@dg.io_manager(config_schema={"home": dg.Field(dg.StringSource, default_value={"env": "DAGSTER_HOME"})})
def _handles(context: dg.InitResourceContext) -> HandleIOManager:
    from pathlib import Path

    return HandleIOManager(Path(context.resource_config["home"]) / "handles")


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The definitions of the code location.

    Args:
        resource_overrides: instead of `session` or `handles`.
    """
    resources = {"session": session_resource(), "handles": _handles}
    return dg.Definitions(assets=[migration_asset], jobs=[migration], resources={**resources, **(resource_overrides or {})})
