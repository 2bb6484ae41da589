"""Events on their way from the outbox to the stream, on a real PostgreSQL and a real Valkey.

What belongs here: order, completeness, and what happens when Redis is away or loses its data. What does not: which
changes make which events (`test_control.py`) and the webhook (`test_webhook.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, pairwise
from threading import Barrier, Thread
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Checkpoint
from jivs_pipeline.core.events import Appended, Event, Pending, StreamState
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.engine.relay import Relay, RelayThread
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.event_stream import EventStream
from jivs_pipeline_tests.event_rows import add_events, check_order, undelivered
from jivs_pipeline_tests.fix_control import SPEC, open_control, take
from jivs_pipeline_tests.fix_redis import OwnRedis

FIELDS = ("id", "key", "seq", "type", "at", "data")


@pytest.fixture
def make_stream(control: Control, own_redis: OwnRedis) -> Iterator[Callable[..., EventStream]]:
    made: list[EventStream] = []

    def make(url: str = "", control_id: str = "") -> EventStream:
        made.append(EventStream(url or own_redis.url, control_id or control.control_id()))
        return made[-1]

    yield make
    for stream in made:
        stream.close()


@pytest.fixture
def make_relay(control: Control, make_stream: Callable[..., EventStream]) -> Callable[..., Relay]:
    return lambda url="": Relay(control.outbox, make_stream(url))


# ── The stream ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_stream_has_what_the_outbox_has(
    control: Control, make_relay: Callable[..., Relay], own_redis: OwnRedis
) -> None:
    """The fields of the contract, those of `jivs events`, in order."""
    claim = take(control)
    control.checkpoint(claim, Checkpoint("public.tür", Phase.LOAD, "g", rows=7))
    control.end(claim, Status.FAILED, error=None, result={})
    before = control.events("shop")
    assert not any(e["delivered"] for e in before)
    assert make_relay().send("shop")
    entries = own_redis.entries()
    assert all(tuple(e) == FIELDS for e in entries)
    assert [e["id"] for e in entries] == ["shop:1", "shop:2", "shop:3"]
    assert [(e["id"], e["key"], int(e["seq"]), e["type"]) for e in entries] == [
        (e["id"], e["key"], e["seq"], e["type"]) for e in before
    ]
    assert '"table": "public.tür"' in entries[1]["data"]
    assert [e["at"] for e in entries] == [e["at"].isoformat() for e in before]
    assert all(e["delivered"] for e in control.events("shop"))


def test_the_outbox_is_told_of_after_the_commit(database: str) -> None:
    """Every verb that writes an event says so, when it can be seen."""
    seen: list[int] = []
    with closing(open_control(database, told=lambda key: seen.append(len(control.events(key))))) as control:
        claim = take(control)
        control.set_phase(claim, Phase.LOAD)
        control.retry(claim, Phase.LOAD, "public.t", 0, 1, "lost", 2.0)
        control.end(claim, Status.FAILED, error=None, result={})
        control.settle("shop", Status.FAILED, Status.CANCELLED)
    assert seen == [1, 2, 3, 4, 5]


def test_an_event_is_never_before_an_earlier_one(
    make_stream: Callable[..., EventStream], own_redis: OwnRedis
) -> None:
    """A late relay's batch is refused where something before it is missing, and no entry is made twice."""
    stream = make_stream(control_id="other")
    events = [Event("k", n, "migration.phase", "2026-01-01T00:00:00+00:00", "{}") for n in range(1, 7)]
    assert stream.append(Pending(0, tuple(events[3:]))).last == 0
    assert own_redis.entries() == []
    assert stream.append(Pending(0, tuple(events[:4]))).last == 4
    assert stream.append(Pending(0, tuple(events[1:3]))).last == 4
    assert stream.append(Pending(0, tuple(events))).last == 6
    check_order(own_redis.entries(), {"k": 6})
    own_redis.flush()
    assert stream.append(Pending(3, tuple(events[4:]))).last == 3, "5 may not be first when 4 may still come"
    assert stream.append(Pending(3, tuple(events[3:]))).last == 6


def test_two_control_databases_share_a_stream(
    make_stream: Callable[..., EventStream], own_redis: OwnRedis
) -> None:
    """What one has sent does not count as sent by the other, although the ids are the same."""
    event = Event("k", 1, "migration.phase", "2026-01-01T00:00:00+00:00", "{}")
    for name in ("one", "two"):
        assert make_stream(control_id=name).append(Pending(0, (event,))).last == 1
    assert len(own_redis.entries()) == 2


@pytest.mark.parametrize("group", [False, True], ids=["gone", "made anew by a consumer"])
def test_a_stream_that_somebody_deleted_is_begun_anew(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any], group: bool
) -> None:
    add_events(db, "k", 5)
    relay = make_relay()
    relay.sweep()
    with own_redis.client() as client:
        client.delete("jivs:events")
        if group:
            client.xgroup_create("jivs:events", "g", id="0", mkstream=True)
    assert relay.sweep().recounted
    check_order(own_redis.entries(), {"k": 5})
    assert not relay.sweep().recounted


# ── Relays ───────────────────────────────────────────────────────────────────────────────────────────────


def test_relays_at_once_keep_the_order(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any], database: str
) -> None:
    """Eight relays, six migrations, events made meanwhile: each in the stream once, in order, and acknowledged."""
    keys, relays, barrier = [f"k{n}" for n in range(6)], 8, Barrier(9)
    done, errors = [False], list[BaseException]()

    def work(number: int) -> None:
        relay = make_relay()
        barrier.wait(20)
        try:
            while not done[0]:
                if number % 2:
                    relay.sweep()
                else:
                    for key in keys[number % 3 :]:
                        relay.send(key)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [Thread(target=work, args=(n,)) for n in range(relays)]
    for thread in threads:
        thread.start()
    barrier.wait(20)
    for _ in range(10):
        for key in keys:
            add_events(db, key, 7)
    done[0] = True
    for thread in threads:
        thread.join(60)
    assert not errors
    make_relay().sweep()
    assert undelivered(db) == 0
    check_order(own_redis.entries(), dict.fromkeys(keys, 70))


def test_the_thread_sends_in_the_background(
    database: str, make_stream: Callable[..., EventStream], control: Control, own_redis: OwnRedis
) -> None:
    """A change's event is in the stream right after, and those of the end before the process ends."""
    thread = RelayThread(lambda: Relay(control.outbox, make_stream()))
    with closing(open_control(database, told=thread.tell)) as telling:
        claim = take(telling)
        deadline = time.monotonic() + 5
        while not own_redis.entries():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        telling.set_phase(claim, Phase.LOAD)
        telling.end(claim, Status.FAILED, error=None, result={})
        thread.stop(10)
    check_order(own_redis.entries(), {SPEC.key: 3})
    assert all(e["delivered"] for e in control.events(SPEC.key))


# ── Redis away ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["gone", "silent"])
def test_without_redis_nobody_waits_and_nothing_is_lost(
    database: str,
    control: Control,
    db: psycopg.Connection[Any],
    make_relay: Callable[..., Relay],
    own_redis: OwnRedis,
    fault: str,
) -> None:
    """Changes of state take no longer, the end waits a bounded time, and all arrives once it is back."""
    own_redis.kill() if fault == "gone" else own_redis.stand_still()
    thread = RelayThread(make_relay)
    with closing(open_control(database, told=thread.tell)) as telling:
        claim = take(telling)
        began = time.monotonic()
        for _ in range(30):
            telling.set_phase(claim, Phase.LOAD)
        assert time.monotonic() - began < 5, "changes waited for Redis"
        began = time.monotonic()
        thread.stop(1)
        assert time.monotonic() - began < 2
    assert undelivered(db) == 31
    own_redis.start() if fault == "gone" else own_redis.go_on()
    relay = make_relay()
    deadline = time.monotonic() + 20
    while undelivered(db):
        assert time.monotonic() < deadline
        relay.sweep()
    check_order(own_redis.entries(), {"shop": 31})


def test_each_attempt_that_fails_is_recorded(
    control: Control, db: psycopg.Connection[Any], make_relay: Callable[..., Relay]
) -> None:
    """Three of the process that made the change, one of each sweep, at the first event that waits."""
    add_events(db, "k", 4)
    relay = make_relay("redis://127.0.0.1:1/0")
    assert not relay.send("k")
    assert relay.sweep().failed == 1
    rows = db.execute(
        "SELECT key, seq, attempt, receiver, error FROM jivs.migration_event_failures ORDER BY id"
    ).fetchall()
    assert [r[:4] for r in rows] == [("k", 1, n, "stream") for n in (1, 2, 3, 4)]
    assert all("does not answer (ConnectionError)" in r[4] for r in rows)
    backlog = control.outbox.backlog()
    assert backlog.undelivered == 4
    assert 0 < backlog.oldest_seconds < 60


def test_the_acknowledgement_is_the_streams(
    control: Control,
    db: psycopg.Connection[Any],
    own_redis: OwnRedis,
    make_stream: Callable[..., EventStream],
) -> None:
    """What was appended before a flush is not noted as delivered after it, however late its relay is."""
    add_events(db, "k", 3)
    outbox, stream = control.outbox, make_stream()
    outbox.recount(stream.look)
    pending = outbox.pending("k")
    assert pending is not None
    answer = stream.append(pending)
    own_redis.flush()
    assert outbox.recount(stream.look)
    assert not outbox.delivered("k", answer.last, answer.generation)
    assert undelivered(db) == 3


# ── Redis loses its data ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["sweep", "send"])
def test_after_a_flush_everything_is_sent_again(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any], by: str
) -> None:
    """All of every migration, in order, whoever notices first; an event that comes meanwhile stands at its place."""
    relay = make_relay()
    add_events(db, "k", 700)
    add_events(db, "other", 3)
    relay.sweep()
    own_redis.flush()
    add_events(db, "k", 1)
    if by == "send":
        assert relay.send("k")
        check_order(own_redis.entries(), {"k": 701})
    assert relay.sweep().recounted is (by == "sweep")
    check_order(own_redis.entries(), {"k": 701, "other": 3})
    assert undelivered(db) == 0


def test_a_restart_that_loses_nothing_repeats_nothing(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any]
) -> None:
    relay = make_relay()
    add_events(db, "k", 5)
    relay.sweep()
    own_redis.kill()
    own_redis.start()
    add_events(db, "k", 2)
    swept = relay.sweep()
    assert (swept.recounted, swept.sent, swept.failed) == (True, 1, 0)
    check_order(own_redis.entries(), {"k": 7})


@pytest.mark.parametrize("by", ["sweep", "send"])
def test_the_last_second_of_the_file_is_sent_again(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any], by: str
) -> None:
    """A machine's crash takes what was acknowledged and not yet on the disk; the next event brings its own back."""
    relay = make_relay()
    add_events(db, "k", 20)
    relay.sweep()
    (file,) = own_redis.files
    size = file.stat().st_size
    add_events(db, "k", 20)
    add_events(db, "new", 5)
    relay.sweep()
    own_redis.kill()
    with file.open("r+b") as content:
        content.truncate(size + 100)
    own_redis.start()
    check_order(own_redis.entries(), {"k": 20})
    if by == "send":
        add_events(db, "k", 1)
        assert relay.send("k", attempts=1)
        check_order(own_redis.entries(), {"k": 41})
        relay.sweep()
        check_order(own_redis.entries(), {"k": 41, "new": 5})
        return
    relay.sweep()
    check_order(own_redis.entries(), {"k": 40, "new": 5})


def test_another_server_gets_everything(
    make_relay: Callable[..., Relay],
    own_redis: OwnRedis,
    db: psycopg.Connection[Any],
) -> None:
    """JIVS_REDIS_URL names another one; the stream there is complete, too."""
    add_events(db, "k", 5)
    make_relay(own_redis.url.replace("/0", "/1")).sweep()
    assert own_redis.entries() == []
    make_relay().sweep()
    check_order(own_redis.entries(), {"k": 5})


def test_what_is_older_than_the_stream_keeps_is_not_sent_again(
    make_relay: Callable[..., Relay], own_redis: OwnRedis, db: psycopg.Connection[Any]
) -> None:
    """After a flush the stream begins with the oldest event within its days, and goes on from there."""
    relay = make_relay()
    add_events(db, "k", 5)
    relay.sweep()
    db.execute("UPDATE jivs.migration_events SET at = at - interval '8 days' WHERE seq <= 3")
    own_redis.flush()
    add_events(db, "k", 1)
    relay.sweep()
    assert [e["seq"] for e in own_redis.entries()] == ["4", "5", "6"]
    for first, second in pairwise(own_redis.entries()):
        assert int(first["seq"]) + 1 == int(second["seq"])
    assert undelivered(db) == 0


def test_a_stream_that_forgets_at_once_is_a_failure(control: Control, db: psycopg.Connection[Any]) -> None:
    """What it acknowledges and then has not is not noted; it is given up, and left to the sweep."""

    class Forgetful:
        def __init__(self) -> None:
            self.numbers = count()

        def append(self, pending: Pending) -> Appended:
            return Appended(pending.last, "of before")

        def look(self, seen: StreamState) -> tuple[StreamState, dict[str, int]]:
            return StreamState(seen.server, f"mark {next(self.numbers)}"), {}

    add_events(db, "k", 2)
    assert not Relay(control.outbox, Forgetful()).send("k", attempts=1)
    assert undelivered(db) == 2
    found = db.execute("SELECT error FROM jivs.migration_event_failures").fetchall()
    assert found == [("The event stream loses what it is given",)]
