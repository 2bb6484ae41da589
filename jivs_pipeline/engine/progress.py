"""How far a run is: counted by the workers, read by whoever shows it.

What belongs here: counters and samples. What does not: drawing them (`cli`) or storing them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Progress", "TableProgress"]

_SAMPLE_SECONDS = 0.25
_MOST_SAMPLES = 400


@dataclass(frozen=True, slots=True)
class TableProgress:
    """One table in one phase. `total` is the plan's number of rows, which may be an estimate."""

    table: str
    rows: int = 0
    total: int = 0
    bytes: int = 0


class Progress:
    """Thread-safe counters of the current phase.

    Args:
        clock: seconds that only rise; injected for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self.phase = ""
        self.phases: dict[str, float] = {}
        self._phase_began = self._began
        self._tables: dict[str, TableProgress] = {}
        self._samples: list[tuple[float, int, int]] = []

    def enter(self, phase: str, tables: dict[str, int]) -> None:
        """Begin a phase over these tables (name -> rows expected)."""
        with self._lock:
            self.phase = phase
            self._phase_began = self._clock()
            self._tables = {name: TableProgress(name, total=total) for name, total in tables.items()}
            self._samples = [(self._phase_began - self._began, 0, 0)]

    def leave(self, phase: str) -> float:
        """End the phase; returns its seconds."""
        with self._lock:
            seconds = self._clock() - self._phase_began
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds
            self._sample(force=True)
            return seconds

    def add(self, table: str, rows: int, size: int) -> None:
        """Rows and bytes of a table that have passed."""
        with self._lock:
            before = self._tables.get(table, TableProgress(table))
            self._tables[table] = replace(before, rows=before.rows + rows, bytes=before.bytes + size)
            self._sample()

    def tables(self) -> list[TableProgress]:
        """A copy of the counters of the current phase."""
        with self._lock:
            return list(self._tables.values())

    @property
    def rows(self) -> int:
        """Rows of the phase so far."""
        return sum(t.rows for t in self.tables())

    @property
    def bytes(self) -> int:
        """Bytes of the phase so far."""
        return sum(t.bytes for t in self.tables())

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    def samples(self) -> list[tuple[float, int, int]]:
        """(seconds since the run began, rows, bytes) of the current phase, for the throughput chart."""
        with self._lock:
            return list(self._samples)

    def _sample(self, *, force: bool = False) -> None:
        now = self._clock() - self._began
        if not force and self._samples and now - self._samples[-1][0] < _SAMPLE_SECONDS:
            return
        counters = self._tables.values()
        self._samples.append((round(now, 3), sum(t.rows for t in counters), sum(t.bytes for t in counters)))
        if len(self._samples) > _MOST_SAMPLES:
            # Halving keeps the first and the last and bounds memory however long the run takes.
            self._samples = self._samples[:-1:2] + self._samples[-1:]
