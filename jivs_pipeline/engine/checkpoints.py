"""Writes a run's checkpoints to the control database, under the run's epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jivs_pipeline.core.claims import Checkpoint, Claim
from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.ports import ControlDatabase

__all__ = ["ControlCheckpoints"]


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

    def failed(self, table: str, phase: Phase, generation: str, data: Mapping[str, Any]) -> None:
        """Record that the table failed in the phase."""
        self._control.checkpoint(self._claim, Checkpoint(table, phase, generation, ok=False, data=data))

    def retried(
        self, table: str, phase: Phase, chunk: int | None, attempt: int, error: JivsError, delay: float
    ) -> None:
        """Record that a job is tried again."""
        self._control.retry(self._claim, phase, table, chunk, attempt, error.message, delay)
