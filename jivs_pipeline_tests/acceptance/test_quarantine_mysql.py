"""Bad rows of MariaDB, as a user types it: awkward keys, every kind of bad value, replay and verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from jivs_pipeline_tests.acceptance.test_quarantine import spec_of
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_mysql import connected

Make = Callable[..., str]

_ODD = """
CREATE TABLE t (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, d date, dt datetime NOT NULL DEFAULT '2020-01-01', s varchar(60),
    l varchar(20) CHARACTER SET ascii, j json, m decimal(6,2), b varbinary(9), yes tinyint(1));
INSERT INTO t (d, s, l, j, m, b, yes) SELECT '2020-02-29', concat('text ', repeat('x', 30), seq), 'x', '{"a": 1}', seq / 4, x'00ff', 1
    FROM seq_1_to_2000;
UPDATE t SET d = '0000-00-00' WHERE id = 1;
UPDATE t SET dt = '2020-02-31 00:00:00' WHERE id = 700;
UPDATE t SET s = concat('a', char(0), 'b') WHERE id IN (701, 2000);
UPDATE t SET j = '{"a": "\\\\x"}' WHERE id = 1200;
UPDATE t SET d = '2020-00-01', s = concat('both', char(0)) WHERE id = 1500;
CREATE TABLE ci (code varchar(30) COLLATE utf8mb4_general_ci, part datetime, v varchar(200), PRIMARY KEY (code, part));
INSERT INTO ci SELECT concat(if(seq % 2, 'Key ', 'kEY '), seq), '2020-01-01' + INTERVAL seq SECOND, repeat('fine', 50) FROM seq_1_to_900;
UPDATE ci SET v = concat('x', char(0)) WHERE code IN ('key 1', 'KEY 450', 'key 900');
INSERT INTO ci VALUES ('it''s "\\\\', '0000-00-00', 'v');
CREATE TABLE un (a varchar(9) CHARACTER SET latin1 NOT NULL, e enum('p','q') NOT NULL, d date, UNIQUE KEY (a, e));
INSERT INTO un VALUES (_latin1 x'e9', 'p', '2020-01-01'), (_latin1 x'e9', 'q', '0000-00-00'), ('z', 'p', NULL);
CREATE TABLE keyless (v varchar(9), d date);
INSERT INTO keyless VALUES ('a', '2020-01-01'), ('b', '0000-00-00');
CREATE TABLE fine (id int PRIMARY KEY);
INSERT INTO fine VALUES (1);
"""


def _all(target: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target) as db:
        return db.execute(query.encode()).fetchall()


def _change(url: str, *statements: str) -> None:
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES'")
        for statement in statements:
            cursor.execute(statement)


def test_every_kind_of_bad_row(jivs: Jivs, make_mysql: Make, target: str, key: str, tmp_path: Path) -> None:
    source = make_mysql(_ODD)
    env = jivs.connections(legacy=source, warehouse=target)
    spec = spec_of(tmp_path / "spec.json", key, 6, chunk_bytes=1 << 16)
    planned = jivs("plan", spec, "--json", env=env, code=0).document
    lossy = {
        (w["table"].partition(".")[2], w["column"])
        for w in planned["warnings"]
        if w["kind"] == "lossy" and "to be quarantined" in w["reason"]
    }
    assert lossy == {
        ("t", "d"), ("t", "dt"), ("t", "s"), ("t", "j"), ("ci", "part"), ("ci", "v"), ("un", "d"),
    }  # fmt: skip
    failed = jivs("run", spec, "--json", env=env, code=1).document
    tables = {t["source_table"].partition(".")[2]: t for t in failed["tables"]}
    assert {n: (t["source_rows"], t["target_rows"], t["quarantined_rows"]) for n, t in tables.items()} == {
        "t": (2000, 1994, 6),
        "ci": (901, 897, 4),
        "un": (3, 2, 1),
        "fine": (1, 1, 0),
        "keyless": (2, 0, 0),
    }
    assert "single rows cannot be taken out" in tables["keyless"]["error"]["message"]
    assert all(t["verified"] for n, t in tables.items() if n != "keyless")
    assert tables["t"]["planned_chunks"] > 1
    assert tables["ci"]["planned_chunks"] > 1
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    listed = sorted((r["table"], str(r["key"]), r["column"], r["value"]) for r in rows)
    assert listed == sorted(
        [
            ("public.t", "{'id': 1}", "d", "0000-00-00"),
            ("public.t", "{'id': 700}", "dt", "2020-02-31 00:00:00"),
            ("public.t", "{'id': 701}", "s", "\\x610062"),
            ("public.t", "{'id': 1200}", "j", '{"a": "\\x"}'),
            ("public.t", "{'id': 1500}", "d", "2020-00-01"),
            ("public.t", "{'id': 2000}", "s", "\\x610062"),
            ("public.ci", "{'code': 'Key 1', 'part': '2020-01-01 00:00:01'}", "v", "\\x7800"),
            ("public.ci", "{'code': 'kEY 450', 'part': '2020-01-01 00:07:30'}", "v", "\\x7800"),
            ("public.ci", "{'code': 'kEY 900', 'part': '2020-01-01 00:15:00'}", "v", "\\x7800"),
            ("public.ci", """{'code': 'it\\'s "\\\\', 'part': '0000-00-00 00:00:00'}""", "part", "0000-00-00 00:00:00"),
            ("public.un", "{'a': 'é', 'e': 'q'}", "d", "0000-00-00"),
        ]
    )  # fmt: skip
    # The others can go on without the table that has no key.
    _change(source, "DELETE FROM keyless WHERE v = 'b'")
    assert jivs("run", spec, "--json", env=env, code=0).document["status"] == "completed"
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    _change(
        source,
        "UPDATE t SET d = '2020-01-01', dt = '2020-01-01', s = 'good', j = '{}' WHERE id IN (1, 700, 701, 1200)",
        "UPDATE ci SET v = 'good' WHERE code = 'key 450'",
        "UPDATE un SET d = NULL",
    )
    assert jivs("verify", key, "--json", env=env, code=4).document["equal"] is False  # un: two rows changed
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (again["replayed"], again["stayed"]) == (6, 5)
    assert _all(target, "SELECT count(*), sum(id) FROM t") == [(1998, 2000 * 2001 // 2 - 1500 - 2000)]
    assert _all(target, "SELECT v FROM ci WHERE code = 'kEY 450'") == [("good",)]
    verified = jivs("verify", key, "--json", env=env, code=4).document
    assert [t["source_table"].partition(".")[2] for t in verified["tables"] if not t["equal"]] == ["un"]


def test_a_budget_that_is_exceeded_fails_its_table_alone(
    jivs: Jivs, make_mysql: Make, target: str, key: str, tmp_path: Path
) -> None:
    source = make_mysql(_ODD)
    env = jivs.connections(legacy=source, warehouse=target)
    spec = spec_of(tmp_path / "spec.json", key, 5, chunk_bytes=1 << 16, tables={"exclude": ["keyless"]})
    failed = jivs("run", spec, "--json", env=env, code=1).document
    tables = {t["source_table"].partition(".")[2]: t for t in failed["tables"]}
    assert "6 rows are bad and quarantine.max_rows is 5" in tables["t"]["error"]["message"]
    assert {n for n, t in tables.items() if t["verified"]} == {"ci", "un", "fine"}


def test_bytes_that_no_character_set_reads(
    jivs: Jivs, make_mysql: Make, target: str, key: str, tmp_path: Path
) -> None:
    """Two keys whose characters are no characters are two rows, and each is shown as its bytes."""
    source = make_mysql(
        """CREATE TABLE r (k varchar(9) CHARACTER SET sjis COLLATE sjis_bin PRIMARY KEY, n int);
        INSERT INTO r VALUES ('a', 1), (x'815c', 2), ('b', 3)"""
    )
    with connected(source) as db, db.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM r WHERE CAST(CONVERT(CONVERT(k USING utf8mb4) USING sjis) AS BINARY) <> CAST(k AS BINARY)"
        )
        bad = cursor.fetchone()[0]
    env = jivs.connections(legacy=source, warehouse=target)
    spec = spec_of(tmp_path / "spec.json", key, 3)
    document = jivs("run", spec, "--json", env=env, code=0).document
    assert document["tables"][0]["quarantined_rows"] == bad
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    assert [r["value"] for r in rows] == ["\\x815c"] * bad
