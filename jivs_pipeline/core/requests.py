"""Requests: what the queue holds, and what becomes of a request given what is known of its runs.

What belongs here: the values and the decision. What does not: the queue itself (`infra/requests.py`), Dagster's
runs (`defs/queue.py`) and what a change of the migration does to its request (`sql/control/0004_requests.sql`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jivs_pipeline.core.states import Status

__all__ = [
    "LOST",
    "Again",
    "Asked",
    "Ended",
    "Launch",
    "Launched",
    "RequestRef",
    "RequestStatus",
    "RunState",
    "Submission",
    "Wait",
    "judge_request",
]

LOST = {
    "code": "lost",
    "message": "The process of the run is gone",
    "hint": "Run it again, it goes on from its checkpoints",
}
"""Error of a migration whose run could not say why it ended."""


class RequestStatus(StrEnum):
    """Status of a request. `launched`: Dagster has a run for it, which has not taken the migration yet."""

    QUEUED = "queued"
    LAUNCHED = "launched"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RequestRef:
    """One attempt at a request. As text it is the run key: Dagster launches at most one run for it, for ever."""

    request_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.request_id}/{self.attempt}"

    @classmethod
    def parse(cls, text: str) -> RequestRef | None:
        """From a run's tag; None where there is none."""
        request_id, _, attempt = text.partition("/")
        return cls(request_id, int(attempt)) if request_id and attempt.isdigit() else None


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to who submits. `duplicate`: nothing was queued, because the same was asked for before."""

    request_id: str
    key: str
    duplicate: bool
    status: RequestStatus
    attempt: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has not ended, with its migration's state."""

    ref: RequestRef
    key: str
    spec: Mapping[str, Any]
    status: RequestStatus
    priority: int
    run_id: str | None
    migration: Status
    error: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class RunState:
    """The latest run for a request, as Dagster knows it.

    Attributes:
        ended: `SUCCESS`, `FAILURE` or `CANCELED`; None while it goes on.
        again: whether another run will or may follow by itself.
        interrupted: whether it was stopped together with its machine or stack, and not by somebody's wish.
    """

    run_id: str
    ended: str | None
    again: bool = False
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """Dagster has no run for it yet."""


@dataclass(frozen=True, slots=True)
class Launched:
    """Dagster has a run for it."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Again:
    """It is queued once more, as its next attempt."""


@dataclass(frozen=True, slots=True)
class Ended:
    """There will be no further run."""

    status: RequestStatus


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done now."""


def judge_request(asked: Asked, run: RunState | None) -> Launch | Launched | Again | Ended | Wait:
    """Decide about a request. Whatever was written or launched before, and by whomever, the decision is the same.

    Args:
        run: the latest run for this attempt, or the one that has taken its migration.
    """
    if asked.migration is Status.RUNNING and (run is None or run.ended is not None):
        # Somebody else's run, or the reaper has not been here yet.
        return Wait()
    if run is None:
        if asked.status is RequestStatus.RUNNING:
            # By a run that this Dagster does not know; it is gone, and nobody here will launch it again.
            return Ended(RequestStatus.FAILED)
        return Launch()
    if run.ended is None or run.again:
        return Launched(run.run_id) if asked.status is RequestStatus.QUEUED else Wait()
    match run.ended:
        case "SUCCESS":
            return Ended(RequestStatus.COMPLETED)
        case "CANCELED":
            if run.interrupted and asked.migration is Status.QUEUED:
                return Again()
            paused = asked.migration is Status.PAUSED
            return Ended(RequestStatus.PAUSED if paused else RequestStatus.CANCELLED)
        case _:
            return Ended(RequestStatus.FAILED)
