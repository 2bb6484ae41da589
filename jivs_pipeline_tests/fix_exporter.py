"""The exporter for tests: on databases of their own, and what it tells as numbers.

What belongs here: making exporters, and reading the text format with Prometheus' own parser. What does not: what the
numbers must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.exporter import Exporter, Places
from jivs_pipeline_tests.fix_postgresql import MakeDatabase

NOWHERE = "postgresql://me:s3cret@127.0.0.1:1/vanished"
Numbers = dict[str, float]
MakeExporter = Callable[..., Exporter]

DAGSTER_TABLES = """
CREATE TABLE daemon_heartbeats (daemon_type text, daemon_id text, "timestamp" timestamp, body text);
CREATE TABLE runs (run_id text, status text);
"""
"""Just enough for the exporter; `test_exporter_dagster.py` holds its queries against Dagster itself."""


def no_target(_: str) -> str:
    raise AssertionError("no target is asked for")


@pytest.fixture
def control_database(database: str) -> str:
    """URL of a database with the control schema."""
    control = Control(database)
    control.open()
    control.close()
    return database


@pytest.fixture
def dagster_database(make_database: MakeDatabase) -> str:
    url = make_database()
    with psycopg.connect(url) as db:
        db.execute(DAGSTER_TABLES)
    return url


@pytest.fixture
def make_exporter(
    control_database: str, dagster_database: str, redis_url: str, tmp_path: Path
) -> Iterator[MakeExporter]:
    """Makes exporters; a part's URL may be another's. There is no web server unless `ui_port` names one."""
    made: list[Exporter] = []

    def make(timeout_seconds: float = 2.0, **more: Any) -> Exporter:
        places = {
            "control_url": control_database,
            "dagster_url": dagster_database,
            "redis_url": redis_url,
            "target_url": no_target,
            "ui_port": 1,
            "staging": tmp_path / "not" / "made" / "yet",
            **more,
        }
        made.append(Exporter(Places(**places), timeout_seconds=timeout_seconds))
        return made[-1]

    yield make
    for exporter in made:
        exporter.close()


def numbers_of(text: str) -> Numbers:
    """Value by `name` or `name{label="value",…}`, labels in order."""
    found: Numbers = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def numbers(exporter: Exporter) -> Numbers:
    return numbers_of(exporter.metrics("text/plain")[0].decode())


def names(found: Numbers) -> set[str]:
    return {name.partition("{")[0] for name in found}


CONTRACT = {
    "migrations_started_total", "migrations_completed_total", "migrations_failed_total", "migrations_paused_total",
    "migrations_resumed_total", "migrations_cancelled_total", "migrations_active", "migrations_queued",
    "migration_duration_seconds_bucket", "migration_duration_seconds_sum", "migration_duration_seconds_count",
    "migration_phase_duration_seconds_bucket", "migration_phase_duration_seconds_sum", "migration_phase_duration_seconds_count",
    "migration_records_processed_total", "migration_records_failed_total", "migration_bytes_total",
    "migration_retry_attempts_total", "migration_circuit_breaker_state", "migration_circuit_breaker_opened_total",
    "migration_run_slots", "migration_db_connections", "migration_event_fallback_queue_size",
    "migration_events_published_total", "migration_lock_conflicts_total", "migration_heartbeat_age_seconds",
    "dagster_daemon_heartbeat_age_seconds",
}  # fmt: skip
"""The names of CONTRACT.md as Prometheus sees them."""
