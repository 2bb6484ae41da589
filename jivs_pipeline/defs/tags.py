"""Names of run tags, each spelled once, and what is written into them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from jivs_pipeline.core.requests import RequestRef

__all__ = [
    "ASKED_FOR",
    "FROM_START",
    "INTERRUPTED",
    "MAX_RETRIES",
    "MIGRATION_KEY",
    "NEVER_RETRY",
    "PARTITION",
    "PRIORITY",
    "REQUEST",
    "RETRIED_BY",
    "RETRIES",
    "RETRY",
    "RETRY_NUMBER",
    "RETRY_ON_FAILURE",
    "SETTLED",
    "WAITING",
    "WILL_RETRY",
    "WORKER",
    "Worker",
    "asked_before",
    "asked_tags",
    "no_retries",
    "request_of",
    "request_tags",
    "run_tags",
    "wait_tags",
    "waits_until",
]

MIGRATION_KEY = "jivs/migration_key"
"""One run per value at a time (dagster.yaml)."""

WORKER = "jivs/worker"
"""The process of a run, so that its death can be proved."""

ASKED = "jivs/retry_asked"
"""How often the daemon was asked to retry a run that it had given up."""

REQUEST = "jivs/request"
"""The attempt at a request that a run was launched for. Runs that repeat it take it over."""

INTERRUPTED = "jivs/interrupted"
"""On a run that was stopped together with its machine or stack, and should go on later: the run's own id."""

PRIORITY = "dagster/priority"
"""Dagster's own, for its queue."""

RETRY_AFTER = "jivs/retry_after"
"""When a failed run may be retried, in seconds of the epoch, for one whose error passes with time."""

RETRY = "jivs/retry"
"""Whether a failed run waits for that time, or its retry was asked for and is not there yet. Few values, because Dagster
looks for tags by key and value."""

WAITING = {RETRY: "waiting"}
ASKED_FOR = {RETRY: "asked"}
SETTLED = {RETRY: "settled"}

RETRY_NUMBER = "dagster/retry_number"
"""Dagster's own, on the runs that its daemon has launched by itself."""

WILL_RETRY = "dagster/will_retry"
"""Dagster's own, on failed runs: whether its daemon launches another one."""

RETRIED_BY = "dagster/auto_retry_run_id"
"""Dagster's own, on failed runs: the one that its daemon has launched for it."""

MAX_RETRIES = "dagster/max_retries"
RETRY_STRATEGY = "dagster/retry_strategy"
RETRY_ON_FAILURE = "dagster/retry_on_asset_or_op_failure"
PARTITION = "dagster/partition"

RETRIES = 3
"""How often the daemon launches a run again by itself; dagster.yaml says the same."""

FROM_START = {RETRY_STRATEGY: "ALL_STEPS", MAX_RETRIES: str(RETRIES)}
"""Retries begin with the first op: it finds what is done in the ledger, and needs no handle of the run before."""

NEVER_RETRY = {RETRY_ON_FAILURE: "false"}
"""For a run whose error stays the same however often it is run."""


def run_tags(key: str) -> dict[str, str]:
    """Tags of a run of this migration."""
    return {MIGRATION_KEY: key}


def request_tags(ref: RequestRef, key: str, priority: int) -> dict[str, str]:
    """Tags of a run that is launched for a request."""
    return {**run_tags(key), REQUEST: str(ref), PRIORITY: str(priority)}


def request_of(tags: Mapping[str, str]) -> RequestRef | None:
    """The request that a run was launched for, or one that it repeats."""
    return RequestRef.parse(tags.get(REQUEST, ""))


def no_retries() -> dict[str, str]:
    """For runs that the daemon must leave alone, whatever ends them."""
    return {MAX_RETRIES: "0", **NEVER_RETRY}


def asked_before(tags: Mapping[str, str], run_id: str) -> int:
    """How often the daemon was asked once more to retry this very run."""
    whose, _, times = tags.get(ASKED, "").partition(" ")
    return int(times) if whose == run_id and times.isdigit() else 0


def asked_tags(run_id: str, times: int) -> dict[str, str]:
    """That it was asked so often. With the run's id, because a retry takes over the tags of the run before."""
    return {ASKED: f"{run_id} {times}", **ASKED_FOR}


def wait_tags(run_id: str, until: datetime) -> dict[str, str]:
    """For a run that fails now and may be retried from that time on, which its daemon would not wait for."""
    return {RETRY_AFTER: f"{run_id} {math.ceil(until.timestamp())}", **WAITING, **NEVER_RETRY}


def waits_until(tags: Mapping[str, str], run_id: str) -> datetime | None:
    """The time that this very run waits for, or None where it does not wait."""
    whose, _, seconds = tags.get(RETRY_AFTER, "").partition(" ")
    if whose != run_id or tags.get(RETRY) != WAITING[RETRY] or not seconds.isdigit():
        return None
    return datetime.fromtimestamp(int(seconds), UTC)


@dataclass(frozen=True, slots=True)
class Worker:
    """The process of a run. The run's id is in it because a retry takes over the tags of the run before."""

    run_id: str
    pid: int
    process_start: str
    boot_id: str

    @classmethod
    def from_tags(cls, tags: Mapping[str, str], run_id: str) -> Self | None:
        """The worker of this very run, or None where it has not said who it is."""
        parts = tags.get(WORKER, "").split(" ", 3)
        if len(parts) != 4 or parts[0] != run_id or not parts[1].isdigit():
            return None
        return cls(parts[0], int(parts[1]), parts[2], parts[3])

    def tags(self) -> dict[str, str]:
        """As a tag."""
        return {WORKER: f"{self.run_id} {self.pid} {self.process_start} {self.boot_id}"}
