"""Rows that no value makes bad, but a key of the target: orphans and doubles go to quarantine, the key is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from jivs_pipeline_tests.acceptance.rows import constraints
from jivs_pipeline_tests.acceptance.test_quarantine import spec_of
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_mysql import connected
from jivs_pipeline_tests.sqlite_files import change, make_file

Make = Callable[..., str]


def _all(target: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(target) as db:
        return db.execute(query.encode()).fetchall()


def _foreign_keys(target: str) -> int:
    with psycopg.connect(target) as db:
        return len(constraints(db, "f"))


_SCHEMA = """
CREATE TABLE people (id INTEGER PRIMARY KEY, n INTEGER, boss INTEGER REFERENCES people (id));
CREATE TABLE teams (code TEXT, part INTEGER, lead INTEGER REFERENCES people (id), PRIMARY KEY (code, part)) WITHOUT ROWID;
CREATE TABLE notes (id INTEGER PRIMARY KEY, code TEXT, part INTEGER, FOREIGN KEY (code, part) REFERENCES teams (code, part));
CREATE TABLE moments (id INTEGER PRIMARY KEY, at DATETIME UNIQUE);
"""


def test_orphans_of_sqlite(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """With those of rows that are taken out themselves, along a chain and in a table that refers to itself."""
    people = [(i, i, None if i % 10 == 1 else i - 1) for i in range(1, 3_001)]
    # 11 is bad by its value, so 12 to 20 go, too; 3000 refers to nobody's number.
    people[10] = (11, "bad", None)  # type: ignore[assignment]
    people[2_999] = (3_000, 1, 9_999)
    source = make_file(
        tmp_path / "keys.db",
        _SCHEMA,
        {
            "people": people,
            "teams": [("a", 1, 1), ("a", 2, 19), ("b", 1, 77_777), ("it's", 1, None)],
            "notes": [(1, "a", 1), (2, "a", 2), (3, "b", 1), (4, "A", 1), (5, None, 9), (6, "it's", 1)],
            "moments": [
                (1, "2020-01-01T00:00:00"),
                (2, "2020-01-01 00:00:00"),
                (3, "2020-01-01 00:00:00.50"),
                (4, "2020-01-01 00:00:00.5"),
                (5, None),
                (6, None),
            ],
        },
    )
    env = {"JIVS_CONNECTION_LEGACY": f"sqlite:///{source}", "JIVS_CONNECTION_WAREHOUSE": target}
    spec = spec_of(tmp_path / "spec.json", key, 11, chunk_bytes=65_536)
    planned = jivs("plan", spec, "--json", env=env, code=0).document
    assert not [w for w in planned["warnings"] if w["kind"] == "refused"], planned["warnings"]
    assert any("foreign key (lead)" in w["reason"] for w in planned["warnings"])
    document = jivs("run", spec, "--json", env=env, code=0).document
    tables = {t["source_table"].partition(".")[2]: t for t in document["tables"]}
    assert {n: (t["target_rows"], t["quarantined_rows"]) for n, t in tables.items()} == {
        "people": (2_989, 11),
        "teams": (2, 2),
        "notes": (3, 3),
        "moments": (4, 2),
    }
    assert all(t["verified"] for t in tables.values())
    assert _foreign_keys(target) == 3
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    listed = {(r["table"], str(sorted(r["key"].items()))): (r["column"], r["reason"]) for r in rows}
    assert listed["public.people", "[('id', 11)]"] == ("n", "a text that is no bigint")
    assert listed["public.people", "[('id', 3000)]"][0] == "boss"
    assert listed["public.notes", "[('id', 4)]"] == (
        "code", "breaks foreign key (code, part): teams has no such row, or it is in quarantine, too",
    )  # fmt: skip
    assert listed["public.moments", "[('id', 4)]"][1].startswith("duplicate of key (at)")
    assert listed["public.moments", "[('id', 2)]"][1].startswith("duplicate of key (at)")
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    # One correction at the top of the chain lets all of it in, parents first; what is broken still, stays.
    change(source, "UPDATE people SET n = 11 WHERE id = 11")
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    # 11 to 20, the team that 19 leads, and its note.
    assert (again["replayed"], again["stayed"]) == (12, 6)
    assert _all(target, "SELECT count(*) FROM people") == [(2_999,)]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]


def test_more_orphans_than_the_budget(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    source = make_file(
        tmp_path / "keys.db",
        "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id));",
        {"p": [(1,)], "c": [(1, 1), (2, 2), (3, 3)]},
    )
    env = {"JIVS_CONNECTION_LEGACY": f"sqlite:///{source}", "JIVS_CONNECTION_WAREHOUSE": target}
    spec = spec_of(tmp_path / "spec.json", key, 1)
    failed = jivs("run", spec, "--json", env=env, code=1).document
    errors = {t["source_table"]: t["error"] for t in failed["tables"]}
    assert errors["main.p"] is None
    assert "2 rows are without the row that foreign key (p) needs" in errors["main.c"]["message"]


def test_orphans_of_mysql(jivs: Jivs, make_mysql: Make, target: str, key: str, tmp_path: Path) -> None:
    """What was stored with foreign_key_checks = 0, and texts that are equal to MySQL only."""
    source = make_mysql(
        """CREATE TABLE p (code varchar(20) COLLATE utf8mb4_general_ci PRIMARY KEY, d date);
        CREATE TABLE c (id int AUTO_INCREMENT PRIMARY KEY, code varchar(20) COLLATE utf8mb4_general_ci, up int,
            FOREIGN KEY (code) REFERENCES p (code), FOREIGN KEY (up) REFERENCES c (id));
        INSERT INTO p VALUES ('a', '2020-01-01'), ('b', '0000-00-00');
        INSERT INTO c VALUES (1, 'a', NULL), (2, 'b', 1), (3, 'a', 2), (4, 'A', NULL), (5, NULL, 1);
        SET foreign_key_checks = 0;
        INSERT INTO c VALUES (6, 'nobody', NULL), (7, 'a', 99)"""
    )
    env = jivs.connections(legacy=source, warehouse=target)
    spec = spec_of(tmp_path / "spec.json", key, 5)
    document = jivs("run", spec, "--json", env=env, code=0).document
    tables = {t["source_table"].partition(".")[2]: t for t in document["tables"]}
    assert {n: (t["target_rows"], t["quarantined_rows"]) for n, t in tables.items()} == {
        "p": (1, 1),
        "c": (2, 5),
    }
    assert _foreign_keys(target) == 2
    assert _all(target, "SELECT id FROM c ORDER BY id") == [(1,), (5,)]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    with connected(source) as db, db.cursor() as cursor:
        cursor.execute("UPDATE p SET d = '2020-01-01' WHERE code = 'b'")
        cursor.execute("UPDATE c SET code = 'a' WHERE id = 4")
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (again["replayed"], again["stayed"]) == (4, 2)
    assert _all(target, "SELECT id FROM c ORDER BY id") == [(1,), (2,), (3,), (4,), (5,)]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]


def test_double_keys_of_csv(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Refused in the plan without a budget; with one the first good record stays, whatever is between them."""
    files = tmp_path / "files"
    (files / "t").mkdir(parents=True)
    head = [f'{i},k{i % 7},"text\n{i}"' for i in range(4_000)]
    # 01 is 1; the first 5 is bad by itself, so the second is the first good one; 3 comes again in another file.
    head[5] = "5,k5,x,y"
    head[1_000] = '01,k1,"again"'
    head[3_999] = '5,k5,"good"'
    (files / "t" / "a.csv").write_text("id,part,v\n" + "\n".join(head))
    (files / "t" / "b.csv").write_text('id,part,v\n3,k3,"elsewhere"\n3,k4,"another key"\n5,k5,"late"\n')
    (files / "u.csv").write_text("n\n1.0\n1\n1.5\n")
    (files / "schema.yaml").write_text(
        "tables: {t: {key: [id, part], columns: {id: bigint}}, u: {key: n, columns: {n: numeric}}}"
    )
    env = {"JIVS_CONNECTION_LEGACY": f"csv:///{files}", "JIVS_CONNECTION_WAREHOUSE": target}
    strict = jivs(
        "plan", spec_of(tmp_path / "strict.json", f"{key}-0", 0), "--json", env=env, code=0
    ).document
    refused = {w["table"]: w["reason"] for w in strict["warnings"] if w["kind"] == "refused"}
    assert refused["files.u"] == "1 row with a key that a record before it has: (n)"
    assert "files.t" in refused  # the record with four fields
    spec = spec_of(tmp_path / "spec.json", key, 4, chunk_bytes=65_536)
    planned = jivs("plan", spec, "--json", env=env, code=0).document
    assert any("3 rows with a key" in w["reason"] for w in planned["warnings"]), planned["warnings"]
    document = jivs("run", spec, "--json", env=env, code=0).document
    tables = {t["source_table"].partition(".")[2]: t for t in document["tables"]}
    assert {n: (t["target_rows"], t["quarantined_rows"]) for n, t in tables.items()} == {
        "t": (3_999, 4),
        "u": (2, 1),
    }
    assert all(t["verified"] for t in tables.values())
    assert tables["t"]["planned_chunks"] > 2
    rows = jivs("quarantine", "list", key, "--json", code=0).document["rows"]
    listed = [(r["key"]["file"], r["key"]["line"], r["column"], r["value"]) for r in rows]
    assert listed == [
        ("t/a.csv", 12, None, "5,k5,x,y"),
        ("t/a.csv", 2_001, "id", "01"),
        ("t/b.csv", 2, "id", "3"),
        ("t/b.csv", 4, "id", "5"),
        ("u.csv", 3, "n", "1"),
    ]
    assert _all(target, "SELECT v FROM t WHERE id = 5") == [("good",)]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
    # The target says why they do not go in; a corrected one goes.
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert again["replayed"] == 0
    (files / "t" / "b.csv").write_text('id,part,v\n9003,k3,"elsewhere"\n3,k4,"another key"\n5,k5,"late"\n')
    again = jivs("quarantine", "replay", key, "--json", env=env, code=4).document
    assert (again["replayed"], again["stayed"]) == (1, 4)
    assert _all(target, "SELECT part, v FROM t WHERE id = 9003") == [("k3", "elsewhere")]
    assert jivs("verify", key, "--json", env=env, code=0).document["equal"]
