"""Rolling a migration back: the target's catalog and data as they were before its first run.

What belongs here: the order of claiming, undoing and forgetting. What does not: what undoing a step means
(`infra/undo.py`).

A rollback holds the migration like a run does, with a lease, a heartbeat and an epoch of its own, so no run can
write any more when it begins. Killed in the middle it is begun again, and so is a run: the ledger says what is left.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.engine.pool import Guard, with_retries
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.pulse import Pulse
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.steering import settle_dead

__all__ = ["rollback"]


def rollback(services: Services, key: str, run_id: str) -> int:
    """Undo everything that the migration did to its target; its key can then be used again.

    Returns:
        How many steps were undone.

    Raises:
        ConfigError: there is no such migration, or its target does not let us in.
        ConflictError: it is held by somebody, its state does not allow it, or a table cannot be restored.
        TerminalError: something of others depends on what is to be dropped; the rest stays as it is.
    """
    # A run that is gone cannot be cancelled any more, and need not be.
    settle_dead(services, key, Status.FAILED)
    row = services.control.migration(key)
    spec: Spec = parse_spec(row["spec"])
    with services.opened_target(spec) as target:
        target.undoable(key, row["begun_epoch"])
        claim = services.take_over(key, run_id, target.ledger(key).epoch)
        guard = Guard(services.patience_seconds)
        guard.on_interrupt(target.interrupt)
        pulse = Pulse(services.control, services.leases, claim, guard, Progress(), services.pulse_seconds)
        undone = 0
        try:
            control_id = services.control.control_id()
            with_retries(partial(target.take_permits, 1), guard, _tell_nobody)
            with_retries(
                partial(target.claim, key, control_id, claim.epoch, claim.owner.owner), guard, _tell_nobody
            )
            more = True

            def undo() -> None:
                nonlocal more, undone
                more = target.undo_next() is not None
                undone += more

            # What was there before this load is what those before it have left.
            conclude = partial(target.conclude_next, claim.since)
            while claim.since and with_retries(conclude, guard, _tell_nobody):
                guard.check()
            while more:
                guard.check()
                with_retries(undo, guard, _tell_nobody)
            services.staging.discard(key, claim.epoch)
            pulse.stop()
            services.leases.release(key)
            services.control.forget(claim)
        finally:
            pulse.stop()
            with suppress(JivsError):
                services.control.release(claim)
            services.leases.release(key)
    return undone


def _tell_nobody(_attempt: int, _error: JivsError, _delay: float) -> None:
    """Retries are events of runs; a rollback is none."""
