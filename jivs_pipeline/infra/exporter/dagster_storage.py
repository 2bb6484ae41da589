"""What Dagster's own storage tells: whether its daemon lives, and runs that have not ended.

What belongs here: reading two of its tables by SQL, because importing Dagster costs a second and a hundred megabytes.
What does not: anything that Dagster decides. A test holds this against what DagsterInstance says.
"""

from __future__ import annotations

from dataclasses import dataclass

from jivs_pipeline.infra.exporter.sessions import LookingSession
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["DagsterReading", "read_dagster"]

_SQL = load_blocks("jivs_pipeline.infra.exporter", "dagster_storage.sql")

_NEEDED = frozenset({"SENSOR", "QUEUED_RUN_COORDINATOR", "MONITORING"})
"""Daemons without which requests are not launched, or dead runs not noticed. Rows of others may be of old versions."""


@dataclass(frozen=True, slots=True)
class DagsterReading:
    """One moment of Dagster's storage.

    `heartbeat_seconds`: how long ago the daemon was heard of, the most silent of its needed parts; None for never.
    `runs`: those that have not ended, by status.
    """

    heartbeat_seconds: float | None
    runs: dict[str, int]


def read_dagster(session: LookingSession) -> DagsterReading:
    """One look at Dagster's storage."""
    with session.snapshot() as rows:
        ages = [r["seconds"] for r in rows(_SQL["heartbeats"]) if r["daemon"] in _NEEDED]
        runs = {r["status"]: r["runs"] for r in rows(_SQL["runs"])}
    return DagsterReading(max(ages, default=None), runs)
