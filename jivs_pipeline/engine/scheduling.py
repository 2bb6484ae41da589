"""Scheduled migrations: asks for the loads that are due.

What belongs here: going through them, so that one that cannot be asked for does not stop the others. What does not:
when something is due (`core/schedules.py`), and that each time is asked for once (`infra/due_loads.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.engine.ports import DueLoads

__all__ = ["ask_for_due"]


def ask_for_due(loads: DueLoads) -> Mapping[str, str]:
    """Ask for every load that is due.

    Returns:
        Per migration that was due its time, or why it could not be asked for.
    """
    told: dict[str, str] = {}
    for seen in loads.scheduled():
        if (due := seen.due) is None:
            continue
        try:
            if loads.ask(seen, due):
                told[seen.spec.key] = due.isoformat(timespec="minutes")
        except ConflictError as error:
            told[seen.spec.key] = str(error)
    return told
