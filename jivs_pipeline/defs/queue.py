"""The queue of requests and Dagster's runs: brings one in line with the other.

What belongs here: finding the run of a request, and acting on what `core/requests.py` decides about the two. What does
not: when to look (`sensors.py`), and launching, which Dagster's daemon does for what is returned here.

Nothing depends on what an earlier look has done: the runs are found by their tag each time. So a daemon that dies
between any two steps leaves a request that the next look launches, or finds launched.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import dagster as dg

from jivs_pipeline.core.errors import ConflictError, JivsError
from jivs_pipeline.core.requests import (
    LOST,
    Again,
    Asked,
    Ended,
    Launch,
    Launched,
    RequestRef,
    RequestStatus,
    RunState,
    judge_request,
)
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.retries import ENDED, may_be_retried, may_go_on
from jivs_pipeline.defs.tags import INTERRUPTED, MAX_RETRIES, REQUEST, request_of
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.requests import Requests

__all__ = ["ask_for_interrupted", "tend"]


def tend(requests: Requests, control: Control, instance: dg.DagsterInstance) -> list[Asked]:
    """Write down what has become of the requests that have not ended.

    Returns:
        Those that Dagster should launch a run for, the most urgent first.
    """
    unfinished = requests.unfinished()
    runs = _latest_runs(instance, unfinished)
    launch: list[Asked] = []
    for asked in unfinished:
        run = runs.get(asked.ref)
        match judge_request(asked, run):
            case Launch():
                launch.append(asked)
            case Launched(run_id):
                requests.launched(asked.ref, run_id)
            case Again():
                requests.again(asked.ref)
            case Ended(status):
                _end(requests, control, asked, status, run)
            case _:
                pass
    return launch


def ask_for_interrupted(requests: Requests, control: Control, instance: dg.DagsterInstance) -> list[str]:
    """Queue what was stopped together with its machine or stack, as opposed to what somebody paused.

    Runs of a terminal are left alone: who pressed Ctrl-C there goes on when they want to.

    Returns:
        Keys of the migrations.
    """
    asked: list[str] = []
    for row in control.interrupted():
        run = instance.get_run_by_id(row["run_id"] or "")
        if run is None or run.tags.get(MAX_RETRIES) == "0" or may_go_on(instance, run):
            continue
        # Somebody may have asked for it with another spec meanwhile.
        with suppress(ConflictError):
            requests.submit(parse_spec(row["spec"]))
            asked.append(row["key"])
    return asked


def _latest_runs(instance: dg.DagsterInstance, unfinished: Iterable[Asked]) -> Mapping[RequestRef, RunState]:
    by_ref = {str(a.ref): a for a in unfinished}
    taken = {
        a.run_id: a for a in by_ref.values() if a.run_id is not None and a.status != RequestStatus.QUEUED
    }
    if not by_ref:
        return {}
    found = list(instance.get_run_records(dg.RunsFilter(tags={REQUEST: list(by_ref)})))
    if taken:
        found += instance.get_run_records(dg.RunsFilter(run_ids=list(taken)))
    latest: dict[RequestRef, RunState] = {}
    for record in sorted(found, key=lambda r: r.create_timestamp):
        run = record.dagster_run
        ref = taken[run.run_id].ref if run.run_id in taken else request_of(run.tags)
        if ref is not None:
            latest[ref] = _state(instance, run)
    return latest


def _state(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunState:
    if run.status not in ENDED:
        return RunState(run.run_id, None)
    again = run.status is dg.DagsterRunStatus.FAILURE and may_be_retried(instance, run)
    return RunState(run.run_id, run.status.value, again, run.tags.get(INTERRUPTED) == run.run_id)


def _end(
    requests: Requests, control: Control, asked: Asked, status: RequestStatus, run: RunState | None
) -> None:
    """End a request; a migration that is still queued for it ends with it, so that it does not wait for ever."""
    error = dict(asked.error or LOST) if status is RequestStatus.FAILED else None
    if asked.migration is Status.QUEUED and status in {RequestStatus.FAILED, RequestStatus.CANCELLED}:
        after = Status.FAILED if status is RequestStatus.FAILED else Status.CANCELLED
        with suppress(JivsError):
            control.settle(asked.key, Status.QUEUED, after, error)
    requests.settle(asked.ref, status, run.run_id if run else None, error)
