"""Writes a run's checkpoints to the control database, under the run's epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from jivs_pipeline.core.claims import Checkpoint, Claim
from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.plan import PlanWarning
from jivs_pipeline.core.quarantine import BadRow, RejectedBy
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.ports import ControlDatabase

__all__ = ["ControlCheckpoints"]

_LOG = logging.getLogger(__name__)


class ControlCheckpoints:
    """Implements `engine.ports.Checkpoints`."""

    def __init__(self, control: ControlDatabase, claim: Claim) -> None:
        self._control = control
        self._claim = claim

    def done(
        self,
        table: str,
        phase: Phase,
        generation: str,
        *,
        rows: int,
        size: int,
        chunks: int,
        seconds: float,
        data: Mapping[str, Any],
    ) -> None:
        """Record that the phase of the table is finished."""
        self._control.checkpoint(
            self._claim, Checkpoint(table, phase, generation, True, rows, size, chunks, seconds, data)
        )
        counted = {"rows": rows, "bytes": size, "chunks": chunks, "seconds": round(seconds, 3)}
        _LOG.info("Table done", extra={"table": table, "phase": phase.value, **counted})

    def failed(self, table: str, phase: Phase, generation: str, data: Mapping[str, Any]) -> None:
        """Record that the table failed in the phase."""
        self._control.checkpoint(self._claim, Checkpoint(table, phase, generation, ok=False, data=data))
        _LOG.error("Table failed: %s", data["message"], extra={"table": table, "phase": phase.value})

    def left_out(self, warning: PlanWarning) -> None:
        """Record that the target did not take something that is not needed."""
        data = {"left_out": warning.model_dump(mode="json")}
        self._control.checkpoint(self._claim, Checkpoint(warning.table, Phase.LOAD, "", ok=True, data=data))
        _LOG.warning("Left out: %s", warning.reason, extra={"object": warning.table})

    def retried(
        self, table: str, phase: Phase, chunk: int | None, attempt: int, error: JivsError, delay: float
    ) -> None:
        """Record that a job is tried again."""
        _LOG.warning(
            "Tried again in %.1f s: %s", delay, error.message,
            extra={"table": table, "phase": phase.value, "chunk": chunk, "attempt": attempt},
        )  # fmt: skip
        self._control.retry(self._claim, phase, table, chunk, attempt, error.message, delay)

    def quarantined(
        self,
        table: str,
        generation: str,
        chunk: int,
        rows: Sequence[BadRow],
        *,
        first: bool,
        by: RejectedBy = "source",
    ) -> None:
        """Keep bad rows of a chunk; the `first` of them take the place of what an earlier attempt has kept."""
        self._control.quarantine.add(self._claim, table, generation, chunk, rows, first=first, by=by)
        if rows:
            _LOG.warning("Rows quarantined", extra={"table": table, "chunk": chunk, "rows": len(rows)})
