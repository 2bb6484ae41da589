"""How a rate is kept: reading takes time of the source, and that time is given out once, to whoever reads from it.

What belongs here: the arithmetic (the generic cell rate algorithm, GCRA) and the sizes that go with it. What does not:
where the time is kept (`infra/rates.py`), and waiting for it (`engine/pace.py`).

At a limit of 1,000 rows a second a row takes a millisecond. What was read is paid for afterwards: the reservation
begins where the last one ended, whoever made it, and the reader waits for its end. Migrations with different limits
share a source without knowing of each other, because what they share is time.

Times are whole microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jivs_pipeline.core.plan import TablePlan

__all__ = ["BURST_US", "LONGEST_DEBT_US", "NO_LIMIT", "PORTION_SECONDS", "Portion", "reserve"]

BURST_US = 100_000
"""Time that nobody used and that may still be used: so much and no more. 5 % of 3 s are 150 ms."""
LONGEST_DEBT_US = 60_000_000
"""How far ahead of the clock a reservation can begin: a clock that was set back stops nobody for longer."""
PORTION_SECONDS = 0.04
"""How much is read between two reservations, in time: enough to ask seldom, less than the burst."""


def reserve(free_at: int | None, now: int, cost: int) -> int:
    """Take `cost` of the source's time.

    Args:
        free_at: when the source is free again; None when nobody has ever read from it.

    Returns:
        When it is free after this; the reader waits until then.
    """
    if free_at is None:
        free_at = now
    return min(max(free_at, now - BURST_US), now + LONGEST_DEBT_US) + cost


@dataclass(frozen=True, slots=True)
class Portion:
    """The most that a source hands out at a time, so that nothing waits for longer than it must; None for no limit."""

    rows: int | None = None
    bytes: int | None = None

    def rows_of(self, table: TablePlan) -> int | None:
        """The same in rows of a table of which the size is known."""
        known = [self.rows] if self.rows is not None else []
        if self.bytes is not None:
            average = max(1, table.bytes // max(1, table.rows))
            known.append(max(1, self.bytes // average))
        return min(known, default=None)


NO_LIMIT = Portion()
