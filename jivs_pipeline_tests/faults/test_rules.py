"""Runs with rules are killed anywhere: every row arrives as the rules make it, once, or is in quarantine once.

What belongs here: kills while rows are changed and checked. What does not: what rules make of rows (`unit/test_rules.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline_tests.fix_engine import KILL, Engine
from jivs_pipeline_tests.fix_faults import rounds
from jivs_pipeline_tests.sqlite_files import make_file

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

PLACES = (
    "before_staging_sync", "before_staging_rename", "after_staging_rename", "quarantine_before_commit",
    "quarantine_after_commit", "checkpoint_before_commit", "checkpoint_after_commit", "before_commit", "after_commit",
)  # fmt: skip
# Each number three times; every 300th text is no number, which the type refuses; every 500th is refused by a check.
SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000)
INSERT INTO t SELECT i, (i + 2) / 3, CASE WHEN i % 300 = 0 THEN 'bad' WHEN i % 500 = 0 THEN '-1' ELSE i END FROM c;
"""
RULES = {
    "t": {
        "dedupe": {"key": ["n"], "order": "id DESC"},
        "columns": {"s": {"expression": "trim(s)", "type": "integer"}},
    }
}
CHECKS = [
    {"kind": "business", "table": "t", "expression": "s >= 0", "quarantine": True},
    {"kind": "constraints", "table": "t", "severity": "critical"},
]
KEPT = [i for i in range(1, 6001) if i % 3 == 0]
BAD = [i for i in KEPT if i % 300 == 0 or i % 500 == 0]


def test_killed_while_rows_are_changed(
    engine: Engine, jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path
) -> None:
    control = make_target()
    for one in rounds(3, 6, part="rules", full=60):
        with one:
            directory = tmp_path / str(one.number)
            directory.mkdir()
            source, target = make_file(directory / "a.db", SCRIPT), make_target()
            environment = {
                "JIVS_CONTROL_URL": control, "JIVS_STAGING_URL": str(directory / "staging"),
                "JIVS_CONNECTION_LEGACY": f"sqlite:///{source}", "JIVS_CONNECTION_WAREHOUSE": target,
            }  # fmt: skip
            spec = {
                "key": f"k-{uuid4().hex[:12]}", "source": "legacy", "target": "warehouse", "chunk_bytes": 65536,
                "quarantine": {"max_rows": len(BAD)}, "rules": RULES, "validation": CHECKS,
            }  # fmt: skip
            for place in one.rng.sample(PLACES, 3):
                at = f"{place}@{one.rng.randint(1, 8)}:kill"
                run = engine.start(spec, {**environment, "JIVS_FAILPOINT": at})
                assert run.wait() in {-KILL, 0}, run
            done = engine.start(spec, environment)
            assert done.wait() == 0, done
            table = done.document["tables"][0]
            assert (table["target_rows"], table["quarantined_rows"]) == (len(KEPT) - len(BAD), len(BAD))
            with psycopg.connect(target) as db:
                found = db.execute("SELECT id, s FROM t ORDER BY id").fetchall()
            assert found == [(i, i) for i in KEPT if i not in BAD]
            with psycopg.connect(control) as db:
                query = (
                    "SELECT row_key ->> 'id' FROM jivs.migration_quarantine WHERE key = %s AND NOT example"
                )
                kept = sorted(int(i) for (i,) in db.execute(query, (spec["key"],)).fetchall())
            assert kept == BAD
            assert not list((directory / "staging").rglob("*.arrow"))
