"""Scheduled migrations in the control database: which there are, and asking for the load that is due.

What belongs here: the verbs of who looks after schedules. What does not: when something is due (`core/cron.py`) and
launching, which is the queue's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from psycopg.types.json import Jsonb

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.schedules import Scheduled
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.infra.control_link import ControlLink, Db, Row
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["DueLoads"]

_SQL = load_blocks("jivs_pipeline.infra", "due_loads.sql")


class DueLoads:
    """Verbs on schedules. Thread-safe; each is one transaction and harmless when done twice.

    Args:
        link: to the control database.
        told: is told the key of a migration that has a new event.
    """

    def __init__(self, link: ControlLink, told: Callable[[str], None]) -> None:
        self._link = link
        self._told = told

    def scheduled(self) -> list[Scheduled]:
        """Migrations with a schedule that may be loaded again now."""
        rows = self._link.do(lambda db: db.execute(_SQL["scheduled"]).fetchall())
        return [seen for row in rows if (seen := _seen(row)) is not None]

    def ask(self, seen: Scheduled, due: datetime) -> bool:
        """Ask for the load of a certain time: the migration begins anew and a request is queued, both or neither.

        Returns:
            False when this time's load was asked for already, or the migration is no longer as it was seen.
        """
        key = seen.spec.key
        asked = {
            "key": key, "status": seen.status, "changed": seen.changed, "due": due, "new_id": uuid.uuid4(),
            "idempotency_key": f"schedule:{key}:{due.astimezone(UTC).isoformat()}", "body_hash": seen.spec.hash,
        }  # fmt: skip

        def work(db: Db) -> bool:
            if (row := db.execute(_SQL["lock_due"], asked).fetchone()) is None:
                return False
            db.execute(_SQL["begin_anew"], asked)
            failpoint("inside_due")
            db.execute(_SQL["submit"], {**asked, "spec": Jsonb(row["spec"])})
            failpoint("due_before_commit")
            return True

        done = self._link.do(work)
        failpoint("due_after_commit")
        if done:
            self._told(key)
        return done

    def reschedule(self, spec: Spec) -> None:
        """Give a migration the schedule of this spec, or none, where the spec is the same otherwise."""
        wanted = {
            "key": spec.key, "spec": Jsonb(spec.model_dump(mode="json")), "spec_hash": spec.hash,
            "schedule": spec.schedule,
        }  # fmt: skip
        self._link.do(lambda db: db.execute(_SQL["reschedule"], wanted))


def _seen(row: Row) -> Scheduled | None:
    try:
        spec = parse_spec(row["spec"])
    except SpecError:
        return None  # an SQL client's; its run has said what is wrong
    return Scheduled(spec, Status(row["status"]), row["after"], row["now"], row["changed"])
