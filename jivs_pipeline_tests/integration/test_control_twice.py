"""Verbs of the control database whose commit was not acknowledged: sent again, they change nothing more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Checkpoint, Claim
from jivs_pipeline.core.errors import ConflictError, FencedError, TransientError
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.owner import this_process
from jivs_pipeline_tests.fix_control import MEASURED, PLAN, open_control, take

TABLES = (
    "migrations", "migration_locks", "migration_events", "migration_checkpoints", "migration_retries",
    "migration_performance_metrics", "migration_runs",
)  # fmt: skip


@pytest.fixture
def control(database: str) -> Iterator[Control]:
    with closing(open_control(database, timeout_seconds=5)) as control:
        yield control
        arm(None)


def _content(database: str) -> dict[str, list[Any]]:
    """All rows but for times and tokens, which nothing decides."""
    with psycopg.connect(database) as db:
        return {
            t: db.execute(
                f"SELECT to_jsonb(t) - ARRAY['at', 'id', 'token', 'owner', 'created_at', 'updated_at', 'started_at',"  # pyright: ignore[reportArgumentType]
                f" 'finished_at', 'acquired_at', 'heartbeat_at', 'process_start', 'progressed_at', 'ended_at'] FROM jivs.{t} t ORDER BY 1"
            ).fetchall()
            for t in TABLES
        }


RUNNING: dict[str, Callable[[Control, Claim], Any]] = {
    "heartbeat": lambda control, claim: control.heartbeat(claim),
    "set_phase": lambda control, claim: control.set_phase(claim, Phase.LOAD),
    "save_plan": lambda control, claim: control.save_plan(claim, PLAN, []),
    "checkpoint": lambda control, claim: control.checkpoint(
        claim, Checkpoint("public.t", Phase.LOAD, "g", rows=7)
    ),
    "progress": lambda control, claim: control.progress(claim, 5, 50),
    "retry": lambda control, claim: control.retry(claim, Phase.LOAD, "public.t", 0, 1, "lost", 2.0),
    "measure": lambda control, claim: control.measure(claim, Phase.LOAD, MEASURED),
    "end": lambda control, claim: control.end(claim, Status.FAILED, error={"message": "x"}, result={}),
    "release": lambda control, claim: control.release(claim),
    "request": lambda control, _: control.request("shop", "cancel"),
}


@pytest.mark.parametrize("place", ["control_before_commit", "control_after_commit"])
@pytest.mark.parametrize("verb", RUNNING)
def test_a_run_says_it_twice(make_database: Callable[[], str], verb: str, place: str) -> None:
    """The same rows as when the first answer had arrived."""
    contents: list[dict[str, list[Any]]] = []
    for failpoint in (None, f"{place}@1:error"):
        control = open_control(database := make_database(), timeout_seconds=5)
        try:
            claim = take(control)
            arm(failpoint)
            if verb == "request" and failpoint == "control_after_commit@1:error":
                # Not told apart from somebody else who asked for the same: the answer is that it is asked for.
                with pytest.raises(ConflictError, match="already been asked to cancel"):
                    RUNNING[verb](control, claim)
            else:
                RUNNING[verb](control, claim)
        finally:
            arm(None)
            control.close()
        contents.append(_content(database))
    assert contents[0] == contents[1]


@pytest.mark.parametrize("before", [None, Status.FAILED], ids=["new", "failed"])
def test_a_claim_twice_is_one_claim(control: Control, before: Status | None) -> None:
    """One epoch, one event; the second answer is the first."""
    if before is not None:
        control.end(take(control), before, error=None, result={})
    epoch = 0 if before is None else 1
    events = len(control.events("shop"))
    arm("control_after_commit@1:error")
    claim = take(control)
    assert claim.epoch == epoch + 1 == control.migration("shop")["epoch"]
    assert len(control.events("shop")) == events + 1
    assert control.heartbeat(claim) is None


def test_settling_and_forgetting_twice(control: Control) -> None:
    control.end(take(control), Status.FAILED, error=None, result={})
    arm("control_after_commit@1:error")
    assert control.settle("shop", Status.FAILED, Status.CANCELLED)
    assert [e["type"] for e in control.events("shop")].count("migration.cancelled") == 1
    claim = control.take_over("shop", this_process(), "undo", Status.ROLLED_BACK, lease_seconds=300, floor=0)
    arm("control_after_commit@1:error")
    control.forget(claim)
    assert control.migration("shop")["status"] == "rolled_back"
    assert [e["type"] for e in control.events("shop")].count("migration.rolled_back") == 1
    assert control.holder("shop") is None


def test_what_is_taken_over_cannot_be_forgotten_by_the_old_one(control: Control) -> None:
    control.end(take(control), Status.FAILED, error=None, result={})
    claim = control.take_over("shop", this_process(), "undo", Status.ROLLED_BACK, lease_seconds=300, floor=0)
    control.release(claim)
    take(control)
    with pytest.raises(FencedError):
        control.forget(claim)
    assert control.migration("shop")["status"] == "running"


def test_a_server_that_stays_away_is_a_sentence_in_time(control: Control) -> None:
    """Waited for as long as the timeout says, then said."""
    arm(",".join(f"control_before_commit@{n}:error" for n in range(1, 40)))
    with pytest.raises(Exception, match="does not answer") as caught:
        control.control_id()
    assert not getattr(caught.value, "transient", True)
    assert isinstance(caught.value.__cause__, TransientError)


def test_settle_leaves_the_living_alone(control: Control) -> None:
    """A holder that may be alive is not robbed, nor a state that has changed meanwhile."""
    claim = take(control)
    assert not control.settle("shop", Status.RUNNING, Status.FAILED)
    control.end(claim, Status.PAUSED, error=None, result={})
    assert not control.settle("shop", Status.FAILED, Status.CANCELLED)
    assert control.migration("shop")["status"] == "paused"
    assert [e["type"] for e in control.events("shop")][-1] == "migration.paused"


def test_whoever_was_settled_is_fenced(control: Control) -> None:
    """A run that was taken for dead and wakes may write nothing any more, not even after the next one has begun."""
    stale = take(control, lease=0.01)
    time.sleep(0.05)
    assert control.settle("shop", Status.RUNNING, Status.PAUSED)
    assert control.migration("shop")["epoch"] == stale.epoch + 1
    assert control.holder("shop") is None
    with pytest.raises(FencedError):
        control.heartbeat(stale)
    assert take(control).epoch == stale.epoch + 2
