"""What a migration needs from outside, as one value. `runtime.py` makes it; what does not belong here: using it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jivs_pipeline.core.claims import Claim, Ends
from jivs_pipeline.core.ports import Source
from jivs_pipeline.core.signature import ReportKey
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.pace import Reserve
from jivs_pipeline.engine.ports import Builder, ControlDatabase, LeaseService, RuleBook, StagingArea, Target

__all__ = ["Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """What a migration needs from outside; `runtime.py` makes it.

    Attributes:
        ends: the connections of a spec, without opening them.
        opened: connects to both ends of a spec, for as long as the block runs; `opened_target` to its target alone.
        take: lease and claim of a run: (spec, run id, floor) -> claim, or None when it is completed already.
        take_over: the same for a rollback: (key, run id, floor) -> claim.
        reports: directory for reports.
        report_key: finds the key that they are signed with.
        pulse_seconds: how often the heartbeat is renewed and progress stored.
        patience_seconds: how long a server that is not ready is waited for.
        rules: checks and applies the rules of specs.
        rate: of a spec, how time of its source is taken.
        new_id: makes ids of extractions.
        now: the time of day in UTC.
    """

    control: ControlDatabase
    staging: StagingArea
    builder: Builder
    rules: RuleBook
    leases: LeaseService
    ends: Callable[[Spec], Ends]
    opened: Callable[[Spec], AbstractContextManager[tuple[Source, Target]]]
    opened_target: Callable[[Spec], AbstractContextManager[Target]]
    take: Callable[[Spec, str, int], Claim | None]
    take_over: Callable[[str, str, int], Claim]
    reports: Path
    report_key: Callable[[], ReportKey]
    new_id: Callable[[], str]
    versions: Mapping[str, str]
    now: Callable[[], datetime]
    rate: Callable[[Spec], Reserve]
    pulse_seconds: float = 5.0
    patience_seconds: float = 30.0
