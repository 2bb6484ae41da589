"""The control database: every verb that reads or changes the state of a migration.

What belongs here: one method per verb, each one transaction, each fenced by the epoch it was given.
What does not: deciding what to do next (`engine/migrate.py`) and the SQL (`control.sql`).

A state change and its event commit together or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Json, Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

from jivs_pipeline.core.claims import Checkpoint, Claim, Ends, Owner
from jivs_pipeline.core.errors import ConfigError, ConflictError, FencedError, ResourceError, TerminalError
from jivs_pipeline.core.events import EVENT_OF_STATUS, EventType, event_id
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import RESUMABLE, Phase, Status, allowed
from jivs_pipeline.infra import revisions
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.owner import is_dead
from jivs_pipeline.infra.postgresql import map_error

__all__ = ["Control", "Holder"]

_SQL = load_blocks("jivs_pipeline.infra", "control.sql")
_FORBIDDEN_CHANGE = "JV001"  # raised by jivs.check_transition
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a migration now, and for how many seconds nothing was heard from them."""

    owner: str
    run_id: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    since: str
    silent_seconds: float
    lease_seconds: float

    @property
    def gone(self) -> bool:
        """Whether the migration may be taken: the holder is proved dead, or silent beyond its lease."""
        return self.silent_seconds > self.lease_seconds or is_dead(self.boot_id, self.pid, self.process_start)


class Control:
    """Verbs on the control database. Thread-safe.

    Args:
        url: PostgreSQL URL of the control database.
        timeout_seconds: longest wait for a connection.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 30.0) -> None:
        self._pool: ConnectionPool[psycopg.Connection[Row]] = ConnectionPool(
            url,
            min_size=1,
            max_size=4,
            timeout=timeout_seconds,
            kwargs={
                "row_factory": dict_row,
                "application_name": "jivs control",
                "connect_timeout": 10,
                "options": "-c timezone=UTC -c statement_timeout=30s -c lock_timeout=20s",
            },
            # A server that restarted leaves dead connections in the pool; a verb must not pay for them.
            check=_check,
            open=False,
        )
        self._timeout = timeout_seconds

    def open(self) -> None:
        """Connect, and bring the schema up to date where it is not.

        Raises:
            ConfigError: the control database does not let us in.
        """
        try:
            self._pool.open(wait=True, timeout=self._timeout)
        except PoolTimeout as error:
            self._pool.close()
            raise ConfigError(
                "The control database does not answer", hint="Check JIVS_CONTROL_URL and that its server runs"
            ) from error
        with self._pool.connection() as connection:
            if revisions.pending(connection, "control"):
                revisions.upgrade(connection, "control")

    def close(self) -> None:
        """Give the connections back."""
        self._pool.close()

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[Row]]:
        try:
            with self._pool.connection() as connection:
                yield connection
        except psycopg.errors.DiskFull as error:
            raise ResourceError(
                "The control database's disk is full", hint="Free space and run again"
            ) from error
        except PoolTimeout as error:
            raise TerminalError(
                "The control database does not answer", hint="Start it and run again"
            ) from error
        except psycopg.Error as error:
            if error.sqlstate == _FORBIDDEN_CHANGE:
                raise ConflictError(
                    f"The control database refuses: {error.diag.message_primary}", hint="See jivs status"
                ) from error
            raise map_error(error, "the control database") from error

    # Reading

    def control_id(self) -> str:
        """Identifies this control database."""
        with self._transaction() as db:
            return _one(db, "control_id", {})["control_id"]

    def migration(self, key: str) -> Row:
        """The migration's row.

        Raises:
            ConfigError: there is no such key.
        """
        with self._transaction() as db:
            row = db.execute(_SQL["migration"], {"key": key}).fetchone()
            if row is None:
                keys = [r["key"] for r in db.execute(_SQL["migrations"]).fetchall()]
                raise ConfigError(
                    f"There is no migration {key!r}", hint=did_you_mean(key, keys, "known migrations")
                )
            return row

    def find(self, key: str) -> Row | None:
        """The migration's row, or None."""
        with self._transaction() as db:
            return db.execute(_SQL["migration"], {"key": key}).fetchone()

    def migrations(self) -> list[Row]:
        """All migrations, the latest changed first."""
        with self._transaction() as db:
            return db.execute(_SQL["migrations"]).fetchall()

    def checkpoints(self, key: str) -> list[Checkpoint]:
        """What the runs of this migration have finished, per table and phase."""
        with self._transaction() as db:
            rows = db.execute(_SQL["checkpoints"], {"key": key}).fetchall()
        return [
            Checkpoint(
                r["table_name"], Phase(r["phase"]), r["generation"], r["state"] == "done",
                r["rows"], r["bytes"], r["chunks"], r["seconds"], r["data"],
            )
            for r in rows
        ]  # fmt: skip

    def target_tables(self) -> list[Row]:
        """Tables that were loaded: target_name, table_name (`schema.table`), source_name, key."""
        with self._transaction() as db:
            return db.execute(_SQL["target_tables"]).fetchall()

    def performance(self, key: str) -> list[Row]:
        """Measurements of the phases, oldest first."""
        with self._transaction() as db:
            return db.execute(_SQL["performance"], {"key": key}).fetchall()

    def events(self, key: str, after: int = 0) -> list[Row]:
        """Events in order, from the one after `after`."""
        with self._transaction() as db:
            rows = db.execute(_SQL["events"], {"key": key, "after": after}).fetchall()
        return [{"id": event_id(r["key"], r["seq"]), **r} for r in rows]

    def holder(self, key: str) -> Holder | None:
        """Who holds the migration, or None."""
        with self._transaction() as db:
            return _holder(db, key)

    # Taking and keeping a migration

    def claim(
        self, spec: Spec, ends: Ends, owner: Owner, run_id: str, *, lease_seconds: float, floor: int = 0
    ) -> Claim:
        """Take the migration for a run: status `running`, a new epoch, the lock, and the event, at once.

        Args:
            floor: the highest epoch the target's ledger has seen for this key.

        Raises:
            ConflictError: somebody else holds it, its state does not allow a run, or the key belongs to
                other databases.
        """
        names = {
            **ends.parameters(),
            "key": spec.key,
            "spec": Jsonb(spec.model_dump(mode="json")),
            "spec_hash": spec.hash,
        }
        with self._transaction() as db:
            db.execute(_SQL["register"], names)
            row = _one(db, "lock_migration", {"key": spec.key})
            if (holder := _holder(db, spec.key)) is not None and not holder.gone:
                raise _held(spec.key, holder)
            before = Status(row["status"])
            _check_claim(row, before, spec, ends)
            fresh = before not in RESUMABLE
            resumed = not fresh and row["plan"] is not None
            epoch: int = _one(db, "take", {**names, "floor": floor, "run_id": run_id, "fresh": fresh})[
                "epoch"
            ]
            lock = {
                "key": spec.key, "owner": owner.owner, "epoch": epoch, "run_id": run_id, "host": owner.host,
                "boot_id": owner.boot_id, "pid": owner.pid, "process_start": owner.process_start,
                "lease_seconds": lease_seconds,
            }  # fmt: skip
            db.execute(_SQL["write_lock"], lock)
            _event(
                db,
                spec.key,
                EventType.RESUMED if resumed else EventType.STARTED,
                {"run_id": run_id, "epoch": epoch},
            )
        plan = Plan.model_validate(row["plan"]) if resumed else None
        # The plan's own spec: the row's may be that of a run which ended before it had planned anything.
        same_spec = plan is not None and plan.spec_hash == spec.hash
        return Claim(spec.key, epoch, run_id, owner, resumed, plan, same_spec)

    def heartbeat(self, claim: Claim) -> str | None:
        """Renew the lock. Returns what was asked of this run meanwhile: `pause`, `cancel`, `rollback` or None.

        Raises:
            FencedError: the lock or the epoch is another run's now.
        """
        with self._transaction() as db:
            row = db.execute(
                _SQL["heartbeat"], {"key": claim.key, "owner": claim.owner.owner, "epoch": claim.epoch}
            ).fetchone()
        if row is None:
            raise _overtaken(claim)
        return row["requested"]

    def release(self, claim: Claim) -> None:
        """Give the lock back; nothing happens if it is another's already."""
        with self._transaction() as db:
            db.execute(_SQL["release"], {"key": claim.key, "owner": claim.owner.owner})

    # From outside of a run

    def request_pause(self, key: str) -> None:
        """Ask the run of a migration to stop at the end of a chunk.

        Raises:
            ConfigError: there is no such migration.
            ConflictError: it is not running.
        """
        row = self.migration(key)
        with self._transaction() as db:
            if db.execute(_SQL["request"], {"key": key, "what": "pause"}).rowcount == 0:
                raise ConflictError(
                    f"Migration {key!r} is {row['status']} and not running, so it cannot be paused",
                    hint=f"See jivs status {key}",
                )

    def settle_dead(self, key: str) -> bool:
        """Pause in place of a run whose process is gone. False while its holder may be alive, or when it has ended."""
        with self._transaction() as db:
            _one(db, "lock_migration", {"key": key})
            if (holder := _holder(db, key)) is not None and not holder.gone:
                return False
            if db.execute(_SQL["settle"], {"key": key, "status": Status.PAUSED}).rowcount == 0:
                return False
            db.execute(_SQL["drop_lock"], {"key": key})
            _event(db, key, EventType.PAUSED, {"status": Status.PAUSED, "run_id": holder and holder.run_id})
            return True

    # Writing, fenced

    def set_phase(self, claim: Claim, phase: Phase) -> None:
        """Enter a phase, and say so in an event."""
        with self._transaction() as db:
            self._fenced(db, claim, "set_phase", {"phase": phase})
            _event(db, claim.key, EventType.PHASE, {"phase": phase, "run_id": claim.run_id})

    def save_plan(self, claim: Claim, plan: Plan, kept: Sequence[str]) -> None:
        """Store the plan; checkpoints of tables that are not `kept` are forgotten with the same stroke."""
        with self._transaction() as db:
            self._fenced(
                db,
                claim,
                "save_plan",
                {
                    "plan": Jsonb(plan.model_dump(mode="json")),
                    "plan_hash": plan.hash,
                    "rows_total": plan.rows,
                },
            )
            db.execute(_SQL["forget_tables"], {"key": claim.key, "epoch": claim.epoch, "kept": list(kept)})

    def checkpoint(self, claim: Claim, point: Checkpoint) -> None:
        """Record one phase of one table; a loaded table is also an event."""
        with self._transaction() as db:
            _one(db, "lock_migration", {"key": claim.key})
            self._fenced(
                db,
                claim,
                "write_checkpoint",
                {
                    "table": point.table, "phase": point.phase, "generation": point.generation,
                    "state": "done" if point.ok else "failed", "rows": point.rows, "bytes": point.bytes,
                    "chunks": point.chunks, "seconds": point.seconds, "data": Jsonb(dict(point.data)),
                },
            )  # fmt: skip
            if point.phase is Phase.LOAD and point.ok:
                _event(db, claim.key, EventType.TABLE_LOADED, {"table": point.table, "rows": point.rows})

    def progress(self, claim: Claim, rows: int, size: int) -> None:
        """Rows and bytes that have reached the target so far."""
        with self._transaction() as db:
            self._fenced(db, claim, "progress", {"rows": rows, "bytes": size})

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
        with self._transaction() as db:
            _one(db, "lock_migration", {"key": claim.key})
            self._fenced(
                db,
                claim,
                "add_retry",
                {
                    "phase": phase, "table": table, "chunk": chunk, "attempt": attempt, "error": error,
                    "delay": delay,
                },
            )  # fmt: skip
            _event(db, claim.key, EventType.RETRIED, {"table": table, "chunk": chunk, "attempt": attempt})

    def measure(self, claim: Claim, phase: Phase, values: Mapping[str, Any]) -> None:
        """Record what a phase took."""
        with self._transaction() as db:
            parameters = {**values, "samples": json.dumps(values["samples"])}
            self._fenced(db, claim, "add_performance", {"run_id": claim.run_id, "phase": phase, **parameters})

    def end(
        self, claim: Claim, status: Status, *, error: Mapping[str, Any] | None, result: Mapping[str, Any]
    ) -> None:
        """End the run: status, document, event and the lock's release, at once."""
        with self._transaction() as db:
            self._fenced(
                db,
                claim,
                "end_run",
                {"status": status, "error": Jsonb(error) if error else None, "result": Json(dict(result))},
            )
            _event(db, claim.key, EVENT_OF_STATUS[status], {"status": status, "run_id": claim.run_id})
            db.execute(_SQL["release"], {"key": claim.key, "owner": claim.owner.owner})

    def _fenced(self, db: psycopg.Connection[Row], claim: Claim, name: str, parameters: Row) -> None:
        done = db.execute(_SQL[name], {"key": claim.key, "epoch": claim.epoch, **parameters})
        if done.rowcount != 1:
            raise _overtaken(claim)


def _check(connection: psycopg.Connection[Any]) -> None:
    ConnectionPool.check_connection(connection)


def _one(db: psycopg.Connection[Row], name: str, parameters: Mapping[str, Any]) -> Row:
    row = db.execute(_SQL[name], parameters).fetchone()
    if row is None:
        raise TerminalError(f"The control database gave no answer to {name}", hint="Run jivs db status")
    return row


def _holder(db: psycopg.Connection[Row], key: str) -> Holder | None:
    row = db.execute(_SQL["read_lock"], {"key": key}).fetchone()
    if row is None:
        return None
    return Holder(
        row["owner"], row["run_id"], row["host"], row["boot_id"], row["pid"], row["process_start"],
        row["acquired_at"].isoformat(timespec="seconds"), row["silent_seconds"], row["lease_seconds"],
    )  # fmt: skip


def _held(key: str, holder: Holder) -> ConflictError:
    return ConflictError(
        f"Migration {key!r} is held by process {holder.pid} on {holder.host} since {holder.since} (run {holder.run_id})",
        hint=f"Wait for it, or stop it with: jivs pause {key}",
    )


def _overtaken(claim: Claim) -> FencedError:
    return FencedError(
        f"Another run has taken migration {claim.key!r} over from epoch {claim.epoch}",
        hint=f"Nothing was written since; see jivs status {claim.key}",
    )


def _check_claim(row: Row, before: Status, spec: Spec, ends: Ends) -> None:
    """A key stands for one migration: what was planned for it is not silently replaced by something else."""
    if before is not Status.ROLLED_BACK and row["plan"] is not None:
        for end, connection in (("source", ends.source), ("target", ends.target)):
            if row[f"{end}_fingerprint"] not in {"", connection.fingerprint}:
                raise ConflictError(
                    f"Migration {row['key']!r} was begun with another {end} than {connection.place}",
                    hint="Use another --key",
                )
    if before is Status.COMPLETED and row["spec_hash"] != spec.hash:
        raise ConflictError(
            f"Migration {spec.key!r} is completed, and its spec was another one",
            hint="Use another key for it",
        )
    if not allowed(before, Status.RUNNING):
        raise ConflictError(f"Migration {row['key']!r} is {before} and cannot run", hint="See jivs status")


def _event(db: psycopg.Connection[Row], key: str, kind: EventType, data: Mapping[str, Any]) -> None:
    _one(db, "add_event", {"key": key, "type": kind, "data": Jsonb(dict(data))})
