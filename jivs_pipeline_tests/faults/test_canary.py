"""Row 20: a password and a row's value, of which each occurs nowhere else, are looked for wherever something is kept or seen.

What belongs here: ways to fail, and places to look. What does not: what a sentence of an error says (`acceptance/test_errors.py`).

The value may be in the two ends and in the quarantine; the password nowhere but in the environment of the command. What the UI
shows comes from Dagster's database and files, which are searched whole.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.fix_cli import Jivs, database_of, with_parts
from jivs_pipeline_tests.fix_faults import FULL, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

TABLE = "CREATE TABLE people (id integer PRIMARY KEY, secret text, number integer)"


@dataclass
class Way:
    """A way through the product: what the target has before, what the spec says, and how the command ends."""

    name: str
    code: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    before: str = ""
    sqlite: str = ""
    failpoint: str = ""
    wrong_password: bool = False


def _rule(**change: Any) -> dict[str, Any]:
    return {"rules": {"people": {"columns": {"secret": change}}}}


def _check(**more: Any) -> dict[str, Any]:
    return {
        "validation": [{"kind": "business", "table": "people", "expression": "length(secret) < 3", **more}]
    }


PATHS = (
    Way("loaded", 0),
    Way("without staging", 0, {"staging": "none"}),
    Way("wrong password", 2, wrong_password=True),
    Way(
        "the target's CHECK",
        1,
        {"on_existing": "append"},
        f"{TABLE}; ALTER TABLE people ADD CHECK (secret = '');",
    ),
    Way("the target's key", 1, {"on_existing": "append"}, f"{TABLE}; INSERT INTO people SELECT 1, %s, 1"),
    Way(
        "an index's expression",
        1,
        {"on_existing": "append"},
        f"{TABLE}; CREATE UNIQUE INDEX ON people ((secret::integer));",
    ),
    Way("an expression", 1, _rule(expression="CAST(secret AS INTEGER)")),
    Way("a type", 1, _rule(type="date")),
    Way("a mask", 0, _rule(mask="sha256")),
    Way("a validation", 4, _check(severity="critical")),
    Way("a validation that warns", 0, _check(severity="minor")),
    Way("a where that fails", 1, {"rules": {"people": {"where": "secret::integer > 0"}}}),
    Way("a text in an integer column", 1, sqlite="INTEGER"),
    Way("into quarantine", 0, {"quarantine": {"max_rows": 5}}, sqlite="INTEGER"),
    Way("killed while loading", -9, failpoint="after_copy_before_commit:kill"),
    Way("rolled back", 1, {"on_failure": "rollback", **_rule(type="date")}),
)


@contextmanager
def _watching(canaries: tuple[str, ...]) -> Iterator[list[str]]:
    """The arguments of any process in which a canary was seen meanwhile."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    line = file.read_bytes().decode(errors="replace")
                    seen.extend(line for c in canaries if c in line)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _in_database(url: str, canary: str, *, without: tuple[str, ...] = (), schemas: str = "") -> list[str]:
    """Tables that hold it, as text, as bytes, or in what Dagster compresses; not where appended rows wait for their table."""
    found: list[str] = []
    with psycopg.connect(url) as db:
        tables = db.execute(
            """SELECT n.nspname, c.relname, array_agg(a.attname::text) FILTER (WHERE a.atttypid = 'bytea'::regtype)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
                WHERE c.relkind IN ('r', 'm') AND NOT (n.nspname = 'jivs_ledger' AND c.relname ~ '^side_') AND n.nspname !~ '^(pg_|information_schema)' AND n.nspname ~ %s
                GROUP BY 1, 2""",
            (schemas,),
        ).fetchall()
        for schema, table, binary in (t for t in tables if t[1] not in without):
            columns = sql.SQL(", ").join([sql.SQL("t::text"), *map(sql.Identifier, binary or ())])
            rows = db.execute(sql.SQL("SELECT {} FROM {} t").format(columns, sql.Identifier(schema, table)))
            if any(canary in _text(value) for row in rows for value in row):
                found.append(f"{database_of(url)}.{schema}.{table}")
    return found


def _text(value: str | bytes | None) -> str:
    if not isinstance(value, bytes):
        return value or ""
    octets = value
    with suppress(zlib.error):
        octets += zlib.decompress(value)
    return octets.decode(errors="replace")


def _in_files(directories: tuple[Path, ...], canary: str) -> list[str]:
    """Files that hold it, but for the tables of PostgreSQL, which are asked as such."""
    found: list[str] = []
    for root in directories:
        clusters = [p.parent for p in root.rglob("PG_VERSION") if (p.parent / "global").is_dir()]
        for path in (p for p in root.rglob("*") if p.is_file()):
            inside = any(c in path.parents for c in clusters) and path.suffix != ".log"
            with suppress(OSError):
                if not inside and canary.encode() in path.read_bytes():
                    found.append(str(path))
    return found


def _source(way: Way, value: str, tmp_path: Path, make_target: Callable[[], str]) -> str:
    if way.sqlite:
        file = tmp_path / f"{uuid4().hex}.sqlite"
        with closing(sqlite3.connect(file)) as lite:
            lite.execute(f"CREATE TABLE people (id INTEGER PRIMARY KEY, secret {way.sqlite}, number INTEGER)")
            lite.executemany("INSERT INTO people VALUES (?, ?, ?)", [(1, value, 1), (2, 2, 2)])
            lite.commit()
        return f"sqlite:///{file}"
    url = make_target()
    with psycopg.connect(url) as db:
        db.execute(TABLE)
        db.execute("INSERT INTO people SELECT i, %s, i FROM generate_series(1, 50) i", (value,))
    return url


def test_nothing_is_told_of_a_password_or_a_value(
    jivs: Jivs, make_target: Callable[[], str], tmp_path: Path
) -> None:
    for one in rounds(20, quick=1):
        way = PATHS[one.number % len(PATHS)] if FULL else one.rng.choice(PATHS)
        one.note(way.name)
        password, value, user = (f"{kind}{uuid4().hex}" for kind in ("pw", "val", "u"))
        with one, psycopg.connect(jivs.server, autocommit=True) as server:
            create = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}")
            server.execute(create.format(sql.Identifier(user), sql.Literal(password)))
            try:
                _round(jivs, way, (password, value, user), tmp_path, make_target)
            finally:
                server.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(user)))
                server.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(user)))


def _round(
    jivs: Jivs, way: Way, canaries: tuple[str, str, str], tmp_path: Path, make_target: Callable[[], str]
) -> None:
    password, value, user = canaries
    source, target = _source(way, value, tmp_path, make_target), make_target()
    with psycopg.connect(target) as db:
        if way.before:
            db.execute(way.before.replace("%s", f"'{value}'").encode())
    given = "x" + password if way.wrong_password else password
    as_user = {
        "a": source if way.sqlite else with_parts(source, user=user, password=given),
        "b": with_parts(target, user=user, password=password),
    }
    spec = jivs.spec(key=f"k-{uuid4().hex[:12]}", source="a", target="b", **way.options)
    environment = {**jivs.connections(**as_user), "JIVS_FAILPOINT": way.failpoint}
    with _watching((password, value)) as arguments:
        ended = jivs("run", spec, "--json", env=environment)
        assert ended.code == way.code, f"{way.name}: {ended}"
        if way.failpoint:
            again = jivs("run", spec, "--json", env=jivs.connections(**as_user), code=0)
            assert value not in again.stdout + again.stderr
    assert arguments == [], "in the arguments of a process"
    for canary in (password, value):
        assert canary not in ended.stdout + ended.stderr, f"{way.name}: it printed it"
        found = _in_files((jivs.home, tmp_path / "jivs"), canary)
        # A run that failed keeps the rows that it staged for the next one.
        goes_on = canary == value and ended.code == 1 and way.options.get("on_failure") != "rollback"
        found = [
            file for file in found if not (goes_on and Path(file).is_relative_to(tmp_path / "jivs/staging"))
        ]
        assert found == [], f"{way.name}: {found}"
        with psycopg.connect(jivs.server) as server:
            names = [n for (n,) in server.execute("SELECT datname FROM pg_database WHERE NOT datistemplate")]
        for name in {*names} - {database_of(source), database_of(target)}:
            url = with_parts(jivs.server, database=name)
            kept = ("migration_quarantine",) if canary == value else ()
            found = _in_database(url, canary, without=kept)
            assert found == [], f"{way.name}: {found}"
        found = _in_database(target, canary, schemas="^jivs_ledger" if canary == value else "")
        assert found == [], f"{way.name}: {found}"
