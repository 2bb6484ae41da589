"""Who holds a migration: taking it, keeping it, giving it back, and what others may do about it.

What belongs here: the verbs on locks, epochs and requests of the control database. What does not: what a run
records about its work (`control.py`), the lease in Redis (`leases.py`) and waiting for either (`taking.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from jivs_pipeline.core.claims import Claim, Ends, Owner
from jivs_pipeline.core.errors import (
    CancelledRun,
    ConfigError,
    ConflictError,
    FencedError,
    JivsError,
    NoSlot,
    TerminalError,
)
from jivs_pipeline.core.events import EVENT_OF_STATUS, EventType
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.requests import RequestRef
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import RESUMABLE, Status, allowed
from jivs_pipeline.infra.control_link import ControlLink, Db, Row
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.owner import is_dead

__all__ = ["SQL", "Claims", "Holder", "add_event", "held", "known_migration", "one", "overtaken", "token"]

SQL = load_blocks("jivs_pipeline.infra", "control.sql")
_SLOT_PAUSE = timedelta(seconds=30)


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


class Claims:
    """Verbs about who holds a migration. Thread-safe; each is one transaction and harmless when done twice.

    Args:
        url: PostgreSQL URL of the control database.
        timeout_seconds: longest silence, and how long a lost server is waited for.
        told: is told the key of a migration that has a new event, once that is committed; must not wait.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = 30.0, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._link = ControlLink(url, timeout_seconds=timeout_seconds)
        self._told = told

    def open(self) -> None:
        """Connect, and bring the schema up to date where it is not."""
        self._link.open()

    def close(self) -> None:
        """Give the connections back."""
        self._link.close()

    def holder(self, key: str) -> Holder | None:
        """Who holds the migration, or None."""
        return self._link.do(lambda db: _holder(db, key))

    # Taking

    def claim(
        self,
        spec: Spec,
        ends: Ends,
        owner: Owner,
        run_id: str,
        *,
        lease_seconds: float,
        floor: int = 0,
        request: RequestRef | None = None,
    ) -> Claim | None:
        """Take the migration for a run: status `running`, a new epoch, the lock, and the event, at once.

        Args:
            floor: the highest epoch the target's ledger has seen for this key.
            request: what the run was launched for; nothing is taken for one that has been cancelled since.

        Returns:
            None when this very migration is completed, so that there is nothing to run.

        Raises:
            ConflictError: somebody else holds it, its state does not allow a run, or the key belongs to
                other databases.
            NoSlot: as many migrations run as may run at once.
            CancelledRun: the request was cancelled, or is made by a later attempt.
        """
        names = {
            **ends.parameters(),
            "key": spec.key,
            "spec": Jsonb(spec.model_dump(mode="json")),
            "spec_hash": spec.hash,
        }

        def work(db: Db) -> Claim | None:
            db.execute(SQL["register"], names)
            row = one(db, "lock_migration", {"key": spec.key})
            if (holder := _holder(db, spec.key)) is not None and holder.owner == owner.owner:
                # The commit of an earlier attempt stands.
                return _claim(spec, owner, run_id, row["epoch"], row["plan"], row["begun_epoch"])
            if holder is not None and not holder.gone:
                raise held(spec.key, holder)
            before = Status(row["status"])
            # What is compared can be compared again: what stands in the target is what it begins with.
            anew = spec.type == "incremental" and before in {Status.COMPLETED, Status.MISMATCH}
            _check_ends(row, before, ends)
            if before is Status.COMPLETED and row["spec_hash"] == spec.hash and row["epoch"] > 0 and not anew:
                return None
            _check_claim(row, before, spec, anew=anew)
            _check_request(db, spec.key, request)
            _check_slots(db, spec.key)
            # One that was queued again goes on from its plan, as it would have without the queue.
            fresh = row["plan"] is None if before is Status.QUEUED else before not in RESUMABLE or anew
            plan = None if fresh else row["plan"]
            taken = {**names, "floor": floor, "run_id": run_id, "fresh": fresh, "anew": anew}
            if anew:
                db.execute(SQL["forget_checkpoints"], {"key": spec.key})
            epoch: int = one(db, "take", taken)["epoch"]
            _write_lock(db, spec.key, owner, epoch, run_id, lease_seconds)
            kind = EventType.STARTED if plan is None else EventType.RESUMED
            add_event(db, spec.key, kind, {"run_id": run_id, "epoch": epoch}, token())
            failpoint("claim_before_commit")
            return _claim(spec, owner, run_id, epoch, plan, epoch if anew else row["begun_epoch"])

        claim = self._link.do(work)
        self._told(spec.key)
        failpoint("claim_after_commit")
        return claim

    def take_over(
        self, key: str, owner: Owner, run_id: str, after: Status, *, lease_seconds: float, floor: int
    ) -> Claim:
        """Take a migration that does not run, to undo what its runs did: the lock and a new epoch, no other state.

        Raises:
            ConflictError: somebody else holds it, or its state does not allow `after`.
        """

        def work(db: Db) -> Claim:
            row = one(db, "lock_migration", {"key": key})
            spec = Spec.model_validate(row["spec"])
            holder = _holder(db, key)
            if holder is not None and holder.owner == owner.owner:
                return _claim(spec, owner, run_id, row["epoch"], row["plan"], row["begun_epoch"])
            if holder is not None and not holder.gone:
                raise held(key, holder)
            if not allowed(Status(row["status"]), after):
                raise ConflictError(
                    f"Migration {key!r} is {row['status']} and cannot become {after}",
                    hint=f"See jivs status {key}",
                )
            epoch: int = one(db, "take_over", {"key": key, "floor": floor, "run_id": run_id})["epoch"]
            _write_lock(db, key, owner, epoch, run_id, lease_seconds)
            return _claim(spec, owner, run_id, epoch, row["plan"], row["begun_epoch"])

        claim = self._link.do(work)
        failpoint("take_over_after_commit")
        return claim

    # Keeping

    def heartbeat(self, claim: Claim) -> str | None:
        """Renew the lock. Returns what was asked of this run meanwhile: `pause`, `cancel` or None.

        Raises:
            FencedError: the lock or the epoch is another run's now.
        """
        parameters = {"key": claim.key, "owner": claim.owner.owner, "epoch": claim.epoch}
        row = self._link.do(lambda db: db.execute(SQL["heartbeat"], parameters).fetchone())
        if row is None:
            raise overtaken(claim)
        return row["requested"]

    def release(self, claim: Claim) -> None:
        """Give the lock back; nothing happens if it is another's already."""
        parameters = {"key": claim.key, "owner": claim.owner.owner}
        self._link.do(lambda db: db.execute(SQL["release"], parameters))

    # From outside of a run

    def refused(self, key: str) -> None:
        """Count a starter that was refused because another holds the migration. Tried once: it delays nobody."""
        with suppress(JivsError):
            self._link.once(lambda db: db.execute(SQL["add_conflict"], {"key": key}), wait_seconds=1)

    def request(self, key: str, what: str) -> None:
        """Ask the run of a migration to `pause` at the end of a chunk, or to `cancel` at once.

        Raises:
            ConfigError: there is no such migration.
            ConflictError: it is not running, or was asked for the same by somebody else.
        """

        def work(db: Db) -> None:
            row = known_migration(db, key)
            if db.execute(SQL["request"], {"key": key, "what": what}).rowcount == 1:
                return
            asked = f"has already been asked to {row['requested']}" if row["requested"] else "is not running"
            raise ConflictError(
                f"Migration {key!r} is {row['status']} and {asked}, so there is nothing to {what}",
                hint=f"See jivs status {key}",
            )

        self._link.do(work)

    def settle(self, key: str, before: Status, after: Status, error: Mapping[str, str] | None = None) -> bool:
        """Change the state in place of a run: of one that is gone, or where none runs.

        Returns:
            False while a holder may be alive, and when the state is not `before`.
        """
        made = token()

        def work(db: Db) -> bool:
            known_migration(db, key)
            one(db, "lock_migration", {"key": key})
            holder = _holder(db, key)
            if holder is not None and not holder.gone:
                return False
            data = {"status": after, "run_id": holder.run_id if holder else None}
            # First, because after a commit that was not acknowledged the state is no longer `before`.
            if not add_event(db, key, EVENT_OF_STATUS[after], data, made):
                return True
            change = {"key": key, "before": before, "status": after, "error": Jsonb(error) if error else None}
            if db.execute(SQL["settle"], change).rowcount == 0:
                db.rollback()
                return False
            db.execute(SQL["drop_lock"], {"key": key})
            return True

        settled = self._link.do(work)
        self._told(key)
        return settled

    def forget(self, claim: Claim) -> None:
        """After a rollback: status `rolled_back`, no plan, no checkpoints, no lock; the key may begin anew.

        Raises:
            FencedError: somebody else holds it by now.
        """
        made = token()

        def work(db: Db) -> None:
            one(db, "lock_migration", {"key": claim.key})
            data = {"status": Status.ROLLED_BACK, "run_id": claim.run_id}
            if not add_event(db, claim.key, EventType.ROLLED_BACK, data, made):
                return
            done = db.execute(SQL["forget_migration"], {"key": claim.key, "epoch": claim.epoch})
            if done.rowcount != 1:
                raise overtaken(claim)
            db.execute(SQL["release"], {"key": claim.key, "owner": claim.owner.owner})
            failpoint("forget_before_commit")

        self._link.do(work)
        self._told(claim.key)
        failpoint("forget_after_commit")


def token() -> str:
    """Marks one change, so that it is not made twice when it is sent twice."""
    return str(uuid.uuid4())


def one(db: Db, name: str, parameters: Mapping[str, Any]) -> Row:
    """The row that the block must give."""
    row = db.execute(SQL[name], parameters).fetchone()
    if row is None:
        raise TerminalError(f"The control database gave no answer to {name}", hint="Run jivs db status")
    return row


def add_event(db: Db, key: str, kind: EventType, data: Mapping[str, Any], token: str) -> bool:
    """Write an event; the caller has locked the migration's row. False when the token stands already."""
    event = {"key": key, "type": kind, "data": Jsonb(dict(data)), "token": token}
    return db.execute(SQL["add_event"], event).fetchone() is not None


def held(key: str, holder: Holder) -> ConflictError:
    """Somebody else has it: who, since when, and what to do."""
    return ConflictError.held_by(key, holder.pid, holder.host, holder.since, holder.run_id)


def overtaken(claim: Claim) -> FencedError:
    """Another run has it now."""
    return FencedError(
        f"Another run has taken migration {claim.key!r} over from epoch {claim.epoch}",
        hint=f"Nothing was written since; see jivs status {claim.key}",
    )


def known_migration(db: Db, key: str) -> Row:
    """The migration's row; ConfigError with the nearest keys when there is none."""
    row = db.execute(SQL["migration"], {"key": key}).fetchone()
    if row is None:
        keys = [r["key"] for r in db.execute(SQL["migrations"]).fetchall()]
        raise ConfigError(f"There is no migration {key!r}", hint=did_you_mean(key, keys, "known migrations"))
    return row


def _holder(db: Db, key: str) -> Holder | None:
    row = db.execute(SQL["read_lock"], {"key": key}).fetchone()
    return _as_holder(row) if row else None


def _as_holder(row: Row) -> Holder:
    return Holder(
        row["owner"], row["run_id"], row["host"], row["boot_id"], row["pid"], row["process_start"],
        row["acquired_at"].isoformat(timespec="seconds"), row["silent_seconds"], row["lease_seconds"],
    )  # fmt: skip


def _write_lock(db: Db, key: str, owner: Owner, epoch: int, run_id: str, lease_seconds: float) -> None:
    lock = {
        "key": key, "owner": owner.owner, "epoch": epoch, "run_id": run_id, "host": owner.host,
        "boot_id": owner.boot_id, "pid": owner.pid, "process_start": owner.process_start,
        "lease_seconds": lease_seconds,
    }  # fmt: skip
    db.execute(SQL["write_lock"], lock)


def _check_request(db: Db, key: str, request: RequestRef | None) -> None:
    """Whoever cancelled a request, or asked for it once more, has seen no run of it yet; this one is not wanted."""
    if request is None:
        return
    row = db.execute(SQL["request_state"], {"request_id": request.request_id}).fetchone()
    if row is None or (row["status"] != "cancelled" and row["attempt"] == request.attempt):
        return
    what = "was cancelled" if row["status"] == "cancelled" else "is made by a later attempt"
    raise CancelledRun(
        f"The request for migration {key!r} {what} before it began", hint=f"See jivs status {key}"
    )


def _check_slots(db: Db, key: str) -> None:
    """All claims count one after the other, so that two of them do not take the last slot.

    Here and not only in Dagster's queue, which a run in the foreground does not pass.
    """
    limit: int = one(db, "lock_slots", {})["value"]
    holders = db.execute(SQL["other_locks"], {"key": key}).fetchall()
    if len(holders) >= limit and sum(not _as_holder(h).gone for h in holders) >= limit:
        raise NoSlot(limit, datetime.now(UTC) + _SLOT_PAUSE)


def _claim(
    spec: Spec, owner: Owner, run_id: str, epoch: int, stored: Mapping[str, Any] | None, since: int
) -> Claim:
    plan = Plan.model_validate(stored) if stored else None
    # The plan's own spec: the row's may be that of a run which ended before it had planned anything.
    same_spec = plan is not None and plan.spec_hash == spec.hash
    return Claim(spec.key, epoch, run_id, owner, plan is not None, plan, same_spec, since)


def _check_ends(row: Row, before: Status, ends: Ends) -> None:
    """A key stands for one migration: one that was planned is not taken for another of the same databases' names."""
    if before is Status.ROLLED_BACK or row["plan"] is None:
        return
    if (other := ends.other_than(row)) is not None:
        end, connection = other
        raise ConflictError(
            f"Migration {row['key']!r} was begun with another {end} than {connection.place}",
            hint="Use another --key",
        )


def _check_claim(row: Row, before: Status, spec: Spec, *, anew: bool) -> None:
    """What was planned for a key is not silently replaced by something else."""
    if before is Status.COMPLETED and not anew:
        raise ConflictError(
            f"Migration {spec.key!r} is completed, and its spec was another one",
            hint="Use another key for it, or take it back first: jivs rollback",
        )
    if not allowed(before, Status.RUNNING):
        raise ConflictError(f"Migration {row['key']!r} is {before} and cannot run", hint="See jivs status")
