"""Steering a migration from outside of its run: pause it, cancel it, settle it when its run is gone.

What belongs here: what the commands and jobs of that name do. What does not: taking back (`rollback.py`).

Every change is a compare-and-set in the control database: of two who want different things one wins, and the other
gets a conflict. Where the run that should obey is gone, the state is set in its place and the target is fenced.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from jivs_pipeline.core.errors import ConflictError, JivsError, TerminalError
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.core.states import Status, allowed
from jivs_pipeline.engine.services import Services

__all__ = ["cancel", "pause", "settle_dead"]

_POLL_SECONDS = 0.3
Row = Mapping[str, Any]


def pause(services: Services, key: str, *, wait_seconds: float) -> Row:
    """Stop a running migration at the end of a chunk.

    Args:
        wait_seconds: how long the state is waited for; 0 returns when it is asked for.

    Returns:
        The migration's row.

    Raises:
        ConfigError: there is no such migration.
        ConflictError: it does not run, or ended otherwise.
        TerminalError: it did not stop in time; it is still asked to.
    """
    services.control.request(key, "pause")
    return _wait(services, key, Status.PAUSED, wait_seconds)


def cancel(services: Services, key: str, *, wait_seconds: float) -> Row:
    """Stop a migration for good, a running one inside of its chunks; what it loaded stays until it is rolled back.

    Arguments, result and errors are those of `pause`.
    """
    row = services.control.migration(key)
    status = Status(row["status"])
    if status is Status.RUNNING:
        services.control.request(key, "cancel")
        row = _wait(services, key, Status.CANCELLED, wait_seconds)
        if row["status"] == Status.RUNNING:
            return row
    elif not allowed(status, Status.CANCELLED):
        raise ConflictError(
            f"Migration {key!r} is {status}, so there is nothing to cancel", hint=f"See jivs status {key}"
        )
    elif not services.control.settle(key, status, Status.CANCELLED):
        raise ConflictError(
            f"Migration {key!r} changed its state at the same moment, or is held by a rollback",
            hint=f"See jivs status {key}",
        )
    row = services.control.migration(key)
    # The run's machine has removed its own; this is for a run that is gone.
    services.staging.discard(key, row["epoch"])
    return row


def settle_dead(services: Services, key: str, after: Status, error: Mapping[str, str] | None = None) -> bool:
    """Set the state in place of a run that is gone, and fence it off the target, should it only have slept.

    Returns:
        False while its holder may be alive, and when it does not run.
    """
    if not services.control.settle(key, Status.RUNNING, after, error):
        return False
    row = services.control.migration(key)
    # A target that cannot be reached now is claimed by the next run; until then the stale one cannot reach it either.
    with suppress(JivsError), services.opened_target(parse_spec(row["spec"])) as target:
        target.claim(key, services.control.control_id(), row["epoch"], f"settled-{row['epoch']}")
    return True


def _wait(services: Services, key: str, wanted: Status, seconds: float) -> Row:
    deadline = time.monotonic() + seconds
    while True:
        row = services.control.migration(key)
        if row["status"] == wanted:
            return row
        if row["status"] != Status.RUNNING:
            raise ConflictError(
                f"Migration {key!r} became {row['status']} before it was {wanted}",
                hint=f"See jivs status {key}",
            )
        if seconds == 0:
            return row
        if settle_dead(services, key, wanted):
            continue
        if time.monotonic() >= deadline:
            raise TerminalError(
                f"Migration {key!r} is still running after {seconds:g} s; it stays asked to stop",
                hint=f"See jivs status {key}",
            )
        time.sleep(_POLL_SECONDS)
