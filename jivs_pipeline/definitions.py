"""The Dagster code location `jivs_pipeline`; nothing else."""

from jivs_pipeline.defs.build import build_defs

defs = build_defs()
