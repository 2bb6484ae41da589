"""Row 15: a value of 100 MB in a worker that may have 512 MB of memory.

What belongs here: memory. What does not: disks (`test_full_disks.py`).

The kernel keeps the cap where cgroups can be written; the peak of the resident set is asserted everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs_pipeline_tests.acceptance.rows import constraints, ledger
from jivs_pipeline_tests.fix_faults import ROOT, rounds

pytestmark = pytest.mark.faults

_CAP = 512 << 20
_VALUE = 100_000_000
_CASES = [*((d, k) for d in ("sqlite", "postgresql", "parquet", "csv") for k in ("text", "bytea"))]
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "cgroup.procs"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "cgroup.procs"),
)


@contextmanager
def _capped(cap: int) -> Iterator[Path | None]:
    """The file that a process writes itself into to be killed beyond the cap, or None where we may not make one."""
    for root, limit, tasks in _CGROUPS:
        group = root / f"jivs-faults-{uuid4().hex[:8]}"
        with suppress(OSError):
            group.mkdir()
            try:
                # "r+": where the controller is off, the file must not be made.
                with (group / limit).open("r+") as file:
                    file.write(str(cap))
            except OSError:
                group.rmdir()
                continue
            try:
                yield group / tasks
            finally:
                group.rmdir()
            return
    yield None


def _value(kind: str, rng: random.Random) -> bytes:
    """100 MB that no compression makes small; as text, characters of one to four bytes."""
    if kind == "bytea":
        return rng.randbytes(_VALUE)
    piece = "".join(rng.choices("abcdefgh\t\\\n,\"'äöü€漢字🦆", k=100_000)).encode()
    whole = b"".join(b"%d" % n + piece for n in range(_VALUE // len(piece) + 1))
    return whole[:_VALUE].decode(errors="ignore").encode()


def _source(dialect: str, kind: str, value: bytes, tmp_path: Path, make_target: Callable[[], str]) -> str:
    small = [(n, b"%d" % n) for n in range(2, 200)]
    if dialect == "sqlite":
        path = tmp_path / f"{uuid4().hex}.sqlite"
        with closing(sqlite3.connect(path)) as lite:
            lite.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {'TEXT' if kind == 'text' else 'BLOB'})")
            as_stored = bytes.decode if kind == "text" else bytes
            lite.executemany(
                "INSERT INTO t VALUES (?, ?)", ((n, as_stored(v)) for n, v in [(1, value), *small])
            )
            lite.commit()
        return f"sqlite:///{path}"
    rows = [(1, value), *small]
    if dialect == "parquet":
        directory = tmp_path / uuid4().hex
        directory.mkdir()
        ids, type_ = (
            pa.array([n for n, _ in rows], pa.int32()),
            pa.string() if kind == "text" else pa.binary(),
        )
        # As bytes first: a list of texts would take four bytes for each character.
        values = pa.array([v for _, v in rows], pa.binary()).cast(type_)
        pq.write_table(pa.table({"id": ids, "v": values}), directory / "t.parquet")
        return f"parquet:///{directory}"
    if dialect == "csv":
        directory = tmp_path / uuid4().hex
        directory.mkdir()
        (directory / "schema.yaml").write_text(f"tables: {{t: {{columns: {{v: {kind}}}}}}}")
        with (directory / "t.csv").open("wb") as file:
            file.write(b"id,v\n")
            for n, v in rows:
                written = v.replace(b'"', b'""') if kind == "text" else b"\\x" + v.hex().encode()
                file.write(b'%d,"%b"\n' % (n, written))
        return f"csv:///{directory}"
    url = make_target()
    with psycopg.connect(url) as db:
        db.execute(f"CREATE TABLE t (id integer PRIMARY KEY, v {kind})".encode())
        db.execute("ALTER TABLE t ALTER v SET STORAGE EXTERNAL")
        as_sent = bytes.decode if kind == "text" else bytes
        db.cursor().executemany(
            "INSERT INTO t VALUES (%b, %b)", [(n, as_sent(v)) for n, v in [(1, value), *small]]
        )
    return url


def _check(target: str, key: str, dialect: str, kind: str, value: bytes) -> None:
    v = "convert_to(v, 'UTF8')" if kind == "text" else "v"
    query = f"SELECT id::int, octet_length({v}), md5({v}) FROM t ORDER BY id::int"
    expected = [
        (n, len(v), hashlib.md5(v).hexdigest())
        for n, v in [(1, value), *((n, b"%d" % n) for n in range(2, 200))]
    ]
    with psycopg.connect(target) as db:
        assert db.execute(query.encode()).fetchall() == expected
        assert {t for t, *_ in constraints(db, "p")} == (set() if dialect in {"csv", "parquet"} else {"t"})
    assert sum(chunk[1] for chunk in ledger(target, key)["public.t"]) == 199


@pytest.mark.timeout(3600)
def test_a_value_of_100_mb(
    jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path
) -> None:
    for number, one in enumerate(rounds(15, quick=len(_CASES))):
        dialect, kind = _CASES[number % len(_CASES)]
        with one, _capped(_CAP) as tasks:
            one.note(f"{dialect}, {kind}")
            value = _value(kind, one.rng)
            key, target, staging = f"k-{uuid4().hex[:12]}", make_target(), tmp_path / uuid4().hex
            order = {
                "environment": {
                    "JIVS_HOME": str(jivs_home[0]),
                    "JIVS_CONTROL_URL": make_target(),
                    "JIVS_STAGING_URL": str(staging),
                    "JIVS_CONNECTION_LEGACY": _source(dialect, kind, value, tmp_path, make_target),
                    "JIVS_CONNECTION_WAREHOUSE": target,
                },
                "spec": {"key": key, "source": "legacy", "target": "warehouse"},
                "tasks": str(tasks or ""),
            }
            worker = subprocess.run(
                [sys.executable, "-m", "jivs_pipeline_tests.faults.worker"],
                input=json.dumps(order), capture_output=True, text=True, timeout=300, check=False, cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
            )  # fmt: skip
            one.note(
                f"capped by {tasks}, code {worker.returncode}, {worker.stdout.strip()} {worker.stderr[-2000:]}"
            )
            assert worker.returncode == 0
            told = json.loads(worker.stdout)
            assert told["error"] is None
            assert 0 < told["peak_kib"] * 1024 < _CAP
            _check(target, key, dialect, kind, value)
            assert not [path for path in staging.rglob("*") if path.is_file()]
