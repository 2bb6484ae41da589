"""The partitions definition: one partition per migration key, and the asset that makes it editable.

The asset is declared although no job makes it: Dagster answers Unauthorized to `addDynamicPartition`
unless an asset uses the partitions definition. Its materializations are the verdicts of the runs.
"""

import dagster as dg

__all__ = ["MIGRATIONS", "MIGRATION_ASSET", "migration_asset"]

MIGRATIONS = dg.DynamicPartitionsDefinition(name="migrations")
MIGRATION_ASSET = dg.AssetKey(["jivs", "migration"])

migration_asset = dg.AssetSpec(
    MIGRATION_ASSET,
    partitions_def=MIGRATIONS,
    description="One migration per partition; a materialization is the verdict of a run.",
    group_name="jivs",
    kinds={"postgres"},
)
