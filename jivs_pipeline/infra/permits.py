"""Permits for connections, counted in the control database over all processes.

What belongs here: taking them, all at once and atomically, giving them back, and letting others see that their holder
lives. What does not: who needs how many (`sources/postgresql.py`, `target_sessions.py`), and waiting for them, which is
with the retries.

A permit belongs to a process. It is gone when that is proved dead or was silent for longer than the lease, as with the
locks of migrations; it is not tied to these, because connections are opened before a migration is taken, too.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from jivs_pipeline.core.errors import Crowded, JivsError
from jivs_pipeline.infra.control_link import ControlLink, Db, Row
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.owner import is_dead, this_process

__all__ = ["EndpointPermits", "PermitBook"]

_SQL = load_blocks("jivs_pipeline.infra", "permits.sql")
_LONGEST_BEAT_SECONDS = 5.0
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Held:
    """See `core.permits.Permit`."""

    book: PermitBook
    permit_id: str
    count: int

    def give_back(self) -> None:
        self.book.give_back(self.permit_id)


@dataclass(frozen=True, slots=True)
class EndpointPermits:
    """See `core.permits.Permits`.

    Args:
        endpoint: see `breakers.endpoint_name`.
        place: what it is called in sentences: `source 'legacy'`.
        key: the migration that asks.
        limit: how many connections all may have together, unless the caller says it.
        limited_by: what a user would change.
    """

    book: PermitBook
    endpoint: str
    place: str
    key: str
    limit: int
    limited_by: str

    def take(self, wanted: int, *, least: int = 1, of: int | None = None) -> _Held:
        """Leave for `wanted` connections, or for fewer when no more are free.

        Raises:
            Crowded: not so many are free; the sentence names who has them.
        """
        limit = self.limit if of is None else of
        permit_id, count, others = self.book.take(self.endpoint, self.key, wanted, least, limit)
        if count:
            return _Held(self.book, permit_id, count)
        named = [f"{o['key']} ({o['permits']}, process {o['pid']} on {o['host']})" for o in others[:_NAMED]]
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        held = f"held by {', '.join(named)}{more}" if named else "and this migration alone needs more"
        raise Crowded(
            f"Of the {limit} connections that {self.place} may have, {least} more are needed for"
            f" {self.key} and {sum(o['permits'] for o in others)} are {held}",
            hint=f"Run it again when they have ended, or {self.limited_by}",
            patience_seconds=self.book.patience_seconds,
        )


class PermitBook:
    """The permits of this process. Thread-safe.

    Args:
        link: to the control database.
        lease_seconds: after so long a silence a holder is taken for dead.
        patience_seconds: how long a permit is worth waiting for.
    """

    def __init__(self, link: ControlLink, *, lease_seconds: float, patience_seconds: float) -> None:
        self._link = link
        self._lease = lease_seconds
        self.patience_seconds = patience_seconds
        owner = this_process()
        self._holder = {
            "host": owner.host, "boot_id": owner.boot_id, "pid": owner.pid,
            "process_start": owner.process_start, "lease_seconds": lease_seconds,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._held: dict[str, Row] = {}
        self._owed: set[str] = set()
        """Permits whose connections are closed, and that the control database does not know to be free yet."""
        self._closed = threading.Event()
        self._beat: threading.Thread | None = None

    def close(self) -> None:
        """Give back what is left; what does not reach the control database is gone with this process."""
        self._closed.set()
        with self._lock:
            beat = self._beat
            self._owed |= self._held.keys()
            self._held.clear()
        if beat is not None:
            beat.join(10)
        self._settle()

    def take(
        self, endpoint: str, key: str, wanted: int, least: int, limit: int
    ) -> tuple[str, int, Sequence[Row]]:
        """Returns the permit, for how many connections it is (0 when there is none), and who has the others."""
        row: Row = {"permit_id": str(uuid.uuid4()), "endpoint": endpoint, "key": key, **self._holder}

        def work(db: Db) -> tuple[int, Sequence[Row]]:
            db.execute(_SQL["lock_endpoint"], {"endpoint": endpoint})
            known = db.execute(_SQL["permits"], {"endpoint": endpoint}).fetchall()
            for own in known:
                if own["permit_id"] == row["permit_id"]:
                    return own["permits"], []  # the commit of an earlier attempt stands
            others = [o for o in known if not _gone(o)]
            dead = [o["permit_id"] for o in known if o not in others]
            if dead:
                db.execute(_SQL["give_back"], {"permit_ids": dead})
            count = min(wanted, limit - sum(o["permits"] for o in others))
            if count < least:
                return 0, others
            db.execute(_SQL["take_permit"], {**row, "permits": count})
            return count, others

        count, others = self._link.do(work)
        if count:
            with self._lock:
                self._held[row["permit_id"]] = {**row, "permits": count}
                if self._beat is None and not self._closed.is_set():
                    self._beat = threading.Thread(target=self._beating, name="jivs-permits", daemon=True)
                    self._beat.start()
        return row["permit_id"], count, others

    def give_back(self, permit_id: str) -> None:
        """The connections are closed. Never fails: what cannot be said now is said later."""
        with self._lock:
            if self._held.pop(permit_id, None) is None:
                return
            self._owed.add(permit_id)
        self._settle()

    def _settle(self) -> bool:
        with self._lock:
            owed = sorted(self._owed)
        if not owed:
            return True
        try:
            self._link.once(lambda db: db.execute(_SQL["give_back"], {"permit_ids": owed}))
        except JivsError:
            return False
        with self._lock:
            self._owed.difference_update(owed)
        return True

    def _beating(self) -> None:
        while not self._closed.wait(min(_LONGEST_BEAT_SECONDS, self._lease / 3)):
            settled = self._settle()
            with self._lock:
                held = list(self._held.values())
                if not held and settled:
                    self._beat = None
                    return
            try:
                for permit in held:
                    self._link.once(lambda db, permit=permit: db.execute(_SQL["take_permit"], permit))
            except JivsError:
                continue  # the next beat tries again; until the lease is over nobody takes it for dead
            self._take_back(held)

    def _take_back(self, beaten: Sequence[Row]) -> None:
        """What was given back during the beat may have been put back by it."""
        with self._lock:
            self._owed.update(p["permit_id"] for p in beaten if p["permit_id"] not in self._held)
        self._settle()


def _gone(row: Row) -> bool:
    return bool(row["silent"]) or is_dead(row["boot_id"], row["pid"], row["process_start"])
