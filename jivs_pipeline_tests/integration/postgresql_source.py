"""What the tests of the PostgreSQL source share: a source over the test's database, a plan, a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.model import Catalog, LeftOut
from jivs_pipeline.core.plan import Chunk, TablePlan
from jivs_pipeline.core.ports import Snapshot, Survey
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource

WHOLE = Chunk(index=0)
OpenSource = Callable[..., PostgresqlSource]
Run = Callable[[str], Any]


def table_plan(
    source: PostgresqlSource,
    name: str,
    *,
    schema: str = "public",
    chunk_bytes: int = 1 << 26,
    where: str | None = None,
    only: Sequence[str] | None = None,
    **changes: Any,
) -> TablePlan:
    """The plan of one table, as it is in the source."""
    table = source.catalog(schema).table(name)
    assert table is not None
    columns = [c for c in table.columns if only is None or c.name in only]
    survey = source.survey(table, columns, where, chunk_bytes)
    assert survey.refused == ()
    return TablePlan(
        source_schema=schema,
        source_table=name,
        target_schema="public",
        target_table=name,
        where=where,
        **{
            field: getattr(survey, field)
            for field in (
                "columns",
                "lane",
                "wire",
                "spelling",
                "chunk_by",
                "chunk_columns",
                "chunks",
                "rows",
                "bytes",
            )
        },
    ).model_copy(update=changes)


def survey_of(
    source: PostgresqlSource, name: str, where: str | None = None, chunk_bytes: int = 1 << 26
) -> Survey:
    table = source.catalog(None).table(name)
    assert table is not None
    return source.survey(table, table.columns, where, chunk_bytes)


def read(snapshot: Snapshot, plan: TablePlan, chunk: Chunk = WHOLE) -> bytes:
    return b"".join(bytes(piece.data) for piece in snapshot.copy(plan, chunk))


def left(catalog: Catalog) -> dict[str, LeftOut]:
    return {o.name: o for o in catalog.left_out}


def needs(database: str, version: int) -> None:
    with psycopg.connect(database) as link:
        if link.info.server_version < version:
            pytest.skip(f"needs PostgreSQL {version // 10000}")
