"""The job `migration`: seven ops in a row, in one process, partitioned by migration key."""

import dagster as dg

from jivs_pipeline.defs import ops
from jivs_pipeline.defs.partitions import MIGRATIONS
from jivs_pipeline.defs.tags import FROM_START, run_tags

__all__ = ["migration"]


def _no_config(_key: str) -> dict[str, object]:
    return {}


@dg.job(
    # The partition is all that a launch needs; its tag is what the concurrency limit counts by.
    config=dg.PartitionedConfig(
        partitions_def=MIGRATIONS,
        run_config_for_partition_key_fn=_no_config,
        tags_for_partition_key_fn=run_tags,
    ),
    # One process: a step costs 42–90 ms in it and 1.2 s in one of its own; parallel work is inside the ops.
    executor_def=dg.in_process_executor,
    tags=FROM_START,
    description="Moves one database into PostgreSQL, exactly once. Choose a partition: the migration's key.",
)
def migration() -> None:
    handle = ops.plan()
    for phase in (ops.extract, ops.transform, ops.validate, ops.load, ops.verify, ops.finish):
        handle = phase(handle)
