"""The Dagster code location `jivs_pipeline`; nothing else.

Importing it does no I/O; loading it looks up the known tables.
"""

import dagster as dg

from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.tables import table_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """The job, its partitions, and an asset with its check per table that was ever loaded."""
    tables, checks = table_definitions()
    return build_defs(tables=tables, checks=checks)
