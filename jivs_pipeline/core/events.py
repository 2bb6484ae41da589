"""The events of a migration: their types, and the ids under which consumers drop doubles."""

from __future__ import annotations

from enum import StrEnum

from jivs_pipeline.core.states import Status

__all__ = ["EVENT_OF_STATUS", "EventType", "event_id"]


class EventType(StrEnum):
    """Types in the outbox and in the Redis Stream `jivs:events`."""

    QUEUED = "migration.queued"
    STARTED = "migration.started"
    PHASE = "migration.phase"
    TABLE_LOADED = "migration.table_loaded"
    PAUSED = "migration.paused"
    RESUMED = "migration.resumed"
    RETRIED = "migration.retried"
    FAILED = "migration.failed"
    CANCELLED = "migration.cancelled"
    ROLLED_BACK = "migration.rolled_back"
    COMPLETED = "migration.completed"


EVENT_OF_STATUS = {
    Status.QUEUED: EventType.QUEUED,
    Status.PAUSED: EventType.PAUSED,
    Status.COMPLETED: EventType.COMPLETED,
    Status.FAILED: EventType.FAILED,
    # A mismatch is a failure to consumers; `data.status` tells the two apart.
    Status.MISMATCH: EventType.FAILED,
    Status.CANCELLED: EventType.CANCELLED,
    Status.ROLLED_BACK: EventType.ROLLED_BACK,
}


def event_id(key: str, seq: int) -> str:
    """`<key>:<seq>`, unique and ordered per migration."""
    return f"{key}:{seq}"
