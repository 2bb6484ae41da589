"""One table (`orders`) from MariaDB, SQLite and Parquet, whose peers take a process for each table.

What belongs here: these three scenarios. What does not: what each tool is told (`peers.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks.compare import check, peers
from benchmarks.compare.data import ONE, WHOLE
from benchmarks.compare.ours import jivs
from benchmarks.compare.scenario import Candidate, Goal, Place, Scenario
from benchmarks.compare.servers import MariaDb, Postgres
from jivs_pipeline_tests.databases import TPCH_TABLES

__all__ = ["from_mariadb", "from_parquet", "from_sqlite"]


def from_mariadb(server: Postgres, mariadb: MariaDb, venv: Path) -> Scenario:
    """Against everybody who reads MySQL."""
    url, alchemy = mariadb.url(WHOLE), mariadb.url(WHOLE, "mysql+pymysql")
    rivals = ("pgloader", "sling", "ingestr", "dlt")
    return Scenario(
        name="mariadb",
        title="MariaDB → PostgreSQL, orders",
        candidates=(
            _raw("mariadb to psql", lambda place: _mariadb_pipe(url, place)),
            jivs("jivs", url, tables={"include": [ONE]}),
            Candidate("pgloader", lambda place: peers.pgloader(url, place)),
            Candidate("sling", lambda place: peers.sling(venv, url, place, f"{WHOLE}.{ONE}")),
            Candidate("ingestr", lambda place: peers.ingestr(alchemy, place, f"{WHOLE}.{ONE}")),
            Candidate("dlt", lambda place: peers.dlt(venv, alchemy, place, ONE)),
        ),
        expected=_expected(server),
        base="mariadb to psql",
        goals=(Goal("whole command / best of ingestr, pgloader, sling, dlt", "jivs", rivals, 0.7),),
        servers=(server.pid, mariadb.pid),
    )


def from_sqlite(server: Postgres, file: Path, venv: Path) -> Scenario:
    """Against everybody who reads SQLite."""
    url = f"sqlite:///{file}"
    return Scenario(
        name="sqlite",
        title="SQLite → PostgreSQL, orders",
        candidates=(
            jivs("jivs", url),
            Candidate("pgloader", lambda place: peers.pgloader(url, place)),
            Candidate("sling", lambda place: peers.sling(venv, f"sqlite://{file}", place, f"main.{ONE}")),
        ),
        expected=_expected(server),
        base="pgloader",
        goals=(Goal("whole command / pgloader", "jivs", ("pgloader",), 0.4),),
        servers=(server.pid,),
    )


def from_parquet(server: Postgres, parquet: Path, csv: Path, venv: Path) -> Scenario:
    """Against psql's \\copy of the same rows, which a peer would have to be given as CSV first."""
    copy = f"\\copy {ONE} FROM '{csv}' (FORMAT csv, HEADER match)"
    return Scenario(
        name="parquet",
        title="Parquet → PostgreSQL, orders",
        candidates=(
            _raw("psql \\copy of CSV", lambda place: ["psql", "-qX", "-c", copy, place.target]),
            jivs("jivs", f"parquet:///{parquet}"),
            Candidate(
                "sling", lambda place: peers.sling(venv, "LOCAL", place, f"file://{parquet}/{ONE}.parquet")
            ),
        ),
        expected=_expected(server),
        base="psql \\copy of CSV",
        goals=(
            Goal("extract + load / psql \\copy", "jivs", ("psql \\copy of CSV",), 1.3, ("extract", "load")),
        ),
        servers=(server.pid,),
    )


def _expected(server: Postgres) -> dict[str, check.Expected]:
    return {ONE: check.expect(server.at(WHOLE), f"public.{ONE}")}


def _raw(name: str, command: Callable[[Place], Sequence[str]]) -> Candidate:
    def prepare(place: Place) -> None:
        with psycopg.connect(place.target) as db:
            db.execute(f"CREATE TABLE {ONE} ({TPCH_TABLES[ONE]})".encode())

    return Candidate(name, command, prepare)


def _mariadb_pipe(url: str, place: Place) -> Sequence[str]:
    parts = urlsplit(url)
    login = f"--host={parts.hostname} --port={parts.port} --user={parts.username} --password={parts.password}"
    read = f"mariadb {login} --quick --batch --skip-column-names -e 'SELECT * FROM {ONE}' {WHOLE}"
    return ["bash", "-eo", "pipefail", "-c", f"{read} | psql -qX -c 'COPY {ONE} FROM STDIN' '{place.target}'"]
