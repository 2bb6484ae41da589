"""The queue and Dagster's runs, on a real control database and an instance of Dagster.

What belongs here: what a look of the sensor finds and writes down. What does not: the daemon (`faults/test_queue.py`).
"""

from __future__ import annotations

import dagster as dg
import pytest
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG

from jivs_pipeline.core.requests import Asked, Submission
from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.queue import ask_for_interrupted, tend
from jivs_pipeline.defs.tags import INTERRUPTED, no_retries, request_tags, run_tags
from jivs_pipeline.infra.control import Control
from jivs_pipeline_tests.fix_control import SPEC, end, take

RunStatus = dg.DagsterRunStatus


@pytest.fixture
def request_(control: Control) -> Submission:
    return control.requests().submit(SPEC)


def look(control: Control, instance: dg.DagsterInstance) -> list[Asked]:
    return tend(control.requests(), control, instance)


def launch(instance: dg.DagsterInstance, asked: Asked, status: RunStatus, **more: str) -> dg.DagsterRun:
    """As the daemon does for what the sensor returns."""
    tags = {**request_tags(asked.ref, asked.key, asked.priority), "dagster/partition": asked.key, **more}
    job = build_defs().get_job_def("migration")
    return instance.create_run_for_job(job, tags=tags, status=status)


def states(control: Control) -> tuple[str, str]:
    row = control.migration("shop")
    return row["status"], row["request_status"]


def test_a_request_is_launched_until_its_run_is_seen(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    """A daemon that died after the look, or after it had made the run, changes nothing."""
    [asked] = look(control, instance)
    assert [a.ref for a in look(control, instance)] == [asked.ref]
    assert asked.ref.request_id == request_.request_id
    run = launch(instance, asked, RunStatus.STARTING)
    assert look(control, instance) == []
    assert states(control) == ("queued", "launched")
    claim = take(control, run_id=run.run_id)
    assert look(control, instance) == []
    assert states(control) == ("running", "running")
    end(control, claim, Status.COMPLETED)
    assert states(control) == ("completed", "completed")
    assert look(control, instance) == []


def test_a_run_that_found_nothing_to_do(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    [asked] = look(control, instance)
    claim = take(control, run_id="by hand")
    launch(instance, asked, RunStatus.SUCCESS)
    assert look(control, instance) == []
    assert states(control) == ("running", "running")
    end(control, claim, Status.COMPLETED)
    look(control, instance)
    assert states(control) == ("completed", "completed")


def test_a_failure_ends_the_request_when_no_run_will_follow(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    [asked] = look(control, instance)
    run = launch(instance, asked, RunStatus.STARTED)
    instance.report_run_failed(run)
    control.end(
        take(control, run_id=run.run_id), Status.FAILED, error={"code": "x", "message": "broken"}, result={}
    )
    look(control, instance)
    assert states(control) == ("failed", "running")  # Dagster will retry it
    retry = launch(instance, asked, RunStatus.STARTED, **no_retries())
    instance.report_run_failed(retry)
    look(control, instance)
    assert states(control) == ("failed", "failed")
    assert look(control, instance) == []


def test_a_retry_is_the_run_of_the_request(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    [asked] = look(control, instance)
    first = launch(instance, asked, RunStatus.FAILURE, **no_retries())
    control.end(take(control, run_id=first.run_id), Status.FAILED, error=None, result={})
    second = launch(instance, asked, RunStatus.STARTED)
    look(control, instance)
    assert states(control) == ("failed", "running")
    claim = take(control, run_id=second.run_id)
    assert control.requests().unfinished()[0].run_id == second.run_id
    end(control, claim, Status.COMPLETED)
    assert states(control) == ("completed", "completed")


def test_a_run_that_never_began_ends_its_migration_too(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    [asked] = look(control, instance)
    launch(instance, asked, RunStatus.FAILURE, **no_retries())
    look(control, instance)
    assert states(control) == ("failed", "failed")
    assert control.migration("shop")["error"]["code"] == "lost"
    assert [e["type"] for e in control.events("shop")] == ["migration.queued", "migration.failed"]


def test_terminated_before_it_began(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    [asked] = look(control, instance)
    launch(instance, asked, RunStatus.CANCELED)
    look(control, instance)
    assert states(control) == ("cancelled", "cancelled")


def test_stopped_with_its_stack_before_it_began(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    """The next look launches it once more, as another attempt."""
    [asked] = look(control, instance)
    run = launch(instance, asked, RunStatus.STARTING)
    look(control, instance)
    instance.add_run_tags(run.run_id, {INTERRUPTED: run.run_id})
    instance.report_run_canceled(run)
    look(control, instance)
    assert states(control) == ("queued", "queued")
    [again] = look(control, instance)
    assert again.ref.attempt == 2


INTERRUPTION = {"code": "interrupted", "message": "The run was interrupted"}


def test_stopped_with_its_stack(control: Control, instance: dg.DagsterInstance, request_: Submission) -> None:
    [asked] = look(control, instance)
    run = launch(instance, asked, RunStatus.CANCELED)
    control.end(take(control, run_id=run.run_id), Status.PAUSED, error=INTERRUPTION, result={})
    assert states(control) == ("paused", "paused")
    assert ask_for_interrupted(control.requests(), control, instance) == ["shop"]
    assert ask_for_interrupted(control.requests(), control, instance) == []
    assert [a.ref.attempt for a in look(control, instance)] == [2]


def test_stopped_with_its_stack_and_never_requested(control: Control, instance: dg.DagsterInstance) -> None:
    """As after a launch in the web UI."""
    job = build_defs().get_job_def("migration")
    run = instance.create_run_for_job(job, tags=run_tags("shop"), status=RunStatus.STARTED)
    control.end(take(control, run_id=run.run_id), Status.PAUSED, error=INTERRUPTION, result={})
    assert ask_for_interrupted(control.requests(), control, instance) == []  # its run has not ended yet
    instance.report_run_canceled(run)
    assert ask_for_interrupted(control.requests(), control, instance) == ["shop"]
    assert states(control) == ("queued", "queued")


def test_stopped_with_its_stack_whose_dagster_could_not_be_told(
    control: Control, instance: dg.DagsterInstance, request_: Submission
) -> None:
    """Dagster calls the run failed and retries it; it is asked for as soon as no retry goes on or may follow."""
    [asked] = look(control, instance)
    run = launch(instance, asked, RunStatus.STARTED)
    control.end(take(control, run_id=run.run_id), Status.PAUSED, error=INTERRUPTION, result={})
    instance.report_run_failed(run)
    assert ask_for_interrupted(control.requests(), control, instance) == []
    job = build_defs().get_job_def("migration")
    tags = {**run_tags("shop"), PARENT_RUN_ID_TAG: run.run_id, ROOT_RUN_ID_TAG: run.run_id}
    retry = instance.create_run_for_job(
        job, tags=tags, status=RunStatus.STARTED, parent_run_id=run.run_id, root_run_id=run.run_id
    )
    assert ask_for_interrupted(control.requests(), control, instance) == []
    instance.report_run_canceled(retry)
    assert ask_for_interrupted(control.requests(), control, instance) == ["shop"]
    assert states(control) == ("queued", "queued")


@pytest.mark.parametrize("case", ["paused by somebody", "run of a terminal"])
def test_what_somebody_stopped_stays_stopped(
    control: Control, instance: dg.DagsterInstance, case: str
) -> None:
    by_hand = case == "run of a terminal"
    job = build_defs().get_job_def("migration")
    tags = {**run_tags("shop"), **(no_retries() if by_hand else {})}
    run = instance.create_run_for_job(job, tags=tags, status=RunStatus.CANCELED)
    error = INTERRUPTION if by_hand else {"code": "paused", "message": "Migration 'shop' was paused"}
    control.end(take(control, run_id=run.run_id), Status.PAUSED, error=error, result={})
    assert ask_for_interrupted(control.requests(), control, instance) == []
    assert control.migration("shop")["status"] == "paused"
