"""Row 19: random schemas and rows of every source, migrated and compared, without using the product for that.

What belongs here: the migration of examples and their judgement. What does not: the examples (`random_databases.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from psycopg import sql

from jivs_pipeline_tests.faults.random_databases import (
    Database,
    databases,
    fill_mysql,
    fill_postgresql,
    typed,
    write_csv,
    write_parquet,
    write_sqlite,
)
from jivs_pipeline_tests.fix_engine import Engine
from jivs_pipeline_tests.fix_faults import FULL, rounds

pytestmark = pytest.mark.faults

EXAMPLES = 25 if FULL else 4
"""In one round."""


@pytest.fixture
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, Database], str]:
    """Makes a source of a dialect that holds a database; gives its URL."""

    def build(dialect: str, database: Database) -> str:
        if dialect == "postgresql":
            url: str = request.getfixturevalue("make_target")()
            fill_postgresql(url, database)
            return url
        if dialect == "mysql":
            from jivs_pipeline_tests.fix_mysql import connected

            url = request.getfixturevalue("make_mysql")()
            with connected(url) as server:
                fill_mysql(server, database)
            return url
        place = tmp_path / uuid4().hex
        place.mkdir()
        if dialect == "sqlite":
            write_sqlite(place / "legacy.db", database)
            return f"sqlite:///{place / 'legacy.db'}"
        (write_csv if dialect == "csv" else write_parquet)(place, database)
        return f"{dialect}:///{place}/"

    return build


def _rows(target: str, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target) as db:
        db.execute("SET timezone TO 'UTC'")
        found = db.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
    return sorted((tuple(map(typed, row)) for row in found), key=repr)


@pytest.mark.timeout(5400)
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "mysql", "csv", "parquet"])
def test_a_random_database_arrives_as_it_is(
    dialect: str,
    engine: Engine,
    built: Callable[[str, Database], str],
    make_target: Callable[[], str],
    tmp_path: Path,
) -> None:
    target = make_target()

    def migrate(database: Database) -> None:
        with psycopg.connect(target) as db:
            db.execute(
                "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS jivs_ledger CASCADE"
            )
        source, key = built(dialect, database), f"k-{uuid4().hex[:12]}"
        spec = {"key": key, "source": "legacy", "target": "warehouse", "chunk_bytes": 65536}
        staging = tmp_path / f"staging-{key}"
        run = engine.start(
            spec,
            {
                "JIVS_CONNECTION_LEGACY": source, "JIVS_CONNECTION_WAREHOUSE": target,
                "JIVS_STAGING_URL": str(staging),
            },
        )  # fmt: skip
        assert run.wait() == 0, f"{database} {run}"
        for table, expected in database.expected().items():
            assert _rows(target, table) == sorted(expected.elements(), key=repr), table
        shutil.rmtree(staging, ignore_errors=True)

    for one in rounds(19, quick=1, part=dialect, full=500):
        with one:
            one.faults = EXAMPLES
            examples = settings(
                max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],  # a smaller example would take minutes
            )  # fmt: skip
            seed(one.rng.randrange(1 << 60))(examples(given(databases(dialect))(migrate)))()
