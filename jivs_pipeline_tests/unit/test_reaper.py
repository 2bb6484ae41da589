"""Who is taken for dead, and what becomes of their runs."""

from __future__ import annotations

import dataclasses

import dagster as dg
import pytest

from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.reaper import Fate, Seen, judge
from jivs_pipeline.defs.tags import Worker, asked_before, asked_tags

_STARTED, _STARTING, _CANCELING = (
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
)
WORKING = Seen(
    status=_STARTED, known=True, dead=False, holds=True, silent_seconds=9000, lease_seconds=300
)  # fmt: skip
DEAD = dataclasses.replace(WORKING, dead=True, silent_seconds=0)
UNKNOWN = Seen(status=_STARTED, known=False, dead=False, holds=False, silent_seconds=0, lease_seconds=300)


def test_who_holds_a_migration_lives_however_silent() -> None:
    assert judge(WORKING) is Fate.LIVES
    assert judge(dataclasses.replace(WORKING, known=False)) is Fate.LIVES


@pytest.mark.parametrize("migration", [None, Status.RUNNING, Status.COMPLETED, Status.FAILED])
def test_a_proved_death_fails_the_run_at_once(migration: Status | None) -> None:
    """Also where its process id is in the lock still."""
    assert judge(dataclasses.replace(DEAD, migration=migration)) is Fate.FAILED
    assert judge(dataclasses.replace(DEAD, migration=migration, holds=False)) is Fate.FAILED


@pytest.mark.parametrize("migration", [Status.PAUSED, Status.CANCELLED, Status.ROLLED_BACK])
def test_a_run_that_died_after_it_was_stopped_is_not_retried(migration: Status) -> None:
    assert judge(dataclasses.replace(DEAD, migration=migration)) is Fate.CANCELED


def test_a_run_that_died_while_it_was_terminated_is_canceled() -> None:
    assert judge(dataclasses.replace(DEAD, status=_CANCELING)) is Fate.CANCELED


def test_a_living_worker_that_has_ended_its_migration_is_left_to_write_its_events() -> None:
    ended = dataclasses.replace(WORKING, holds=False, silent_seconds=2, migration=Status.COMPLETED)
    assert judge(ended) is Fate.LIVES
    assert judge(dataclasses.replace(ended, silent_seconds=299)) is Fate.LIVES


def test_a_worker_of_another_machine_is_gone_when_it_was_silent_beyond_its_lease() -> None:
    silent = dataclasses.replace(WORKING, holds=False, silent_seconds=301)
    assert judge(silent) is Fate.FAILED


def test_a_busy_machine_is_given_longer_but_not_for_ever() -> None:
    slow = dataclasses.replace(UNKNOWN, status=_STARTING, slowness=3.0)
    assert judge(dataclasses.replace(slow, silent_seconds=130)) is Fate.LIVES
    assert judge(dataclasses.replace(slow, silent_seconds=140)) is Fate.FAILED
    assert judge(dataclasses.replace(slow, slowness=100.0, silent_seconds=181)) is Fate.FAILED


@pytest.mark.parametrize(("status", "patience"), [(_STARTED, 30), (_STARTING, 45), (_CANCELING, 30)])
def test_a_worker_that_never_said_who_it_is(status: dg.DagsterRunStatus, patience: int) -> None:
    young = dataclasses.replace(UNKNOWN, status=status, silent_seconds=patience)
    assert judge(young) is Fate.LIVES
    assert judge(dataclasses.replace(young, silent_seconds=patience + 1)) is not Fate.LIVES


def test_the_tag_of_a_worker_is_that_of_its_own_run_only() -> None:
    """A retry takes over the tags of the dead run."""
    worker = Worker("run-1", 4711, "991", "boot/pid:[4026531836]")
    assert Worker.from_tags(worker.tags(), "run-1") == worker
    assert Worker.from_tags(worker.tags(), "run-2") is None
    assert Worker.from_tags({}, "run-1") is None
    assert Worker.from_tags({"jivs/worker": "run-1 x y z"}, "run-1") is None


def test_how_often_the_daemon_was_asked_is_counted_by_run() -> None:
    assert asked_before({}, "run-1") == 0
    assert asked_before(asked_tags("run-1", 3), "run-1") == 3
    assert asked_before(asked_tags("run-1", 3), "run-2") == 0
