"""The comparisons of the acceptance tests find what they are for: a test that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.rows import assert_same_table, fingerprint
from jivs_pipeline_tests.sqlite_files import make_file

TABLE = "CREATE TABLE t (i bigint, f double precision, n numeric, v text, b bytea, d date, w boolean)"
ROWS = "INSERT INTO t VALUES (1, 0.0, 1.50, '', '\\x00', '2020-01-01', true), (1, 0.0, 1.50, '', '\\x00', '2020-01-01', true), (2, NULL, 2, NULL, NULL, NULL, false), (-1, 1, 0, 'ä', '', NULL, NULL)"
CHANGES = [
    "UPDATE t SET i = -2 WHERE i = -1",
    "UPDATE t SET f = '-0' WHERE i = 1",
    "UPDATE t SET v = '' WHERE i = 2",
    "UPDATE t SET v = 'a\u0308' WHERE i = -1",
    "UPDATE t SET b = '\\x01' WHERE i = 1",
    "UPDATE t SET n = 1.500001 WHERE i = 1",
    "UPDATE t SET d = d + 1",
    "DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE i = 1 LIMIT 1)",
    "INSERT INTO t SELECT * FROM t WHERE i = 2",
    "ALTER TABLE t ADD x integer",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_file(
        tmp_path / "t.sqlite",
        """
        CREATE TABLE t (i INTEGER, f REAL, n NUMERIC, v TEXT, b BLOB, d DATE, w BOOLEAN);
        INSERT INTO t VALUES (1, 0.0, 1.5, '', x'00', '2020-01-01', 1), (1, 0.0, 1.5, '', x'00', '2020-01-01', 1), (2, NULL, 2, NULL, NULL, NULL, 0), (-1, 1.0, 0, 'ä', x'', NULL, NULL);
        """,
    )


def test_equal_rows_are_equal_and_each_change_is_found(source: Path, make_target: Callable[[], str]) -> None:
    target = make_target()
    for change in (None, *CHANGES):
        with psycopg.connect(target) as db:
            db.execute("DROP TABLE IF EXISTS t")
            db.execute(TABLE)
            db.execute(ROWS)
            before = fingerprint(db, "t")
            if change is not None:
                db.execute(change)  # pyright: ignore[reportArgumentType]
                assert fingerprint(db, "t") != before, change
        if change is None:
            assert assert_same_table(source, target, "t") == 4
        else:
            with pytest.raises(AssertionError, match=r"rows are|columns of"):
                assert_same_table(source, target, "t")
