"""Values that a run carries about itself: who it is, what it was given, what it has proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.states import Phase

__all__ = ["Checkpoint", "Claim", "Ends", "Owner"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of a machine. `owner` is random per claim; the rest says where it runs, so that its death
    can be proved: ids of processes are used again, their start times are not.
    """

    owner: str
    host: str
    boot_id: str
    pid: int
    process_start: str


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a migration as the control database knows them: names and fingerprints, never URLs."""

    source: Connection
    target: Connection

    def parameters(self) -> dict[str, str]:
        """For the queries that store or compare them."""
        return {
            "source": self.source.name,
            "target": self.target.name,
            "source_fingerprint": self.source.fingerprint,
            "target_fingerprint": self.target.fingerprint,
        }

    def other_than(self, known: Mapping[str, Any]) -> tuple[str, Connection] | None:
        """The end that is another place than what the control database knows of a migration, by its name."""
        for end, connection in (("source", self.source), ("target", self.target)):
            if known[f"{end}_fingerprint"] not in {"", connection.fingerprint}:
                return end, connection
        return None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a migration: all writes name its epoch.

    `plan` is that of the run before, when this one continues it; `same_spec` whether the spec is, too. What the target's
    ledger has of epochs before `since` was made by loads that are over.
    """

    key: str
    epoch: int
    run_id: str
    owner: Owner
    resumed: bool
    plan: Plan | None
    same_spec: bool
    since: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One phase of one table. `data` holds what later phases and the report need (manifest, digests, error)."""

    table: str
    phase: Phase
    generation: str
    ok: bool = True
    rows: int = 0
    bytes: int = 0
    chunks: int = 0
    seconds: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
