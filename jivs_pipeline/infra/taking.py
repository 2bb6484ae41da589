"""Taking a migration: the lease in Redis first, then the claim in the control database, for as long as asked.

What belongs here: the order of the two, and waiting. What does not: either of them (`leases.py`, `control_claims.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from jivs_pipeline.core.claims import Owner
from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.leases import LeaseHolder, Leases
from jivs_pipeline.infra.owner import this_process

__all__ = ["Taking"]

_POLL_SECONDS = 0.25
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Taking:
    """How this process takes migrations.

    Args:
        wait_seconds: how long a holder is waited for before the conflict is reported.
        refused: is told the key of a migration whose holder did not go away in that time.
    """

    leases: Leases
    wait_seconds: float
    refused: Callable[[str], None] = lambda _: None

    def take(self, key: str, run_id: str, claim: Callable[[Owner], _T]) -> _T:
        """What `claim` returns, made while this process has the lease; without a claim the lease goes back.

        Raises:
            ConflictError: somebody else holds the migration, or its state does not allow it.
        """
        owner = this_process()
        deadline = time.monotonic() + self.wait_seconds
        while True:
            try:
                return self._once(key, run_id, owner, claim)
            except ConflictError as error:
                # What a state forbids stays forbidden; only a holder goes away.
                if not error.held or time.monotonic() >= deadline:
                    if error.held:
                        self.refused(key)
                    raise
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def _once(self, key: str, run_id: str, owner: Owner, claim: Callable[[Owner], _T]) -> _T:
        if (holder := self.leases.take(key, owner, run_id)) is not None:
            raise _leased(key, holder)
        failpoint("after_lease")
        try:
            claimed = claim(owner)
        except BaseException:
            self.leases.release(key)
            raise
        if claimed is None:
            self.leases.release(key)
        return claimed


def _leased(key: str, holder: LeaseHolder) -> ConflictError:
    return ConflictError.held_by(key, holder.pid, holder.host, holder.since, holder.run_id)
