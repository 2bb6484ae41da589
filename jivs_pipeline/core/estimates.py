"""How long a migration will take, from how long others took.

What belongs here: choosing the runs that are alike, and the arithmetic. What does not: reading them (`infra/past_runs.py`).

A phase takes `base + work x pace` seconds. The bases are small and fixed; the pace is that of the runs that are most alike:
their seconds by their work, so that a large run counts for more than a small one. Work is rows and bytes as the *plan* had
them, so that a plan that sees half of what comes out learns that, too; a row is worth a hundred bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.states import Phase

__all__ = ["Estimate", "PastRun", "estimate"]

_ROW_BYTES = 100
_BASE_SECONDS = {
    Phase.PLAN: 0.3, Phase.EXTRACT: 0.2, Phase.TRANSFORM: 0.0, Phase.VALIDATE: 0.0, Phase.LOAD: 0.5,
    Phase.VERIFY: 0.2, Phase.FINISH: 0.3,
}  # fmt: skip
_ASSUMED = {Phase.EXTRACT: 1.2e-8, Phase.LOAD: 1.0e-8, Phase.VERIFY: 0.5e-8}
"""Seconds per byte of work before anything was measured: `jivs demo` on two cores."""
_LEAST_WORK = 1_000_000
"""Of less nothing can be learned: the bases are all of its seconds."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A migration that one run completed: what its plan saw, and the seconds of its phases."""

    key: str
    source: str
    target: str
    dialect: str
    rows: int
    bytes: int
    phases: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds by phase, what staging takes in bytes, and what they are learned from, for a person."""

    phases: Mapping[str, float]
    staging_bytes: int
    basis: str

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.phases.values())

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "seconds": round(self.seconds, 1),
            "phases": {phase: round(seconds, 1) for phase, seconds in self.phases.items()},
            "staging_bytes": self.staging_bytes,
            "basis": self.basis,
        }


def estimate(plan: Plan, past: Sequence[PastRun]) -> Estimate:
    """What `plan` will take, if it is like the most similar of the runs in `past`."""
    alike, basis = _alike(plan, [r for r in past if _work(r) >= _LEAST_WORK])
    seconds = {p.value: _BASE_SECONDS[p] + _work(plan) * _pace(p, alike) for p in Phase}
    return Estimate(seconds, plan.staged_bytes, basis)


def _work(of: PastRun | Plan) -> int:
    """Bytes, and rows as bytes."""
    return of.bytes + _ROW_BYTES * of.rows


def _alike(plan: Plan, past: Sequence[PastRun]) -> tuple[Sequence[PastRun], str]:
    kinds: tuple[tuple[Callable[[PastRun], bool], str], ...] = (
        (lambda r: r.key == plan.key, "of this very migration"),
        (
            lambda r: (r.source, r.target) == (plan.source, plan.target),
            f"from {plan.source!r} to {plan.target!r}",
        ),
        (lambda r: r.source == plan.source, f"from {plan.source!r}"),
        (lambda r: r.dialect == plan.source_dialect, f"from {plan.source_dialect}"),
    )
    for is_alike, which in kinds:
        if alike := [r for r in past if is_alike(r)]:
            return alike, f"as {len(alike)} earlier run{'s' * (len(alike) > 1)} {which} took"
    return (), "a guess: nothing was measured here yet"


def _pace(phase: Phase, alike: Sequence[PastRun]) -> float:
    """Seconds per byte of work."""
    if not alike:
        return _ASSUMED.get(phase, 0.0)
    spent = sum(max(0.0, r.phases.get(phase.value, 0.0) - _BASE_SECONDS[phase]) for r in alike)
    return spent / sum(map(_work, alike))
