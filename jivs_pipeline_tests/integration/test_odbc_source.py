"""Sources through ODBC drivers: one view, truncation, silence, lost connections, permits. Real drivers and servers."""

from __future__ import annotations

import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError, Crowded, DataError, SnapshotLost, SpecError, TransientError
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import Snapshot, Source
from jivs_pipeline.infra.sources.odbc import OdbcSource
from jivs_pipeline.infra.sources.odbc_link import Link, OdbcError
from jivs_pipeline.infra.sources.odbc_open import attributes_of
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource
from jivs_pipeline_tests.fix_mysql import connected
from jivs_pipeline_tests.fix_odbc import odbc_url, through_odbc
from jivs_pipeline_tests.fix_postgresql import Proxy, at_port
from jivs_pipeline_tests.sqlite_files import make_file, source_of

Open = Callable[..., OdbcSource]


def plan_of(source: Source, table: str, where: str | None = None, chunk_bytes: int = 1 << 30) -> TablePlan:
    """A plan of one table as the planner would make it; refusals do not stop it."""
    catalog = source.catalog(None)
    found = catalog.table(table)
    assert found is not None
    survey = source.survey(found, found.columns, where, chunk_bytes)
    return TablePlan(
        source_schema=catalog.schema, source_table=table, target_schema="public", target_table="t",
        columns=survey.columns, lane=survey.lane, wire=survey.wire, spelling=survey.spelling, where=where,
        chunk_by=survey.chunk_by, chunk_columns=survey.chunk_columns, chunks=survey.chunks, rows=survey.rows,
        bytes=survey.bytes, definition=found,
    )  # fmt: skip


def rows_of(snapshot: Snapshot, plan: TablePlan) -> list[tuple[Any, ...]]:
    """All rows of all chunks."""
    return [
        row
        for chunk in plan.chunks
        for batch in snapshot.batches(plan, chunk)
        for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
    ]


def digest_of(snapshot: Snapshot, plan: TablePlan) -> Digest:
    return sum((snapshot.digest(plan, chunk) for chunk in plan.chunks), Digest())


@pytest.fixture
def numbers(database: str) -> str:
    """A PostgreSQL database with a table of 20,000 rows."""
    with psycopg.connect(database) as db:
        db.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
        db.execute("INSERT INTO t SELECT i, repeat('é☃😀', 30) FROM generate_series(1, 20000) i")
    return database


class OnlyOne:
    """Permits of an endpoint that takes one connection."""

    taken = 0

    def take(self, wanted: int) -> OnlyOne:
        assert wanted
        if self.taken:
            raise Crowded("one is taken")
        self.taken = 1
        return self

    count = 1

    def give_back(self) -> None:
        self.taken = 0


@contextmanager
def behind(url: str, **settings: Any) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with psycopg.connect(url) as db:
        proxy = Proxy((db.info.host or "127.0.0.1", db.info.port), **settings)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.mark.parametrize("bad", [2_000, 100_000])
def test_a_value_longer_than_the_buffer_is_an_error(odbc_drivers: set[str], numbers: str, bad: int) -> None:
    """It is never cut, at whatever size; and the connection is good for more."""
    link = Link(attributes_of(parse_url(through_odbc(numbers))), patience=10)
    with pytest.raises(OdbcError) as error:
        list(link.stream(f"SELECT repeat('x', {bad})", bad - 1, 10))
    assert error.value.state == "TRUNC"
    assert link.rows("SELECT 'é☃😀', '', NULL") == [("é☃😀", "", None)]
    link.part()


def test_hashes_of_rows_add_up(
    open_odbc: Open, numbers: str, make_mysql: Callable[..., str], tmp_path: Path
) -> None:
    """What `jivs verify` narrows a difference down by: each row's hash with its key, and their sum is the digest."""
    lite = make_file(
        tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY, v text)", {"t": [(1, "é☃😀"), (2, None)]}
    )
    maria = make_mysql(
        "CREATE TABLE t (id int PRIMARY KEY, v text);\nINSERT INTO t VALUES (1, 'é☃😀'), (2, NULL);\n"
    )
    for url in (through_odbc(numbers), odbc_url("SQLite3", database=lite), through_odbc(maria)):
        source = open_odbc(url)
        plan = plan_of(source, "t", chunk_bytes=500_000)
        with source.snapshot(1) as snapshot:
            rows = [row for chunk in plan.chunks for row in snapshot.hashes(plan, chunk, plan.columns[:1])]
            # A chain has 64 bits, the others 128.
            halves = [struct.unpack(">qq", hashed.ljust(16, b"\0")) for hashed, _ in rows]
            expected = Digest(len(rows), sum(h for h, _ in halves), sum(low for _, low in halves))
            assert digest_of(snapshot, plan) == expected
        assert sorted(int(key or 0) for _, (key,) in rows) == list(range(1, plan.rows + 1))


def test_a_driver_that_begins_transactions_itself(odbc_drivers: set[str], numbers: str) -> None:
    """As Db2's and HANA's must: what is read is of one transaction until it is rolled back."""
    link = Link(attributes_of(parse_url(through_odbc(numbers))), patience=10, autocommit=False)
    (first,), (second,) = link.rows("SELECT now()::text"), link.rows("SELECT now()::text")
    assert first == second
    link.command("ROLLBACK")
    assert link.rows("SELECT now()::text") != [first]
    link.part()


def test_all_readers_see_one_moment(open_odbc: Open, numbers: str) -> None:
    """What is written meanwhile is in no chunk; the digest is PostgreSQL's own, whatever the driver does."""
    source = open_odbc(through_odbc(numbers))
    plan = plan_of(source, "t", chunk_bytes=200_000)
    assert len(plan.chunks) > 3
    own = PostgresqlSource(parse_url(numbers, "legacy"))
    with source.snapshot(3) as snapshot:
        assert snapshot.consistency == "one snapshot"
        with psycopg.connect(numbers) as db:
            db.execute("DELETE FROM t WHERE id % 2 = 0")
        found: list[tuple[Any, ...]] = []
        threads = [threading.Thread(target=lambda: found.extend(rows_of(snapshot, plan))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 60_000
        seen = digest_of(snapshot, plan)
        assert seen.rows == 20_000
        assert sum(snapshot.count(plan, chunk) for chunk in plan.chunks) == 20_000
    with own.snapshot(1) as after, source.snapshot(1) as snapshot:
        assert digest_of(after, plan) == digest_of(snapshot, plan) != seen
    own.close()


def test_one_connection_is_enough(open_odbc: Open, numbers: str, tmp_path: Path) -> None:
    """Each source takes a permit before it connects, gives it back before it waits for more, and holds none at its end."""
    lite = make_file(tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY)", {"t": [(1,)]})
    for url in (through_odbc(numbers), odbc_url("SQLite3", database=lite)):
        permits = OnlyOne()
        source = open_odbc(url, permits=permits)
        plan = plan_of(source, "t")
        with source.snapshot(3) as snapshot:
            assert len(rows_of(snapshot, plan)) == digest_of(snapshot, plan).rows == plan.rows
            assert permits.taken == 1
        source.close()
        assert permits.taken == 0


def test_a_silent_server_ends_the_wait(open_odbc: Open, numbers: str) -> None:
    """A driver that waits for ever is left behind after the longest silence."""
    plan = plan_of(open_odbc(through_odbc(numbers)), "t")
    with behind(numbers) as proxy:
        source = open_odbc(through_odbc(at_port(numbers, proxy.port)), io_timeout_seconds=2)
        with source.snapshot(1) as snapshot:
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(TransientError):
                rows_of(snapshot, plan)
            assert time.monotonic() - began < 12
            with pytest.raises(SnapshotLost):
                rows_of(snapshot, plan)


def test_a_terminated_session_is_a_lost_snapshot(open_odbc: Open, numbers: str) -> None:
    """The source itself goes on with another session."""
    source = open_odbc(through_odbc(numbers))
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        with psycopg.connect(numbers, autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(TransientError):
            rows_of(snapshot, plan)
        with pytest.raises(SnapshotLost):
            digest_of(snapshot, plan)
    assert plan_of(source, "t").rows == 20_000


def test_mariadb_readers_see_one_moment(open_odbc: Open, make_mysql: Callable[..., str]) -> None:
    """As without a driver: several sessions begin while nobody may write."""
    url = make_mysql(
        "CREATE TABLE t (id int PRIMARY KEY, v text);\nINSERT INTO t SELECT seq, 'é☃😀' FROM seq_1_to_5000;\n"
    )
    source = open_odbc(through_odbc(url))
    plan = plan_of(source, "t", chunk_bytes=20_000)
    with source.snapshot(2) as snapshot:
        assert snapshot.consistency == "one snapshot"
        with connected(url) as db, db.cursor() as cursor:
            cursor.execute("DELETE FROM t WHERE id > 10")
        assert sorted(rows_of(snapshot, plan)) == [(i, "é☃😀") for i in range(1, 5001)]
        assert digest_of(snapshot, plan).rows == 5_000


def test_sqlite_reads_one_state(open_odbc: Open, tmp_path: Path) -> None:
    """Two digests of one file, by its driver and without it, are equal; what is written meanwhile is not seen."""
    script = "PRAGMA journal_mode = wal; CREATE TABLE t (id integer PRIMARY KEY, v text, r real, b blob);"
    rows = [(i, "é☃😀" * i, i / 7, bytes([i % 256, 0])) for i in range(1, 300)]
    path = make_file(tmp_path / "x.db", script, {"t": rows})
    source = open_odbc(odbc_url("SQLite3", database=path))
    plan, own = plan_of(source, "t", chunk_bytes=50_000), source_of(path)
    assert len(plan.chunks) > 2
    with source.snapshot(2) as snapshot:
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM t WHERE id > 5")
        assert rows_of(snapshot, plan) == rows
        found = digest_of(snapshot, plan)
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows[5:])
    with own.snapshot(1) as native:
        native_plan = plan_of(own, "t")
        assert digest_of(native, native_plan) == found


def test_a_value_of_another_class_than_planned(open_odbc: Open, tmp_path: Path) -> None:
    """It is no value of the type: an error that does not quote it."""
    path = make_file(tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY, n int)", {"t": [(1, 5)]})
    source = open_odbc(odbc_url("SQLite3", database=path))
    plan = plan_of(source, "t")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE t SET n = 'secret'")
    with source.snapshot(1) as snapshot, pytest.raises(DataError, match="Column n") as error:
        rows_of(snapshot, plan)
    assert "secret" not in str(error.value)


def test_a_condition_that_is_not_understood(open_odbc: Open, numbers: str, tmp_path: Path) -> None:
    """Exit 2 with the table's rule, for each database."""
    lite = make_file(tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY)")
    for url in (through_odbc(numbers), odbc_url("SQLite3", database=lite)):
        with pytest.raises(SpecError, match=r"rules\.t\.where"):
            plan_of(open_odbc(url), "t", where="nonsense(")
    # To psqlODBC the operator is a parameter that nobody gives.
    with pytest.raises(SpecError, match="parameter"):
        plan_of(open_odbc(through_odbc(numbers)), "t", where="to_jsonb(v) ? 'a'")
    assert plan_of(open_odbc(through_odbc(numbers)), "t", where="v LIKE '%?%' OR id = 7").rows == 1


def test_a_schema_that_is_not_there(open_odbc: Open, tmp_path: Path, numbers: str) -> None:
    """A clear sentence, not an empty migration."""
    lite = make_file(tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY)")
    for url in (through_odbc(numbers), odbc_url("SQLite3", database=lite)):
        with pytest.raises(ConfigError):
            open_odbc(url).catalog("nope")


def test_a_data_source_by_its_name(open_odbc: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """odbc.ini says what the name stands for."""
    path = make_file(tmp_path / "x.db", "CREATE TABLE t (id integer PRIMARY KEY)", {"t": [(7,)]})
    (tmp_path / "odbc.ini").write_text(f"[shop]\nDriver=SQLite3\nDatabase={path}\n")
    monkeypatch.setenv("ODBCINI", str(tmp_path / "odbc.ini"))
    source = open_odbc("odbc://?dsn=shop")
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan_of(source, "t")) == [(7,)]
