"""The night's steps on real databases: what goes, what stays, and that a kill in between costs nothing."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.io_manager import handles_directory, remove_old_handles
from jivs_pipeline.defs.old_runs import delete_old_runs
from jivs_pipeline.defs.tags import run_tags
from jivs_pipeline.engine.sweeping import sweep
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.staging import Staging
from jivs_pipeline_tests.fix_control import open_control, spec_of, take
from jivs_pipeline_tests.killed import killed

LONG_AGO = timedelta(days=100)


def migrated(control: Control, key: str, after: Status | None) -> None:
    """A migration that ended so, or that still runs."""
    claim = take(control, spec_of(key), run_id=f"run-{key}")
    if after is not None:
        control.set_phase(claim, Phase.FINISH)
        control.end(claim, after, error=None, result={})


# ── Control tables ───────────────────────────────────────────────────────────────────────────────────────


def test_retention(control: Control, db: psycopg.Connection[Any], database: str) -> None:
    """Old rows go in batches; what a receiver has not acknowledged stays, and everything behind it."""
    migrated(control, "shop", Status.COMPLETED)
    db.execute(
        "INSERT INTO jivs.event_receivers (name, since) VALUES ('webhook', now() - interval '200 days')"
    )
    db.execute("DELETE FROM jivs.migration_events")
    db.execute(
        "INSERT INTO jivs.migration_events (key, seq, type, at, delivered_at, webhook_at)"
        " SELECT 'shop', n, 'migration.phase', now() - interval '100 days', now(), CASE WHEN n <> 31 THEN now() END"
        " FROM generate_series(1, 50) n"
    )
    db.execute(
        "INSERT INTO jivs.migration_events (key, seq, type, at, delivered_at, webhook_at)"
        " VALUES ('shop', 51, 'migration.phase', now() - interval '1 day', now(), now())"
    )
    for days in (100, 1):
        for table in ("migration_retries", "circuit_breaker_events", "migration_quarantine"):
            columns, values = {
                "migration_retries": ("key, attempt, error, delay_seconds", "'shop', 1, 'x', 1"),
                "circuit_breaker_events": ("name, before, after", "'w', 'closed', 'open'"),
                "migration_quarantine": ("key, table_name, reason", "'shop', 't', 'x'"),
            }[table]
            db.execute(
                f"INSERT INTO jivs.{table} ({columns}, at) VALUES ({values}, now() - interval '{days} days')".encode()
            )
    db.execute(
        "INSERT INTO jivs.migration_requests (key, spec, body_hash, status, finished_at) VALUES"
        " ('shop', '{}', 'x', 'completed', now() - interval '100 days'), ('shop', '{}', 'x', 'failed', now())"
    )
    killed("retention_after_batch", lambda: open_control(database).housekeeping.apply_retention(90, most=7))
    assert _count(db, "migration_events") == 44
    deleted = control.housekeeping.apply_retention(90, most=7)
    left = db.execute("SELECT array_agg(seq ORDER BY seq) FROM jivs.migration_events").fetchone()
    assert left == ([*range(31, 52)],)
    assert deleted["migration_events"] == 23
    assert control.housekeeping.unposted(90) == 1
    for table in ("migration_retries", "circuit_breaker_events", "migration_requests"):
        assert _count(db, table) == 1, table
    assert _count(db, "migration_quarantine") == 2, "a rejected row has no other copy"
    assert set(control.housekeeping.apply_retention(90).values()) == {0}
    db.execute("DELETE FROM jivs.event_receivers WHERE name = 'webhook'")
    assert control.housekeeping.apply_retention(90)["migration_events"] == 20


def test_measurements_of_the_latest_load_stay(control: Control, db: psycopg.Connection[Any]) -> None:
    migrated(control, "shop", Status.COMPLETED)
    db.execute("UPDATE jivs.migrations SET started_at = now() - interval '100 days'")
    for days in (200, 99):
        db.execute(
            "INSERT INTO jivs.migration_performance_metrics (key, run_id, epoch, phase, seconds, at)"
            f" VALUES ('shop', 'r', 1, 'load', 1, now() - interval '{days} days')".encode()
        )
    assert control.housekeeping.apply_retention(90)["migration_performance_metrics"] == 1
    assert len(control.performance("shop")) == 1


def test_statistics(control: Control, db: psycopg.Connection[Any], database: str) -> None:
    """Refreshed by one at a time, and nobody waits."""
    migrated(control, "shop", Status.COMPLETED)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('jivs.migration_statistics', 0))")
        assert control.housekeeping.refresh_statistics() is False
    assert control.housekeeping.refresh_statistics() is True
    found = db.execute("SELECT target_name, status, migrations FROM jivs.migration_statistics").fetchall()
    assert found == [("warehouse", "completed", 1)]


def _count(db: psycopg.Connection[Any], table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM jivs.{table}".encode()).fetchone()
    assert row is not None
    return row[0]


# ── Staging ──────────────────────────────────────────────────────────────────────────────────────────────


def staged(root: Path, key: str, epoch: int = 1, *, days: float = 0) -> Path:
    generation = root / short_hash(key) / f"{epoch:010d}-{'a' * 12}"
    generation.mkdir(parents=True)
    (generation / "t-0.copy").write_text("row values")
    then = time.time() - days * 24 * 3600
    for path in (generation / "t-0.copy", generation, generation.parent):
        os.utime(path, (then, then))
    return generation


@pytest.mark.parametrize("place", ["", "inside_set_aside", "before_remove_aside"])
def test_staged_rows(control: Control, database: str, tmp_path: Path, place: str) -> None:
    """Those of ended migrations go, and unknown ones that nobody touches; what may go on, and what is not ours, stays."""
    root = tmp_path / "staging"
    gone = [staged(root, f"{status}") for status in (Status.COMPLETED, Status.CANCELLED)]
    stay = [staged(root, key) for key in ("failed", "paused", "mismatch", "running")]
    for key in ("completed", "cancelled", "failed", "paused", "mismatch"):
        migrated(control, key, Status(key))
    migrated(control, "running", None)
    gone.append(staged(root, "forgotten", days=2))
    stay.append(staged(root, "of-another", days=0.5))
    # A run that has just taken the migration has a higher epoch than the one that ended it.
    stay.append(staged(root, "completed", epoch=2))
    (root / "someone-else").mkdir()
    (root / "someone-else" / "file").write_text("theirs")
    (root / "link").symlink_to(tmp_path)
    stay += [root / "someone-else" / "file", root / "link"]
    if place:
        killed(place, lambda: sweep(Staging(root), open_control(database).housekeeping, datetime.now(UTC)))
    sweep(Staging(root), control.housekeeping, datetime.now(UTC))
    assert [p for p in gone if p.exists()] == []
    assert [p for p in stay if not p.exists()] == []
    assert not list(root.glob(".swept-*"))
    assert sweep(Staging(root), control.housekeeping, datetime.now(UTC)) == 0


def test_a_staging_area_that_is_not_there(control: Control, tmp_path: Path) -> None:
    assert sweep(Staging(tmp_path / "none"), control.housekeeping, datetime.now(UTC)) == 0


# ── Dagster's runs ───────────────────────────────────────────────────────────────────────────────────────


def ran(instance: dg.DagsterInstance, key: str, status: dg.DagsterRunStatus) -> str:
    job = build_defs().get_job_def("migration")
    run = instance.create_run_for_job(job, tags={**run_tags(key), "dagster/partition": key}, status=status)
    instance.report_engine_event("something", run)
    logs = Path(instance.root_directory) / "storage" / run.run_id
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "stdout").write_text("log")
    return run.run_id


@pytest.mark.parametrize("place", ["", "delete_run_after_logs", "delete_run_after_events"])
def test_old_runs(instance: dg.DagsterInstance, tmp_path: Path, place: str) -> None:
    """The latest of each migration stays, and the one that its state tells of; others go, so many in a night."""
    success, failure = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
    told_of = ran(instance, "shop", success)
    old = [ran(instance, "shop", failure) for _ in range(3)]
    running = ran(instance, "shop", dg.DagsterRunStatus.STARTED)
    latest = ran(instance, "shop", success)
    only = ran(instance, "other", success)

    def clean(most: int, before: datetime) -> int:
        return delete_old_runs(
            instance, lambda ids: {told_of} & set(ids), label=None, before=before, most=most
        )

    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert clean(100, datetime.now(UTC) - LONG_AGO) == 0
    if place:
        killed(place, lambda: clean(2, soon))
    assert clean(2, soon) == 2
    assert clean(100, soon) == 1
    assert clean(100, soon) == 0
    assert {r.run_id for r in instance.get_runs()} == {told_of, running, latest, only}
    for run_id in old:
        assert not instance.all_logs(run_id)
        assert not (Path(instance.root_directory) / "storage" / run_id).exists()
    assert (Path(instance.root_directory) / "storage" / latest / "stdout").exists()


def test_runs_of_others_stay(instance: dg.DagsterInstance) -> None:
    """An instance may serve other code locations as well."""

    @dg.job
    def theirs() -> None: ...

    for _ in range(2):
        instance.create_run_for_job(
            theirs, tags={".dagster/repository": "__repository__@theirs"}, status=dg.DagsterRunStatus.SUCCESS
        )
    soon = datetime.now(UTC) + timedelta(minutes=1)
    ours = "__repository__@jivs_pipeline"
    assert delete_old_runs(instance, lambda _: (), label=ours, before=soon, most=10) == 0
    assert len(instance.get_runs()) == 2


def test_handles(tmp_path: Path) -> None:
    directory = handles_directory(tmp_path)
    directory.mkdir()
    for name, days in (("old.json", 100), ("old.tmp", 100), ("new.json", 1)):
        (directory / name).write_text("{}")
        then = time.time() - days * 24 * 3600
        os.utime(directory / name, (then, then))
    assert remove_old_handles(tmp_path, datetime.now(UTC) - timedelta(days=90)) == 2
    assert [p.name for p in directory.iterdir()] == ["new.json"]
    assert remove_old_handles(tmp_path / "none", datetime.now(UTC)) == 0
