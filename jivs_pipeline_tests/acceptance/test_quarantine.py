"""Bad rows and `jivs quarantine`, as a user types it: what is kept, what is loaded, what the budget is."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_faults import FULL
from jivs_pipeline_tests.sqlite_files import change, make_file

_ROWS = 1_000_000 if FULL else 150_000
_CHUNK_BYTES = (1 << 20) * _ROWS // 1_000_000


def spec_of(path: Path, key: str, budget: int, **more: Any) -> Path:
    """A spec file that migrates the connection legacy to warehouse."""
    spec = {
        "key": key, "source": "legacy", "target": "warehouse", "quarantine": {"max_rows": budget}, **more,
    }  # fmt: skip
    path.write_text(json.dumps(spec))
    return path


def _all(target: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target) as db:
        return db.execute(query.encode()).fetchall()


def _ends(source: Path, target: str) -> dict[str, str]:
    return {"JIVS_CONNECTION_LEGACY": f"sqlite:///{source}", "JIVS_CONNECTION_WAREHOUSE": target}


def test_every_kind_of_bad_row_of_sqlite(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    source = make_file(
        tmp_path / "odd.db",
        """CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, s TEXT, d DATE, p NUMERIC(6,2), x REAL, b BLOB);
           CREATE TABLE k (code TEXT, part INTEGER, v INTEGER, PRIMARY KEY (code, part)) WITHOUT ROWID;
           CREATE TABLE fine (id INTEGER PRIMARY KEY, v TEXT);
           CREATE TABLE c (id TEXT PRIMARY KEY, v INTEGER);""",
        {"fine": [(1, "a"), (2, "b")], "c": [(None, 1), ("a", 2), (None, 3)]},
    )
    good = [(i, i, f"text {i}", "2020-01-31", i / 4, i / 3, b"\x00\x01") for i in range(100)]
    bad: list[tuple[Any, ...]] = [
        (1000, "many", "x", "2020-01-31", 1, 0.5, b""),
        (1001, 1, "a\0b", "2020-01-31", 1, 0.5, b""),
        (1002, 1, "x", 20200131, 1, 0.5, b""),
        (1003, 1, "x", "2020-01-31", "free", 0.5, b""),
        (1004, 1, "x", "2020-01-31", 1, "half", b""),
        (1005, 1, "x", "2020-01-31", 1, 0.5, "text"),
        (1006, b"\xff", "a\0b", 7, b"\x01", "a", "text"),
    ]
    with closing(sqlite3.connect(source)) as database:
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", [*good, *bad])
        database.execute("INSERT INTO t VALUES (1007, 1, CAST(x'61ff62' AS TEXT), '2020-01-31', 1, 0.5, x'')")
        database.executemany("INSERT INTO k VALUES (?, ?, ?)", [("a", 1, 1), ("a", 2, "no"), ("b", 1, 2)])
        database.commit()
    env = _ends(source, target)
    spec = spec_of(tmp_path / "spec.json", key, 10)
    planned = jivs("plan", spec, "--json", env=env, code=0).document
    lossy = [(w["table"], w["column"]) for w in planned["warnings"] if w["kind"] == "lossy"]
    assert [c for t, c in lossy if t == "main.t"] == sorted("bdnpsx"), planned["warnings"]
    document = jivs("run", spec, "--json", env=env, code=0).document
    counts = {
        t["source_table"]: (t["source_rows"], t["target_rows"], t["quarantined_rows"])
        for t in document["tables"]
    }
    assert counts == {
        "main.t": (108, 100, 8),
        "main.k": (3, 2, 1),
        "main.fine": (2, 2, 0),
        "main.c": (3, 1, 2),
    }
    assert all(t["verified"] for t in document["tables"])
    found = _all(target, "SELECT id, n, s, d::text, p::float8, x, b FROM t ORDER BY id")
    assert found == [(i, i, f"text {i}", "2020-01-31", i / 4, i / 3, b"\x00\x01") for i in range(100)]
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    listed = {(r["table"], json.dumps(r["key"])): (r["column"], r["value"]) for r in rows}
    assert listed == {
        ("public.t", '{"id": 1000}'): ("n", "many"),
        ("public.t", '{"id": 1001}'): ("s", "\\x610062"),
        ("public.t", '{"id": 1002}'): ("d", "20200131"),
        ("public.t", '{"id": 1003}'): ("p", "free"),
        ("public.t", '{"id": 1004}'): ("x", "half"),
        ("public.t", '{"id": 1005}'): ("b", "text"),
        ("public.t", '{"id": 1006}'): ("n", "\\xff"),
        ("public.t", '{"id": 1007}'): ("s", "\\x61ff62"),
        ("public.k", '{"code": "a", "part": 2}'): ("v", "no"),
        ("public.c", '{"id": null, "rowid": 1}'): ("id", None),
        ("public.c", '{"id": null, "rowid": 3}'): ("id", None),
    }
    assert len(rows) == 11
    shown = jivs("quarantine", "list", key, "--table", "t", code=0).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "id=1006" in shown
    assert "public.k" not in shown
    assert jivs("status", key, "--json", code=0).document["quarantined"] == 11
    again = jivs("verify", key, "--json", env=env, code=0).document
    assert again["equal"]
    assert {t["source_table"]: t["source_rows"] for t in again["tables"]}["main.t"] == 108
    # A row that turned bad since is in nobody's quarantine.
    change(source, "UPDATE t SET n = 'x' WHERE id = 5")
    changed = jivs("verify", key, "--json", env=env, code=4).document
    assert [t["source_table"] for t in changed["tables"] if not t["equal"]] == ["main.t"]


def million(path: Path) -> list[int]:
    """A table of a million rows, of fewer in `make test`, of which 37 are bad, some at the borders of chunks; their ids."""
    bad = sorted({1, 2, _ROWS, *(i * (_ROWS // 36) for i in range(1, 35))})
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(
            f"""PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
                CREATE TABLE big (id INTEGER PRIMARY KEY, n INTEGER, s TEXT);
                CREATE TABLE small (id INTEGER PRIMARY KEY, v TEXT);
                INSERT INTO small VALUES (1, 'a');
                INSERT INTO big
                  WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {_ROWS})
                  SELECT i, i * 7, 'row ' || i FROM c;"""
        )
        database.executemany("UPDATE big SET n = 'bad ' || n WHERE id = ?", [(i,) for i in bad])
    assert len(bad) == 37
    return bad


@pytest.mark.faults
def test_a_million_rows_with_37_bad_ones(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    source = tmp_path / "big.db"
    bad = million(source)
    env = _ends(source, target)
    tight = spec_of(tmp_path / "tight.json", f"{key}-36", 36, chunk_bytes=_CHUNK_BYTES, target_schema="tight")
    failed = jivs("run", tight, "--json", env=env, code=1).document
    tables = {t["source_table"]: t for t in failed["tables"]}
    assert tables["main.small"]["verified"]
    assert tables["main.big"]["error"]["column"] == "n"
    for part in ("37", "36", "big"):
        assert part in failed["error"]["message"], failed["error"]
    spec = spec_of(tmp_path / "spec.json", key, 37, chunk_bytes=_CHUNK_BYTES)
    document = jivs("run", spec, "--json", env=env, code=0).document
    big = next(t for t in document["tables"] if t["source_table"] == "main.big")
    assert (big["source_rows"], big["target_rows"], big["quarantined_rows"]) == (_ROWS, _ROWS - 37, 37)
    assert big["chunks"] > 8
    assert big["verified"]
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    assert [(r["key"]["id"], r["value"]) for r in rows] == [(i, f"bad {i * 7}") for i in bad]
    assert _all(target, "SELECT count(*), sum(id), sum(n) FROM big") == [
        (_ROWS - 37, _ROWS * (_ROWS + 1) // 2 - sum(bad), 7 * (_ROWS * (_ROWS + 1) // 2 - sum(bad)))
    ]
    stayed = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (stayed["replayed"], stayed["stayed"]) == (0, 37)
    change(source, "UPDATE big SET n = id * 7 WHERE typeof(n) = 'text'")
    assert jivs("quarantine", "replay", key, "--json", env=env, code=0).document["replayed"] == 37
    assert _all(target, "SELECT count(*), sum(n) FROM big") == [(_ROWS, 7 * _ROWS * (_ROWS + 1) // 2)]
    assert jivs("quarantine", "list", key, "--json", code=0).document["rows"] == []
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]


def test_every_kind_of_bad_record_of_csv(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    good = [f"{i},{i}.5,name {i}" for i in range(5000)]
    bad = {
        10: b"10,2.5",
        11: b"11,2.5,b,c",
        2000: b"2000,many,b",
        2001: b",2.5,b",
        2500: b"2500,2.5,\xff\xfe",
        4000: b"4000,2.5,a\0b",
        4999: b'4999,"1,5",b',
    }
    lines = [bad.get(i, line.encode()) for i, line in enumerate(good)]
    (files / "t.csv").write_bytes(b"id,n,s\n" + b"\n".join(lines))
    (files / "u.csv").write_bytes(b"a\n1\n")
    (files / "schema.yaml").write_text("tables: {t: {key: id, columns: {id: bigint, n: 'numeric(10,2)'}}}")
    env = {"JIVS_CONNECTION_LEGACY": f"csv:///{files}", "JIVS_CONNECTION_WAREHOUSE": target}
    spec = spec_of(tmp_path / "spec.json", key, 7, chunk_bytes=1 << 16)
    document = jivs("run", spec, "--json", env=env, code=0).document
    table = next(t for t in document["tables"] if t["source_table"] == "files.t")
    assert (table["source_rows"], table["target_rows"], table["quarantined_rows"]) == (5000, 4993, 7)
    assert table["verified"]
    assert table["planned_chunks"] > 1
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    assert [(r["key"], r["column"], r["value"]) for r in rows] == [
        ({"file": "t.csv", "line": 12}, None, "10,2.5"),
        ({"file": "t.csv", "line": 13}, None, "11,2.5,b,c"),
        ({"id": "2000"}, "n", "many"),
        ({"file": "t.csv", "line": 2003}, "id", None),
        ({"file": "t.csv", "line": 2502}, None, "\\x323530302c322e352cfffe"),
        ({"file": "t.csv", "line": 4002}, None, "\\x343030302c322e352c610062"),
        ({"id": "4999"}, "n", "1,5"),
    ]
    assert _all(target, "SELECT count(*), sum(id), max(s) FROM t") == [
        (4993, sum(range(5000)) - sum(bad), "name 999")
    ]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
