"""The control database: what a run records about its work, and what others read.

What belongs here: one method per verb, each one transaction, each fenced by the epoch it was given. What does
not: who may run (`control_claims.py`), deciding what to do next (`engine/migrate.py`) and the SQL (`control.sql`).

A state change and its event commit together or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from psycopg.types.json import Json, Jsonb

from jivs_pipeline.core.claims import Checkpoint, Claim
from jivs_pipeline.core.estimates import PastRun
from jivs_pipeline.core.events import EVENT_OF_STATUS, EventType, event_id
from jivs_pipeline.core.incidents import MOST, Incidents
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.breakers import name_of_endpoint
from jivs_pipeline.infra.control_claims import SQL, Claims, add_event, known_migration, one, overtaken, token
from jivs_pipeline.infra.control_link import Db, Row
from jivs_pipeline.infra.due_loads import DueLoads
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.housekeeping import Housekeeping
from jivs_pipeline.infra.outbox import Outbox
from jivs_pipeline.infra.past_runs import read_past_runs
from jivs_pipeline.infra.permits import PermitBook
from jivs_pipeline.infra.quarantine import Quarantine, forget_others
from jivs_pipeline.infra.request_cache import RequestCache
from jivs_pipeline.infra.requests import Requests

__all__ = ["Control"]


class Control(Claims):
    """Verbs on the control database. Thread-safe."""

    @property
    def outbox(self) -> Outbox:
        """The events, for who relays them."""
        return Outbox(self._link)

    def requests(self, cache: RequestCache | None = None) -> Requests:
        """The queue of requests."""
        return Requests(self._link, self._told, cache)

    def permits(self, *, lease_seconds: float, patience_seconds: float) -> PermitBook:
        """The permits of this process."""
        return PermitBook(self._link, lease_seconds=lease_seconds, patience_seconds=patience_seconds)

    @property
    def quarantine(self) -> Quarantine:
        """Rejected rows."""
        return Quarantine(self._link)

    @property
    def due_loads(self) -> DueLoads:
        """Scheduled migrations."""
        return DueLoads(self._link, self._told)

    @property
    def housekeeping(self) -> Housekeeping:
        """What is cleaned up at night, and compared every week."""
        return Housekeeping(self._link)

    def reschedule(self, spec: Spec) -> None:
        """Give a migration the schedule of this spec, or none, where the spec is the same otherwise."""
        self.due_loads.reschedule(spec)

    # Reading

    def control_id(self) -> str:
        """Identifies this control database."""
        return self._link.do(lambda db: one(db, "control_id", {})["control_id"])

    def migration(self, key: str) -> Row:
        """The migration's row.

        Raises:
            ConfigError: there is no such key.
        """
        return self._link.do(lambda db: known_migration(db, key))

    def find(self, key: str) -> Row | None:
        """The migration's row, or None."""
        return self._link.do(lambda db: db.execute(SQL["migration"], {"key": key}).fetchone())

    def migrations(self) -> list[Row]:
        """All migrations, the latest changed first."""
        return self._all("migrations", {})

    def running(self) -> list[Row]:
        """Migrations that run, or whose run is gone: key, run_id, requested."""
        return self._all("running", {})

    def interrupted(self) -> list[Row]:
        """Migrations whose run was stopped without anybody's wish: key, run_id, spec."""
        return self._all("interrupted", {})

    def checkpoints(self, key: str) -> list[Checkpoint]:
        """What the runs of this migration have finished, per table and phase."""
        return [
            Checkpoint(
                r["table_name"], Phase(r["phase"]), r["generation"], r["state"] == "done",
                r["rows"], r["bytes"], r["chunks"], r["seconds"], r["data"],
            )
            for r in self._all("checkpoints", {"key": key})
        ]  # fmt: skip

    def target_tables(self) -> list[Row]:
        """Tables that were loaded: target_name, table_name (`schema.table`), source_name, key."""
        return self._all("target_tables", {})

    def performance(self, key: str) -> list[Row]:
        """Measurements of the phases, oldest first."""
        return self._all("performance", {"key": key})

    def past_runs(self) -> list[PastRun]:
        """What migrations took before; see `infra/past_runs.py`."""
        return self._link.do(read_past_runs)

    def incidents(self, key: str) -> Incidents:
        """What the migration met since it was begun anew.

        Raises:
            ConfigError: there is no such key.
        """

        def read(db: Db) -> Incidents:
            row = known_migration(db, key)
            ends = {
                end: name_of_endpoint(row[f"{end}_name"], row[f"{end}_fingerprint"])
                for end in ("source", "target")
            }
            asked = {"key": key, "most": MOST, **ends}
            lists = (
                db.execute(SQL[name], asked).fetchall() for name in ("retries", "endpoint_events", "rejected")
            )
            return Incidents(*lists)

        return self._link.do(read)

    def events(self, key: str, after: int = 0) -> list[Row]:
        """Events in order, from the one after `after`."""
        rows = self._all("events", {"key": key, "after": after})
        return [{"id": event_id(r["key"], r["seq"]), **r} for r in rows]

    def _all(self, name: str, parameters: Mapping[str, Any]) -> list[Row]:
        return self._link.do(lambda db: db.execute(SQL[name], parameters).fetchall())

    # Writing, fenced

    def set_phase(self, claim: Claim, phase: Phase) -> None:
        """Enter a phase, and say so in an event."""
        self._tell(
            claim,
            EventType.PHASE,
            {"phase": phase, "run_id": claim.run_id},
            lambda db: self._fenced(db, claim, "set_phase", {"phase": phase}),
        )

    def save_plan(self, claim: Claim, plan: Plan, kept: Sequence[str]) -> None:
        """Store the plan; checkpoints of tables that are not `kept` are forgotten with the same stroke."""
        stored = {
            "plan": Jsonb(plan.model_dump(mode="json")),
            "plan_hash": plan.hash,
            "rows_total": plan.rows,
        }

        def work(db: Db) -> None:
            self._fenced(db, claim, "save_plan", stored)
            db.execute(SQL["forget_tables"], {"key": claim.key, "epoch": claim.epoch, "kept": list(kept)})
            forget_others(db, claim, kept)
            failpoint("plan_before_commit")

        self._link.do(work)
        failpoint("plan_after_commit")

    def checkpoint(self, claim: Claim, point: Checkpoint) -> None:
        """Record one phase of one table; a loaded table is also an event."""
        stored = {
            "table": point.table, "phase": point.phase, "generation": point.generation,
            "state": "done" if point.ok else "failed", "rows": point.rows, "bytes": point.bytes,
            "chunks": point.chunks, "seconds": point.seconds, "data": Jsonb(dict(point.data)),
        }  # fmt: skip

        def work(db: Db) -> None:
            one(db, "lock_migration", {"key": claim.key})
            self._fenced(db, claim, "write_checkpoint", stored)
            failpoint("checkpoint_before_commit")

        if point.phase is Phase.LOAD and point.ok:
            self._tell(claim, EventType.TABLE_LOADED, {"table": point.table, "rows": point.rows}, work)
        else:
            self._link.do(work)
        failpoint("checkpoint_after_commit")

    def progress(self, claim: Claim, rows: int, size: int) -> None:
        """Rows and bytes that have reached the target so far."""
        self._link.do(lambda db: self._fenced(db, claim, "progress", {"rows": rows, "bytes": size}))

    def retry(
        self,
        claim: Claim,
        phase: Phase,
        table: str,
        chunk: int | None,
        attempt: int,
        error: str,
        delay: float,
    ) -> None:
        """Record that a chunk is tried again."""
        stored = {
            "phase": phase, "table": table, "chunk": chunk, "attempt": attempt, "error": error, "delay": delay,
        }  # fmt: skip
        self._tell(
            claim,
            EventType.RETRIED,
            {"table": table, "chunk": chunk, "attempt": attempt},
            lambda db: self._fenced(db, claim, "add_retry", stored),
        )

    def measure(self, claim: Claim, phase: Phase, values: Mapping[str, Any]) -> None:
        """Record what a phase took."""
        stored = {**values, "samples": json.dumps(values["samples"]), "run_id": claim.run_id, "phase": phase}

        def work(db: Db) -> None:
            one(db, "lock_migration", {"key": claim.key})
            fence = {"key": claim.key, "epoch": claim.epoch}
            if db.execute(SQL["fence"], fence).fetchone() is None:
                raise overtaken(claim)
            db.execute(SQL["add_performance"], {**fence, **stored})

        self._link.do(work)

    def end(
        self, claim: Claim, status: Status, *, error: Mapping[str, Any] | None, result: Mapping[str, Any]
    ) -> None:
        """End the run: status, document, event and the lock's release, at once."""
        ended = {"status": status, "error": Jsonb(error) if error else None, "result": Json(dict(result))}

        def work(db: Db) -> None:
            self._fenced(db, claim, "end_run", ended)
            db.execute(SQL["release"], {"key": claim.key, "owner": claim.owner.owner})
            failpoint("end_before_commit")

        self._tell(claim, EVENT_OF_STATUS[status], {"status": status, "run_id": claim.run_id}, work)
        failpoint("end_after_commit")

    def _tell(
        self, claim: Claim, kind: EventType, data: Mapping[str, Any], change: Callable[[Db], None]
    ) -> None:
        """A change with its event. Where the event stands, the change does too, and is not made again."""
        made = token()

        def work(db: Db) -> None:
            one(db, "lock_migration", {"key": claim.key})
            if add_event(db, claim.key, kind, data, made):
                change(db)

        self._link.do(work)
        self._told(claim.key)

    def _fenced(self, db: Db, claim: Claim, name: str, parameters: Row) -> None:
        done = db.execute(SQL[name], {"key": claim.key, "epoch": claim.epoch, **parameters})
        if done.rowcount != 1:
            raise overtaken(claim)
