"""Relays events from the outbox to their receivers: in order per migration, at least once, and never in a run's way.

What belongs here: when to send, how often to try, whom to leave the rest to. What does not: the outbox, the stream
and the webhook themselves (`infra/`).

The process that made a change sends its event from a thread of its own (`RelayThread`), three attempts; what is left,
and what Redis has lost since, `Relay.sweep` sends, which the sensor `event_fallback` calls every ten seconds.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from jivs_pipeline.core.errors import JivsError, TransientError
from jivs_pipeline.core.events import Appended, Event, Pending, StreamState

__all__ = ["EventOutbox", "Relay", "RelayThread", "Stream", "Swept", "Webhook"]

_LOG = logging.getLogger("jivs_pipeline")
_ATTEMPTS = 3
_PAUSES = (0.1, 0.4)
_ROUNDS = 10
"""How often in a row the stream may lose what it was just given."""
_POST_SECONDS = 30.0
"""Longer than a post can take: the right to make it must not run out meanwhile."""
_LAST_SECONDS = 2.0
"""How long a process that ends waits for its last events to be sent."""
_QUIET_SECONDS = 5.0

Look = Callable[[StreamState], tuple[StreamState, dict[str, int]] | None]


class EventOutbox(Protocol):
    """Events and who has acknowledged them; see `infra/outbox.py`."""

    def waiting(self) -> list[str]: ...  # noqa: D102 - documented there
    def pending(self, key: str) -> Pending | None: ...  # noqa: D102
    def delivered(self, key: str, upto: int, generation: str) -> bool: ...  # noqa: D102
    def lost(self, key: str, after: int) -> None: ...  # noqa: D102
    def recount(self, look: Look) -> bool: ...  # noqa: D102
    def failed(self, key: str, receiver: str, error: str) -> None: ...  # noqa: D102
    def waiting_for_webhook(self) -> list[str]: ...  # noqa: D102
    def next_for_webhook(self, key: str, holder: str, seconds: float) -> Event | None: ...  # noqa: D102
    def posted(self, event: Event) -> None: ...  # noqa: D102
    def release_webhook(self, key: str, holder: str, *, failed: bool) -> None: ...  # noqa: D102


class Stream(Protocol):
    """The Redis Stream; see `infra/event_stream.py`."""

    def append(self, pending: Pending) -> Appended: ...  # noqa: D102
    def look(self, seen: StreamState) -> tuple[StreamState, dict[str, int]] | None: ...  # noqa: D102


class Webhook(Protocol):
    """Somebody's HTTP endpoint; see `infra/webhook.py`."""

    def post(self, event: Event) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: whether it had to count anew what the stream has, and how many migrations it sent, posted, and
    failed to send.
    """

    recounted: bool
    sent: int
    posted: int
    failed: int


class Relay:
    """Sends what the outbox holds. Thread-safe, and any number may work at once.

    Args:
        webhook: None where none is configured.
    """

    def __init__(self, outbox: EventOutbox, stream: Stream, webhook: Webhook | None = None) -> None:
        self._outbox = outbox
        self._stream = stream
        self._webhook = webhook

    def send(self, key: str, *, attempts: int = _ATTEMPTS) -> bool:
        """Send the events of one migration to every receiver, and try again where that fails.

        Returns:
            Whether the stream has them all. What is missing, there or at the webhook, is left to the sweep.
        """
        done = self._attempt(key, "stream", lambda: self._to_stream(key), attempts)
        if self._webhook is not None:
            self._post(self._webhook, key, attempts, _POST_SECONDS / 2)
        return done

    def sweep(self, *, seconds: float = 30.0) -> Swept:
        """Send what is left of all migrations, also what the stream has lost. One attempt each.

        Args:
            seconds: no new migration is begun after this; the next sweep goes on.

        Raises:
            TransientError: the control database does not answer.
        """
        deadline = time.monotonic() + seconds
        recounted, sent, posted, failed = False, 0, 0, 0
        waiting = self._outbox.waiting()
        try:
            if self._outbox.recount(self._stream.look):
                recounted, waiting = True, self._outbox.waiting()
        except JivsError as error:
            failed += 1
            for key in waiting[:1]:  # it is the stream that fails, not each of its events
                self._outbox.failed(key, "stream", str(error))
            waiting = []
        for key in waiting:
            if time.monotonic() >= deadline:
                break
            if not self._attempt(key, "stream", lambda key=key: self._to_stream(key), 1):
                failed += 1
                break
            sent += 1
        if self._webhook is not None:
            for key in self._outbox.waiting_for_webhook():
                if (left := deadline - time.monotonic()) <= 0:
                    break
                fine = self._post(self._webhook, key, 1, left)
                posted, failed = posted + fine, failed + (not fine)
        return Swept(recounted, sent, posted, failed)

    def _attempt(self, key: str, receiver: str, work: Callable[[], None], attempts: int) -> bool:
        for attempt in range(attempts):
            try:
                work()
            except JivsError as error:
                # The control database may be what failed; then there is nowhere to record it.
                with suppress(JivsError):
                    self._outbox.failed(key, receiver, error.message)
                if attempt + 1 < attempts:
                    time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            else:
                return True
        return False

    def _to_stream(self, key: str) -> None:
        best, idle = -1, 0
        while (pending := self._outbox.pending(key)) is not None:
            answer = self._stream.append(pending)
            if answer.last < pending.first - 1:
                self._outbox.lost(key, answer.last)
            if not self._outbox.delivered(key, min(answer.last, pending.last), answer.generation):
                # It is another stream than was last seen, or has lost data, perhaps what it has just answered for.
                self._outbox.recount(self._stream.look)
            best, idle = max(best, answer.last), 0 if answer.last > best else idle + 1
            if idle > _ROUNDS:
                raise TransientError("The event stream loses what it is given")

    def _post(self, webhook: Webhook, key: str, attempts: int, seconds: float) -> bool:
        holder, deadline = str(uuid.uuid4()), time.monotonic() + seconds

        def work() -> None:
            while time.monotonic() < deadline:
                event = self._outbox.next_for_webhook(key, holder, _POST_SECONDS)
                if event is None:
                    return
                webhook.post(event)
                self._outbox.posted(event)

        fine = self._attempt(key, "webhook", work, attempts)
        with suppress(JivsError):  # else it runs out
            self._outbox.release_webhook(key, holder, failed=not fine)
        return fine


class RelayThread:
    """Sends events in the background of the process that made them; whoever tells it of one never waits.

    A stream that fails is left alone for some seconds; the fallback looks after the events meanwhile, and so does the
    end of the process.

    Args:
        relay: makes the relay when the first event is there.
    """

    def __init__(self, relay: Callable[[], Relay]) -> None:
        self._make = relay
        self._changed = threading.Condition()
        self._keys: dict[str, None] = {}
        self._left: dict[str, None] = {}
        self._quiet_until = 0.0
        self._over = False
        self._thread: threading.Thread | None = None

    def tell(self, key: str) -> None:
        """This migration has a new event."""
        with self._changed:
            if self._over:
                return
            self._keys[key] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jivs-events", daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self, seconds: float = _LAST_SECONDS) -> None:
        """Send what is there, for as long as given; the rest is left to the sweep."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._keys and not self._over:
                    self._changed.wait()
                last = self._over
                if last:
                    self._keys, self._left = {**self._left, **self._keys}, {}
                if not self._keys:
                    return
                del self._keys[key := next(iter(self._keys))]
            if not last and time.monotonic() < self._quiet_until:
                self._left[key] = None
                continue
            try:
                done = self._make().send(key, attempts=1 if last else _ATTEMPTS)
            except Exception as error:  # noqa: BLE001 - events must never end or trouble the run
                _LOG.warning("Events of %s wait for the fallback: %s", key, type(error).__name__)
                done = False
            if not done and not last:
                self._left[key], self._quiet_until = None, time.monotonic() + _QUIET_SECONDS
