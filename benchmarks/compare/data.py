"""TPC-H rows in every kind of source, at a scale; kept under `.bench/` for the next run.

What belongs here: making sources. What does not: targets and candidates.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sysconfig
from contextlib import closing
from pathlib import Path

from benchmarks.compare.servers import PROGRAMS, MariaDb, Postgres
from jivs_pipeline_tests.databases import TPCH_TABLES, load_tpch, write_tpch_csv

__all__ = [
    "BARE",
    "ONE",
    "WHOLE",
    "csv_files",
    "mariadb_source",
    "parquet_source",
    "postgresql_sources",
    "sqlite_source",
]

WHOLE, BARE = "tpch", "tpch_bare"
"""Databases with all eight tables: with keys and indexes, and rows alone."""
ONE = "orders"
"""The table of the sources whose peers take a process for each table."""


def postgresql_sources(server: Postgres, scale: float) -> None:
    """`WHOLE` and `BARE`."""
    name = f"{WHOLE}_{scale:g}".replace(".", "_")
    if not server.has(name):
        load_tpch(server.create(f"{name}_new"), scale)
        _rename(server, f"{name}_new", name)
    _copy_of(server, name, WHOLE)
    keyless = server.create(BARE)
    dump = [PROGRAMS / "pg_dump", "--section=pre-data", "--section=data", server.at(name)]
    with subprocess.Popen(dump, stdout=subprocess.PIPE) as writer:
        subprocess.run(
            [PROGRAMS / "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", keyless], stdin=writer.stdout, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
    _psql(keyless, "VACUUM ANALYZE")


def _copy_of(server: Postgres, template: str, name: str) -> None:
    _psql(server.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    _psql(server.url, f"CREATE DATABASE {name} TEMPLATE {template}")
    # Hint bits are set and statistics are there, whoever reads first.
    _psql(server.at(name), "VACUUM ANALYZE")


def _rename(server: Postgres, old: str, new: str) -> None:
    _psql(server.url, f"ALTER DATABASE {old} RENAME TO {new}")


def _psql(url: str, statement: str) -> None:
    subprocess.run([PROGRAMS / "psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-c", statement, url], check=True)


def csv_files(directory: Path, scale: float) -> dict[str, Path]:
    """All tables as CSV with a header."""
    place = directory / f"csv-{scale:g}"
    if not place.exists():
        new = place.with_name(f"{place.name}.new")
        new.mkdir(parents=True, exist_ok=True)
        write_tpch_csv(new, scale)
        new.rename(place)
    return {table: place / f"{table}.csv" for table in TPCH_TABLES}


def mariadb_source(server: MariaDb, directory: Path, scale: float) -> None:
    """Database `WHOLE` with the table `ONE` and its key."""
    file = csv_files(directory, scale)[ONE]
    server.run(f"CREATE DATABASE IF NOT EXISTS {WHOLE} CHARACTER SET utf8mb4")
    columns = TPCH_TABLES[ONE]
    server.run(
        f"DROP TABLE IF EXISTS {ONE}; CREATE TABLE {ONE} ({columns}, PRIMARY KEY (o_orderkey));"
        f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {ONE} FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        f" ESCAPED BY '' IGNORE 1 LINES; ANALYZE TABLE {ONE}",
        WHOLE,
    )


def sqlite_source(directory: Path, scale: float) -> Path:
    """A file with the table `ONE` and its key."""
    import csv

    path = directory / f"tpch-{scale:g}.sqlite"
    if not path.exists():
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with closing(sqlite3.connect(new)) as db, csv_files(directory, scale)[ONE].open() as file:
            db.execute(f"CREATE TABLE {ONE} ({TPCH_TABLES[ONE]}, PRIMARY KEY (o_orderkey))")
            rows = csv.reader(file)
            marks = ", ".join("?" * len(next(rows)))
            db.executemany(f"INSERT INTO {ONE} VALUES ({marks})", rows)
            db.commit()
        new.rename(path)
    return path


def parquet_source(directory: Path, scale: float) -> Path:
    """A directory with the file of `ONE`."""
    place = directory / f"parquet-{scale:g}"
    if not place.exists():
        new = place.with_name(f"{place.name}.new")
        program = Path(sysconfig.get_path("scripts")) / "tpchgen-cli"
        arguments = [
            "parquet",
            "--scale-factor",
            str(scale),
            "--tables",
            ONE,
            "--output-dir",
            str(new),
            "--quiet",
        ]
        subprocess.run([program, *arguments], check=True)
        new.rename(place)
    return place
