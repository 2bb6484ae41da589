"""Runs that are killed, interrupted, doubled or robbed of their files end with exactly the source's rows.

What belongs here: one command, one migration, and something that goes wrong. What does not: networks and
servers that fail (tests of `infra`).

JIVS_TEST_SEED repeats a run of the random tests; every failure tells its seed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import jivs_pipeline
from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import (
    assert_same_database,
    constraints,
    fingerprints,
    ledger,
    next_value,
    tables_of,
)
from jivs_pipeline_tests.fix_cli import Ended, Jivs, Started, database_of, with_parts

pytestmark = pytest.mark.faults

SEED = int(os.environ.get("JIVS_TEST_SEED") or random.SystemRandom().randrange(1 << 32))

SQLITE = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price NUMERIC(10,2));
CREATE TABLE children (a INTEGER, b TEXT, parent_id INTEGER NOT NULL REFERENCES parents (id), v TEXT, PRIMARY KEY (a, b));
CREATE TABLE doubled (a INTEGER, b TEXT);
CREATE TABLE blank (id INTEGER PRIMARY KEY, v TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
INSERT INTO parents SELECT i * 3, printf('parent %090d', i), i / 100.0 FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
INSERT INTO children SELECT i % 9, 'b' || i, (i % 1500 + 1) * 3, printf('%080d', i) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO doubled SELECT i / 4, printf('%090d', i / 4) FROM n;
CREATE INDEX children_parent ON children (parent_id);
"""

POSTGRESQL = """
CREATE TABLE parents (id serial PRIMARY KEY, name text NOT NULL UNIQUE, price numeric(10,2));
CREATE TABLE children (a integer, b text, parent_id integer NOT NULL REFERENCES parents, v text, PRIMARY KEY (a, b));
CREATE TABLE doubled (a integer, b text);
CREATE TABLE blank (id integer PRIMARY KEY, v text);
INSERT INTO parents SELECT i * 3, 'parent ' || lpad(i::text, 90, '0'), i / 100.0 FROM generate_series(1, 1500) i;
SELECT setval('parents_id_seq', 4500);
INSERT INTO children SELECT i % 9, 'b' || i, (i % 1500 + 1) * 3, lpad(i::text, 80, '0') FROM generate_series(1, 2500) i;
INSERT INTO doubled SELECT i / 4, lpad((i / 4)::text, 90, '0') FROM generate_series(1, 2000) i;
CREATE INDEX children_parent ON children (parent_id);
ANALYZE;
"""


@dataclass
class Case:
    """One migration that things happen to, and the independent judgement of its end."""

    jivs: Jivs
    key: str
    source: Path | str
    target: str
    story: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        url = f"sqlite:///{self.source}" if isinstance(self.source, Path) else self.source
        return {
            **self.jivs.connections(legacy=url, warehouse=self.target),
            "JIVS_STAGING_URL": str(self.staging),
        }

    @property
    def staging(self) -> Path:
        return self.jivs.directory / f"staging-{self.key}"

    @property
    def staged(self) -> list[Path]:
        """The staged files, smallest first."""
        return sorted(
            (p for p in self.staging.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p.name)
        )

    @property
    def spec(self) -> Path:
        return self.jivs.spec(key=self.key, source="legacy", target="warehouse", chunk_bytes=65536)

    def start(self, failpoint: str = "") -> Started:
        more = {"JIVS_FAILPOINT": failpoint} if failpoint else {}
        return self.jivs.start("run", self.spec, "--json", env={**self.env, **more})

    def run(self, failpoint: str = "") -> Ended:
        return self.start(failpoint).wait()

    def complete(self) -> None:
        """Run to the end and compare everything; then once more, which must do nothing."""
        ended = self.run()
        assert ended.code == 0, f"{self}\n{ended}"
        check_run(ended.document)
        self.check()
        again = self.run()
        assert again.code == 0, f"{self}\n{again}"
        assert again.document["tables"] == ended.document["tables"], self

    def check(self) -> None:
        """The target has exactly the source's rows, keys, indexes and numbers, and nothing of ours beside them."""
        try:
            if isinstance(self.source, Path):
                assert_same_database(self.source, self.target)
            else:
                assert fingerprints(self.target) == fingerprints(self.source)
            with psycopg.connect(self.target) as db:
                assert {t for t, *_ in constraints(db, "p")} == {"parents", "children", "blank"}
                assert {(t, valid) for t, _, valid, *_ in constraints(db, "f")} == {("children", True)}
                assert {t for t, *_ in constraints(db, "u")} == {"parents"}
                indexed = db.execute(
                    "SELECT count(*) FROM pg_index WHERE indexrelid = 'public.children_parent'::regclass AND indisvalid"
                )
                assert indexed.fetchone() == (1,)
                assert next_value(db, "parents", "id") == 4501
                db.rollback()
                side = db.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'jivs_ledger'::regnamespace AND relname ~ '^(side|kept)_'"
                )
                assert side.fetchall() == []
            rows = {t: sum(c[1] for c in chunks) for t, chunks in ledger(self.target, self.key).items()}
            assert rows == {
                "public.parents": 1500,
                "public.children": 2500,
                "public.doubled": 2000,
                "public.blank": 0,
            }
            assert not self.staged, "staging kept rows"
        except AssertionError as error:
            raise AssertionError(f"{self}\n{error}") from None

    def __str__(self) -> str:
        return f"seed {SEED}, migration {self.key}: " + "; ".join(self.story)


MakeCase = Callable[[str], Case]


@pytest.fixture
def make_case(jivs: Jivs, make_target: Callable[[], str], key: str, tmp_path: Path) -> MakeCase:
    def make(dialect: str) -> Case:
        number = sum(1 for _ in tmp_path.glob("*.sqlite"))
        if dialect == "sqlite":
            source: Path | str = tmp_path / f"{number}.sqlite"
            with closing(sqlite3.connect(source)) as lite:
                lite.executescript(SQLITE)
        else:
            source = make_target()
            with psycopg.connect(source) as db:
                db.execute(POSTGRESQL)
        return Case(jivs, key, source, make_target())

    return make


DIALECTS = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])


# ── kill -9 at random ────────────────────────────────────────────────────────────────────────────────────


def _kill_at_random(case: Case, rng: random.Random, kills: int) -> int:
    """Kill the run of a migration up to `kills` times; returns how often. Ends before when the run is faster."""
    done = 0
    while done < kills:
        started = case.start()
        # Nothing can go wrong before the run looks at the databases, so most of the dice are thrown after that.
        early = rng.random() < 0.15
        if not early:
            deadline = time.monotonic() + 60
            while (
                started.err.stat().st_size == 0
                and started.process.poll() is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.005)
        delay = rng.uniform(0, 2.0 if early else 1.2)
        time.sleep(delay)
        started.signal(signal.SIGKILL)
        ended = started.wait()
        lines = ended.stderr.split("\n")
        case.story.append(
            f"{'early ' if early else ''}kill after {delay:.3f} s in {' '.join(lines[-2:]).split()[-1:]} → {ended.code}"
        )
        done += 1
        if ended.code != -signal.SIGKILL:
            assert ended.code == 0, f"{case}\n{ended}"
            break
    return done


@DIALECTS
def test_kill_at_random(make_case: MakeCase, dialect: str) -> None:
    rng = random.Random(f"{SEED} {dialect}")
    case = make_case(dialect)
    _kill_at_random(case, rng, 3)
    case.complete()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@DIALECTS
def test_a_hundred_kills_at_random(jivs: Jivs, make_case: MakeCase, dialect: str) -> None:
    rng = random.Random(f"{SEED} {dialect} slow")
    kills = 0
    while kills < 100:
        case = make_case(dialect)
        case.key = f"{case.key[:20]}-{kills}"
        kills += _kill_at_random(case, rng, rng.randint(1, 6))
        case.complete()


# ── kill at every place that has a name ──────────────────────────────────────────────────────────────────

PLACES = (
    ("before_staging_sync@3", ""),
    ("before_staging_rename@5", ""),
    ("inside_step@2", ""),
    ("after_ledger_before_copy@2", ""),
    ("after_copy_before_commit@2", ""),
    ("before_commit@4", ""),
    ("after_commit@5", ""),
    # The staged files are gone, so what was loaded of them is undone.
    ("inside_reset", "staging"),
)
"""In an order in which one migration passes them all, and what is taken away before."""


def test_all_named_places_are_killed_at() -> None:
    """A new failpoint needs its place in the chain."""
    root = Path(jivs_pipeline.__file__).parent
    named = {
        n
        for f in root.rglob("*.py")
        for n in re.findall(r"""\bfailpoint\(\s*["'](\w+)["']\s*\)""", f.read_text())
    }
    assert named == {place.partition("@")[0] for place, _ in PLACES}


@DIALECTS
def test_kill_at_every_place(make_case: MakeCase, dialect: str) -> None:
    """One migration dies at each of them, one after the other, and ends complete."""
    case = make_case(dialect)
    for place, lost in PLACES:
        if lost == "staging":
            assert case.staged
            shutil.rmtree(case.staging)
        ended = case.run(f"{place}:kill")
        case.story.append(f"{place} → {ended.code}")
        assert ended.code == -signal.SIGKILL, f"{place} was not passed; {case}\n{ended}"
    case.complete()


def test_errors_that_pass_are_tried_again(make_case: MakeCase) -> None:
    """A fault of the moment at any place costs a retry, not the run."""
    case = make_case("sqlite")
    places = (
        "before_staging_rename@2",
        "after_ledger_before_copy@2",
        "after_copy_before_commit@4",
        "after_commit@3",
        "inside_step@3",
    )
    ended = case.run(",".join(f"{p}:error" for p in places))
    assert ended.code == 0, ended
    check_run(ended.document)
    case.check()
    status = case.jivs("status", case.key, "--json", code=0).document
    assert status["retries"] >= 4, status


# ── other ends of a run ──────────────────────────────────────────────────────────────────────────────────


def _interrupt(started: Started) -> tuple[Ended, float]:
    pressed = time.monotonic()
    started.signal(signal.SIGINT)
    ended = started.wait()
    return ended, time.monotonic() - pressed


def test_ctrl_c(make_case: MakeCase) -> None:
    """Exit 130 within 5 s, paused, and nothing but the rest is loaded by the next run."""
    case = make_case("sqlite")
    started = case.start("after_commit@12:sleep=2,after_commit@13:sleep=2")
    started.wait_for("load")
    time.sleep(1)
    ended, took = _interrupt(started)
    assert ended.code == 130, ended
    assert took < 5, f"took {took:.1f} s"
    assert "Traceback" not in ended.stderr
    check_run(ended.document, "paused")
    status = case.jivs("status", case.key, "--json", code=0).document
    assert status["status"] == "paused", status
    before = ledger(case.target, case.key)
    assert before
    document = case.run().document
    check_run(document)
    assert document["resumed"] is True
    case.check()
    after = ledger(case.target, case.key)
    for table, chunks in before.items():
        assert set(chunks) <= set(after[table]), f"{table} was loaded again"


def test_ctrl_c_while_the_server_is_busy(make_case: MakeCase) -> None:
    """A statement that takes its time in the target does not keep the user waiting."""
    case = make_case("sqlite")
    assert case.run("after_commit@8:kill").code == -signal.SIGKILL
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(case.target) as lock, psycopg.connect(case.target, autocommit=True) as watch:
        for table in tables_of(lock):
            lock.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier("public", table)))
        started = case.start()
        deadline = time.monotonic() + 60
        while watch.execute(waiting).fetchone() == (0,):
            assert time.monotonic() < deadline, "nothing waits for the lock"
            assert started.process.poll() is None
            time.sleep(0.05)
        release = threading.Timer(8, lock.rollback)
        release.start()
        try:
            ended, took = _interrupt(started)
        finally:
            release.cancel()
            release.join()
            lock.rollback()
    assert took < 5, f"took {took:.1f} s"
    assert ended.code == 130, ended
    case.complete()


def test_two_at_once(make_case: MakeCase) -> None:
    """Of runs that start together one works; the others exit 3 and disturb nothing."""
    case = make_case("sqlite")
    started = [case.start("after_ledger_before_copy:sleep=4") for _ in range(3)]
    ended = [s.wait() for s in started]
    # One that comes after the first has finished has nothing to do.
    codes = sorted(e.code for e in ended)
    assert codes == [0, 3, 3], [str(e) for e in ended]
    assert all(e.document["error"]["code"] == "conflict" for e in ended if e.code == 3)
    case.check()


def test_a_target_that_lost_its_tables_is_noticed(
    jivs: Jivs, jivs_home: tuple[Path, str], make_case: MakeCase
) -> None:
    """The target's own ledger has the last word: a target made anew between two runs is loaded from the start."""
    case = make_case("sqlite")
    ended = case.run("after_commit@14:kill")
    assert ended.code == -signal.SIGKILL, ended
    assert ledger(case.target, case.key)
    name = database_of(case.target)
    with psycopg.connect(jivs_home[1], autocommit=True) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")  # pyright: ignore[reportArgumentType]
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # pyright: ignore[reportArgumentType]
    case.story.append("killed, then the target was made anew")
    case.complete()


def test_a_target_that_was_restored_is_noticed(
    jivs_home: tuple[Path, str], make_case: MakeCase, make_target: Callable[[], str]
) -> None:
    """A backup from the middle of the load comes back after more was loaded: what it lacks is loaded again."""
    case = make_case("postgresql")
    assert case.run("after_commit@12:kill").code == -signal.SIGKILL
    backup = make_target()
    _copy_database(jivs_home[1], database_of(case.target), database_of(backup))
    middle = ledger(backup, case.key)
    assert case.run("before_commit@8:kill").code == -signal.SIGKILL
    later = ledger(case.target, case.key)
    assert sum(map(len, later.values())) > sum(map(len, middle.values())), "the second run added nothing"
    _copy_database(jivs_home[1], database_of(backup), database_of(case.target))
    case.story.append("restored")
    case.complete()
    after = ledger(case.target, case.key)
    assert all(set(chunks) <= set(after[table]) for table, chunks in middle.items()), (
        "what the backup had was loaded again"
    )


def _copy_database(server: str, source: str, target: str) -> None:
    with psycopg.connect(with_parts(server, database="postgres"), autocommit=True) as db:
        db.execute(f"DROP DATABASE {target} WITH (FORCE)")  # pyright: ignore[reportArgumentType]
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (source,))
        deadline = time.monotonic() + 10
        while True:
            try:
                db.execute(f"CREATE DATABASE {target} TEMPLATE {source}")  # pyright: ignore[reportArgumentType]
            except psycopg.errors.ObjectInUse:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return


@pytest.mark.parametrize(("dialect", "damage"), [("sqlite", "one bit"), ("postgresql", "truncated")])
def test_a_staged_file_that_is_broken_is_never_loaded(make_case: MakeCase, dialect: str, damage: str) -> None:
    """Whatever happens to the staging area between extract and load, the target gets the source's rows."""
    case = make_case(dialect)
    killed = case.run("inside_step:kill")
    assert killed.code == -signal.SIGKILL, killed
    assert len(case.staged) >= 8
    victim = case.staged[-1]
    content = bytearray(victim.read_bytes())
    if damage == "truncated":
        del content[-100:]
    else:
        content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    case.story.append(f"{victim.name} was {damage}")
    ended = case.run()
    if ended.code != 0:
        # Refusing is right as well, if running again repairs it.
        assert ended.code == 1, f"{case}\n{ended}"
        case.story.append(f"refused: {ended.document['error']['message']}")
        with psycopg.connect(case.target) as db:
            assert "parents" in tables_of(db)
    case.complete()
