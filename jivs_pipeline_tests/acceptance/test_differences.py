"""`jivs verify` after somebody has changed the target: which rows, and which of their columns."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.fix_cli import Jivs

TABLES = """
CREATE TABLE numbered (id integer PRIMARY KEY, a varchar(20), b decimal(12,3), c varchar(20), d integer);
CREATE TABLE pairs (x varchar(20) NOT NULL, y integer NOT NULL, v varchar(20), w double precision, PRIMARY KEY (x, y));
CREATE TABLE keyless (v varchar(20));
"""
ROWS = {
    "numbered": [(n, f"a {n}", n / 8, "" if n % 3 else None, n) for n in range(1, 3001)],
    "pairs": [(f"x'{n % 40}", n, f"v {n}", n / 3) for n in range(1, 1001)],
    "keyless": [(f"v {n}",) for n in range(100)],
}


def _sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as lite:
        lite.executescript(TABLES.replace("double precision", "double").replace("varchar(20)", "text"))
        for table, rows in ROWS.items():
            lite.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        lite.commit()
    return f"sqlite:///{path}"


def _literal(value: Any) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def _script() -> str:
    inserts = [
        f"INSERT INTO {table} VALUES " + ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
        for table, rows in ROWS.items()
    ]
    return TABLES + ";\n".join(inserts)


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def source(request: pytest.FixtureRequest, tmp_path: Path, make_target: Callable[[], str]) -> str:
    if request.param == "sqlite":
        return _sqlite(tmp_path / "legacy.db")
    if request.param == "mysql":
        return request.getfixturevalue("make_mysql")(_script())
    url = make_target()
    with psycopg.connect(url) as db:
        db.execute(_script().encode())
    return url


def test_rows_that_differ_are_named(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str
) -> None:
    target = make_target()
    env = jivs.connections(a=source, b=target)
    jivs("run", jivs.spec(key=key, source="a", target="b", chunk_bytes=65536), "--json", code=0, env=env)
    rng = random.Random(key)
    changed, gone, pair = (rng.randint(1, 900) for _ in range(3))
    with psycopg.connect(target) as db:
        db.execute("UPDATE numbered SET a = a || ' ', c = CASE WHEN c IS NULL THEN '' END WHERE id = %s", (changed,))  # fmt: skip
        db.execute("DELETE FROM numbered WHERE id = %s", (gone + 1000,))
        db.execute("INSERT INTO numbered VALUES (5000, 'new', 1, NULL, 1)")
        db.execute("UPDATE pairs SET w = -w WHERE y = %s", (pair,))
        db.execute("INSERT INTO keyless VALUES ('v 7')")
    ended = jivs("verify", key, "--json", code=4, env=env)
    found = {t["target_table"]: t["differences"] for t in ended.document["tables"]}
    assert sorted(found["public.numbered"], key=lambda d: int(d["key"]["id"])) == [
        {"key": {"id": str(changed)}, "kind": "changed", "columns": ["a", "c"]},
        {"key": {"id": str(gone + 1000)}, "kind": "missing"},
        {"key": {"id": "5000"}, "kind": "extra"},
    ]
    assert found["public.pairs"] == [
        {"key": {"x": f"x'{pair % 40}", "y": str(pair)}, "kind": "changed", "columns": ["w"]}
    ]
    [whole] = found["public.keyless"]
    assert (whole["source_rows"], whole["target_rows"]) == (100, 101)
    said = jivs("verify", key, code=4, env=env).stdout
    assert f"public.numbered: the row with id = {changed} differs in a, c" in said
    assert "public.numbered: the row with id = 5000 is extra in the target" in said
    assert "public.keyless: the whole table has 100 rows in the source and 101 in the target" in said


def test_no_more_than_ten_are_listed(
    jivs: Jivs, tmp_path: Path, make_target: Callable[[], str], key: str
) -> None:
    target = make_target()
    env = jivs.connections(a=_sqlite(tmp_path / "legacy.db"), b=target)
    jivs("run", jivs.spec(key=key, source="a", target="b"), "--json", code=0, env=env)
    with psycopg.connect(target) as db:
        db.execute("UPDATE numbered SET d = d + 1")
    [table] = [t for t in jivs("verify", key, "--json", code=4, env=env).document["tables"] if not t["equal"]]
    assert [d["columns"] for d in table["differences"]] == [["d"]] * 10
