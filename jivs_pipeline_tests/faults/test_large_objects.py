"""Large objects from PostgreSQL to PostgreSQL: exactly once, whoever is killed, and taken back by a rollback.

What belongs here: what a target's `pg_largeobject` has after it. What does not: tables, which go the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.fix_engine import KILL, Engine, Forked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SOURCE = """
CREATE TABLE docs (id integer PRIMARY KEY, content oid);
INSERT INTO docs SELECT i, lo_from_bytea(0, decode(md5(i::text), 'hex')) FROM generate_series(1, 2300) i;
SELECT lo_create(3000070000), lo_from_bytea(3000070001, decode(repeat('00ff1200', 700000), 'hex')), lo_from_bytea(4000000000, repeat('x', 1048576)::bytea);
SELECT lo_put(3000070002, 5000000, 'after a hole') FROM lo_create(3000070002);
COMMENT ON LARGE OBJECT 3000070001 IS 'It''s "big", ä';
GRANT SELECT ON LARGE OBJECT 3000070000 TO PUBLIC; GRANT SELECT, UPDATE ON LARGE OBJECT 3000070001 TO pg_monitor WITH GRANT OPTION;
"""
ALL = """
SELECT m.oid::int8, md5(lo_get(m.oid)), obj_description(m.oid, 'pg_largeobject'),
       (SELECT array_agg(x.grantee::text || x.privilege_type || x.is_grantable ORDER BY 1)
          FROM aclexplode(m.lomacl) x WHERE x.grantee <> m.lomowner)
  FROM pg_largeobject_metadata m ORDER BY 1
"""


def _all(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as db:
        return db.execute(ALL.encode()).fetchall()


@dataclass(frozen=True)
class Moving:
    """One migration."""

    engine: Engine
    source: str
    target: str
    staging: Path
    spec: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "JIVS_CONNECTION_LEGACY": self.source,
            "JIVS_CONNECTION_WAREHOUSE": self.target,
            "JIVS_STAGING_URL": str(self.staging),
            "JIVS_LOCK_WAIT_SECONDS": "0",
        }

    def start(self, failpoint: str = "", verb: str = "run", **more: Any) -> Forked:
        return self.engine.start(
            {**self.spec, **more}, {**self.environment, "JIVS_FAILPOINT": failpoint}, verb=verb
        )

    def die(self, place: str, verb: str = "run") -> None:
        run = self.start(f"{place}:kill", verb)
        assert run.wait() == -KILL, f"{place}: {run}"

    def verify(self) -> list[dict[str, Any]]:
        """The tables that differ."""
        home = {"JIVS_HOME": str(self.engine.home)}
        with Runtime.from_environment(environment={**home, **self.environment}) as runtime:
            services = runtime.services()
            row = services.control.migration(self.spec["key"])
            return [t for t in reverify(services, row, "rows", narrow=True)["tables"] if not t["equal"]]


@pytest.fixture
def make_moving(engine: Engine, make_target: Callable[[], str], tmp_path: Path) -> Callable[..., Moving]:
    def make(taken: int, **options: Any) -> Moving:
        source, target = make_target(), make_target()
        with psycopg.connect(source) as db:
            db.execute(SOURCE.encode())
        with psycopg.connect(target) as db:
            db.execute("SELECT lo_from_bytea(%s, 'theirs')", (taken,))
        spec = {"key": f"k-{uuid4().hex[:12]}", "source": "legacy", "target": "warehouse", **options}
        return Moving(engine, source, target, tmp_path / "staging", spec)

    return make


@pytest.mark.parametrize("options", [{"grants": True}, {"staging": "none"}])
def test_killed_at_commits_they_are_the_source_s_and_a_rollback_takes_them_back(
    make_moving: Callable[..., Moving], options: Mapping[str, Any]
) -> None:
    moving = make_moving(99, **options)
    before = _all(moving.target)
    for place in ("after_copy_before_commit", "before_commit@5", "after_commit@4"):
        moving.die(place)
    run = moving.start()
    assert run.wait() == 0, run
    check_run(run.document)
    there = _all(moving.source)
    wanted = there if "grants" in options else [(*line[:-1], None) for line in there]
    assert _all(moving.target) == sorted(wanted + before)
    table = next(t for t in run.document["tables"] if t["source_table"] == "pg_catalog.pg_largeobject")
    assert (table["verified"], table["source_rows"]) == (True, 2300 + 1 + 3 + 5 + 1)
    assert table["chunks"] == 3
    assert moving.verify() == []
    with psycopg.connect(moving.target) as db:
        db.execute("SELECT lo_put(3000070002, 3000000, '\\x01')")
    (different,) = moving.verify()
    assert different["differences"] == [
        {"key": {"loid": "3000070002", "piece": "2"}, "kind": "changed", "columns": ["data"]}
    ]
    moving.die("inside_undo@3", "rollback")
    back = moving.start(verb="rollback")
    assert back.wait() == 0, back
    assert _all(moving.target) == before


def test_a_number_that_is_taken_refuses_them_until_they_are_left_out_on_purpose(
    make_moving: Callable[..., Moving],
) -> None:
    moving = make_moving(3000070001)
    before = _all(moving.target)
    run = moving.start()
    assert run.wait() == 1, run
    assert (
        "(pg_catalog.pg_largeobject): the target has another large object 3000070001; remove it there, or set"
        " large_objects: false" in run.document["error"]["message"]
    )
    assert _all(moving.target) == before
    run = moving.start(large_objects=False)
    assert run.wait() == 0, run
    assert any(
        w["reason"].startswith("large objects: the spec says large_objects: false")
        for w in run.document["warnings"]
    )
