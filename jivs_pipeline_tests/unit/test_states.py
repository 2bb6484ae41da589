"""The state machine and the names of events."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.events import EVENT_OF_STATUS, EventType, event_id
from jivs_pipeline.core.states import RESUMABLE, TRANSITIONS, Phase, Status, allowed

S = Status


def test_statuses_are_those_of_the_contract():
    assert set(Status) == {
        "queued",
        "running",
        "paused",
        "completed",
        "failed",
        "cancelled",
        "rolled_back",
        "mismatch",
    }


def test_phases_are_those_of_the_contract_in_order():
    assert list(Phase) == ["plan", "extract", "transform", "validate", "load", "verify", "finish"]


def test_every_status_has_its_transitions():
    assert set(TRANSITIONS) == set(Status)


@pytest.mark.parametrize("status", Status)
def test_every_status_can_be_run_again(status):
    assert allowed(status, S.RUNNING)


@pytest.mark.parametrize("status", [s for s in Status if s is not S.QUEUED])
def test_every_status_is_reached_from_running_or_by_rollback(status):
    assert allowed(S.RUNNING, status) or status is S.ROLLED_BACK


def test_what_runs_or_waits_cannot_be_rolled_back():
    assert not allowed(S.RUNNING, S.ROLLED_BACK)
    assert not allowed(S.QUEUED, S.ROLLED_BACK)
    assert all(allowed(s, S.ROLLED_BACK) for s in Status if s not in {S.RUNNING, S.QUEUED, S.ROLLED_BACK})


def test_only_a_run_can_complete_or_be_paused():
    assert {s for s in Status if allowed(s, S.PAUSED)} == {S.RUNNING}
    # A mismatch completes when verified again.
    assert {s for s in Status if allowed(s, S.COMPLETED)} == {S.RUNNING, S.MISMATCH}


def test_what_is_finished_cannot_be_cancelled():
    assert {s for s in Status if not allowed(s, S.CANCELLED)} == {S.COMPLETED, S.ROLLED_BACK, S.CANCELLED}


def test_a_run_after_completion_rollback_or_queueing_resumes_nothing():
    assert set(Status) - RESUMABLE == {S.QUEUED, S.COMPLETED, S.ROLLED_BACK}


def test_events_have_the_contracts_types():
    assert {e.removeprefix("migration.") for e in EventType} == {
        "queued", "started", "phase", "table_loaded", "paused", "resumed", "retried", "failed", "cancelled", "rolled_back", "completed",
    }  # fmt: skip


def test_every_end_of_a_run_has_an_event():
    assert set(EVENT_OF_STATUS) == set(Status) - {S.RUNNING}
    assert EVENT_OF_STATUS[S.MISMATCH] is EventType.FAILED
    for status in set(Status) - {S.RUNNING, S.MISMATCH}:
        assert EVENT_OF_STATUS[status] == f"migration.{status}"


def test_an_event_id_is_key_and_number():
    assert event_id("sakila-2026", 3) == "sakila-2026:3"
