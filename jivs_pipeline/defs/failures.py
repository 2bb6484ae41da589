"""Errors of ours as Dagster failures: one sentence on the run page, no traceback needed to understand it."""

import dagster as dg

from jivs_pipeline.core.errors import JivsError

__all__ = ["as_failure"]


def as_failure(error: JivsError) -> dg.Failure:
    """The failure of an op. Only transient errors are worth another attempt of the run."""
    metadata = {"code": error.code, "hint": error.hint or "none"}
    return dg.Failure(description=str(error), metadata=metadata, allow_retries=error.transient)
