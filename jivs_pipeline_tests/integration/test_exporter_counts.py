"""What the exporter counts follows the verbs of the control database, and never falls.

What belongs here: `sql/control/*_metrics.sql` and `infra/exporter/control.py` on a real PostgreSQL. What does not: parts
that fail and HTTP (`test_exporter.py`), and Prometheus itself (`acceptance/test_prometheus.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.leases import Leases
from jivs_pipeline.infra.taking import Taking
from jivs_pipeline_tests.event_rows import add_events
from jivs_pipeline_tests.fix_control import MEASURED, PLAN, SPEC, elsewhere, end, silence, spec_of, take
from jivs_pipeline_tests.fix_exporter import MakeExporter, Numbers, numbers

TotalsOf = Callable[[], Numbers]


@pytest.fixture
def look(make_exporter: MakeExporter) -> TotalsOf:
    exporter = make_exporter()
    return lambda: numbers(exporter)


def _runs(found: Numbers) -> dict[str, float]:
    kinds = ("started", "resumed", "completed", "failed", "paused", "cancelled")
    return {kind: n for kind in kinds if (n := found[f"migrations_{kind}_total"])}


def _another(control: Control, key: str) -> Claim:
    return take(control, spec_of(key))


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_before_anything_there_is_nothing(look: TotalsOf) -> None:
    """Zeros, not gaps: a rate exists from the first run on."""
    found = look()
    assert _runs(found) == {}
    assert found["migration_duration_seconds_count"] == 0
    assert {found[f'migration_phase_duration_seconds_count{{phase="{p}"}}'] for p in Phase} == {0}


@pytest.mark.parametrize(
    ("status", "counted"),
    [
        (Status.COMPLETED, "completed"),
        (Status.FAILED, "failed"),
        (Status.MISMATCH, "failed"),
        (Status.PAUSED, "paused"),
        (Status.CANCELLED, "cancelled"),
    ],
)
def test_a_run_is_counted_by_its_end(control: Control, look: TotalsOf, status: Status, counted: str) -> None:
    claim = take(control)
    found = look()
    assert _runs(found) == {"started": 1}
    assert found["migrations_active"] == 1
    end(control, claim, status)
    found = look()
    assert _runs(found) == {"started": 1, counted: 1}
    assert found["migrations_active"] == 0
    assert found[f'jivs_target_runs_total{{outcome="{counted}",target="warehouse"}}'] == 1
    verdict = status in {Status.COMPLETED, Status.MISMATCH}
    assert found["migration_duration_seconds_count"] == verdict


def test_a_run_that_goes_on_is_resumed(control: Control, look: TotalsOf) -> None:
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, Status.PAUSED)
    end(control, take(control), Status.COMPLETED)
    assert _runs(look()) == {"started": 1, "paused": 1, "resumed": 1, "completed": 1}


def test_what_is_cancelled_without_a_run_counts(control: Control, look: TotalsOf) -> None:
    """It has no duration, and starts nothing."""
    end(control, take(control), Status.PAUSED)
    assert control.settle("shop", Status.PAUSED, Status.CANCELLED)
    found = look()
    assert _runs(found) == {"started": 1, "paused": 1, "cancelled": 1}
    assert found["migration_duration_seconds_count"] == 0


def test_a_run_that_is_overtaken_has_failed(
    control: Control, db: psycopg.Connection[Any], look: TotalsOf
) -> None:
    """Nobody settles it when the next run takes the migration at once."""
    take(control, owner=elsewhere(), lease=1)
    silence(db, 5)
    end(control, take(control), Status.COMPLETED)
    assert _runs(look()) == {"started": 2, "failed": 1, "completed": 1}


def test_the_time_of_a_run_is_in_its_bucket(
    control: Control, db: psycopg.Connection[Any], look: TotalsOf
) -> None:
    claim = take(control)
    db.execute("UPDATE jivs.migration_runs SET started_at = started_at - interval '100 seconds'")
    end(control, claim, Status.COMPLETED)
    found = look()
    assert found['migration_duration_seconds_bucket{le="60"}'] == 0
    assert found['migration_duration_seconds_bucket{le="120"}'] == 1
    assert found['migration_duration_seconds_bucket{le="+Inf"}'] == 1
    assert 100 <= found["migration_duration_seconds_sum"] < 120


# ── Rows, retries, conflicts ─────────────────────────────────────────────────────────────────────────────


def _rows(found: Numbers) -> tuple[float, float]:
    return found["migration_records_processed_total"], found["migration_bytes_total"]


def test_rows_are_counted_once_while_they_are_loaded(control: Control, look: TotalsOf) -> None:
    """Those of the extraction not at all, and those that an earlier run has loaded not again."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    control.set_phase(claim, Phase.EXTRACT)
    control.progress(claim, 100, 1000)
    control.set_phase(claim, Phase.LOAD)
    assert _rows(look()) == (0, 0)
    control.progress(claim, 40, 400)
    control.progress(claim, 60, 600)
    assert _rows(look()) == (60, 600)
    end(control, claim, Status.FAILED)
    claim = take(control)
    control.set_phase(claim, Phase.LOAD)
    control.progress(claim, 60, 600)
    assert _rows(look()) == (60, 600)
    control.progress(claim, 100, 1000)
    found = look()
    assert _rows(found) == (100, 1000)
    assert found['jivs_target_records_total{target="warehouse"}'] == 100


def test_a_load_that_is_shorter_than_a_heartbeat_is_counted(control: Control, look: TotalsOf) -> None:
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    control.set_phase(claim, Phase.LOAD)
    control.measure(claim, Phase.LOAD, MEASURED)
    found = look()
    assert _rows(found) == (7, 70)
    assert found['migration_phase_duration_seconds_sum{phase="load"}'] == 1.5
    assert found['migration_phase_duration_seconds_bucket{le="1",phase="load"}'] == 0
    assert found['migration_phase_duration_seconds_bucket{le="2.5",phase="load"}'] == 1


def test_what_is_begun_anew_counts_anew(control: Control, look: TotalsOf) -> None:
    """After a rollback the same rows are loaded a second time."""
    for run_id in ("r1", "r2"):
        claim = take(control, run_id=run_id)
        control.save_plan(claim, PLAN, [])
        control.set_phase(claim, Phase.LOAD)
        control.measure(claim, Phase.LOAD, MEASURED)
        end(control, claim, Status.CANCELLED)
        taken = control.take_over("shop", claim.owner, "r", Status.ROLLED_BACK, lease_seconds=300, floor=0)
        control.forget(taken)
    found = look()
    assert _rows(found) == (14, 140)
    assert _runs(found) == {"started": 2, "cancelled": 2}


def test_retries_are_counted(control: Control, look: TotalsOf) -> None:
    claim = take(control)
    for attempt in (1, 2):
        control.retry(claim, Phase.LOAD, "public.t", 0, attempt, "cut", 0.1)
    assert look()["migration_retry_attempts_total"] == 2


def test_refused_starters_are_counted(control: Control, look: TotalsOf, redis_url: str) -> None:
    """Whether the lease or the lock refuses them; a state that forbids a run is no conflict."""
    holder = take(control)
    leases = Leases(redis_url, 300)
    taking = Taking(leases, 0, control.refused)
    for _ in range(3):
        with pytest.raises(ConflictError, match="held by"):
            taking.take("shop", "r", lambda owner: take(control, owner=owner))
    assert look()["migration_lock_conflicts_total"] == 3
    end(control, holder, Status.COMPLETED)
    other = SPEC.model_copy(update={"source_schema": "other"})
    with pytest.raises(ConflictError, match="completed"):
        taking.take("shop", "r", lambda owner: take(control, other, owner=owner))
    assert look()["migration_lock_conflicts_total"] == 3
    leases.close()


# ── What runs now ────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_is_silent_is_seen(control: Control, db: psycopg.Connection[Any], look: TotalsOf) -> None:
    """A dead worker still has its age, its lease and its place."""
    take(control, run_id="r1", lease=12.5)
    silence(db, 500)
    found = look()
    who = '{key="shop",target="warehouse"}'
    assert 500 <= found[f"migration_heartbeat_age_seconds{who}"] < 520
    assert found[f"jivs_migration_lease_seconds{who}"] == 12.5
    assert found['migration_run_slots{state="used"}'] == 1
    assert found['migration_run_slots{state="used"}'] + found['migration_run_slots{state="free"}'] == 50
    info = 'migration_info{key="shop",phase="plan",run_id="r1",source="legacy",target="warehouse"}'
    assert found[info] == 1


def test_progress_is_more_than_a_heartbeat(
    control: Control, db: psycopg.Connection[Any], look: TotalsOf
) -> None:
    claim = take(control)
    age = 'jivs_migration_progress_age_seconds{key="shop",target="warehouse"}'
    db.execute("UPDATE jivs.migrations SET progressed_at = now() - interval '1 hour'")
    control.heartbeat(claim)
    assert look()[age] > 3500
    control.set_phase(claim, Phase.LOAD)
    assert look()[age] < 60
    db.execute("UPDATE jivs.migrations SET progressed_at = now() - interval '1 hour'")
    control.progress(claim, 1, 1)
    assert look()[age] < 60


def test_requests_and_events_that_wait(db: psycopg.Connection[Any], look: TotalsOf) -> None:
    add_events(db, "shop", 3)
    db.execute("UPDATE jivs.migration_events SET at = now() - interval '1 minute' WHERE seq = 1")
    # As of a queue that has been full for a while; the newest are not what counts.
    db.execute(
        "INSERT INTO jivs.migration_requests (key, spec, body_hash, created_at)"
        " SELECT 'k' || i, jsonb_build_object('key', 'k' || i, 'source', 'a', 'target', 'b'), 'h', now() - make_interval(mins => i)"
        " FROM generate_series(1, 4) i"
    )
    found = look()
    assert found["migration_event_fallback_queue_size"] >= 3
    assert 60 <= found["jivs_event_fallback_oldest_seconds"] < 90
    assert found["jivs_requests_queued"] == 4
    assert 240 <= found["jivs_request_oldest_seconds"] < 270


# ── Nothing falls ────────────────────────────────────────────────────────────────────────────────────────


def _counters(found: Numbers) -> Numbers:
    ends = ("_total", "_sum", "_count")
    # What is asked of Redis by this very look is not of the past.
    return {
        k: v
        for k, v in found.items()
        if (k.partition("{")[0].endswith(ends) or "_bucket{" in k) and not k.startswith("jivs_redis")
    }


def _history(control: Control, db: psycopg.Connection[Any]) -> None:
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    control.set_phase(claim, Phase.LOAD)
    control.retry(claim, Phase.LOAD, "public.t", 0, 1, "cut", 0.1)
    for seconds in (0.01, 1.5, 1e6):
        control.measure(claim, Phase.LOAD, {**MEASURED, "seconds": seconds})
    end(control, claim, Status.COMPLETED)
    end(control, _another(control, "other"), Status.FAILED)
    db.execute(
        "INSERT INTO jivs.circuit_breaker_events (name, before, after)"
        " VALUES ('w@1', 'closed', 'open'), ('w@1', 'open', 'half_open'), ('w@1', 'half_open', 'open')"
    )
    db.execute(
        "INSERT INTO jivs.migration_quarantine (key, table_name, reason) VALUES ('shop', 't', 'x'), ('other', 't', 'x')"
    )
    db.execute("UPDATE jivs.migration_events SET delivered_at = now()")


def test_retention_takes_nothing_from_the_counters(
    control: Control, db: psycopg.Connection[Any], look: TotalsOf
) -> None:
    _history(control, db)
    before = _counters(look())
    assert before["migration_circuit_breaker_opened_total"] == before["migration_records_failed_total"] == 2
    assert before['migration_phase_duration_seconds_count{phase="load"}'] == 3
    assert before["migration_retry_attempts_total"] == 1
    assert before["migration_events_published_total"] == len(control.events("shop")) + len(
        control.events("other")
    )
    for table in (
        "migration_events",
        "migration_retries",
        "migration_performance_metrics",
        "circuit_breaker_events",
    ):
        db.execute(f"UPDATE jivs.{table} SET at = now() - interval '90 days'".encode())
    deleted = dict(db.execute("SELECT * FROM jivs.apply_retention(30)").fetchall())
    assert {t for t, n in deleted.items() if n} >= {
        "migration_events",
        "migration_retries",
        "migration_performance_metrics",
        "circuit_breaker_events",
    }
    assert _counters(look()) == before
    db.execute("DELETE FROM jivs.migration_quarantine")
    assert _counters(look()) == before
    db.execute("DELETE FROM jivs.migrations")
    assert _counters(look()) == before
    # And they go on from there.
    _history(control, db)
    after = _counters(look())
    assert {k for k in before if after[k] < before[k]} == set()
    assert after["migration_circuit_breaker_opened_total"] == 4
    assert after['migration_phase_duration_seconds_count{phase="load"}'] == 6


def test_events_that_the_stream_has_lost_were_published(
    control: Control, db: psycopg.Connection[Any], look: TotalsOf
) -> None:
    add_events(db, "shop", 5)
    db.execute("UPDATE jivs.migration_events SET delivered_at = now() WHERE seq <= 4")
    assert look()["migration_events_published_total"] == 4
    control.outbox.lost("shop", 1)
    found = look()
    assert found["migration_events_published_total"] == 4
    assert found["migration_event_fallback_queue_size"] == 4
    db.execute("UPDATE jivs.migration_events SET delivered_at = now() WHERE delivered_at IS NULL")
    assert look()["migration_events_published_total"] == 8


# ── Size ─────────────────────────────────────────────────────────────────────────────────────────────────

PAST = """
INSERT INTO jivs.migrations (key, status, phase, source_name, target_name, spec, spec_hash, plan, event_seq, result)
SELECT 'k' || i, 'completed', 'finish', 'legacy', 'warehouse-' || i % 10, jsonb_build_object('key', 'k' || i),
       'h', (SELECT jsonb_agg(md5((i * j)::text)) FROM generate_series(1, 60) j), 20, '{}'
  FROM generate_series(1, 10000) i;
INSERT INTO jivs.migration_runs (key, target_name, started_at, ended_at, outcome, rows, bytes)
SELECT 'k' || i, 'warehouse-' || i % 10, now() - make_interval(secs => i), now(), 'completed', i, i
  FROM generate_series(1, 10000) i;
INSERT INTO jivs.migration_performance_metrics (key, run_id, epoch, phase, seconds)
SELECT 'k' || i, 'r', 1, p, i % 100 FROM generate_series(1, 10000) i,
       unnest('{plan,extract,transform,validate,load,verify,finish}'::text[]) p;
INSERT INTO jivs.migration_events (key, seq, type, delivered_at)
SELECT 'k' || i, s, 'migration.phase', now() FROM generate_series(1, 10000) i, generate_series(1, 20) s;
ANALYZE
"""


def test_ten_thousand_migrations_are_told_within_200_ms(db: psycopg.Connection[Any], look: TotalsOf) -> None:
    """The best of many, because this machine may be busy with other tests."""
    for statement in PAST.split(";"):
        db.execute(statement.encode())
    assert look()["migrations_completed_total"] == 10000
    best = float("inf")
    deadline = time.monotonic() + 60
    while best >= 0.2 and time.monotonic() < deadline:
        began = time.monotonic()
        look()
        best = min(best, time.monotonic() - began)
    assert best < 0.2
