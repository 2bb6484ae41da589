"""The weekly comparison of completed migrations with their sources, one after the other.

What belongs here: which, how long, and what each outcome means. What does not: comparing (`reverify.py`) and telling
(`defs/maintenance.py`).

The state of a migration is not changed: it tells what its run has proved. A source that lives on after its migration
differs without anything being wrong, and a `mismatch` would have the next run look for a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jivs_pipeline.core.errors import ConfigError, JivsError
from jivs_pipeline.engine.ports import Reverified
from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.engine.services import Services

__all__ = ["Comparison", "Outcome", "reverify_completed"]


class Outcome(StrEnum):
    """What a comparison has come to."""

    EQUAL = "equal"
    DIFFERENT = "different"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One migration compared. `detail` is one sentence; `tables` are those of `reverify`, none where it was skipped."""

    key: str
    target: str
    outcome: Outcome
    detail: str
    tables: tuple[Mapping[str, Any], ...] = field(default=())


def reverify_completed(
    services: Services, noted: Reverified, *, days: float, go_on: Callable[[], bool]
) -> Iterator[Comparison]:
    """Compare the completed migrations that were not compared in the last days, those first that wait longest.

    Each outcome is noted before the next comparison begins, so that whoever begins anew goes on from there.

    Args:
        go_on: whether there is time for another one.
    """
    for key in noted.to_reverify(days):
        if not go_on():
            return
        found = _compare(services, key)
        noted.reverified(found.key, found.outcome, found.detail)
        yield found


def _compare(services: Services, key: str) -> Comparison:
    row = services.control.migration(key)
    target = row["target_name"]
    try:
        document = reverify(services, row, None)
    except JivsError as error:
        # A name that this process does not know and an endpoint that does not answer tell nothing of the rows.
        away = error.transient or isinstance(error, ConfigError)
        return Comparison(key, target, Outcome.SKIPPED if away else Outcome.DIFFERENT, str(error))
    tables = tuple(document["tables"])
    if different := [t["target_table"] for t in tables if not t["equal"]]:
        return Comparison(
            key, target, Outcome.DIFFERENT, f"Differ from the source: {', '.join(different)}", tables
        )
    return Comparison(key, target, Outcome.EQUAL, f"{len(tables)} tables are equal to their source", tables)
