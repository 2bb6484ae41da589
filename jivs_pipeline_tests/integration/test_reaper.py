"""The reaper on a real control database and an instance of Dagster: whom it ends, and whom it leaves alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import dagster as dg
import pytest

from jivs_pipeline.core.claims import Owner
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.reaper import end_dead_runs, settle_lost
from jivs_pipeline.defs.retries import ask_again
from jivs_pipeline.defs.tags import Worker, no_retries, run_tags
from jivs_pipeline.engine.services import Services
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.embedded.process import start_of
from jivs_pipeline.infra.owner import this_process
from jivs_pipeline.infra.staging import Staging
from jivs_pipeline_tests.fix_control import elsewhere, take


@pytest.fixture
def services(control: Control, tmp_path: Path) -> Services:
    """A target that does not let us in is claimed by the next run."""

    @contextmanager
    def closed(_: Spec) -> Iterator[Any]:
        raise ConfigError("The target is away")
        yield

    staging = Staging(tmp_path / "staging")
    return cast("Services", SimpleNamespace(control=control, staging=staging, opened_target=closed))


@pytest.fixture(scope="module")
def dead() -> Owner:
    """A process that has been."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = start_of(process.pid)
        process.kill()
    return dataclasses.replace(this_process(), owner=str(uuid4()), pid=process.pid, process_start=start)


def launched(
    instance: dg.DagsterInstance, owner: Owner | None, status: dg.DagsterRunStatus, **more: str
) -> dg.DagsterRun:
    job = build_defs().get_job_def("migration")
    run = instance.create_run_for_job(
        job, tags={**run_tags("shop"), "dagster/partition": "shop", **more}, status=status
    )
    if owner is not None:
        worker = Worker(run.run_id, owner.pid, owner.process_start, owner.boot_id)
        instance.add_run_tags(run.run_id, worker.tags())
    return run


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[dg.DagsterRunStatus, str | None]:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status, found.tags.get("dagster/will_retry")


def test_a_dead_worker(
    control: Control, instance: dg.DagsterInstance, services: Services, dead: Owner
) -> None:
    run = launched(instance, dead, dg.DagsterRunStatus.STARTED)
    take(control, owner=dead, run_id=run.run_id)
    assert settle_lost(services, control, instance) == ["shop"]
    row = control.migration("shop")
    assert (row["status"], row["epoch"], row["error"]["code"]) == ("failed", 2, "lost")
    assert control.holder("shop") is None
    assert end_dead_runs(control, instance, lease_seconds=300) == [run.run_id]
    assert status_of(instance, run) == (dg.DagsterRunStatus.FAILURE, "true")
    assert settle_lost(services, control, instance) == []
    assert end_dead_runs(control, instance, lease_seconds=300) == []


def test_a_living_worker_is_left_alone(
    control: Control, instance: dg.DagsterInstance, services: Services
) -> None:
    """While it works, and when it has ended its migration but not yet its run."""
    me = this_process()
    run = launched(instance, me, dg.DagsterRunStatus.STARTED)
    claim = take(control, owner=me, run_id=run.run_id)
    assert settle_lost(services, control, instance) == []
    assert end_dead_runs(control, instance, lease_seconds=300) == []
    control.end(claim, Status.FAILED, error=None, result={})
    assert settle_lost(services, control, instance) == []
    assert end_dead_runs(control, instance, lease_seconds=300) == []
    assert status_of(instance, run)[0] is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize(("asked", "after"), [("pause", Status.PAUSED), ("cancel", Status.CANCELLED)])
def test_a_worker_that_died_on_the_way_to_a_stop(
    control: Control, instance: dg.DagsterInstance, services: Services, dead: Owner, asked: str, after: Status
) -> None:
    run = launched(instance, dead, dg.DagsterRunStatus.STARTED)
    take(control, owner=dead, run_id=run.run_id)
    control.request("shop", asked)
    assert settle_lost(services, control, instance) == ["shop"]
    assert control.migration("shop")["status"] == after
    end_dead_runs(control, instance, lease_seconds=300)
    assert status_of(instance, run) == (dg.DagsterRunStatus.CANCELED, None)


def test_a_worker_that_died_while_it_was_terminated(
    control: Control, instance: dg.DagsterInstance, services: Services, dead: Owner
) -> None:
    run = launched(instance, dead, dg.DagsterRunStatus.CANCELING)
    take(control, owner=dead, run_id=run.run_id)
    settle_lost(services, control, instance)
    assert control.migration("shop")["status"] == "cancelled"
    end_dead_runs(control, instance, lease_seconds=300)
    assert status_of(instance, run) == (dg.DagsterRunStatus.CANCELED, None)


def test_terminate_reaches_a_worker_whose_code_server_is_gone(
    control: Control, instance: dg.DagsterInstance, services: Services
) -> None:
    me = this_process()
    run = launched(instance, me, dg.DagsterRunStatus.CANCELING)
    take(control, owner=me, run_id=run.run_id)
    assert settle_lost(services, control, instance) == []
    assert control.migration("shop")["requested"] == "cancel"
    assert end_dead_runs(control, instance, lease_seconds=300) == []


def test_a_silent_worker_of_another_machine(
    control: Control, instance: dg.DagsterInstance, services: Services
) -> None:
    far = elsewhere()
    run = launched(instance, far, dg.DagsterRunStatus.STARTED)
    take(control, owner=far, run_id=run.run_id, lease=2)
    assert settle_lost(services, control, instance) == []
    assert end_dead_runs(control, instance, lease_seconds=2) == []
    time.sleep(2.1)
    assert settle_lost(services, control, instance) == ["shop"]
    assert control.migration("shop")["status"] == "failed"
    # It may be about to write its last events.
    assert end_dead_runs(control, instance, lease_seconds=2) == []
    time.sleep(2.1)
    assert end_dead_runs(control, instance, lease_seconds=2) == [run.run_id]
    assert status_of(instance, run) == (dg.DagsterRunStatus.FAILURE, "true")


def test_the_next_run_at_a_terminal_leaves_nothing_to_the_daemon(
    control: Control, instance: dg.DagsterInstance, dead: Owner
) -> None:
    run = launched(instance, dead, dg.DagsterRunStatus.STARTED)
    assert end_dead_runs(control, instance, "shop", lease_seconds=300, retry=False) == [run.run_id]
    assert status_of(instance, run) == (dg.DagsterRunStatus.FAILURE, "false")
    assert ask_again(instance) == []


def test_a_retry_that_was_given_up_is_asked_for_again(instance: dg.DagsterInstance, dead: Owner) -> None:
    """As after "Failed to retry run"; but not for a run that must not be retried."""
    run = launched(instance, dead, dg.DagsterRunStatus.STARTED)
    final = launched(instance, dead, dg.DagsterRunStatus.STARTED, **no_retries())
    for each in (run, final):
        instance.report_run_failed(each)
    assert status_of(instance, run)[1] == "true"
    instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert ask_again(instance) == [run.run_id]
    assert status_of(instance, run)[1] == "true"
    assert status_of(instance, final)[1] == "false"
