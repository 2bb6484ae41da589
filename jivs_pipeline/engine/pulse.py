"""The pulse of a run: heartbeat, lease and progress, and what others ask of the run.

What belongs here: the thread that beats while a run works. What does not: what the run does about it (`pool.Guard`).
"""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.errors import CancelledRun, FencedError, JivsError, PausedRun
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.ports import ControlDatabase, LeaseService
from jivs_pipeline.engine.progress import Progress

__all__ = ["Pulse"]

_LOG = logging.getLogger(__name__)


class Pulse:
    """Beats every `seconds` until it is stopped."""

    def __init__(
        self,
        control: ControlDatabase,
        leases: LeaseService,
        claim: Claim,
        guard: Guard,
        progress: Progress,
        seconds: float,
    ) -> None:
        self._control = control
        self._leases = leases
        self._claim = claim
        self._guard = guard
        self._progress = progress
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="jivs-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """No beat begins after this."""
        self._over.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        missed = 0
        while not self._over.wait(self._seconds):
            try:
                self.beat()
            except FencedError as error:
                if not self._over.is_set():
                    _LOG.warning("Another run has the migration now")
                    self._guard.stop(error, at_once=True)
                return
            except JivsError as error:
                # The control database is away; the next beat tries again, and what the run writes is fenced anyhow.
                missed += 1
                if missed == 1:
                    _LOG.warning("A heartbeat was missed: %s", error.message)
                continue
            if missed:
                _LOG.info("The heart beats again", extra={"missed": missed})
            missed = 0

    def beat(self) -> None:
        """One heartbeat.

        Raises:
            FencedError: another run has the migration.
        """
        claim = self._claim
        wanted = self._control.heartbeat(claim)
        self._leases.renew(claim)
        if self._progress.phase in {Phase.EXTRACT, Phase.LOAD}:
            self._control.progress(claim, self._progress.rows, self._progress.bytes)
        if wanted == "pause":
            self._guard.stop(
                PausedRun(f"Migration {claim.key!r} was paused", hint=f"Go on with: jivs resume {claim.key}")
            )
        elif wanted == "cancel":
            self._guard.stop(
                CancelledRun(
                    f"Migration {claim.key!r} was cancelled",
                    hint=f"Take back what it loaded with: jivs rollback {claim.key}",
                ),
                at_once=True,
            )
