"""Large objects in a plan: as the rows of one more table, which is read in chunks, loaded and verified like any other.

What belongs here: whether they come along. What does not: their SQL (`infra/large_objects.py`).

They are the database's and of no schema, and columns point to them by bare numbers. So they keep those numbers, and all of
them come along or none: which of them a schema uses, nobody can tell for sure (Hibernate writes the numbers into text).
"""

from __future__ import annotations

from collections.abc import Sequence

from jivs_pipeline.core.model import Column, Key, LeftOut, Table
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import HoldsLargeObjects, Source
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.ports import Target

__all__ = ["ALL", "KIND", "plan_large_objects", "without"]

KIND = "large objects"
ALL = (KIND, "all")
"""What an object needs that hangs on one of them."""
_SCHEMA, _NAME = "pg_catalog", "pg_largeobject"


def plan_large_objects(spec: Spec, source: Source, target: Target) -> TablePlan | None:
    """Their plan; None where there are none or the spec does not take them."""
    if _reason(spec) is not None or not isinstance(source, HoldsLargeObjects):
        return None
    survey = source.survey_large_objects(spec.chunk_bytes, target.large_objects(spec.key))
    if survey is None:
        return None
    refused = survey.refused[0].reason if survey.refused else None
    columns = tuple(Column(name=c.target, type=c.target_type, nullable=c.nullable) for c in survey.columns)
    key = Key(name=None, columns=tuple(c.target for c in survey.columns if not c.nullable))
    return TablePlan(
        source_schema=_SCHEMA,
        source_table=_NAME,
        target_schema=_SCHEMA,
        target_table=_NAME,
        columns=survey.columns,
        lane=survey.lane,
        wire=survey.wire,
        spelling=survey.spelling,
        chunk_by=survey.chunk_by,
        chunk_columns=survey.chunk_columns,
        chunks=survey.chunks,
        rows=survey.rows,
        bytes=survey.bytes,
        refused=refused,
        streamed=spec.staging == "none",
        definition=Table(_SCHEMA, _NAME, columns, primary_key=key),
        large_objects_of=spec.key,
    )


def without(spec: Spec, left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """What a catalog leaves out, but for large objects that come along; with the reason of those that do not."""
    reason = _reason(spec)
    told = [o for o in left_out if o.kind != KIND]
    return told + [LeftOut(o.name, o.kind, reason) for o in left_out if o.kind == KIND and reason]


def _reason(spec: Spec) -> str | None:
    """Why they do not come along, or None."""
    if spec.large_objects is False:
        return "the spec says large_objects: false; columns that point to them keep their numbers"
    if spec.type == "incremental":
        return "type: incremental changes rows of tables only; columns that point to them keep their numbers"
    if spec.large_objects is None and (spec.tables.include != ("*",) or spec.tables.exclude):
        return "the spec chooses tables; set large_objects: true if those of the whole database are to come along"
    return None
