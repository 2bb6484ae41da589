"""The commands around a run: plan, status, verify, report, events, db; and two runs at once."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import (
    EVENT_TYPES,
    PHASES,
    check_error,
    check_keys,
    check_run,
    check_status,
)
from jivs_pipeline_tests.acceptance.rows import assert_same_database, catalog
from jivs_pipeline_tests.fix_cli import Jivs, new_database, password_of
from jivs_pipeline_tests.sqlite_files import make_file

SOURCE = """
CREATE TABLE countries (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE towns (id INTEGER PRIMARY KEY, country TEXT REFERENCES countries (code), name TEXT, area REAL);
INSERT INTO countries VALUES ('is', 'Ísland'), ('no', 'Norge');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO towns SELECT i, iif(i % 2, 'is', 'no'), printf('%0120d', i), i / 8.0 FROM n;
"""


@dataclass(frozen=True)
class Migrated:
    """A finished migration, and what its commands need."""

    key: str
    source: Path
    target: str
    env: dict[str, str]
    spec: dict[str, object]


@pytest.fixture(scope="module")
def migrated(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrated]:
    home, server = jivs_home
    directory = tmp_path_factory.mktemp("commands")
    source = make_file(directory / "towns.sqlite", SOURCE)
    key = f"k-{uuid4().hex[:12]}"
    with new_database(server) as target:
        jivs = Jivs(home, directory, server)
        env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
        spec = {"key": key, "source": "legacy", "target": "warehouse", "chunk_bytes": 65536}
        check_run(jivs("run", jivs.spec(**spec), "--json", code=0, env=env).document)
        yield Migrated(key, source, target, env, spec)


def test_plan_touches_nothing(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    mixed = (
        "CREATE TABLE mixed (id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO mixed VALUES (1, 1), (2, 'two');"
    )
    source = make_file(tmp_path / "towns.sqlite", f"{SOURCE}{mixed}")
    size = source.stat()
    before = catalog(target)
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65536)
    document = jivs("plan", spec, "--json", code=0, env=env).document
    check_keys(document, {"tables": list, "warnings": list, "estimate": dict}, "plan")
    for table in document["tables"]:
        check_keys(
            table, {"chunks": int, "lane": str, "rows": int, "bytes": int, "columns": list}, "plan.tables"
        )
        assert table["columns"]
    tables = {t["source_table"]: t for t in document["tables"]}
    assert tables["main.towns"]["rows"] == 2000
    assert tables["main.towns"]["chunks"] >= 3
    assert {"column": "v", "kind": "refused", "table": "main.mixed"}.items() <= document["warnings"][
        0
    ].items()
    for warning in document["warnings"]:
        check_keys(
            warning, {"table": str, "column": (str, type(None)), "kind": str, "reason": str}, "plan.warnings"
        )
    said = jivs("plan", spec, code=0, env=env).stdout
    assert "towns" in said
    assert "About " in said
    assert "refused" in said
    assert catalog(target) == before
    assert (source.stat().st_mtime_ns, source.stat().st_size) == (size.st_mtime_ns, size.st_size)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["towns.sqlite"]
    assert jivs("status", key, env=env).code == 2


def test_a_plan_learns_from_what_was_measured(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """A megabyte is enough to learn from. Where the control database cannot be asked, it says that it guesses."""
    source = make_file(
        tmp_path / "long.sqlite",
        "CREATE TABLE long (id INTEGER PRIMARY KEY, v TEXT);"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        " INSERT INTO long SELECT i, hex(zeroblob(1000)) FROM n;",
    )
    name = key.replace("-", "_")
    env = jivs.connections(**{name: f"sqlite:///{source}", "warehouse": target})
    spec = jivs.spec(key=key, source=name, target="warehouse")
    ran = jivs("run", spec, "--json", code=0, env=env).document
    again = jivs.spec(key=f"{key}-2", source=name, target="warehouse", target_schema="again")
    learned = jivs("plan", again, "--json", code=0, env=env).document["estimate"]
    assert learned["basis"] == f"as 1 earlier run from {name!r} to 'warehouse' took"
    assert learned["seconds"] == pytest.approx(sum(learned["phases"].values()), abs=0.4)
    assert learned["phases"]["extract"] >= round(ran["phases"]["extract"] - 0.1, 1)
    elsewhere = {**env, "JIVS_CONTROL_URL": "postgresql://nobody@127.0.0.1:1/none"}
    guessed = jivs("plan", again, "--json", code=0, env=elsewhere).document["estimate"]
    assert guessed["basis"] == "a guess: nothing was measured here yet"


def test_status(jivs: Jivs, migrated: Migrated) -> None:
    document = jivs("status", migrated.key, "--json", code=0).document
    check_status(document)
    assert (document["key"], document["status"], document["phase"]) == (migrated.key, "completed", "finish")
    assert (document["rows"], document["total_rows"]) == (2002, 2002)
    listed = jivs("status", "--json", code=0).document
    check_keys(listed, {"migrations": list}, "status")
    for each in listed["migrations"]:
        check_status(each)
    assert document in listed["migrations"]
    assert "completed" in jivs("status", code=0).stdout


def test_status_tells_the_whole_key(jivs: Jivs, migrated: Migrated) -> None:
    """The key is what the next command needs, also through a pipe."""
    assert migrated.key in jivs("status", code=0).stdout


def test_events_are_numbered_and_in_order(jivs: Jivs, migrated: Migrated) -> None:
    document = jivs("events", migrated.key, "--json", code=0).document
    check_keys(document, {"events": list}, "events")
    events = document["events"]
    for event in events:
        check_keys(event, {"id": str, "seq": int, "type": str, "at": str, "key": str, "data": dict}, "events")
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [e["id"] for e in events] == [f"{migrated.key}:{e['seq']}" for e in events]
    assert {e["key"] for e in events} == {migrated.key}
    types = [e["type"] for e in events]
    assert set(types) <= EVENT_TYPES
    assert types[0] in {"migration.queued", "migration.started"}
    assert types.count("migration.started") == 1
    assert types[-1] == "migration.completed"
    assert [e["data"]["phase"] for e in events if e["type"] == "migration.phase"] == PHASES
    assert types.count("migration.table_loaded") == 2
    assert [e["at"] for e in events] == sorted(e["at"] for e in events)
    assert "completed" in jivs("events", migrated.key, code=0).stdout


def test_report_is_one_file(jivs: Jivs, migrated: Migrated, tmp_path: Path) -> None:
    """It loads nothing from anywhere, and tells no secret."""
    out = tmp_path / "deep" / "report.html"
    document = jivs("report", migrated.key, "--out", out, "--json", code=0).document
    assert document["report"] == str(out)
    html = out.read_text()
    assert "towns" in html
    assert "2,000" in html
    assert "<svg" in html
    assert not re.findall(
        r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'>\s]+|url\((?!["']?(?:data:|#))|@import""", html
    )
    assert password_of(migrated.target) not in html
    printed = jivs("report", migrated.key, code=0).stdout.strip()
    assert Path(printed).is_file()


def test_verify_finds_one_changed_byte(jivs: Jivs, migrated: Migrated) -> None:
    """Equal, then exit 4 for a changed byte, a NULL that became empty text and a missing row; then equal again."""
    argv = ("verify", migrated.key, "--json")
    document = jivs(*argv, code=0, env=migrated.env).document
    assert document["equal"] is True
    for table in document["tables"]:
        check_keys(
            table,
            {
                "source_rows": int, "target_rows": int, "source_digest": str, "target_digest": str, "equal": bool,
                "differences": list,
            },
            "verify.tables",
        )  # fmt: skip
        assert table["equal"] is True
        assert table["source_digest"] == table["target_digest"]
    change = "UPDATE towns SET name = overlay(name placing '1' from 60 for 1) WHERE id = 777"
    with psycopg.connect(migrated.target) as db:
        db.execute(change)
    ended = jivs(*argv, code=4, env=migrated.env)
    assert {t["target_table"]: t["equal"] for t in ended.document["tables"]} == {
        "public.countries": True,
        "public.towns": False,
    }
    (place,) = next(t for t in ended.document["tables"] if not t["equal"])["differences"]
    assert place == {"key": {"id": "777"}, "kind": "changed", "columns": ["name"]}
    plain = jivs("verify", migrated.key, code=4, env=migrated.env)
    assert "public.towns" in plain.stderr
    assert "public.countries" not in plain.stderr
    assert (
        jivs("verify", migrated.key, "--level", "count", "--json", code=0, env=migrated.env).document["level"]
        == "count"
    )
    with psycopg.connect(migrated.target) as db:
        db.execute("UPDATE towns SET name = overlay(name placing '0' from 60 for 1) WHERE id = 777")
        db.execute("DELETE FROM towns WHERE id = 5")
    ended = jivs("verify", migrated.key, "--level", "count", "--json", code=4, env=migrated.env)
    towns = next(t for t in ended.document["tables"] if t["target_table"] == "public.towns")
    assert (towns["source_rows"], towns["target_rows"]) == (2000, 1999)
    assert towns["differences"]
    with closing(sqlite3.connect(migrated.source)) as lite, psycopg.connect(migrated.target) as db:
        db.execute(
            "INSERT INTO towns VALUES (%s, %s, %s, %s)",
            lite.execute("SELECT * FROM towns WHERE id = 5").fetchone(),
        )
    jivs(*argv, code=0, env=migrated.env)


def test_revisions(jivs: Jivs) -> None:
    upgraded = jivs("db", "upgrade", "--json", code=0).document
    state = jivs("db", "status", "--json", code=0).document
    check_keys(state, {"revisions": list}, "db status")
    assert state["revisions"]
    for revision in state["revisions"]:
        check_keys(revision, {"number": int, "name": str, "applied": bool, "changed": bool}, "revisions")
        assert (revision["applied"], revision["changed"]) == (True, False)
    assert upgraded["revisions"] == state["revisions"]
    assert jivs("db", "upgrade", "--json", code=0).document["applied_now"] == []


def test_a_second_run_reports_the_first(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """While one run is inside a chunk, another one exits 3 and names it; the first is not disturbed."""
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65536)
    first = jivs.start(
        "run", spec, "--json", env={**env, "JIVS_FAILPOINT": "after_ledger_before_copy:sleep=10"}
    )
    first.wait_for("load")
    status = jivs("status", key, "--json", code=0).document
    assert (status["status"], status["phase"]) == ("running", "load")
    second = jivs("run", spec, "--json", code=3, env=env)
    error = check_error(second.document)
    assert error["code"] == "conflict"
    assert re.search(rf"\b{first.process.pid}\b", error["message"]), error
    assert first.process.poll() is None, "the first ended before the second was refused"
    document = first.wait().document
    check_run(document)
    assert document["resumed"] is False
    assert document["run_id"] == status["run_id"]
    assert_same_database(source, target)


def test_versions_and_help(jivs: Jivs) -> None:
    assert re.fullmatch(r"jivs \d+\.\d+\.\d+\S*\n", jivs("--version", code=0).stdout)
    said = jivs("--help", code=0).stdout
    for command in ("demo", "up", "plan", "run", "status", "verify", "report", "events", "db"):
        assert command in said


def test_a_spec_in_json_and_yaml_is_one_migration(jivs: Jivs, migrated: Migrated, tmp_path: Path) -> None:
    """Same meaning, same migration: nothing is done again."""
    yaml = tmp_path / "spec.yaml"
    yaml.write_text("".join(f"{k}: {v}\n" for k, v in reversed(migrated.spec.items())) + "# a comment\n")
    assert yaml.read_text() != json.dumps(migrated.spec)
    document = jivs("run", yaml, "--json", code=0, env=migrated.env).document
    check_run(document)
    assert Path(document["report"]).exists()
    types = [e["type"] for e in jivs("events", migrated.key, "--json", code=0).document["events"]]
    assert types.count("migration.started") + types.count("migration.resumed") == 1


@pytest.mark.parametrize("dialect", ["mysql", "sqlite", "csv", "parquet"])
def test_types_are_told(jivs: Jivs, dialect: str) -> None:
    """Each line has a type of PostgreSQL, and the table says what the source knows as integers."""
    document = jivs("types", dialect, "--json", code=0).document
    assert document["dialect"] == dialect
    assert all(line["declared"] and line["target"] for line in document["types"])
    assert {"bigint", "numeric(p,s)"} <= {line["target"] for line in document["types"]}
    shown = jivs("types", dialect, code=0).stdout.splitlines()
    assert len(shown) == 1 + len(document["types"])


def test_types_of_a_dialect_that_is_none(jivs: Jivs) -> None:
    assert "There is no dialect 'oracel'" in jivs("types", "oracel", code=2).stderr
    assert "stays what it is" in jivs("types", "postgresql", code=0).stdout
