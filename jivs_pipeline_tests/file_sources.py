"""Directories of files for tests: made, read as a source, and digests that are computed a third way.

What belongs here: what several test modules need of CSV and Parquet. What does not: cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import Snapshot, Source, Survey
from jivs_pipeline.infra.sources.csv_files import CsvSource
from jivs_pipeline_tests.row_hashes import reference


def connection_to(path: Path, dialect: str = "csv") -> Connection:
    """A connection called legacy."""
    return Connection("legacy", dialect, parse_url(f"{dialect}:///x").url, path=path)


def write(directory: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files by name; text as UTF-8."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return directory


def csv_source(directory: Path, files: Mapping[str, bytes | str]) -> CsvSource:
    """The files as a source."""
    return CsvSource(connection_to(write(directory, files)))


def survey(source: Source, table: str, chunk_bytes: int = 1 << 30) -> Survey:
    """The survey of a table, all columns."""
    found = source.catalog(None).table(table)
    assert found is not None, source.catalog(None).left_out
    return source.survey(found, found.columns, None, chunk_bytes)


def plan_of(source: Source, table: str, chunk_bytes: int = 1 << 30) -> TablePlan:
    """A plan of one table as the planner would make it; refusals do not stop it."""
    seen = survey(source, table, chunk_bytes)
    found = source.catalog(None).table(table)
    return TablePlan(
        source_schema="files",
        source_table=table,
        target_schema="public",
        target_table="t",
        columns=seen.columns,
        lane=seen.lane,
        wire=seen.wire,
        spelling=seen.spelling,
        chunk_by=seen.chunk_by,
        chunk_columns=seen.chunk_columns,
        chunks=seen.chunks,
        rows=seen.rows,
        bytes=seen.bytes,
        definition=found,
    )


def rows_of(snapshot: Snapshot, plan: TablePlan) -> list[tuple[Any, ...]]:
    """All rows of all chunks, as Python values."""
    rows: list[tuple[Any, ...]] = []
    for chunk in plan.chunks:
        for batch in snapshot.batches(plan, chunk):
            batch.validate(full=True)
            rows += zip(*(c.to_pylist() for c in batch.columns), strict=True)
    return rows


def read(source: Source, table: str, chunk_bytes: int = 1 << 30) -> list[tuple[Any, ...]]:
    """All rows of a table."""
    plan = plan_of(source, table, chunk_bytes)
    with source.snapshot(1) as snapshot:
        return rows_of(snapshot, plan)


def digest_of(source: Source, table: str, chunk_bytes: int = 1 << 30) -> Digest:
    """Digest of all chunks."""
    plan = plan_of(source, table, chunk_bytes)
    with source.snapshot(1) as snapshot:
        return sum((snapshot.digest(plan, chunk) for chunk in plan.chunks), Digest())


def expected(source: Source, table: str, rows: Sequence[Sequence[str | None]]) -> Digest:
    """The digest of canonical texts, computed in Python alone."""
    return reference(rows, [column.canon for column in plan_of(source, table).columns])


def refusals(source: Source, table: str) -> list[tuple[str, str]]:
    """Columns and reasons for which a table is refused."""
    return [(r.column, r.reason) for r in survey(source, table).refused]


def table_of(**columns: Any) -> pa.Table:
    """An Arrow table from arrays."""
    return pa.table(columns)
