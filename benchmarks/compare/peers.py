"""The peers: installing them, their versions, and the commands that their own documentation says are fast.

What belongs here: everything that is said to a tool of others. What does not: which scenario uses which.

apt brings pgcopydb and pgloader where we are root; the others come from PyPI into `.bench/venv`. What cannot be had is
reported in the results by its error, like a peer that fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare.data import ONE
from benchmarks.compare.scenario import Place
from benchmarks.compare.servers import PROGRAMS

__all__ = ["install", "versions"]

_APT = {
    "pgcopydb": "pgcopydb",
    "pgloader": "pgloader",
    "mariadbd": "mariadb-server",
    "mariadb": "mariadb-client",
}
# The wheels sling and ingestr 1 only download a program at run time; these bring one.
_PYPI = (
    "sling-linux-amd64", "ingestr<1", "dlt[postgres,sql_database]", "sqlalchemy<2.1", "pymysql", "connectorx", "pyarrow",
    "matplotlib",
)  # fmt: skip
JOBS = "2"
"""Processes or threads that each is allowed, as many as `parallelism` by default."""


def install(directory: Path) -> None:
    """Bring the peers, as far as they can be had."""
    missing = [package for program, package in _APT.items() if shutil.which(program) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=quiet)
        subprocess.run(
            ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing], check=False, env=quiet
        )
    venv = directory / "venv"
    if not (venv / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        done = subprocess.run([venv / "bin" / "pip", "install", "--quiet", *_PYPI], check=False)
        if done.returncode == 0:
            (venv / "complete").touch()


def versions(directory: Path) -> dict[str, str]:
    """What each says of itself; `not installed` where there is none."""
    python = directory / "venv" / "bin" / "python"
    found = {
        "PostgreSQL": _said([str(PROGRAMS / "postgres"), "--version"]),
        "MariaDB": _said(["mariadbd", "--version"]),
        "pgcopydb": _said(["pgcopydb", "--version"]),
        "pgloader": _said(["pgloader", "--version"]),
    }
    for package in ("sling-linux-amd64", "ingestr", "dlt"):
        found[package] = _said(
            [str(python), "-c", f"import importlib.metadata as m; print(m.version('{package}'))"]
        )
    return found


def _said(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "not installed"
    lines = [line for line in done.stdout.splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines else "?"


# PostgreSQL to PostgreSQL


def pgcopydb(source: str, place: Place) -> Sequence[str]:
    """Its documentation: as many table jobs and index jobs as cores, tables split where they are large."""
    return [
        "pgcopydb", "clone", "--source", source, "--target", place.target, "--dir", str(place.directory / "pgcopydb"),
        "--table-jobs", JOBS, "--index-jobs", JOBS, "--split-tables-larger-than", "64MB", "--no-owner", "--no-acl",
    ]  # fmt: skip


def pg_dump(source: str, place: Place) -> Sequence[str]:
    """Directory format, uncompressed, because the disk is not what is short."""
    dump = f"pg_dump -Fd -Z0 -j{JOBS} --no-owner -f {place.directory}/dump '{source}'"
    return [
        "bash",
        "-ec",
        f"{dump}; pg_restore -j{JOBS} --no-owner -d '{place.target}' {place.directory}/dump",
    ]


# One table


def pgloader(source: str, place: Place) -> Sequence[str]:
    """`source` is a URL that pgloader knows. Several readers where it offers them, for MySQL."""
    script = place.directory / "load.pgloader"
    options = "include drop, create tables, create indexes, reset no sequences"
    only = f"INCLUDING ONLY TABLE NAMES LIKE '{ONE}'"
    if source.startswith("mysql"):
        options += ", workers = 2, concurrency = 2, multiple readers per thread, rows per range = 50000"
        only = f"INCLUDING ONLY TABLE NAMES MATCHING '{ONE}'"
    options += ", batch rows = 25000, prefetch rows = 100000"
    # Dates as they are: by default pgloader's MySQL cast makes 'date' of dates, and numeric of decimals.
    script.write_text(f"LOAD DATABASE FROM {source} INTO {place.target}\n WITH {options}\n {only};\n")
    return ["pgloader", "--quiet", "--dynamic-space-size", "4096", str(script)]


def sling(venv: Path, source: str, place: Place, table: str) -> Sequence[str]:
    """Bulk loading is its default for PostgreSQL."""
    program = next(venv.glob("lib/*/site-packages/sling_*/bin/sling*"), "sling")
    return [
        str(program), "run", "--src-conn", source, "--src-stream", table, "--tgt-conn", f"{place.target}?sslmode=disable",
        "--tgt-object", f"public.{ONE}", "--mode", "full-refresh",
    ]  # fmt: skip


def ingestr(source: str, place: Place, table: str) -> Sequence[str]:
    """Arrow from the source, CSV to COPY."""
    return [
        "ingestr", "ingest", "--yes", "--progress", "log", "--source-uri", source, "--source-table", table,
        "--dest-uri", place.target, "--dest-table", f"public.{ONE}", "--sql-backend", "connectorx",
        "--loader-file-format", "csv", "--pipelines-dir", str(place.directory / "pipelines"),
    ]  # fmt: skip


_DLT = """
import sys, json
import dlt
from dlt.sources.sql_database import sql_table

url, target, table, home = sys.argv[1:]
pipeline = dlt.pipeline("bench", pipelines_dir=home, destination=dlt.destinations.postgres(target), dataset_name="bench")
source = sql_table(url, table=table, backend="connectorx", reflection_level="full_with_precision",
    backend_kwargs={"return_type": "arrow", "conn": url.replace("mysql+pymysql", "mysql")})
print(pipeline.run(source, loader_file_format="csv", write_disposition="replace"))
"""


def dlt(venv: Path, source: str, place: Place, table: str) -> Sequence[str]:
    """Its performance page: ConnectorX, Arrow, and CSV for COPY."""
    script = place.directory / "load.py"
    script.write_text(_DLT)
    return [
        str(venv / "bin" / "python"),
        str(script),
        source,
        place.target,
        table,
        str(place.directory / "dlt"),
    ]
