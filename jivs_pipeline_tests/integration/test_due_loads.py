"""Schedules on a real control database: each due time is asked for once, whatever dies in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.engine.scheduling import ask_for_due
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import this_process
from jivs_pipeline_tests.fix_control import end, open_control, take
from jivs_pipeline_tests.killed import killed

HOURLY = Spec(key="shop", source="legacy", target="warehouse", on_existing="replace", schedule="0 * * * *")


def load(control: Control, after: Status = Status.COMPLETED, spec: Spec = HOURLY) -> Claim:
    claim = take(control, spec)
    end(control, claim, after)
    return claim


def pass_hours(db: psycopg.Connection[Any], hours: float) -> None:
    """As if everything had been that much earlier."""
    db.execute(
        "UPDATE jivs.migrations SET schedule_since = schedule_since - %(by)s, last_due = last_due - %(by)s",
        {"by": timedelta(hours=hours)},
    )


def end_requests(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "UPDATE jivs.migration_requests SET status = 'completed', finished_at = now() WHERE status <> 'completed'"
    )


def requests(db: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    query = "SELECT idempotency_key, status FROM jivs.migration_requests JOIN jivs.migration_idempotency_keys USING (request_id) ORDER BY 1"
    return db.execute(query).fetchall()  # pyright: ignore[reportReturnType]


def this_hour() -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def test_nothing_is_made_up_for(control: Control, db: psycopg.Connection[Any]) -> None:
    """Times before the schedule was there are none of it."""
    load(control)
    assert control.migration("shop")["schedule_since"] is not None
    assert ask_for_due(control.due_loads) == {}
    assert requests(db) == []


def test_a_due_load_is_asked_for_once(control: Control, db: psycopg.Connection[Any]) -> None:
    """The latest of those that were missed; the migration begins anew, and what its load has made is its own no more."""
    load(control)
    pass_hours(db, 5)
    due = this_hour()
    assert ask_for_due(control.due_loads) == {"shop": due.isoformat(timespec="minutes")}
    assert ask_for_due(control.due_loads) == {}
    assert requests(db) == [(f"schedule:shop:{due.isoformat()}", "queued")]
    row = control.migration("shop")
    assert (row["status"], row["plan"], row["begun_epoch"], row["last_due"]) == ("queued", None, 2, due)
    claim = load(control)
    assert (claim.epoch, claim.since, claim.plan, claim.resumed) == (2, 2, None, False)
    end_requests(db)
    assert ask_for_due(control.due_loads) == {}
    pass_hours(db, 1)
    assert ask_for_due(control.due_loads) == {"shop": due.isoformat(timespec="minutes")} or this_hour() != due
    assert control.migration("shop")["begun_epoch"] == 3


@pytest.mark.parametrize("status", [Status.FAILED, Status.MISMATCH])
def test_after_a_failure_the_same_load_begins_anew(
    control: Control, db: psycopg.Connection[Any], status: Status
) -> None:
    """What it has made so far is replaced, and what was there before it stays kept."""
    load(control)
    pass_hours(db, 1)
    ask_for_due(control.due_loads)
    load(control, status)
    end_requests(db)
    pass_hours(db, 1)
    assert list(ask_for_due(control.due_loads)) == ["shop"]
    claim = take(control, HOURLY)
    assert (claim.epoch, claim.since, claim.plan) == (3, 2, None)


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED])
def test_what_a_person_has_stopped_is_left_alone(
    control: Control, db: psycopg.Connection[Any], status: Status
) -> None:
    load(control, status)
    pass_hours(db, 5)
    assert ask_for_due(control.due_loads) == {}
    assert control.migration("shop")["status"] == status


@pytest.mark.parametrize(("on_failure", "due"), [("keep", []), ("rollback", ["shop"])])
def test_what_was_rolled_back_is_loaded_where_a_machine_did_it(
    control: Control, db: psycopg.Connection[Any], on_failure: str, due: list[str]
) -> None:
    spec = Spec.model_validate({**HOURLY.model_dump(), "on_failure": on_failure})
    load(control, spec=spec)
    taken = control.take_over(
        "shop", this_process(), "rollback", Status.ROLLED_BACK, lease_seconds=300, floor=0
    )
    control.forget(taken)
    pass_hours(db, 1)
    assert list(ask_for_due(control.due_loads)) == due


def test_what_runs_or_was_asked_for_is_not_asked_for(control: Control, db: psycopg.Connection[Any]) -> None:
    claim = take(control, HOURLY)
    pass_hours(db, 1)
    assert ask_for_due(control.due_loads) == {}
    control.set_phase(claim, Phase.FINISH)
    control.end(claim, Status.FAILED, error=None, result={})
    db.execute("SELECT jivs.submit_request(%s)", (psycopg.types.json.Jsonb(HOURLY.model_dump(mode="json")),))
    assert ask_for_due(control.due_loads) == {}
    assert len(db.execute("SELECT FROM jivs.migration_requests").fetchall()) == 1


def test_a_failed_migration_with_an_open_request_is_left_to_it(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    load(control)
    pass_hours(db, 1)
    ask_for_due(control.due_loads)
    load(control, Status.FAILED)
    db.execute("UPDATE jivs.migration_requests SET status = 'launched'")
    pass_hours(db, 1)
    assert ask_for_due(control.due_loads) == {}


@pytest.mark.parametrize("schedule", ["30 4 * * *", None])
def test_another_schedule_or_none(
    control: Control, db: psycopg.Connection[Any], schedule: str | None
) -> None:
    """A run of what is completed loads nothing, and takes over the schedule; it counts from then on."""
    load(control)
    pass_hours(db, 5)
    control.reschedule(Spec.model_validate({**HOURLY.model_dump(), "schedule": schedule}))
    row = control.migration("shop")
    assert row["spec"]["schedule"] == schedule
    assert (row["schedule_since"] is None) is (schedule is None)
    assert (row["status"], row["spec_hash"]) == ("completed", HOURLY.hash)
    assert ask_for_due(control.due_loads) == {}


def test_a_request_for_what_is_completed_brings_its_schedule(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    load(control)
    other = Spec.model_validate({**HOURLY.model_dump(), "schedule": "30 4 * * *"})
    asked = (psycopg.types.json.Jsonb(other.model_dump(mode="json")), other.hash)
    found = db.execute("SELECT status FROM jivs.submit_request(%s, body_hash => %s)", asked).fetchone()
    assert found == ("completed",)
    assert control.migration("shop")["spec"]["schedule"] == "30 4 * * *"


def test_ten_daemons_ask_for_one_load(control: Control, db: psycopg.Connection[Any], database: str) -> None:
    load(control)
    pass_hours(db, 1)
    controls = [Control(database) for _ in range(4)]
    try:
        for each in controls:
            each.open()
        with ThreadPoolExecutor(10) as pool:
            told = list(pool.map(lambda n: ask_for_due(controls[n % 4].due_loads), range(10)))
    finally:
        for each in controls:
            each.close()
    assert sum("shop" in each for each in told) == 1
    assert len(requests(db)) == 1


@pytest.mark.parametrize(
    "place", ["inside_due", "due_before_commit", "control_before_commit@3", "due_after_commit"]
)
def test_killed_while_it_asks(
    control: Control, db: psycopg.Connection[Any], database: str, place: str
) -> None:
    """The daemon dies between any two steps; the next one asks, and there is one request."""
    load(control)
    pass_hours(db, 1)
    killed(place, lambda: ask_for_due(open_control(database).due_loads))
    stood = bool(requests(db))
    assert (control.migration("shop")["status"] == "queued") is stood, "one without the other"
    assert bool(ask_for_due(control.due_loads)) is not stood
    assert len(requests(db)) == 1
    assert control.migration("shop")["begun_epoch"] == 2
