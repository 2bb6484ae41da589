"""Row 9: events through kills and flushes of Redis, as a consumer of the stream gets them.

What belongs here: many events, many faults, one reader as the documentation has it. What does not: single steps of
the relay (`integration/test_events.py`).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.engine.relay import Relay, RelayThread
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.event_stream import EventStream
from jivs_pipeline_tests.event_rows import add_events, check_order
from jivs_pipeline_tests.fix_faults import FULL, rounds
from jivs_pipeline_tests.fix_postgresql import MakeDatabase
from jivs_pipeline_tests.fix_redis import OwnRedis

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

KEYS = [f"k{n}" for n in range(8)]
EVENTS, KILLS, FLUSHES = (10_000, 20, 5) if FULL else (800, 3, 2)
_DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"


class Reader:
    """The consumer of the documentation; it is started again when Redis was gone."""

    def __init__(self, server: OwnRedis) -> None:
        names: dict[str, Any] = {"redis": redis}
        (code,) = re.findall(r"```python\n(def consume.*?)```", _DOCUMENT.read_text(), re.DOTALL)
        exec(code, names)
        self._consume = names["consume"]
        self._server = server
        self._over = threading.Event()
        self.last: dict[str, int] = {}
        self.handled: list[dict[str, str]] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._server.client() as client:
                while not self._over.is_set():
                    try:
                        self._consume(client, "group", "reader", self.handled.append, self.last)
                    except (redis.ConnectionError, redis.TimeoutError):
                        time.sleep(0.05)
        except BaseException as error:
            self.error = error
            raise

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)
        assert self.error is None
        assert not self._thread.is_alive()


class Sweeper:
    """The fallback, oftener than every ten seconds."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._over = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.wait(0.3):
                self._relay.sweep()
        except JivsError as error:
            self.error = error

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert self.error is None


def test_no_event_is_lost_or_out_of_order(make_database: MakeDatabase, own_redis: OwnRedis) -> None:
    """Three relays and the fallback at once; the reader handles each event once, in the order of its migration."""
    for one in rounds(9, quick=1):
        with one:
            one.faults = KILLS + FLUSHES
            control = Control(database := make_database(), timeout_seconds=20)
            control.open()
            streams = [EventStream(own_redis.url, control.control_id()) for _ in range(4)]
            relays = [Relay(control.outbox, stream) for stream in streams]
            threads = [RelayThread(lambda relay=relay: relay) for relay in relays[1:]]
            reader, sweeper = Reader(own_redis), Sweeper(relays[0])
            faults = [own_redis.kill] * KILLS + [own_redis.flush] * FLUSHES
            one.rng.shuffle(faults)
            made: Counter[str] = Counter()
            with psycopg.connect(database, autocommit=True) as db:
                for fault in faults:
                    left = EVENTS // len(faults)
                    while left:
                        key, number = one.rng.choice(KEYS), min(left, one.rng.randint(1, 15))
                        add_events(db, key, number)
                        made[key] += number
                        left -= number
                        one.rng.choice(threads).tell(key)
                    time.sleep(one.rng.random() * 0.1)
                    fault()
                    if fault == own_redis.kill:
                        time.sleep(one.rng.random() * 0.2)
                        own_redis.start()
            assert made.total() == EVENTS
            for thread in threads:
                thread.stop(20)
            sweeper.stop()
            deadline = time.monotonic() + 60
            while (
                (swept := relays[0].sweep()).recounted or swept.failed or control.outbox.backlog().undelivered
            ):
                assert time.monotonic() < deadline, (swept, control.outbox.backlog())
            while reader.last != made:
                assert time.monotonic() < deadline, (made, reader.last, reader.error)
                time.sleep(0.05)
            reader.stop()
            one.note(f"{len(own_redis.entries())} entries at the end, {len(reader.handled)} handled")
            check_order(reader.handled, made)
            check_order(own_redis.entries(), made)
            control.close()
            for stream in streams:
                stream.close()
