"""Row 18: single changes of the target, planted one by one; the comparison finds each, and nothing where there is none.

What belongs here: what a verifier may overlook. What does not: how it tells rows (`acceptance/test_differences.py`).
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.fix_engine import Engine
from jivs_pipeline_tests.fix_faults import FULL, Round, rounds

pytestmark = pytest.mark.faults

ROWS = 240
SQLITE = """
CREATE TABLE texts (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE numbers (id INTEGER PRIMARY KEY, v BIGINT);
CREATE TABLE sums (id INTEGER PRIMARY KEY, v NUMERIC(12,3));
CREATE TABLE floats (id INTEGER PRIMARY KEY, v DOUBLE);
CREATE TABLE blobs (id INTEGER PRIMARY KEY, v BLOB);
CREATE TABLE days (id INTEGER PRIMARY KEY, v DATE);
CREATE TABLE moments (id INTEGER PRIMARY KEY, v TIMESTAMP);
CREATE TABLE doubled (v INTEGER, w TEXT);
"""
MYSQL = """
CREATE TABLE texts (id int PRIMARY KEY, v varchar(60));
CREATE TABLE numbers (id int PRIMARY KEY, v bigint);
CREATE TABLE sums (id int PRIMARY KEY, v decimal(12,3));
CREATE TABLE floats (id int PRIMARY KEY, v double);
CREATE TABLE blobs (id int PRIMARY KEY, v blob);
CREATE TABLE days (id int PRIMARY KEY, v date);
CREATE TABLE moments (id int PRIMARY KEY, v datetime(6));
CREATE TABLE doubled (v int, w varchar(60));
"""
POSTGRESQL = """
CREATE TABLE texts (id int PRIMARY KEY, v text);
CREATE TABLE numbers (id int PRIMARY KEY, v bigint);
CREATE TABLE sums (id int PRIMARY KEY, v numeric);
CREATE TABLE floats (id int PRIMARY KEY, v double precision);
CREATE TABLE blobs (id int PRIMARY KEY, v bytea);
CREATE TABLE days (id int PRIMARY KEY, v date);
CREATE TABLE moments (id int PRIMARY KEY, v timestamptz);
CREATE TABLE doubled (v int, w text);
"""
# Only PostgreSQL has these.
MORE = """
CREATE TABLE spans (id int PRIMARY KEY, v interval);
CREATE TABLE documents (id int PRIMARY KEY, v json);
CREATE TABLE arrays (id int PRIMARY KEY, v int[]);
CREATE TABLE flags (id int PRIMARY KEY, v bit varying(40));
INSERT INTO spans SELECT i, make_interval(months => i % 5, days => i % 40) FROM generate_series(1, 240) i;
INSERT INTO documents SELECT i, format('{"a": %s, "b": [1, 2]}', i)::json FROM generate_series(1, 240) i;
INSERT INTO arrays SELECT i, ARRAY[i, NULL, i % 7] FROM generate_series(1, 240) i;
INSERT INTO flags SELECT i, (i::bit(12))::bit varying FROM generate_series(1, 240) i;
"""

# What is done to one row; `{id}` and `{other}` are two of them. Each changes what it touches, whatever that is.
CHANGES: dict[str, tuple[str, ...]] = {
    "texts": (
        "UPDATE texts SET v = v || ' ' WHERE id = {filled}",
        "UPDATE texts SET v = coalesce(nullif(v, ''), 'was empty') || chr(1) WHERE id = {id}",
        "UPDATE texts SET v = CASE WHEN v IS NULL THEN '' END WHERE id = {id}",
        "UPDATE texts SET v = overlay(v placing chr(ascii(v) # 1) from 1 for 1) WHERE id = {filled}",
        "UPDATE texts SET v = upper(v) WHERE id = {filled}",
        "UPDATE texts SET v = replace(v, chr(233), 'e' || chr(769)) WHERE id = {filled}",
        "DELETE FROM texts WHERE id = {id}",
        "INSERT INTO texts VALUES (100000, NULL)",
    ),
    "numbers": (
        "UPDATE numbers SET v = v # 1 WHERE id = {id}",
        "UPDATE numbers SET v = NULL WHERE id = {id}",
        "UPDATE numbers a SET v = b.v FROM numbers b WHERE (a.id, b.id) IN (({id}, {other}), ({other}, {id}))",
        "UPDATE numbers SET id = 100000 WHERE id = {id}",
    ),
    "sums": ("UPDATE sums SET v = v + 0.001 WHERE id = {id}", "UPDATE sums SET v = -v WHERE id = {id}"),
    "floats": (
        "UPDATE floats SET v = CASE WHEN v = 0 THEN '-0' ELSE -v END WHERE id = {id}",
        "UPDATE floats SET v = CASE WHEN v = 0 THEN 5e-324 ELSE v * (1 + 4.5e-16::float8) END WHERE id = {id}",
    ),
    "blobs": (
        "UPDATE blobs SET v = set_bit(v, 3, 1 - get_bit(v, 3)) WHERE id = {id}",
        "UPDATE blobs SET v = v || '\\x00' WHERE id = {id}",
    ),
    "days": ("UPDATE days SET v = v + 1 WHERE id = {id}", "UPDATE days SET v = NULL WHERE id = {id}"),
    "moments": (
        "UPDATE moments SET v = v + interval '1 hour' WHERE id = {id}",
        "UPDATE moments SET v = v + interval '1 microsecond' WHERE id = {id}",
    ),
    "doubled": (
        "INSERT INTO doubled SELECT v, w FROM doubled WHERE v = {id} % 60 LIMIT 2",
        "DELETE FROM doubled WHERE ctid IN (SELECT ctid FROM doubled WHERE v = {id} % 60 LIMIT 2)",
        (
            "WITH gone AS (DELETE FROM doubled WHERE ctid = (SELECT min(ctid) FROM doubled WHERE v = {id} % 60))"
            " INSERT INTO doubled SELECT v, w FROM doubled WHERE v = ({id} + 1) % 60 LIMIT 1"
        ),
    ),
    "spans": (
        (
            "UPDATE spans SET v = CASE WHEN v >= interval '30 days' THEN v - interval '30 days' + interval '1 month'"
            " ELSE v + interval '1 month' END WHERE id = {id}"
        ),
        "UPDATE spans SET v = v - interval '1 month' + interval '30 days' WHERE id = {id}",
    ),
    "documents": (
        "UPDATE documents SET v = replace(v::text, ': ', ':')::json WHERE id = {id}",
        'UPDATE documents SET v = \'{{"b": [1, 2], "a": 1}}\' WHERE id = {id}',
    ),
    "arrays": (
        "UPDATE arrays SET v = ('[0:2]=' || v::text)::int[] WHERE id = {id}",
        "UPDATE arrays SET v = array_append(v, NULL) WHERE id = {id}",
    ),
    "flags": ("UPDATE flags SET v = v || b'0' WHERE id = {id}",),
}
SCALE = "UPDATE sums SET v = round(v, scale(v) + 1) WHERE id = {id}"
"""What numeric(12,3) does not let one do."""


def _rows(rng: random.Random) -> dict[str, list[tuple[Any, ...]]]:
    """Every third text is empty or NULL, the others hold one character that has two spellings."""
    ids = range(1, ROWS + 1)
    texts = [None if n % 6 == 0 else "" if n % 6 == 3 else f"tr\u00e9s {n} {rng.random()}" for n in ids]
    return {
        "texts": list(zip(ids, texts, strict=True)),
        "numbers": [(n, rng.randrange(-(1 << 62), 1 << 62)) for n in ids],
        "sums": [(n, rng.randrange(1, 10**9) / 8) for n in ids],
        "floats": [(n, rng.choice([0.0, rng.random() * 10 ** rng.randrange(-300, 300)])) for n in ids],
        "blobs": [(n, rng.randbytes(9)) for n in ids],
        "days": [(n, f"20{n % 90 + 10}-0{n % 9 + 1}-1{n % 10}") for n in ids],
        "moments": [(n, f"20{n % 90 + 10}-0{n % 9 + 1}-1{n % 10} 12:00:0{n % 9}.5") for n in ids],
        "doubled": [(n % 60, f"w {n % 60}") for n in ids],
    }


def _source(dialect: str, rng: random.Random, request: pytest.FixtureRequest) -> str:
    rows = _rows(rng)
    if dialect == "sqlite":
        path: Path = request.getfixturevalue("tmp_path") / f"{uuid4().hex}.db"
        with closing(sqlite3.connect(path)) as lite:
            lite.executescript(SQLITE)
            for table, found in rows.items():
                lite.executemany(f"INSERT INTO {table} VALUES (?, ?)", found)
            lite.commit()
        return f"sqlite:///{path}"
    if dialect == "mysql":
        from jivs_pipeline_tests.fix_mysql import connected

        url: str = request.getfixturevalue("make_mysql")(MYSQL)
        with connected(url) as server, server.cursor() as cursor:
            for table, found in rows.items():
                cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s)", found)
            server.commit()
        return url
    url = request.getfixturevalue("make_target")()
    with psycopg.connect(url) as db:
        db.execute(f"{POSTGRESQL}{MORE}".encode())
        for table, found in rows.items():
            db.cursor().executemany(f"INSERT INTO {table} VALUES (%s, %s)".encode(), found)
    return url


class Planted:
    """A migrated database whose target is changed and put right again."""

    def __init__(self, target: str, environment: Mapping[str, str], key: str) -> None:
        self._target, self._environment, self._key = target, dict(environment), key
        with psycopg.connect(target) as db:
            found = db.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'").fetchall()  # fmt: skip
            self.tables = sorted(name for (name,) in found)
            db.execute("CREATE SCHEMA pristine")
            for name in self.tables:
                query = sql.SQL("CREATE TABLE {} AS TABLE {}")
                db.execute(query.format(sql.Identifier("pristine", name), sql.Identifier("public", name)))

    def plant(self, table: str, change: str, rng: random.Random) -> str:
        """Change it; the statement."""
        one, other = rng.sample(range(1, ROWS + 1), 2)
        filled = rng.choice([n for n in range(1, ROWS + 1) if n % 3])
        statement = change.format(id=one, other=other, filled=filled)
        with psycopg.connect(self._target) as db:
            db.execute(statement.encode())
            same = sql.SQL("SELECT (SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} t)"
                           " IS NOT DISTINCT FROM (SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} t)")  # fmt: skip
            query = same.format(sql.Identifier("pristine", table), sql.Identifier("public", table))
            assert db.execute(query).fetchone() == (False,), f"{statement} changes nothing"
        return statement

    def restore(self) -> None:
        """As it was loaded."""
        with psycopg.connect(self._target) as db:
            for name in self.tables:
                public, pristine = sql.Identifier("public", name), sql.Identifier("pristine", name)
                db.execute(sql.SQL("TRUNCATE {}").format(public))
                db.execute(
                    sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE TABLE {}").format(public, pristine)
                )

    def found(self) -> set[str]:
        """Tables that the comparison calls different."""
        with Runtime.from_environment(environment=self._environment) as runtime:
            document = reverify(runtime.services(), runtime.control.migration(self._key), "digest")
        return {t["target_table"].removeprefix("public.") for t in document["tables"] if not t["equal"]}


def _round(one: Round, planted: Planted, changes: Mapping[str, tuple[str, ...]]) -> None:
    chosen = one.rng.sample(planted.tables, one.rng.randint(1, 4))
    one.faults = len(chosen)
    for table in chosen:
        one.note(planted.plant(table, one.rng.choice(changes[table]), one.rng))
    assert planted.found() == set(chosen)
    planted.restore()
    assert planted.found() == set(), "a false alarm"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dialect", ["postgresql", "sqlite", "mysql"])
def test_every_change_is_found(
    dialect: str,
    engine: Engine,
    jivs_home: tuple[Path, str],
    make_target: Callable[[], str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Each round plants a few changes, and compares again when they are taken back."""
    todo = list(rounds(18, quick=4, part=dialect, full=200))
    if not todo:
        return
    key, target = f"k-{uuid4().hex[:12]}", make_target()
    environment = {
        "JIVS_HOME": str(jivs_home[0]),
        "JIVS_CONNECTION_LEGACY": _source(dialect, todo[0].rng, request),
        "JIVS_CONNECTION_WAREHOUSE": target,
        "JIVS_STAGING_URL": str(tmp_path / "staging"),
    }
    spec = {"key": key, "source": "legacy", "target": "warehouse", "chunk_bytes": 65536}
    run = engine.start(spec, environment)
    assert run.wait() == 0, run
    planted = Planted(target, environment, key)
    assert planted.tables == sorted(CHANGES if dialect == "postgresql" else list(CHANGES)[:8])
    changes = {**CHANGES, "sums": (*CHANGES["sums"], SCALE)} if dialect == "postgresql" else CHANGES
    for one in rounds(18, quick=4, part=dialect, full=200):
        with one:
            _round(one, planted, changes)
    assert FULL or len(todo) == 4
