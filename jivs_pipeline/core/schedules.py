"""A migration that is loaded again and again: what is known of it when somebody looks whether a load is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jivs_pipeline.core.cron import Cron
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Status

__all__ = ["Scheduled"]


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A migration with a schedule.

    Attributes:
        status: as it was seen.
        after: the latest time that was asked for; before the first, when the spec got its schedule.
        now: the control database's time of the look: clocks of machines differ.
        changed: when the migration's row was changed last.
    """

    spec: Spec
    status: Status
    after: datetime
    now: datetime
    changed: datetime

    @property
    def due(self) -> datetime | None:
        """The time that is to be asked for. Of several that were missed only the latest: one load brings all."""
        return Cron.parse(self.spec.schedule).latest(self.after, self.now) if self.spec.schedule else None
