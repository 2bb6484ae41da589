"""The events of a migration: their types, and the ids under which consumers drop doubles."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from jivs_pipeline.core.states import Status

__all__ = [
    "EVENT_OF_STATUS",
    "KEEP_DAYS",
    "Appended",
    "Backlog",
    "Event",
    "EventType",
    "Pending",
    "StreamState",
    "event_id",
]


KEEP_DAYS = 7
"""How long the stream keeps events, and how far back what it has lost is sent again."""


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


@dataclass(frozen=True, slots=True)
class Event:
    """An event as consumers get it.

    Attributes:
        at: ISO 8601 in UTC.
        data: a JSON document.
    """

    key: str
    seq: int
    type: str
    at: str
    data: str

    @property
    def id(self) -> str:
        """What consumers drop doubles by."""
        return event_id(self.key, self.seq)

    def fields(self) -> dict[str, str]:
        """The fields of the contract, as text."""
        return {"id": self.id, **{name: str(value) for name, value in asdict(self).items()}}

    def document(self) -> str:
        """The same as one JSON document, as a webhook gets it."""
        return json.dumps({"id": self.id, **asdict(self), "data": json.loads(self.data)}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Pending:
    """Events of one migration to be sent, in order.

    Attributes:
        base: the number before the oldest event that may be sent at all.
    """

    base: int
    events: tuple[Event, ...]

    @property
    def first(self) -> int:
        """The first one's number."""
        return self.events[0].seq

    @property
    def last(self) -> int:
        """The last one's number."""
        return self.events[-1].seq


@dataclass(frozen=True, slots=True)
class StreamState:
    """By what a stream is known again: its server's run, and a mark that goes with its data."""

    server: str
    generation: str


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream's answer: the last number that it has of the migration now, and its mark."""

    last: int
    generation: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many events wait for the stream, and for how many seconds the oldest."""

    undelivered: int
    oldest_seconds: float
