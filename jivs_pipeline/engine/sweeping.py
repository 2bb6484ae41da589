"""Removes staged rows that nobody will load any more.

What belongs here: whose files may go. What does not: files (`infra/staging.py`) and locks (`infra/housekeeping.py`).

A run that ends well, is cancelled or is taken back removes its own. Left are those of processes that were killed in
between, and of control databases that are gone.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

from jivs_pipeline.core.names import short_hash
from jivs_pipeline.engine.ports import EndedMigrations, SweptArea

__all__ = ["sweep"]

_UNKNOWN_SECONDS = 24 * 3600.0
"""A key that this control database does not know may be another one's, which shares the staging area."""


def sweep(area: SweptArea, migrations: EndedMigrations, now: datetime) -> int:
    """Remove the files of migrations that have ended, and of unknown ones that nobody has touched for a day.

    Returns:
        How many extractions were removed.
    """
    # First what is there, then who is known: whoever stages something is known before.
    left = area.left()
    known = {short_hash(key): key for key in migrations.keys()}  # noqa: SIM118 - no mapping
    for name in left:
        if (key := known.get(name)) is None:
            if area.untouched_since(name) < now.timestamp() - _UNKNOWN_SECONDS:
                area.set_aside(name, None)
        else:
            migrations.while_ended(key, partial(_set_aside, area, name))
    return area.remove_aside()


def _set_aside(area: SweptArea, name: str, epoch: int) -> None:
    area.set_aside(name, epoch)
