"""What the plan says of tables that are there already and are changed, not made: `type: incremental`, `load: upsert`.

What belongs here: how such a table is compared, and why it may not be. What does not: comparing (`incremental.py`) and
the rest of the plan (`planning.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from jivs_pipeline.core.model import Catalog, Table
from jivs_pipeline.core.names import qualified
from jivs_pipeline.core.plan import RULED, Chunk, ChunkBy, PlanWarning, Range, TableMode, TablePlan
from jivs_pipeline.core.ports import ExistingTable
from jivs_pipeline.core.spec import Spec, TableRule
from jivs_pipeline.engine.incremental import part_of
from jivs_pipeline.engine.ports import Target

__all__ = ["chunked_by_key", "gone_tables", "mode_of", "update_problem", "watermarked"]

_QUOTES = {"postgresql": '"', "sqlite": '"', "mysql": "`"}
_GROWING = re.compile(
    r"smallint|integer|bigint|numeric(\(.*\))?|date|timestamp(\(\d\))?( without time zone)?|(?P<moment>timestamp.*)"
)
_FILES = frozenset({ChunkBy.BYTES, ChunkBy.ROW_GROUPS})


def mode_of(spec: Spec, there: ExistingTable | None) -> TableMode:
    """What becomes of a table whose name the target has or has not."""
    if there is None:
        return TableMode.CREATE
    return TableMode.UPDATE if spec.type == "incremental" else TableMode(spec.on_existing)


def chunked_by_key(plan: TablePlan, table: Table, target: Target, warnings: list[PlanWarning]) -> TablePlan:
    """The table in ranges of an integer key that both ends have an index on, where there is one."""
    column = next((c for c in plan.columns if (c.target,) == plan.existing_key and c.carrier != RULED), None)
    keys = [k.columns for k in (table.primary_key, *table.unique_keys) if k]
    if column and (column.source,) in keys and plan.chunk_by not in _FILES:
        if plan.chunk_key == column.target:
            return plan
        by_key = plan.model_copy(
            update={"chunk_by": ChunkBy.KEY, "chunk_columns": (column.source,), "chunks": (Chunk(index=0),)}
        )
        if by_key.chunk_key is not None and (chunks := _chunks(by_key, len(plan.chunks), target)):
            return by_key.model_copy(update={"chunks": chunks})
    reason = "incremental: no integer key of both ends divides it, so it is read and compared as a whole when it differs"
    warnings.append(PlanWarning(table=table.qualified, kind="lossy", reason=reason))
    if plan.chunk_key is None:
        return plan
    # Its chunks are ranges of a column that is no key of the target's: one comparison for all of them.
    return plan.model_copy(
        update={"chunk_by": ChunkBy.WHOLE, "chunk_columns": (), "chunks": (Chunk(index=0),)}
    )


def watermarked(plan: TablePlan, rule: TableRule, dialect: str, warnings: list[PlanWarning]) -> TablePlan:
    """The table with the column that says which of its rows are new, where that can be made use of."""
    if rule.watermark is None:
        return plan
    column = next((c for c in plan.columns if c.source == rule.watermark), None)
    quote, reason = _QUOTES.get(dialect), None
    if plan.chunk_key is None:
        reason = "no integer key divides the table"
    elif plan.rules is not None:
        reason = "all rows of a table with rules or validations are read anyhow"
    elif quote is None:
        reason = f"the source is {dialect}"
    elif column is None:
        reason = "it is not carried"
    elif (fits := _GROWING.fullmatch(column.target_type)) is None or (
        fits["moment"] and dialect != "postgresql"
    ):
        reason = f"{column.target_type} is no type whose order both ends share"
    if reason is not None or column is None or quote is None:
        said = f"incremental: the watermark {rule.watermark} is not used: {reason}"
        warnings.append(PlanWarning(table=plan.source, kind="lossy", reason=said))
        return plan
    name = quote + column.source.replace(quote, quote * 2) + quote
    return plan.model_copy(update={"watermark": name, "watermark_column": column.target})


def _chunks(table: TablePlan, wanted: int, target: Target) -> tuple[Chunk, ...]:
    """About as many chunks as the source would make, cut at the target's keys; none where the target has too few rows for
    that, because one chunk would be much too large then.
    """
    whole: Range = (None, None)
    cuts = target.cuts(table, whole, max(1, table.rows // wanted)) if wanted > 1 else ()
    if len(cuts) + 1 < wanted // 2:
        return ()
    return tuple(part_of(Chunk(index=n), part) for n, part in enumerate(pairwise([None, *cuts, None])))


def update_problem(plan: TablePlan, existing: ExistingTable | None) -> str | None:
    """Why the table that is there cannot be changed into the source's."""
    if existing is None:
        return None
    if plan.upsert and not plan.existing_key:
        return "load: upsert needs a primary key, or a unique key without NULLs, of the target's table among its columns"
    if plan.mode is not TableMode.UPDATE:
        return None
    if existing.kind == "p" or existing.parent is not None:
        return "type: incremental cannot change partitioned tables yet; use on_existing: truncate"
    carried = {c.target for c in plan.columns}
    for column in existing.columns:
        if column.name not in carried and not column.generated:
            return (
                f"the target's table has column {column.name!r}, which the source does not fill;"
                " load it anew with on_existing: replace"
            )
    return None


def gone_tables(spec: Spec, catalog: Catalog, names: Mapping[str, str], target: Target) -> list[PlanWarning]:
    """Tables that the target has and the source has not: somebody dropped them there, or they are somebody else's."""
    here = {name for kind, name in target.objects(spec.target_schema) if kind == "table"}
    known = {*names.values(), *(t.name for t in catalog.tables)}
    return [
        PlanWarning(
            table=qualified(spec.target_schema, name),
            kind="lossy",
            reason="incremental: the target has this table and the source has not; it is left alone",
        )
        for name in sorted(here - known)
        if spec.tables.takes(name)
    ]
