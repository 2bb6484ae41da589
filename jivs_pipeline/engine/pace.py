"""Keeping a run to the limits of its source: counting what was read, and waiting until it may have been.

What belongs here: amounts into time, and the wait. What does not: the time that others take of the same source
(`infra/rates.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from jivs_pipeline.core.pace import PORTION_SECONDS, Portion
from jivs_pipeline.core.spec import Limits
from jivs_pipeline.engine.pool import Guard

__all__ = ["Pace", "Reserve"]

Reserve = Callable[[Mapping[str, float]], float]
"""Takes seconds of each kind of a source's time; returns how many seconds to wait."""


class Pace:
    """Counts for all readers of a run. Thread-safe.

    A wait ends early, with the reason, when the run shall stop, be it for a pause: at a low rate a chunk may take
    hours, and an extraction that stops is begun anew in any case.
    """

    def __init__(self, limits: Limits, reserve: Reserve, guard: Guard) -> None:
        limited = {"rows": limits.source_rows_per_second, "bytes": limits.source_bytes_per_second}
        self._rates = {kind: rate for kind, rate in limited.items() if rate is not None}
        self._reserve = reserve
        self._guard = guard
        self._lock = threading.Lock()
        self._open = dict.fromkeys(self._rates, 0)

    @property
    def portion(self) -> Portion:
        """What a source should hand out at a time."""
        sizes = {kind: max(1, int(rate * PORTION_SECONDS)) for kind, rate in self._rates.items()}
        return Portion(sizes.get("rows"), sizes.get("bytes"))

    def took(self, rows: int, size: int) -> None:
        """So many rows and bytes were read; returns when that may have happened."""
        if self._rates:
            self._count({"rows": rows, "bytes": size}, PORTION_SECONDS)

    def settle(self) -> None:
        """Nothing more is read: wait for what was not worth a reservation yet."""
        if self._rates:
            self._count({}, 0.0)

    def _count(self, read: Mapping[str, int], least: float) -> None:
        with self._lock:
            for kind in self._open:
                self._open[kind] += read.get(kind, 0)
            seconds = {kind: amount / self._rates[kind] for kind, amount in self._open.items()}
            if max(seconds.values()) <= least:
                return
            self._open = dict.fromkeys(self._rates, 0)
        self._guard.sleep(self._reserve(seconds))
