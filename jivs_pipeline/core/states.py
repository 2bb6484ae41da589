"""The state machine of a migration. `sql/control/0001_control.sql` holds the same table; a test compares them.

What belongs here: statuses, phases, and which change is allowed. What does not: who changes them
(`engine/migrate.py`) and how the change is made atomic (`infra/control.py`).
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["RESUMABLE", "TRANSITIONS", "Phase", "Status", "allowed"]


class Status(StrEnum):
    """Status of a migration, as `jivs status` prints it."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"
    MISMATCH = "mismatch"


class Phase(StrEnum):
    """Phases in their order; each is one op of the Dagster job."""

    PLAN = "plan"
    EXTRACT = "extract"
    TRANSFORM = "transform"
    VALIDATE = "validate"
    LOAD = "load"
    VERIFY = "verify"
    FINISH = "finish"


_S = Status

TRANSITIONS: dict[Status, frozenset[Status]] = {
    _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    # running -> running is a takeover: another run continues where a dead one stopped.
    _S.RUNNING: frozenset({_S.RUNNING, _S.PAUSED, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.MISMATCH}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.QUEUED, _S.CANCELLED, _S.FAILED, _S.ROLLED_BACK}),
    _S.FAILED: frozenset({_S.RUNNING, _S.QUEUED, _S.CANCELLED, _S.ROLLED_BACK}),
    _S.CANCELLED: frozenset({_S.RUNNING, _S.QUEUED, _S.ROLLED_BACK}),
    _S.MISMATCH: frozenset({_S.RUNNING, _S.QUEUED, _S.COMPLETED, _S.CANCELLED, _S.ROLLED_BACK}),
    _S.COMPLETED: frozenset({_S.RUNNING, _S.QUEUED, _S.MISMATCH, _S.ROLLED_BACK}),
    _S.ROLLED_BACK: frozenset({_S.RUNNING, _S.QUEUED}),
}
"""From each status, the statuses that may follow. Everything else is a conflict (exit 3)."""

RESUMABLE = frozenset({_S.PAUSED, _S.FAILED, _S.CANCELLED, _S.MISMATCH, _S.RUNNING})
"""Statuses after which a run continues earlier work instead of beginning anew."""


def allowed(before: Status, after: Status) -> bool:
    """Whether `after` may follow `before`."""
    return after in TRANSITIONS[before]
