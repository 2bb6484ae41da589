"""Finds what died without a word: migrations whose holder is gone, and Dagster runs whose worker is.

What belongs here: telling the dead from the living, and ending them in both databases. What does not: when to
look (`sensors.py`) and the new run, which Dagster's own daemon launches (`retries.py`).

Dagster notices a dead worker only while the code server that started it lives. A run is judged here by its
worker's process; where nothing can be proved, as on another machine, only a silence longer than the lease counts.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import dagster as dg

from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.core.requests import LOST
from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.failures import is_terminating
from jivs_pipeline.defs.tags import (
    MIGRATION_KEY,
    PARTITION,
    Worker,
    no_retries,
)
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.steering import settle_dead
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import is_dead

__all__ = ["Fate", "Seen", "end_dead_runs", "judge", "settle_lost"]

SILENT_SECONDS = {dg.DagsterRunStatus.STARTING: 45.0}
"""How long a run may take to say who works for it; a worker imports Dagster before it has started."""
_SILENT_SECONDS = 30.0
_MOST_SILENT_SECONDS = 180.0
_BUSY = 4.0
"""Processes per core from which on a machine is believed to start others late: fifty runs begin at once."""
_IN_PROGRESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_STOPPED = {Status.PAUSED, Status.CANCELLED, Status.ROLLED_BACK}


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a run that Dagster takes for alive.

    Attributes:
        status: Dagster's.
        known: whether its worker has said who it is.
        dead: whether that worker is proved dead.
        holds: whether it holds its migration, with a heartbeat that is young enough or a process that lives.
        silent_seconds: since its status changed, for one whose worker is not known; since it was last heard of
            in either database, for one whose worker is.
        lease_seconds: silence that ends every claim.
        migration: the state of its migration, where this run was the last to work on it.
        overtaken: whether another run works on its migration.
        slowness: how many times longer than usual this machine may take to start a process.
    """

    status: dg.DagsterRunStatus
    known: bool
    dead: bool
    holds: bool
    silent_seconds: float
    lease_seconds: float
    migration: Status | None = None
    overtaken: bool = False
    slowness: float = 1.0


class Fate(Enum):
    """What becomes of a run."""

    LIVES = "lives"
    FAILED = "failed"
    CANCELED = "canceled"


def judge(seen: Seen) -> Fate:
    """Decide about a run. Never against one whose worker may be alive."""
    if seen.holds and not seen.dead:
        return Fate.LIVES
    usual = SILENT_SECONDS.get(seen.status, _SILENT_SECONDS)
    patience = seen.lease_seconds if seen.known else min(usual * seen.slowness, _MOST_SILENT_SECONDS)
    if not seen.dead and seen.silent_seconds <= patience:
        return Fate.LIVES
    if seen.status is dg.DagsterRunStatus.CANCELING or seen.migration in _STOPPED:
        return Fate.CANCELED
    return Fate.FAILED


def settle_lost(services: Services, control: Control, instance: dg.DagsterInstance) -> list[str]:
    """Give every migration whose holder is gone the state that it should have, and fence the holder off.

    A run that was terminated where nobody could tell its worker is asked to cancel by way of its heartbeat.

    Returns:
        Keys of the migrations that were settled.
    """
    settled: list[str] = []
    for row in control.running():
        key, holder = row["key"], control.holder(row["key"])
        terminated = is_terminating(instance, row["run_id"] or "")
        if holder is not None and not holder.gone:
            if terminated and row["requested"] != "cancel":
                # It may have ended meanwhile.
                with suppress(ConflictError):
                    control.request(key, "cancel")
            continue
        if terminated or row["requested"] == "cancel":
            after = Status.CANCELLED
        else:
            after = Status.PAUSED if row["requested"] == "pause" else Status.FAILED
        if settle_dead(services, key, after, LOST if after is Status.FAILED else None):
            settled.append(key)
            if after is Status.CANCELLED:
                services.staging.discard(key, control.migration(key)["epoch"])
    return settled


def end_dead_runs(
    control: Control,
    instance: dg.DagsterInstance,
    key: str | None = None,
    *,
    lease_seconds: float,
    retry: bool = True,
) -> list[str]:
    """Report the end of runs whose worker is gone, which frees their slots.

    Args:
        key: only runs of this migration.
        retry: whether Dagster's daemon may launch the failed ones again.

    Returns:
        Ids of the runs.
    """
    ended: list[str] = []
    for record, its_key in _in_progress(instance, key):
        run = record.dagster_run
        fate = judge(seen := _look(control, instance, record, its_key, lease_seconds))
        # Its own last words may have come in between.
        if fate is Fate.LIVES or instance.get_run_by_id(run.run_id) != run:
            continue
        if not retry or seen.overtaken:
            instance.add_run_tags(run.run_id, no_retries())
        if fate is Fate.CANCELED:
            instance.report_run_canceled(run, "Its process is gone; it was asked to stop")
        else:
            instance.report_run_failed(run, "Its process is gone; the next run goes on from its checkpoints")
        ended.append(run.run_id)
    return ended


def _in_progress(instance: dg.DagsterInstance, key: str | None) -> Iterator[tuple[dg.RunRecord, str]]:
    filters = dg.RunsFilter(job_name="migration", statuses=_IN_PROGRESS)
    for record in instance.get_run_records(filters):
        tags = record.dagster_run.tags
        its_key = tags.get(MIGRATION_KEY) or tags.get(PARTITION)
        if its_key is not None and key in {None, its_key}:
            yield record, its_key


def _look(
    control: Control, instance: dg.DagsterInstance, record: dg.RunRecord, key: str, lease_seconds: float
) -> Seen:
    run = record.dagster_run
    worker = Worker.from_tags(run.tags, run.run_id)
    holder, row = control.holder(key), control.find(key)
    mine = row is not None and row["run_id"] == run.run_id
    heard = record.update_timestamp.timestamp()
    if worker is not None:
        last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        heard = max([heard, *(e.event_log_entry.timestamp for e in last)])
        if mine and row is not None:
            heard = max(heard, row["updated_at"].timestamp())
    return Seen(
        status=run.status,
        known=worker is not None,
        dead=worker is not None and is_dead(worker.boot_id, worker.pid, worker.process_start),
        holds=holder is not None and holder.run_id == run.run_id and not holder.gone,
        silent_seconds=time.time() - heard,
        lease_seconds=lease_seconds,
        migration=Status(row["status"]) if mine and row is not None else None,
        overtaken=row is not None and not mine and row["status"] == Status.RUNNING,
        slowness=max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1) / _BUSY),
    )
