"""SQLite files for tests: made from SQL, read as a source, and a digest that is computed a third way.

What belongs here: what several test modules need of SQLite. What does not: cases.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.plan import ColumnPlan, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.infra.sources.sqlite import SqliteSource
from jivs_pipeline_tests.row_hashes import reference


def make_file(path: Path, script: str, rows: dict[str, Iterable[tuple[object, ...]]] | None = None) -> Path:
    """A SQLite file from a script, and rows by table."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)
        for table, values in (rows or {}).items():
            for row in values:
                marks = ", ".join("?" * len(row))
                database.execute(f'INSERT INTO "{table}" VALUES ({marks})', row)
        database.commit()
    return path


def change(path: Path, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0.2)) as database:
        for statement in statements:
            database.execute(statement)


def connection_to(path: Path) -> Connection:
    """A connection called legacy."""
    return Connection("legacy", "sqlite", parse_url("sqlite:///x").url, path=path)


def source_of(path: Path, **settings: float) -> SqliteSource:
    """The file as a source."""
    return SqliteSource(connection_to(path), **settings)


def plan_of(
    source: SqliteSource, table: str, where: str | None = None, chunk_bytes: int = 1 << 30
) -> TablePlan:
    """A plan of one table as the planner would make it; refusals do not stop it."""
    found = source.catalog(None).table(table)
    assert found is not None
    survey = source.survey(found, found.columns, where, chunk_bytes)
    return TablePlan(
        source_schema="main",
        source_table=table,
        target_schema="public",
        target_table="t",
        columns=survey.columns,
        lane=survey.lane,
        wire=survey.wire,
        spelling=survey.spelling,
        where=where,
        chunk_by=survey.chunk_by,
        chunk_columns=survey.chunk_columns,
        chunks=survey.chunks,
        rows=survey.rows,
        bytes=survey.bytes,
        definition=found,
    )


def column(plan: TablePlan, name: str) -> ColumnPlan:
    """A column of a plan."""
    return next(c for c in plan.columns if c.source == name)


def rows_of(snapshot: Snapshot, plan: TablePlan) -> list[tuple[object, ...]]:
    """All rows of all chunks, as Python values."""
    rows: list[tuple[object, ...]] = []
    for chunk in plan.chunks:
        for batch in snapshot.batches(plan, chunk):
            batch.validate(full=True)
            rows += zip(*(c.to_pylist() for c in batch.columns), strict=True)
    return rows


def read(source: SqliteSource, plan: TablePlan) -> pa.Table:
    """All rows of a plan."""
    with source.snapshot(1) as snapshot:
        batches = [b for chunk in plan.chunks for b in snapshot.batches(plan, chunk)]
    schema = batches[0].schema if batches else None
    return pa.Table.from_batches(batches, schema)


def digest_of(source: SqliteSource, plan: TablePlan) -> Digest:
    """Digest of a plan's chunks."""
    with source.snapshot(1) as snapshot:
        return sum((snapshot.digest(plan, chunk) for chunk in plan.chunks), Digest())


def spelled(value: object, canon: Canon) -> str:
    """A raw value of SQLite as `Canon` says, written down once more."""
    if canon is Canon.FLOAT:
        return struct.pack(">d", float(str(value))).hex()
    if canon is Canon.NUMERIC:
        number = Decimal(repr(value))
        if number.is_infinite():
            return "Infinity" if number > 0 else "-Infinity"
        text = f"{number:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    if canon is Canon.BYTES:
        assert isinstance(value, bytes)
        return value.hex()
    text = str(value)
    if canon is Canon.TIMESTAMP:
        text = text.replace("T", " ")
    if canon in {Canon.TIMESTAMP, Canon.TIME} and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text


def expected_digest(rows: Iterable[tuple[object, ...]], canons: Iterable[Canon]) -> Digest:
    """The digest of raw rows, computed in Python alone."""
    kinds = list(canons)
    texts = ([None if v is None else spelled(v, c) for v, c in zip(row, kinds, strict=True)] for row in rows)
    return reference(texts, kinds)
