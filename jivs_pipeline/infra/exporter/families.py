"""What was read, as metrics: the names of CONTRACT.md, and those of ours beside them (`jivs_…`).

What belongs here: names, labels and help texts. What does not: reading. Labels have few values: names of connections
and phases; the key of a migration only while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jivs_pipeline.core.breaker import BreakerState
from jivs_pipeline.core.states import Phase
from jivs_pipeline.infra.exporter.control import Buckets, ControlReading
from jivs_pipeline.infra.exporter.dagster_storage import DagsterReading
from jivs_pipeline.infra.exporter.parts import Look
from jivs_pipeline.infra.exporter.redis_server import RedisReading
from jivs_pipeline.infra.exporter.sessions import Row
from jivs_pipeline.infra.exporter.surroundings import Disk

__all__ = ["families"]

_STATES = {BreakerState.CLOSED: 0, BreakerState.OPEN: 1, BreakerState.HALF_OPEN: 2}

_RUNS = {
    "started": "Migrations begun",
    "completed": "Runs that ended completed and verified",
    "failed": "Runs that failed, found a difference, or ended without a word",
    "paused": "Runs that were paused or interrupted",
    "resumed": "Runs that went on with what an earlier one had done",
    "cancelled": "Migrations cancelled",
}
_OUTCOMES = ("completed", "failed", "paused", "cancelled")


def families(looks: dict[str, Look]) -> Iterator[Metric]:
    """All metrics. Those of a part that failed are missing; `jivs_component_up` says so."""
    up = GaugeMetricFamily("jivs_component_up", "Whether the exporter could look at it", labels=["component"])
    seconds = GaugeMetricFamily("jivs_component_look_seconds", "How long the look took", labels=["component"])
    for name, look in looks.items():
        up.add_metric([name], look.ok)
        seconds.add_metric([name], look.seconds)
    yield up
    yield seconds
    control, dagster, redis, disk = (
        looks[name].value for name in ("control_database", "dagster_storage", "redis", "disk")
    )
    if control is not None:
        yield from _runs(control)
        yield from _numbers(control.numbers)
        yield from _times(control)
        yield from _active(control)
        yield from _slots(control)
        yield _connections({"control": control.connections, **(looks["targets"].value or {})})
    if dagster is not None:
        yield from _dagster(dagster)
    if redis is not None:
        yield from _redis(redis)
    if disk is not None:
        yield from _disk(disk)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _runs(control: ControlReading) -> Iterator[Metric]:
    for what, text in _RUNS.items():
        yield _counter(f"migrations_{what}", text, control.total(what))
    yield _counter("migration_records_processed", "Rows loaded into targets", control.total("rows"))
    yield _counter("migration_bytes", "Bytes loaded into targets", control.total("bytes"))
    yield _counter("migration_retry_attempts", "Chunks tried again", control.total("retries"))
    runs = CounterMetricFamily("jivs_target_runs", "Runs that ended, by target", labels=["target", "outcome"])
    records = CounterMetricFamily("jivs_target_records", "Rows loaded, by target", labels=["target"])
    for row in control.targets:
        records.add_metric([row["target"]], row["rows"])
        for outcome in _OUTCOMES:
            runs.add_metric([row["target"], outcome], row[outcome])
    yield runs
    yield records


def _numbers(n: Row) -> Iterator[Metric]:
    yield _gauge("migrations_active", "Migrations that run", n["active"])
    yield _gauge("migrations_queued", "Migrations that wait for a run", n["queued"])
    yield _counter("migration_records_failed", "Rows rejected into the quarantine", n["records_failed"])
    yield _counter(
        "migration_circuit_breaker_opened",
        "Times that an endpoint began to be left alone",
        n["breaker_opened"],
    )
    yield _gauge(
        "migration_event_fallback_queue_size", "Events that the stream has not got yet", n["events_waiting"]
    )
    yield _gauge(
        "jivs_event_fallback_oldest_seconds", "Age of the oldest of them", n["events_waiting_seconds"]
    )
    yield _counter("migration_events_published", "Events that the stream has got", n["events_published"])
    yield _counter(
        "migration_lock_conflicts", "Starters refused because another run holds the migration", n["conflicts"]
    )
    yield _gauge("jivs_requests_queued", "Requests that wait for a run", n["requests_waiting"])
    yield _gauge("jivs_request_oldest_seconds", "Age of the oldest of them", n["requests_waiting_seconds"])


def _times(control: ControlReading) -> Iterator[Metric]:
    yield HistogramMetricFamily(
        "migration_duration_seconds",
        "Time of runs that reached a verdict",
        buckets=list(control.durations.counts),
        sum_value=control.durations.sum,
    )
    phases = HistogramMetricFamily(
        "migration_phase_duration_seconds", "Time of phases of runs", labels=["phase"]
    )
    for phase in Phase:
        # Phases that nobody has entered are there too, so that a rate exists from the first one on.
        found = control.phases.get(phase, _none_of(control.durations))
        phases.add_metric([phase], list(found.counts), found.sum)
    yield phases


def _none_of(buckets: Buckets) -> Buckets:
    return Buckets(tuple((bound, 0.0) for bound, _ in buckets.counts), 0.0)


def _active(control: ControlReading) -> Iterator[Metric]:
    labels = ["key", "target"]
    info = GaugeMetricFamily(
        "migration_info", "1 for each migration that runs", labels=[*labels, "source", "phase", "run_id"]
    )
    gauges = {
        "silent_seconds": (
            "migration_heartbeat_age_seconds",
            "Time since the run of a migration was heard of",
        ),
        "lease_seconds": ("jivs_migration_lease_seconds", "Silence after which another run may take it"),
        "progress_seconds": ("jivs_migration_progress_age_seconds", "Time since the migration last came on"),
        "rows_done": ("jivs_migration_rows", "Rows of the running phase so far"),
        "rows_total": ("jivs_migration_rows_planned", "Rows of the plan"),
    }
    found = {column: GaugeMetricFamily(*named, labels=labels) for column, named in gauges.items()}
    for row in control.active:
        who = [row["key"], row["target"]]
        info.add_metric([*who, row["source"], row["phase"] or "", row["run_id"]], 1)
        for column, family in found.items():
            if row[column] is not None:
                family.add_metric(who, row[column])
    yield info
    yield from found.values()


def _slots(control: ControlReading) -> Iterator[Metric]:
    used = control.numbers["slots_used"]
    slots = GaugeMetricFamily("migration_run_slots", "Places for runs", labels=["state"])
    slots.add_metric(["used"], used)
    slots.add_metric(["free"], max(0, control.slots - used))
    yield slots


def _connections(pools: dict[str, Row]) -> Metric:
    family = GaugeMetricFamily(
        "migration_db_connections",
        "Sessions of a server: ours that work (active) or wait (idle), of others, and what is left",
        labels=["pool", "state"],
    )
    for pool, row in pools.items():
        for state in ("active", "idle", "other", "free"):
            family.add_metric([pool, state], row[state])
    return family


def _dagster(reading: DagsterReading) -> Iterator[Metric]:
    if reading.heartbeat_seconds is not None:
        yield _gauge(
            "dagster_daemon_heartbeat_age_seconds",
            "Time since the most silent part of the daemon was heard of",
            reading.heartbeat_seconds,
        )
    runs = GaugeMetricFamily("jivs_dagster_runs", "Dagster runs that have not ended", labels=["status"])
    for status in ("QUEUED", "STARTING", "STARTED", "CANCELING"):
        runs.add_metric([status], reading.runs.get(status, 0))
    yield runs


def _redis(reading: RedisReading) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "migration_circuit_breaker_state", "Of an endpoint: 0 closed, 1 open, 2 half-open", labels=["name"]
    )
    for name, state in sorted(reading.breakers.items()):
        states.add_metric([name], _STATES[state])
    yield states
    yield _counter("jivs_redis_commands", "Commands that Redis has done", reading.commands)
    yield _counter("jivs_redis_error_replies", "Commands that Redis has refused", reading.errors)
    yield _counter(
        "jivs_redis_rejected_connections", "Connections that Redis had no room for", reading.rejected
    )
    yield _gauge("jivs_redis_memory_bytes", "Memory that Redis uses", reading.memory_bytes)
    yield _gauge("jivs_redis_clients", "Connections to Redis", reading.clients)


def _disk(disk: Disk) -> Iterator[Metric]:
    yield _gauge("jivs_disk_free_bytes", "Free space where rows are staged", disk.free)
    yield _gauge("jivs_disk_size_bytes", "Size of that disk", disk.size)
