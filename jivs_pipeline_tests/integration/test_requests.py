"""The queue of requests on a real PostgreSQL and Redis: who submits gets one answer, and a migration one request.

What belongs here: `infra/requests.py` and `sql/control/0004_requests.sql`. What does not: what becomes of a request
by Dagster's runs (`unit/test_requests.py`, `integration/test_queue.py`).
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import redis

from jivs_pipeline.core.errors import CancelledRun, ConflictError, NoSlot
from jivs_pipeline.core.requests import RequestRef, RequestStatus
from jivs_pipeline.core.states import Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.request_cache import RequestCache
from jivs_pipeline_tests.fix_control import PLAN, SPEC, end, spec_of, take, types_of

OTHER = SPEC.model_copy(update={"target_schema": "elsewhere"})


def state(control: Control, key: str = "shop") -> tuple[str, str | None]:
    row = control.migration(key)
    return row["status"], row["request_status"]


# ── Submitting ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_request(control: Control) -> None:
    """Request, migration and event are there at once."""
    answer = control.requests().submit(SPEC, priority=3)
    assert (answer.key, answer.duplicate, answer.status, answer.attempt) == ("shop", False, "queued", 1)
    row = control.migration("shop")
    assert (row["status"], row["request_id"], row["request_priority"]) == ("queued", answer.request_id, 3)
    [event] = control.events("shop")
    assert (event["type"], event["data"]) == (
        "migration.queued", {"request_id": answer.request_id, "attempt": 1},
    )  # fmt: skip


def test_the_same_again_is_answered_by_the_first(control: Control) -> None:
    first = control.requests().submit(SPEC, idempotency_key="k")
    again = control.requests().submit(SPEC, idempotency_key="k")
    assert (again.request_id, again.duplicate, again.status) == (first.request_id, True, "queued")
    assert types_of(control) == ["queued"]


def test_one_idempotency_key_stands_for_one_spec(control: Control) -> None:
    control.requests().submit(SPEC, idempotency_key="k")
    with pytest.raises(ConflictError, match="idempotency key k was used with another spec"):
        control.requests().submit(spec_of("other"), idempotency_key="k")
    assert control.find("other") is None


def test_an_open_request_answers_for_its_migration(control: Control) -> None:
    """Also without, or with another, idempotency key; with another spec it is a conflict."""
    first = control.requests().submit(SPEC)
    assert control.requests().submit(SPEC).request_id == first.request_id
    assert control.requests().submit(SPEC, idempotency_key="late").duplicate
    with pytest.raises(ConflictError, match="another spec") as caught:
        control.requests().submit(OTHER)
    assert "jivs cancel shop" in caught.value.hint
    end(control, take(control), Status.COMPLETED)
    assert control.requests().submit(SPEC, idempotency_key="late").request_id == first.request_id


@pytest.mark.parametrize("idempotency_key", ["k", None])
def test_a_hundred_at_once_are_one(
    control: Control, database: str, redis_url: str, idempotency_key: str | None
) -> None:
    """From several clients, with Redis flushed in between."""
    clients = [Control(database) for _ in range(4)]
    caches = [RequestCache(redis_url) for _ in clients]
    for client in clients:
        client.open()

    def submit(number: int) -> Any:
        if number % 10 == 5:
            redis.Redis.from_url(redis_url).flushall()
        who = number % len(clients)
        return clients[who].requests(caches[who]).submit(SPEC, idempotency_key=idempotency_key)

    try:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(submit, range(100)))
    finally:
        for one in (*clients, *caches):
            one.close()
    assert len({a.request_id for a in answers}) == 1
    assert Counter(a.duplicate for a in answers) == {True: 99, False: 1}
    assert types_of(control) == ["queued"]


def test_a_completed_migration_is_not_queued(control: Control) -> None:
    end(control, take(control), Status.COMPLETED)
    answer = control.requests().submit(SPEC)
    assert (answer.duplicate, answer.status) == (False, "completed")
    with pytest.raises(ConflictError, match="is completed"):
        control.requests().submit(OTHER)
    assert control.migration("shop")["status"] == "completed"


@pytest.mark.parametrize("ended", [Status.FAILED, Status.PAUSED, Status.CANCELLED])
def test_what_did_not_complete_can_be_asked_for_again(control: Control, ended: Status) -> None:
    """As the next attempt of the same request, which goes on from its plan."""
    queue = control.requests()
    first = queue.submit(SPEC, idempotency_key="k")
    end(control, take(control), ended)
    if ended is Status.FAILED:
        assert state(control) == ("failed", "running")
        assert queue.settle(RequestRef(first.request_id, 1), RequestStatus.FAILED, "run", {"code": "x"})
    assert state(control) == (ended, ended)
    again = queue.submit(SPEC, idempotency_key="k")
    assert (again.request_id, again.duplicate, again.status, again.attempt) == (
        first.request_id, False, "queued", 2,
    )  # fmt: skip
    assert state(control) == ("queued", "queued")
    assert types_of(control)[-1] == "queued"


def test_a_paused_migration_may_be_asked_for_with_another_spec(control: Control) -> None:
    first = control.requests().submit(SPEC)
    end(control, take(control), Status.PAUSED)
    second = control.requests().submit(OTHER)
    assert second.request_id != first.request_id
    assert (second.status, state(control)) == ("queued", ("queued", "queued"))


def test_a_submission_that_is_sent_again_is_no_duplicate(control: Control, db: Any) -> None:
    """As after a commit that was not acknowledged."""
    sent = "SELECT * FROM jivs.submit_request(%s, NULL, 0, NULL, %s)"
    body, new = json.dumps({"key": "shop", "source": "a", "target": "b"}), uuid.uuid4()
    first, again = (db.execute(sent, (body, new)).fetchone() for _ in range(2))
    assert first == again
    assert first[2] is False
    assert types_of(control) == ["queued"]


def test_cached_answers_are_checked(control: Control, redis_url: str, db: Any) -> None:
    """A cache that knows more than PostgreSQL, or something else, is not believed."""
    cache = RequestCache(redis_url)
    queue = control.requests(cache)
    first = queue.submit(SPEC, idempotency_key="k")
    assert queue.submit(SPEC, idempotency_key="k").duplicate
    with pytest.raises(ConflictError):
        queue.submit(OTHER, idempotency_key="k")
    db.execute("DELETE FROM jivs.migration_requests")
    assert not queue.submit(SPEC, idempotency_key="k").duplicate
    end(control, take(control), Status.CANCELLED)
    assert queue.submit(SPEC, idempotency_key="k").attempt == 2
    assert first.attempt == 1
    cache.close()


def test_redis_is_not_needed(control: Control) -> None:
    cache = RequestCache("redis://127.0.0.1:1/0")
    assert not control.requests(cache).submit(SPEC, idempotency_key="k").duplicate
    assert control.requests(cache).submit(SPEC, idempotency_key="k").duplicate
    cache.close()


# ── SQL clients ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_a_request(control: Control, db: Any) -> None:
    """Key and hash are filled in; defaults of the spec may be left out."""
    body = {"key": "shop", "source": "legacy", "target": "warehouse"}
    db.execute("INSERT INTO jivs.migration_requests (spec) VALUES (%s)", (json.dumps(body),))
    assert state(control) == ("queued", "queued")
    [asked] = control.requests().unfinished()
    assert (asked.key, asked.spec, asked.ref.attempt) == ("shop", body, 1)
    end(control, take(control), Status.COMPLETED)
    assert state(control) == ("completed", "completed")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"key": "shop", "source": "legacy"}, "lacks the text target"),
        ({"key": "shop", "source": "postgresql://me:secret@h/db", "target": "warehouse"}, "is no name"),
        ({"key": "Shop!", "source": "legacy", "target": "warehouse"}, "key of the spec is no name"),
    ],
)
def test_a_spec_that_cannot_be_one_is_refused(
    control: Control, db: Any, body: dict[str, str], said: str
) -> None:
    with pytest.raises(psycopg.Error, match=said) as caught:
        db.execute("SELECT * FROM jivs.submit_request(%s)", (json.dumps(body),))
    assert caught.value.sqlstate == "JV004"
    assert "secret" not in str(caught.value)
    assert control.migrations() == []


def test_a_second_open_row_is_refused(control: Control, db: Any) -> None:
    insert = "INSERT INTO jivs.migration_requests (spec) VALUES (%s)"
    body = json.dumps({"key": "shop", "source": "legacy", "target": "warehouse"})
    db.execute(insert, (body,))
    with pytest.raises(psycopg.errors.UniqueViolation, match="migration_requests_open"):
        db.execute(insert, (body,))


# ── A request follows its migration ──────────────────────────────────────────────────────────────────────


def test_a_run_takes_its_request_along(control: Control) -> None:
    answer = control.requests().submit(SPEC)
    taken = take(control, run_id="r1", request=RequestRef(answer.request_id, 1))
    assert state(control) == ("running", "running")
    [asked] = control.requests().unfinished()
    assert (asked.run_id, asked.migration) == ("r1", "running")
    end(control, taken, Status.COMPLETED)
    assert state(control) == ("completed", "completed")
    assert control.requests().unfinished() == []


def test_a_run_of_another_spec_leaves_the_request_alone(control: Control) -> None:
    control.requests().submit(SPEC)
    end(control, take(control, OTHER), Status.FAILED)
    assert state(control) == ("failed", "queued")


def test_cancelling_a_queued_migration_cancels_its_request(control: Control) -> None:
    """And the run that was launched meanwhile takes nothing."""
    answer = control.requests().submit(SPEC, idempotency_key="k")
    assert control.settle("shop", Status.QUEUED, Status.CANCELLED)
    assert state(control) == ("cancelled", "cancelled")
    with pytest.raises(CancelledRun, match="was cancelled before it began"):
        take(control, request=RequestRef(answer.request_id, 1))
    assert control.requests().submit(SPEC, idempotency_key="k").attempt == 2
    with pytest.raises(CancelledRun, match="later attempt"):
        take(control, request=RequestRef(answer.request_id, 1))
    assert take(control, request=RequestRef(answer.request_id, 2)).epoch


def test_a_queued_migration_goes_on_from_its_plan(control: Control) -> None:
    """Being queued in between does not cost what was staged and loaded."""
    taken = take(control)
    control.save_plan(taken, PLAN, [])
    end(control, taken, Status.PAUSED)
    control.requests().submit(SPEC)
    resumed = take(control)
    assert resumed.resumed
    assert resumed.plan == PLAN


# ── The queue ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_most_urgent_come_first_and_no_more_than_there_is_room(control: Control, db: Any) -> None:
    queue = control.requests()
    db.execute("UPDATE jivs.limits SET value = 8 WHERE name = 'runs'")
    for number in range(12):
        queue.submit(spec_of(f"m{number}"), priority=number % 3)
    taken = take(control, spec_of("by-hand"))
    found = [a.key for a in queue.unfinished()]
    # The run by hand has a slot, too.
    assert found == ["m2", "m5", "m8", "m11", "m1", "m4", "m7"]
    for asked in queue.unfinished():
        queue.launched(asked.ref, f"run of {asked.key}")
        queue.launched(asked.ref, "another")
    assert [a.run_id for a in queue.unfinished()] == [f"run of {k}" for k in found]
    end(control, taken, Status.COMPLETED)
    assert [a.key for a in queue.unfinished() if a.status == "queued"] == ["m10"]


def test_a_migration_that_runs_is_not_launched(control: Control) -> None:
    taken = take(control, OTHER)
    control.requests().submit(SPEC)
    assert control.requests().unfinished() == []
    end(control, taken, Status.FAILED)
    assert [a.key for a in control.requests().unfinished()] == ["shop"]


def test_no_more_run_than_there_are_slots(control: Control, db: Any) -> None:
    """Whoever launched them; a holder that is gone does not count."""
    db.execute("UPDATE jivs.limits SET value = 2 WHERE name = 'runs'")
    first = take(control, spec_of("a"))
    take(control, spec_of("b"))
    with pytest.raises(NoSlot, match="2 migrations run") as caught:
        take(control, spec_of("c"))
    assert caught.value.held
    assert control.find("c") is None
    end(control, first, Status.FAILED)
    assert take(control, spec_of("c")).epoch == 1
    db.execute("UPDATE jivs.migration_locks SET heartbeat_at = now() - interval '1 hour' WHERE key = 'b'")
    assert take(control, spec_of("a")).epoch == 2


def test_the_last_slot_is_taken_once(control: Control, db: Any) -> None:
    db.execute("UPDATE jivs.limits SET value = 3 WHERE name = 'runs'")

    def is_let_in(number: int) -> bool:
        try:
            take(control, spec_of(f"m{number}"))
        except NoSlot:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(is_let_in, range(12))) == 3
