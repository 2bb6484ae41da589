"""A PostgreSQL source whose connections break, fall silent or are overtaken by changes: it says so, in time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConnectionFailed, TransientError
from jivs_pipeline.core.plan import Chunk
from jivs_pipeline.infra.postgresql import Session, connect, mapped
from jivs_pipeline_tests.fix_postgresql import Proxy, at_database, at_port
from jivs_pipeline_tests.integration.postgresql_source import OpenSource, Run, read, survey_of, table_plan

_WHOLE = Chunk(index=0)
_PATIENCE = 1.0
_FILL = "CREATE TABLE t (k int PRIMARY KEY, v text); INSERT INTO t SELECT i, repeat('x', 900) FROM generate_series(1, 20000) i"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def proxied(database: str, make_proxy: Callable[..., Proxy]) -> tuple[Proxy, str]:
    proxy = make_proxy()
    return proxy, at_port(database, proxy.port)


def test_a_stream_that_falls_silent_is_given_up(
    run: Run, open_source: OpenSource, proxied: tuple[Proxy, str]
):
    run(_FILL)
    proxy, url = proxied
    source = open_source(url, io_timeout_seconds=_PATIENCE)
    plan = table_plan(source, "t")
    with source.snapshot(1) as snapshot:
        stream = snapshot.copy(plan, _WHOLE)
        next(stream)
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(
            TransientError, match=r"public\.t: lost the connection \(no data for 1 s inside a COPY\)"
        ):
            list(stream)
        assert time.monotonic() - began < _PATIENCE + 1


def test_a_server_that_computes_for_long_is_not_given_up(run: Run, open_source: OpenSource):
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)")
    source = open_source(io_timeout_seconds=0.5)
    plan = table_plan(source, "t")
    slow = plan.model_copy(update={"where": "pg_sleep(0.6) IS NOT NULL"})
    with source.snapshot(1) as snapshot:
        assert snapshot.count(slow, _WHOLE) == 3
        # Inside a COPY there is no such excuse.
        with pytest.raises(TransientError, match=r"for 0\.5 s"):
            read(snapshot, slow)


def test_a_frozen_server_is_not_believed_for_ever(make_link: Callable[[], Session]):
    link = make_link()
    link.patience, link.longest, link.alive = 0.1, 0.5, lambda _: True
    with pytest.raises(TransientError), mapped("shop"):
        link.execute("SELECT pg_sleep(30)")


@pytest.mark.parametrize("probe_passes", [True, False])
def test_an_answer_that_was_lost_is_not_awaited(
    run: Run, open_source: OpenSource, make_proxy: Callable[..., Proxy], database: str, *, probe_passes: bool
):
    """The server has answered and waits for us; whether we can ask it or not, the session is given up."""
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1)")
    proxy = make_proxy()
    source = open_source(at_port(database, proxy.port), io_timeout_seconds=_PATIENCE)
    plan = table_plan(source, "t").model_copy(update={"where": "pg_sleep(0.5) IS NOT NULL"})
    with source.snapshot(1) as snapshot:
        timer = threading.Timer(0.25, proxy.stall_open if probe_passes else proxy.stall)
        timer.start()
        began = time.monotonic()
        with pytest.raises(TransientError, match="no answer for 1 s"):
            snapshot.count(plan, _WHOLE)
        assert time.monotonic() - began < _PATIENCE + (2 if probe_passes else 8)
        timer.join()


def test_a_cut_reader_is_replaced_in_the_same_snapshot(run: Run, open_source: OpenSource):
    run(_FILL)
    source = open_source()
    plan = table_plan(source, "t")
    with source.snapshot(2) as snapshot:
        before = snapshot.digest(plan, _WHOLE)
        run("DELETE FROM t WHERE k % 2 = 0")
        stream = snapshot.copy(plan, _WHOLE)
        next(stream)
        run("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'jivs source' AND query LIKE 'COPY%' AND datname = current_database()
        """)
        with pytest.raises(TransientError):
            list(stream)
        assert snapshot.digest(plan, _WHOLE) == before


def test_an_idle_reader_that_was_cut_fails_once_only(
    run: Run, open_source: OpenSource, proxied: tuple[Proxy, str]
):
    run(_FILL)
    proxy, url = proxied
    source = open_source(url)
    plan = table_plan(source, "t")
    with source.snapshot(2) as snapshot:
        snapshot.count(plan, _WHOLE)
        proxy.cut_one(-1)
        with pytest.raises(TransientError):
            snapshot.count(plan, _WHOLE)
        assert snapshot.count(plan, _WHOLE) == 20000


def test_a_lost_exporter_ends_the_snapshot(run: Run, open_source: OpenSource):
    run(_FILL)
    source = open_source()
    plan = table_plan(source, "t")
    with source.snapshot(2) as snapshot:
        run("""
            SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE application_name = 'jivs source' AND datname = current_database()
        """)
        for _ in range(2):
            with pytest.raises(TransientError, match="snapshot is gone"):
                snapshot.count(plan, _WHOLE)


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE t",
        "TRUNCATE t; INSERT INTO t SELECT i, 'y' FROM generate_series(1, 20000) i",
        "ALTER TABLE t ALTER k TYPE bigint",
        "DROP TABLE t; CREATE TABLE t (k int PRIMARY KEY, v text)",
    ],
)
def test_a_table_that_lost_its_rows_for_the_snapshot_is_noticed(
    change: str, run: Run, open_source: OpenSource
):
    """None of these is MVCC: without a look, the snapshot would see an empty table and so would its digest."""
    run(_FILL)
    source = open_source()
    plan = table_plan(source, "t")
    with source.snapshot(1) as snapshot:
        run(change)
        for look in (snapshot.digest, snapshot.count, lambda p, c: read(snapshot, p, c)):
            with pytest.raises(TransientError, match="was truncated, rewritten or replaced"):
                look(plan, _WHOLE)


def test_a_locked_table_is_waited_for_no_longer_than_the_timeout(
    run: Run, open_source: OpenSource, make_link: Callable[[], Session]
):
    run("CREATE TABLE t (k int PRIMARY KEY)")
    source = open_source(io_timeout_seconds=_PATIENCE)
    link = make_link()
    link.execute("BEGIN; LOCK TABLE public.t")
    with pytest.raises(TransientError, match="lock"):
        survey_of(source, "t")
    link.execute("ROLLBACK")
    assert survey_of(source, "t").rows == 0


@pytest.fixture
def make_link(database: str) -> Iterator[Callable[[], Session]]:
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(connect(parse_url(database), application_name="test"))


def test_a_source_that_restarted_is_found_again(
    run: Run, open_source: OpenSource, proxied: tuple[Proxy, str]
):
    run("CREATE TABLE t (k int PRIMARY KEY)")
    proxy, url = proxied
    source = open_source(url)
    proxy.cut()
    # What idled is noticed before it is used, and replaced.
    assert source.catalog(None).table("t")


def test_a_source_that_goes_away_is_transient_and_one_that_never_was_is_not(
    open_source: OpenSource, proxied: tuple[Proxy, str]
):
    proxy, url = proxied
    source = open_source(url)
    proxy.close()
    with pytest.raises(TransientError):
        source.catalog(None)
    with pytest.raises(TransientError, match="cannot be reached"):
        source.catalog(None)
    with pytest.raises(ConnectionFailed, match="cannot be reached"):
        open_source(url)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda url: at_database(url, "nosuchdb"), "no such database"),
        (lambda url: url.replace("://", "://nobody-", 1), "does not know the user|user or password"),
    ],
)
def test_who_is_not_let_in_is_told_why(
    spoil: Callable[[str], str], sentence: str, database: str, open_source: OpenSource
):
    with pytest.raises(ConnectionFailed, match=sentence) as caught:
        open_source(spoil(database))
    assert "'shop'" in caught.value.message
    assert caught.value.hint


def test_a_silent_server_does_not_let_us_wait_at_the_door(
    open_source: OpenSource, proxied: tuple[Proxy, str]
):
    proxy, url = proxied
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="does not answer"):
        open_source(url, io_timeout_seconds=_PATIENCE)
    assert time.monotonic() - began < 5


def test_the_session_is_pinned_whatever_the_role_prefers(
    run: Run, database: str, make_link: Callable[[], Session]
):
    run("""
        DO $$ BEGIN
            EXECUTE format('ALTER DATABASE %I SET DateStyle = ''German''', current_database());
            EXECUTE format('ALTER DATABASE %I SET search_path = public', current_database());
            EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database());
            EXECUTE format('ALTER DATABASE %I SET extra_float_digits = -5', current_database());
            EXECUTE format('ALTER DATABASE %I SET statement_timeout = 1', current_database());
        END $$
    """)
    link = make_link()
    row = link.execute(
        "SELECT date '2024-12-31'::text, '\\x00'::bytea::text, (1 / 3.0::float8)::text, current_schemas(false)::text,"
        " current_setting('row_security'), current_setting('statement_timeout')"
    ).fetchone()
    assert row == ("2024-12-31", "\\x00", "0.3333333333333333", "{}", "off", "0")


def test_a_session_for_reading_cannot_write(database: str):
    link = connect(parse_url(database), application_name="test", read_only=True)
    with pytest.raises(Exception, match="does not accept writes"), mapped("shop"):
        link.execute("CREATE TABLE public.t (a int)")
    link.close()
