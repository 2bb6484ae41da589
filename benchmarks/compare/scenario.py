"""The vocabulary of the benchmark: scenarios, their candidates, and what one run of one of them gave.

What belongs here: frozen values. What does not: commands (`postgresql.py`, `one_table.py`, …) and running them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.compare.check import Expected
from benchmarks.compare.measure import Cost

__all__ = ["Candidate", "Goal", "Outcome", "Place", "Scenario"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run works: an empty database, an empty directory, and a number that no other run has."""

    target: str
    directory: Path
    number: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to do a scenario's work.

    Attributes:
        command: the argv for a place; writes its files there.
        prepare: what is done before, and not measured, such as making tables for a tool that only brings rows.
        ours: whether its output ends with the document of `jivs run --json`, which has the seconds of phases.
    """

    name: str
    command: Callable[[Place], Sequence[str]]
    prepare: Callable[[Place], None] | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """`what` of candidate `ours`, over the fastest of `theirs`, should be at most `most`.

    `phases`: only these of our candidate's are counted instead of the whole command.
    """

    what: str
    ours: str
    theirs: tuple[str, ...]
    most: float
    phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Rows that all candidates have to bring.

    Attributes:
        expected: target table -> what must be found there.
        base: the candidate that ratios are to.
        indexes: how many indexes and foreign keys must be there, where they are part of the work.
    """

    name: str
    title: str
    candidates: tuple[Candidate, ...]
    expected: Mapping[str, Expected]
    base: str
    indexes: int | None = None
    goals: tuple[Goal, ...] = ()
    servers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what it cost, or why it does not count."""

    cost: Cost | None = None
    phases: Mapping[str, float] = field(default_factory=dict[str, float])
    problem: str | None = None
