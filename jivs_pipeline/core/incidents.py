"""What a migration met on its way: retries, changes of its endpoints' circuit breakers, rejected rows.

What belongs here: the values and their JSON form. What does not: reading them (`infra/control.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST", "Incidents"]

MOST = 100
"""Retries and breaker changes that are told one by one; of all others there is the number."""


@dataclass(frozen=True, slots=True)
class Incidents:
    """Since the migration was begun anew; rows as the control database has them, oldest first.

    Attributes:
        retries: total, at, phase, table ("*" for the run as a whole), chunk, attempt, error, delay_seconds.
        breaker_events: total, at, endpoint (source or target), name, before, after, reason.
        quarantine: one per table: table, rows, kinds (how many different reasons), and `reasons`, the first of them:
            column, reason, rows. No row's value and no row's key.
    """

    retries: Sequence[Mapping[str, Any]] = ()
    breaker_events: Sequence[Mapping[str, Any]] = ()
    quarantine: Sequence[Mapping[str, Any]] = ()

    def rejected(self, table: str) -> int:
        """Rows of the table in quarantine."""
        return sum(q["rows"] for q in self.quarantine if q["table"] == table)

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "retries": _listed(self.retries),
            "breaker_events": _listed(self.breaker_events),
            "quarantine": {
                "total": sum(q["rows"] for q in self.quarantine),
                "tables": [dict(q) for q in self.quarantine],
            },
        }


def _listed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many there are, and the first of them."""
    told = [{**{k: v for k, v in row.items() if k != "total"}, "at": row["at"].isoformat()} for row in rows]
    return {"total": rows[0]["total"] if rows else 0, "first": told}
