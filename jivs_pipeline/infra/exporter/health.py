"""Whether the system can take work, judged from one look at its parts.

What belongs here: what counts as well, and the document. What does not: looking, and anything that names an address, a
user or a row: whoever reaches the port may read this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jivs_pipeline.core.breaker import BreakerState
from jivs_pipeline.infra.exporter.parts import Look

__all__ = ["Health", "State", "judge"]

_SILENT_SECONDS = 120.0
"""Dagster's daemon tells that it lives every 30 s."""
_LOW, _FULL = 0.10, 0.02
_FULL_BYTES = 256 << 20


class State(StrEnum):
    """How a component is. `degraded`: work goes on, and somebody should look."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Component:
    """One component and, where it is not well, why."""

    state: State
    reason: str = ""

    def document(self) -> dict[str, str]:
        """JSON form."""
        return {"status": self.state} if not self.reason else {"status": self.state, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Health:
    """All components."""

    components: dict[str, Component]

    @property
    def ready(self) -> bool:
        """Whether nothing is down."""
        return all(c.state is not State.DOWN for c in self.components.values())

    def document(self) -> dict[str, Any]:
        """JSON form."""
        worst = max((c.state for c in self.components.values()), key=list(State).index)
        return {
            "status": worst,
            "components": {name: component.document() for name, component in self.components.items()},
        }


def judge(looks: dict[str, Look]) -> Health:
    """What one look means."""
    return Health(
        {
            "control_database": _simply(looks["control_database"]),
            "redis": _simply(looks["redis"]),
            "daemon": _daemon(looks["dagster_storage"]),
            "code_location": _simply(looks["code_location"]),
            "circuit_breakers": _breakers(looks["redis"]),
            "disk": _disk(looks["disk"]),
        }
    )


def _simply(look: Look) -> Component:
    return Component(State.OK) if look.ok else Component(State.DOWN, look.problem)


def _daemon(look: Look) -> Component:
    if not look.ok:
        return Component(State.DOWN, f"Dagster's storage: {look.problem}")
    silent = look.value.heartbeat_seconds
    if silent is None:
        return Component(State.DOWN, "no daemon has ever run; start it with jivs up")
    if silent > _SILENT_SECONDS:
        return Component(State.DOWN, f"not heard of for {silent:.0f} s; see daemon.log in DAGSTER_HOME")
    return Component(State.OK)


def _breakers(look: Look) -> Component:
    if not look.ok:
        return Component(State.DEGRADED, "every process watches its endpoints alone while Redis is away")
    left = [name for name, state in look.value.breakers.items() if state is not BreakerState.CLOSED]
    if left:
        names = ", ".join(sorted(left)[:10])
        return Component(State.DEGRADED, f"left alone for now: {names}; see jivs breaker list")
    return Component(State.OK)


def _disk(look: Look) -> Component:
    if not look.ok:
        return _simply(look)
    free, size = look.value.free, look.value.size
    text = f"{free / (1 << 30):.1f} GiB free where rows are staged"
    if free < _FULL_BYTES or free < _FULL * size:
        return Component(State.DOWN, text)
    return Component(State.DEGRADED, text) if free < _LOW * size else Component(State.OK)
