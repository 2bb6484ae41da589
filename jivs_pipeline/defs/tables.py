"""Declares every table that was loaded as an asset with a check, so that the catalog plots its history.

What belongs here: reading the list from the control database when a code server loads, and the check
that compares a table with its source again. What does not: materializations, which the runs report
(`story.py`).

An unreachable control database must not keep the code location from loading: the list is then empty
until the next reload.
"""

from typing import Any

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.defs.failures import as_failure
from jivs_pipeline.defs.story import CHECK, check_metadata, table_key
from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.runtime import Runtime

__all__ = ["table_definitions"]

_DESCRIPTION = "Source and target each compute count and digest of this table as it is now."


def table_definitions() -> tuple[list[dg.AssetSpec], list[dg.AssetChecksDefinition]]:
    """One asset and one check per loaded table."""
    try:
        with Runtime.from_environment() as runtime:
            tables = runtime.control.target_tables()
    except JivsError as error:
        dg.get_dagster_logger().warning("Tables are not shown in the catalog: %s", error)
        return [], []
    return [_asset(t) for t in tables], [_check(t) for t in tables]


def _asset(table: dict[str, Any]) -> dg.AssetSpec:
    return dg.AssetSpec(
        table_key(table["target_name"], table["table_name"]),
        description=f"Loaded from {table['source_name']} by migration {table['key']}.",
        group_name="tables",
        kinds={"postgres", "table"},
    )


def _check(table: dict[str, Any]) -> dg.AssetChecksDefinition:
    key, name = table["key"], table["table_name"]
    asset = table_key(table["target_name"], name)

    # Not `asset_check`, which names its op and the op's input by the table: Dagster takes letters, digits and _ only.
    @dg.op(
        name=f"check_{short_hash(*asset.path)}", ins={"table": dg.In(dg.Nothing)}, out={CHECK: dg.Out(None)}
    )
    def check() -> dg.AssetCheckResult:
        try:
            with Runtime.from_environment() as runtime:
                document = reverify(runtime.services(), runtime.control.migration(key), None, only=name)
        except JivsError as error:
            raise as_failure(error) from error
        if document["not_compared"]:
            raise dg.Failure(
                f"The rows of {name} were appended to others, so they cannot be compared any more; the run has done so"
            )
        found = document["tables"][0]
        return dg.AssetCheckResult(
            check_name=CHECK, asset_key=asset, passed=found["equal"], metadata=check_metadata(found)
        )

    spec = dg.AssetCheckSpec(CHECK, asset=asset, description=_DESCRIPTION)
    return dg.AssetChecksDefinition.create(
        keys_by_input_name={"table": asset},
        node_def=check,
        check_specs_by_output_name={CHECK: spec},
        can_subset=False,
    )
