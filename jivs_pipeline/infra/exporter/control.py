"""What the control database tells: all of it in one snapshot.

What belongs here: the reading and its shape. What does not: the SQL (`control.sql`) and the names of metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

from jivs_pipeline.infra.exporter.sessions import LookingSession, Row
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["Buckets", "ControlReading", "connections_of", "read_control"]

_SQL = load_blocks("jivs_pipeline.infra.exporter", "control.sql")


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: cumulative counts by upper bound, `+Inf` last, and the sum of all values."""

    counts: tuple[tuple[str, float], ...]
    sum: float


@dataclass(frozen=True, slots=True)
class ControlReading:
    """One moment of the control database; the rows are those of `control.sql`."""

    targets: list[Row]
    numbers: Row
    active: list[Row]
    durations: Buckets
    phases: dict[str, Buckets]
    slots: int
    connections: Row

    def total(self, name: str) -> int:
        """Sum of a column of `runs` over all targets."""
        return sum(t[name] for t in self.targets)


def read_control(session: LookingSession) -> ControlReading:
    """One look at the control database."""
    with session.snapshot() as rows:
        bounds = rows(_SQL["bounds"])[0]["bounds"]
        by_phase: dict[str, list[Row]] = {}
        for row in rows(_SQL["phases"]):
            by_phase.setdefault(row["phase"], []).append(row)
        return ControlReading(
            targets=rows(_SQL["runs"]),
            numbers=rows(_SQL["numbers"])[0],
            active=rows(_SQL["active"]),
            durations=_buckets(bounds, rows(_SQL["durations"])),
            phases={phase: _buckets(bounds, found) for phase, found in sorted(by_phase.items())},
            slots=rows(_SQL["slots"])[0]["value"],
            connections=rows(_SQL["connections"])[0],
        )


def connections_of(session: LookingSession) -> Row:
    """Sessions of the server that this one leads to: active, idle, other, free."""
    with session.snapshot() as rows:
        return rows(_SQL["connections"])[0]


def _buckets(bounds: list[float], found: list[Row]) -> Buckets:
    totals = {row["bucket"]: row["total"] for row in found}
    counts: list[tuple[str, float]] = []
    below = 0
    for number, bound in enumerate([*bounds, float("inf")], start=1):
        below += totals.get(number, 0)
        counts.append(("+Inf" if bound == float("inf") else f"{bound:g}", below))
    return Buckets(tuple(counts), sum(row["seconds"] for row in found))
