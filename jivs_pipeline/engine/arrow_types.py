"""Arrow types and schemas by the names that plans use.

What belongs here: turning `ColumnPlan.arrow` into pyarrow values. What does not: deciding them
(`core/types.py`).
The parser itself is in core because `infra/sources/` reads rows with it, and infra never imports engine.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.types import arrow_type

__all__ = ["arrow_schema", "arrow_type"]


def arrow_schema(columns: Iterable[ColumnPlan]) -> pa.Schema:
    """Schema of a table's batches: target names, planned types."""
    return pa.schema([pa.field(c.target, arrow_type(c.arrow), nullable=True) for c in columns])
