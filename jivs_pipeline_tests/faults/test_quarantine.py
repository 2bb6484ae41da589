"""Runs and replays are killed anywhere: each bad row is in quarantine once or in the target once, and none is lost.

What belongs here: kills around the quarantine. What does not: what a bad row is (`integration/test_sieves.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline_tests.fix_engine import KILL, Engine
from jivs_pipeline_tests.fix_faults import rounds
from jivs_pipeline_tests.sqlite_files import change, make_file

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

IN_RUNS = (
    "quarantine_before_commit",
    "quarantine_after_commit",
    "after_staging_rename",
    "before_commit",
    "after_commit",
)
IN_REPLAYS = (
    "take_over_after_commit", "inside_replay", "before_commit", "after_commit", "replayed_before_commit",
    "replayed_after_commit",
)  # fmt: skip

SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000)
INSERT INTO t SELECT i, i, printf('%040d', i) FROM c;
UPDATE t SET n = 'bad' WHERE id % 300 = 0;
"""
BAD = [i for i in range(1, 6001) if i % 300 == 0]


def test_killed_around_the_quarantine(
    engine: Engine, jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path
) -> None:
    control = make_target()
    for one in rounds(2, 4, part="quarantine", full=60):
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
                "quarantine": {"max_rows": len(BAD)},
            }  # fmt: skip

            def killed(
                place: str, verb: str, environment: dict[str, str] = environment, spec: dict[str, Any] = spec
            ) -> None:
                run = engine.start(spec, {**environment, "JIVS_FAILPOINT": f"{place}:kill"}, verb=verb)
                assert run.wait() in {-KILL, 0}, run

            for place in one.rng.sample(IN_RUNS, 2):
                killed(f"{place}@{one.rng.randint(1, 4)}", "run")
            done = engine.start(spec, environment)
            assert done.wait() == 0, done
            table = done.document["tables"][0]
            assert (table["source_rows"], table["target_rows"], table["quarantined_rows"]) == (
                6000,
                6000 - len(BAD),
                len(BAD),
            )
            assert _kept(control, spec["key"]) == BAD
            assert _loaded(target) == sorted(set(range(1, 6001)) - set(BAD))
            change(source, "UPDATE t SET n = id WHERE typeof(n) = 'text'")
            for place in one.rng.sample(IN_REPLAYS, 2):
                killed(f"{place}@{one.rng.randint(1, 3)}", "replay")
                kept, loaded = _kept(control, spec["key"]), _loaded(target)
                assert len(loaded) == len(set(loaded)), "a row was loaded twice"
                assert set(kept) | set(loaded) == set(range(1, 6001)), "a row was lost"
            last = engine.start(spec, environment, verb="replay")
            assert last.wait() == 0, last
            assert _kept(control, spec["key"]) == []
            assert _loaded(target) == list(range(1, 6001))
            again = engine.start(spec, environment)
            assert again.wait() == 0, again
            told = again.document["tables"][0]
            assert (told["target_rows"], told["quarantined_rows"]) == (6000, 0), json.dumps(told)


IN_REFUSALS = (
    "quarantine_before_commit",
    "quarantine_after_commit",
    "inside_refusal",
    "refused_after_commit",
    "before_commit",
    "after_commit",
)
EXISTING = """CREATE TABLE t (id bigint PRIMARY KEY CHECK (id % 400 > 0), n text, s text UNIQUE);
INSERT INTO t VALUES (7, '', 'old'), (100001, '', repeat('0', 39) || '8')"""
REFUSED = sorted({7, 8} | {i for i in range(1, 6001) if i % 400 == 0})


def test_killed_around_rows_that_the_target_refuses(
    engine: Engine, jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path
) -> None:
    """Each is in quarantine once, and the others in the table that was there, which has all or none of them."""
    control = make_target()
    for one in rounds(2, 4, part="refused", full=40):
        with one:
            directory = tmp_path / str(one.number)
            directory.mkdir()
            source, target = make_file(directory / "a.db", SCRIPT), make_target()
            with psycopg.connect(target) as db:
                db.execute(EXISTING)
            environment = {
                "JIVS_CONTROL_URL": control, "JIVS_STAGING_URL": str(directory / "staging"),
                "JIVS_CONNECTION_LEGACY": f"sqlite:///{source}", "JIVS_CONNECTION_WAREHOUSE": target,
            }  # fmt: skip
            spec = {
                "key": f"k-{uuid4().hex[:12]}", "source": "legacy", "target": "warehouse", "chunk_bytes": 65536,
                "quarantine": {"max_rows": 50}, "on_existing": "append", "rules": {"t": {"columns": {"n": {"type": "text"}}}},
            }  # fmt: skip
            for place in one.rng.sample(IN_REFUSALS, 2):
                often = 1 if place.startswith(("quarantine", "inside", "refused")) else one.rng.randint(4, 14)
                run = engine.start(spec, {**environment, "JIVS_FAILPOINT": f"{place}@{often}:kill"})
                assert run.wait() in {-KILL, 0}, run
            done = engine.start(spec, environment)
            assert done.wait() == 0, done
            table = done.document["tables"][0]
            counts = (table["source_rows"], table["target_rows"], table["quarantined_rows"])
            assert counts == (6000, 6000 - len(REFUSED), len(REFUSED))
            assert table["verified"]
            assert _kept(control, spec["key"]) == REFUSED
            assert _loaded(target) == sorted(set(range(1, 6001)) - set(REFUSED) | {7, 100001})
            with psycopg.connect(target) as db:
                db.execute("ALTER TABLE t DROP CONSTRAINT t_id_check; DELETE FROM t WHERE id IN (7, 100001)")
            for place in one.rng.sample(IN_REPLAYS, 2):
                failing = {"JIVS_FAILPOINT": f"{place}@{one.rng.randint(1, 9)}:kill"}
                run = engine.start(spec, {**environment, **failing}, verb="replay")
                assert run.wait() in {-KILL, 0}, run
            last = engine.start(spec, environment, verb="replay")
            assert last.wait() == 0, last
            assert (_kept(control, spec["key"]), _loaded(target)) == ([], list(range(1, 6001)))
            told = engine.start(spec, environment)
            assert told.wait() == 0, told
            assert (t := told.document["tables"][0])["target_rows"] == 6000, t
            assert t["quarantined_rows"] == 0


def _kept(control: str, key: str) -> list[int]:
    with psycopg.connect(control) as db:
        found = db.execute("SELECT row_key ->> 'id' FROM jivs.migration_quarantine WHERE key = %s", (key,))
        return sorted(int(i) for (i,) in found.fetchall())


def _loaded(target: str) -> list[int]:
    with psycopg.connect(target) as db:
        return sorted(i for (i,) in db.execute("SELECT id FROM t").fetchall())
