"""The memory of a run at its defaults: tables of a hundred columns and values of 10 MB, from every kind of source.

What belongs here: the peak of the run's process. What does not: one value of 100 MB (`test_memory.py`).
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs_pipeline_tests.fix_faults import ROOT
from jivs_pipeline_tests.fix_mysql import connected

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

CAP = 512 << 20
COLUMNS = 100
NAMES = [f"c{n}" for n in range(COLUMNS)]
LARGE = 10_000_000
_ROWS, _LARGE_ROWS = 2000, 8


def _rows() -> Iterator[list[str]]:
    """Rows of some 20 kB; every 250th has a value of 10 MB as well."""
    for number in range(_ROWS):
        row = [str(number), *(f"{number}-{n} ".ljust(200, "x") for n in range(1, COLUMNS))]
        if number % (_ROWS // _LARGE_ROWS) == 0:
            row[-1] = f"{number} ".ljust(LARGE, "y")
        yield row


def _sqlite(directory: Path) -> str:
    path = directory / "wide.sqlite"
    with closing(sqlite3.connect(path)) as lite:
        lite.execute(f"CREATE TABLE wide ({', '.join(f'{n} TEXT' for n in NAMES)})")
        lite.executemany(f"INSERT INTO wide VALUES ({', '.join('?' * COLUMNS)})", _rows())
        lite.commit()
    return f"sqlite:///{path}"


def _csv(directory: Path) -> str:
    (directory / "csv").mkdir()
    with (directory / "csv" / "wide.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(_rows())
    return f"csv:///{directory / 'csv'}"


def _parquet(directory: Path) -> str:
    (directory / "parquet").mkdir()
    schema = pa.schema([(name, pa.string()) for name in NAMES])
    with pq.ParquetWriter(directory / "parquet" / "wide.parquet", schema) as writer:
        group: list[list[str]] = []
        for number, row in enumerate(_rows(), 1):
            group.append(row)
            if number % 500 == 0:
                writer.write_table(
                    pa.table([list(column) for column in zip(*group, strict=True)], schema=schema)
                )
                group.clear()
    return f"parquet:///{directory / 'parquet'}"


def _postgresql(url: str) -> str:
    with psycopg.connect(url) as db:
        db.execute(f"CREATE TABLE wide ({', '.join(f'{n} text' for n in NAMES)})".encode())
        with db.cursor().copy("COPY wide FROM STDIN") as copy:
            for row in _rows():
                copy.write_row(row)
    return url


def _mysql(url: str) -> str:
    with connected(url) as server, server.cursor() as cursor:
        cursor.execute(f"CREATE TABLE wide ({', '.join(f'{n} LONGTEXT' for n in NAMES)}) ROW_FORMAT=DYNAMIC")
        statement = f"INSERT INTO wide VALUES ({', '.join(['%s'] * COLUMNS)})"
        for row in _rows():
            cursor.execute(statement, row)
    return url


@pytest.mark.parametrize("kind", ["postgresql", "streamed", "mysql", "sqlite", "parquet", "csv"])
def test_a_run_stays_below_512_mb(
    jivs_home: tuple[Path, str],
    make_target: Callable[[], str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
) -> None:
    if kind in {"postgresql", "streamed"}:
        source = _postgresql(make_target())
    elif kind == "mysql":
        source = _mysql(request.getfixturevalue("make_mysql")())
    else:
        source = {"sqlite": _sqlite, "parquet": _parquet, "csv": _csv}[kind](tmp_path)
    target = make_target()
    options = {"staging": "none"} if kind == "streamed" else {}
    order = {
        "environment": {
            "JIVS_HOME": str(jivs_home[0]),
            "JIVS_CONTROL_URL": make_target(),
            "JIVS_STAGING_URL": str(tmp_path / "staging"),
            "JIVS_CONNECTION_LEGACY": source,
            "JIVS_CONNECTION_WAREHOUSE": target,
        },
        "spec": {"key": f"k-{uuid4().hex[:12]}", "source": "legacy", "target": "warehouse", **options},
        "tasks": "",
    }
    worker = subprocess.run(
        [sys.executable, "-m", "jivs_pipeline_tests.faults.worker"],
        input=json.dumps(order), capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )  # fmt: skip
    assert worker.returncode == 0, worker.stderr[-2000:]
    told = json.loads(worker.stdout)
    assert told["error"] is None
    with psycopg.connect(target) as db:
        found = db.execute(f"SELECT count(*), sum(length(c{COLUMNS - 1})) FROM wide".encode()).fetchone()
    assert found == (_ROWS, _LARGE_ROWS * LARGE + (_ROWS - _LARGE_ROWS) * 200)
    assert 0 < told["peak_kib"] * 1024 < CAP, f"{told['peak_kib'] >> 10} MiB"
