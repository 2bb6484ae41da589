"""Runs that wait for their time, on an instance of Dagster: when they are retried, how often, and which never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.events import JobFailureData, RunFailureReason

from jivs_pipeline.core.errors import (
    BreakerOpen,
    ConfigError,
    ConnectionFailed,
    JivsError,
    NotReady,
    TransientError,
)
from jivs_pipeline.defs import retries
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.failures import retry_after
from jivs_pipeline.defs.retries import ask_again, has_retries_left, may_be_retried
from jivs_pipeline.defs.tags import NEVER_RETRY, no_retries, run_tags, wait_tags, waits_until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = timedelta(seconds=60)


def started(instance: dg.DagsterInstance, parent: dg.DagsterRun | None = None, **more: str) -> dg.DagsterRun:
    root = (parent.root_run_id or parent.run_id) if parent else None
    links = (
        {} if parent is None else {"dagster/parent_run_id": parent.run_id, "dagster/root_run_id": root or ""}
    )
    return instance.create_run_for_job(
        build_defs().get_job_def("migration"),
        run_id=str(uuid4()),
        tags={**run_tags("shop"), "dagster/partition": "shop", **links, **more},
        status=dg.DagsterRunStatus.STARTED,
        parent_run_id=parent.run_id if parent else None,
        root_run_id=root,
    )


def fail(instance: dg.DagsterInstance, run: dg.DagsterRun, **tags: str) -> dg.DagsterRun:
    """Fails as by an error of an op."""
    instance.add_run_tags(run.run_id, tags)
    cause = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE)
    instance.report_run_failed(run, job_failure_data=cause)
    return stored(instance, run)


def stored(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def test_a_run_is_retried_once_its_time_has_come(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    waits = fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) + LATER))
    assert waits.tags["dagster/will_retry"] == "false"
    assert may_be_retried(instance, run)
    assert ask_again(instance) == []
    instance.add_run_tags(run.run_id, wait_tags(run.run_id, datetime.now(UTC) - LATER))
    assert ask_again(instance) == [run.run_id]
    assert stored(instance, run).tags["dagster/will_retry"] == "true"
    assert may_be_retried(instance, run)
    assert ask_again(instance) == []
    retry = fail(instance, started(instance, run), **NEVER_RETRY)
    assert may_be_retried(instance, run)
    assert not may_be_retried(instance, retry)


def test_a_run_that_waits_for_long_is_not_forgotten(instance: dg.DagsterInstance) -> None:
    """Unlike one that the daemon gave up: the stack may have been down."""
    run = started(instance)
    fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - timedelta(hours=20)))
    assert ask_again(instance) == [run.run_id]


def test_a_crash_between_both_steps_of_asking_is_repaired(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(instance)
    fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(instance, "report_run_failed", killed)
        with pytest.raises(KeyboardInterrupt):
            ask_again(instance)
    assert may_be_retried(instance, run)
    assert ask_again(instance) == []
    with monkeypatch.context() as patch:
        patch.setattr(retries, "_OVERLOOKED", timedelta(0))
        assert ask_again(instance) == [run.run_id]


def test_a_run_that_the_daemon_has_overlooked_is_asked_for_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is the other one, or for so long that something is broken."""
    run = started(instance)
    fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))
    seen: list[str | None] = []

    def early(failed: dg.DagsterRun, *_: object) -> None:
        seen.append(stored(instance, failed).tags.get("dagster/will_retry"))

    with monkeypatch.context() as patch:
        patch.setattr(retries, "_OVERLOOKED", timedelta(0))
        patch.setattr(instance, "report_run_failed", early)
        for _ in range(retries._MOST_ASKED):
            assert ask_again(instance) == [run.run_id]
        assert ask_again(instance) == []
    # The daemon may read the report before Dagster has set the tag.
    assert set(seen) == {"true"}
    assert not may_be_retried(instance, run)
    assert stored(instance, run).tags["jivs/retry"] == "settled"


def test_a_daemon_that_died_before_it_did_what_it_said_is_asked(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run says that another will follow, none has, and nobody has asked before."""
    run = started(instance)
    assert fail(instance, run).tags["dagster/will_retry"] == "true"
    assert ask_again(instance) == []  # it may still be at it
    monkeypatch.setattr(retries, "_OVERLOOKED", timedelta(0))
    assert ask_again(instance) == [run.run_id]
    other = fail(instance, started(instance), **{"dagster/auto_retry_run_id": "another"})
    assert other.run_id not in ask_again(instance)


def test_a_run_that_was_asked_for_is_settled_by_the_other(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))
    assert ask_again(instance) == [run.run_id]
    assert stored(instance, run).tags["jivs/retry"] == "asked"
    started(instance, run)
    assert ask_again(instance) == []
    tags = stored(instance, run).tags
    assert (tags["jivs/retry"], tags["dagster/will_retry"]) == ("settled", "true")


def test_a_dead_target_costs_three_retries(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    for _ in range(3):
        assert has_retries_left(instance, run)
        fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))
        assert ask_again(instance) == [run.run_id]
        run = started(instance, run)
    assert not has_retries_left(instance, run)
    fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))
    assert not may_be_retried(instance, run)
    assert ask_again(instance) == []


def test_a_run_that_somebody_has_repeated_is_not_retried(instance: dg.DagsterInstance) -> None:
    """The one that repeats it takes over its tags, and does not wait because of them."""
    run = started(instance)
    waiting = fail(instance, run, **wait_tags(run.run_id, datetime.now(UTC) - LATER))
    again = started(instance, waiting, **waiting.tags)
    assert ask_again(instance) == []
    assert may_be_retried(instance, run)
    assert stored(instance, run).tags["jivs/retry"] == "settled"
    fail(instance, again)
    assert not may_be_retried(instance, again)
    assert ask_again(instance) == []


def test_some_runs_never_wait(instance: dg.DagsterInstance) -> None:
    """A run at a terminal; a run that did not fail; one that is gone."""
    foreground = started(instance, **no_retries())
    assert not has_retries_left(instance, foreground)
    fail(instance, foreground, **wait_tags(foreground.run_id, datetime.now(UTC) - LATER))
    assert not may_be_retried(instance, foreground)
    assert ask_again(instance) == []
    assert not may_be_retried(instance, started(instance))
    instance.delete_run(foreground.run_id)
    assert not may_be_retried(instance, foreground)


def test_a_run_whose_root_was_deleted_does_not_stop_the_others(instance: dg.DagsterInstance) -> None:
    root = started(instance)
    child = started(instance, root)
    fail(instance, child, **wait_tags(child.run_id, datetime.now(UTC) - LATER))
    instance.delete_run(root.run_id)
    other = started(instance)
    fail(instance, other, **wait_tags(other.run_id, datetime.now(UTC) - LATER))
    assert ask_again(instance) == [other.run_id]


def _until(error: TransientError) -> TransientError:
    error.until = NOW + LATER
    return error


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (BreakerOpen("left alone", until=NOW + LATER), NOW + LATER),
        (_until(TransientError("no free slot")), NOW + LATER),
        (BreakerOpen("left alone"), None),
        (NotReady("restarts"), None),
        (ConnectionFailed.unanswered("down", hint=""), NOW + LATER),
        (ConnectionFailed("wrong password"), None),
        (ConfigError("wrong"), None),
    ],
)
def test_which_errors_wait(error: JivsError, after: datetime | None) -> None:
    """Nobody answered: as long as a breaker waits. A wrong password waits for a person."""
    assert retry_after(error, NOW) == after


def test_a_tag_says_for_which_run_it_is() -> None:
    tags = wait_tags("run-1", NOW + timedelta(seconds=0.2))
    assert waits_until(tags, "run-1") == NOW + timedelta(seconds=1)
    assert waits_until(tags, "run-2") is None
    assert waits_until({**tags, "jivs/retry": "settled"}, "run-1") is None
    assert waits_until({}, "run-1") is None
