"""The outbox: events in the control database, and which of them their receivers have acknowledged.

What belongs here: the verbs on `migration_events` of who relays them. What does not: writing events, which the
changes of state do themselves (`control.py`), and the receivers (`event_stream.py`, `webhook.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from typing import Any

from psycopg.types.json import Jsonb

from jivs_pipeline.core.events import KEEP_DAYS, Backlog, Event, Pending, StreamState
from jivs_pipeline.infra.control_link import ControlLink, Db, Row
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["Outbox"]

_SQL = load_blocks("jivs_pipeline.infra", "outbox.sql")
_BATCH = 500


class Outbox:
    """Verbs on the outbox. Thread-safe; each is one transaction, tried once: whoever relays comes again.

    Args:
        link: to the control database.
        keep_days: what the stream has lost is sent again if it is no older than this.
    """

    def __init__(self, link: ControlLink, *, keep_days: int = KEEP_DAYS) -> None:
        self._link = link
        self._days = keep_days

    def control_id(self) -> str:
        """Identifies this control database."""
        return self._link.once(lambda db: _one(db, "control_id"))["control_id"]

    # For the stream

    def waiting(self) -> list[str]:
        """Migrations with events that the stream has not acknowledged, the longest waiting first."""
        return [r["key"] for r in self._link.once(lambda db: db.execute(_SQL["waiting_keys"]).fetchall())]

    def pending(self, key: str) -> Pending | None:
        """The migration's events from the first that was not acknowledged, in order; None if all were."""
        wanted = {"key": key, "days": self._days, "limit": _BATCH}
        rows = self._link.once(lambda db: db.execute(_SQL["pending"], wanted).fetchall())
        return Pending(rows[0]["base"], tuple(_event(r) for r in rows)) if rows else None

    def delivered(self, key: str, upto: int, generation: str) -> bool:
        """Note that the stream has acknowledged events.

        Args:
            generation: of the stream when it did.

        Returns:
            False when the stream has lost data since, so that nothing can be noted.
        """

        def work(db: Db) -> bool:
            if _state(db, "stream_shared").generation != generation:
                return False
            db.execute(_SQL["delivered"], {"key": key, "upto": upto})
            return True

        return self._link.once(work)

    def lost(self, key: str, after: int) -> None:
        """Note that the stream has this migration's events up to `after` only."""
        lost = {"key": key, "after": after, "days": self._days}
        self._link.once(lambda db: db.execute(_SQL["lost"], lost))

    def recount(self, look: Callable[[StreamState], tuple[StreamState, dict[str, int]] | None]) -> bool:
        """Compare the stream with what was noted, one process at a time.

        Args:
            look: is given what was last seen of the stream, and returns None when it is as it was; else what
                there is now, and the last number of each migration that it has.

        Returns:
            Whether it was another or had lost data. What it has not is to be sent again.
        """

        def work(db: Db) -> bool:
            found = look(_state(db, "stream_locked"))
            if found is None:
                return False
            now, kept = found
            db.execute(_SQL["lost_anywhere"], {"kept": Jsonb(kept), "days": self._days})
            db.execute(_SQL["stream_seen"], {"server": now.server, "generation": now.generation})
            return True

        return self._link.once(work)

    def failed(self, key: str, receiver: str, error: str) -> None:
        """Record an attempt that failed, at the migration's first event that waits for this receiver."""
        self._link.once(
            lambda db: db.execute(_SQL["failed"], {"key": key, "receiver": receiver, "error": error})
        )

    def backlog(self) -> Backlog:
        """How many events wait for the stream."""
        row = self._link.once(lambda db: _one(db, "backlog"))
        return Backlog(row["undelivered"], row["oldest_seconds"])

    # For the webhook

    def webhook_begins(self) -> None:
        """There is a webhook; what happened before it was first there is not for it."""
        self._link.once(lambda db: db.execute(_SQL["webhook_begins"]))

    def waiting_for_webhook(self) -> list[str]:
        """Migrations with events to post which nobody is posting, and which are not left alone after a failure."""
        return [r["key"] for r in self._link.once(lambda db: db.execute(_SQL["webhook_keys"]).fetchall())]

    def next_for_webhook(self, key: str, holder: str, seconds: float) -> Event | None:
        """The next event to post, with the right to do so; None when there is none or somebody else has the right."""

        def work(db: Db) -> Event | None:
            claim = {"key": key, "holder": holder, "seconds": seconds}
            if db.execute(_SQL["claim_webhook"], claim).fetchone() is None:
                return None
            row = db.execute(_SQL["next_for_webhook"], {"key": key}).fetchone()
            return _event(row) if row else None

        return self._link.once(work)

    def posted(self, event: Event) -> None:
        """Note that the webhook has acknowledged an event."""
        self._link.once(lambda db: db.execute(_SQL["posted"], {"key": event.key, "seq": event.seq}))

    def release_webhook(self, key: str, holder: str, *, failed: bool) -> None:
        """Give the right to post back; after a failure the migration's events are left alone for a while."""
        name = "postpone_webhook" if failed else "release_webhook"
        self._link.once(lambda db: db.execute(_SQL[name], {"key": key, "holder": holder}))


def _event(row: Row) -> Event:
    at = row["at"].astimezone(UTC).isoformat()
    return Event(row["key"], row["seq"], row["type"], at, json.dumps(row["data"], ensure_ascii=False))


def _one(db: Db, name: str) -> dict[str, Any]:
    return db.execute(_SQL[name]).fetchone() or {}


def _state(db: Db, name: str) -> StreamState:
    row = _one(db, name)
    return StreamState(row["server"] or "", row["generation"] or "")
