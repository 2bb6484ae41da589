"""The target: the only place where anything is written to it.

What belongs here: claiming the epoch, the fenced transaction, the ledger, loading a chunk, running a step
and undoing one. What does not: which steps there are (`ddl.py`, `undo.py`), their order (`engine/load.py`) and
looking (`target_view.py`).

Every write goes through `PostgresqlTarget._fenced`: it locks the migration's ledger row at this run's
epoch for the length of the transaction. A run that was overtaken finds no such row and writes nothing;
a takeover waits for, or terminates, whoever holds the lock. Rows, ledger entry and epoch check commit
together: with the ledger first, rows were lost in 4 of 6 killed migrations; with COPY first, doubled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConflictError, FencedError, TerminalError, TransientError
from jivs_pipeline.core.names import qualified, short_hash
from jivs_pipeline.core.permits import FREE, Permits
from jivs_pipeline.core.plan import Chunk, TableMode, TablePlan, Wire
from jivs_pipeline.core.ports import Piece, refused_rows
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.infra import conclude, ddl, large_objects, refusals, revisions, steps, undo
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.merge import quiet_triggers, wake_triggers
from jivs_pipeline.infra.postgresql import Session, mapped
from jivs_pipeline.infra.target_sessions import SQL, Right, overtaken, value
from jivs_pipeline.infra.target_view import TargetView

__all__ = ["PostgresqlTarget"]

_CLAIM_ATTEMPTS = 20


class Watchdog(Protocol):
    """A process that watches over this one's backends."""

    def stop(self) -> None:
        """End it; nothing is left to watch."""
        ...


Watch = Callable[[Connection, str, int], Watchdog]
"""Starts a watchdog for the backends of a key and epoch."""


class PostgresqlTarget(TargetView):
    """A PostgreSQL database that rows are loaded into. Methods may be called from several threads.

    Args:
        connection: where.
        io_timeout_seconds: longest silence of the server while it is not at work for us.
        load_timeout_seconds: longest time of one chunk's load.
        watch: starts a process that ends backends which this one no longer can; None for none.
        calling: the endpoint's circuit breaker.
        permits: leave for the sessions of a run.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        io_timeout_seconds: float = 30,
        load_timeout_seconds: float = 1200,
        watch: Watch | None = None,
        calling: Calling = nullcontext,
        permits: Permits = FREE,
    ) -> None:
        super().__init__(connection, io_timeout_seconds=io_timeout_seconds, calling=calling, permits=permits)
        self._load_timeout = load_timeout_seconds
        self._watch = watch
        self._watchdog: Watchdog | None = None

    def close(self) -> None:
        """Release all connections; a transaction that is open is rolled back by the server."""
        super().close()
        if self._watchdog is not None:
            self._watchdog.stop()

    # Claiming

    def claim(self, key: str, control_id: str, epoch: int, owner: str) -> None:
        """Make this run the only writer: terminate the backends of older epochs and raise the epoch.

        Raises:
            FencedError: a newer run has claimed it.
            ConflictError: a live run of another control database holds it.
        """
        parameters = {"key": key, "control_id": control_id, "epoch": epoch, "owner": owner}
        where = f"the ledger of target {self._connection.name!r}"
        with self._session_of_its_own("jivs claim", read_only=False) as db, mapped(where):
            revisions.upgrade(db, "ledger")
            if value(db, "live_others", parameters):
                raise ConflictError(
                    f"Another control database is running migration {key!r} into this target",
                    hint="Wait for it, or use another key",
                )
            claimed = self._raise_epoch(db, parameters)
        if not claimed:
            raise FencedError(f"A newer run has claimed migration {key!r}", hint=f"See jivs status {key}")
        failpoint("after_claim")
        self._right = Right(key, epoch, f"jivs/{short_hash(key)}/{epoch}")

    def _raise_epoch(self, db: Session, parameters: Mapping[str, Any]) -> bool:
        for attempt in range(_CLAIM_ATTEMPTS):
            db.execute(SQL["terminate_older"], parameters)
            try:
                with db.transaction():
                    # A backend that came between the two statements holds the row: end it and try again.
                    db.execute("SET LOCAL lock_timeout = '1s'")
                    # This session is in no ledger: if we stand still in here, the server has to end it by itself.
                    db.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'")
                    claimed = db.execute(SQL["claim"], parameters).fetchone() is not None
                    failpoint("inside_claim")
                    return claimed
            except psycopg.errors.LockNotAvailable:
                time.sleep(0.05 * attempt)
        raise TransientError("The ledger is locked by somebody else", hint="Look at pg_locks on the target")

    def release(self) -> None:
        """Forget the backends of this run; the epoch stays, it only ever rises."""
        if (right := self._right) is not None:
            with self._fenced("the ledger") as db:
                db.execute(SQL["forget_backends"], {"key": right.key, "epoch": right.epoch})

    # Writing

    @contextmanager
    def _fenced(self, where: str) -> Iterator[Session]:
        right = self._claimed()
        self._have_it_watched(right)
        with self._lent(right) as session:
            with mapped(where), session.transaction():
                if session.execute(SQL["fence"], {"key": right.key, "epoch": right.epoch}).fetchone() is None:
                    raise overtaken(right)
                failpoint("after_fence")
                yield session
                failpoint("before_commit")
            failpoint("after_commit")

    def _have_it_watched(self, right: Right) -> None:
        if self._watch is None:
            return
        with self._lock:
            self._watchdog = self._watchdog or self._watch(self._connection, right.key, right.epoch)

    def load_chunk(
        self,
        table: TablePlan,
        chunk: Chunk,
        generation: str,
        rows: int,
        size: int | None,
        digest: str,
        pieces: Iterable[Piece],
    ) -> bool:
        """Load one chunk, once: ledger row, COPY and epoch check in one transaction.

        Args:
            size: bytes of the pieces; None where only the pieces tell, and the ledger learns it in the same transaction.

        Returns:
            False when the ledger already had it. A commit whose answer was lost is settled that way, too:
            the next attempt waits for the old transaction's row and then sees whether it stands.

        Raises:
            TerminalError: the number of rows that arrived is not the manifest's.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": table.target, "chunk": chunk.index, "generation": generation,
            "epoch": right.epoch, "rows": rows, "bytes": size or 0, "digest": digest,
        }  # fmt: skip
        with self._fenced(f"chunk {chunk.index} of {table.target}") as db:
            if db.execute(SQL["add_chunk"], entry).rowcount == 0:
                found = db.execute(SQL["chunk_generation"], entry).fetchone()
                if found and found[0] == generation:
                    return False
                raise TerminalError(
                    f"The ledger holds chunk {chunk.index} of {table.target} from another extraction",
                    hint="Drop the table in the target and run again",
                    table=table.target,
                )
            db.execute(SQL["limit_statement"], {"milliseconds": str(int(self._load_timeout * 1000))})
            # Nothing in here may take longer, so after that not even work excuses silence.
            db.longest = self._load_timeout + self._io_timeout
            failpoint("after_ledger_before_copy")
            arrived, sent = _receive(db, right.key, table, pieces)
            if size is None:
                db.execute(SQL["note_bytes"], {**entry, "bytes": sent})
            failpoint("after_copy_before_commit")
            if arrived != rows:
                raise TerminalError(
                    f"Chunk {chunk.index} of {table.target} brought {arrived} rows instead of {rows}",
                    hint="Run again; the chunk was not committed",
                    table=table.target,
                )
            db.longest = math.inf
        return True

    def apply(self, step: ddl.Step, generation: str) -> bool:
        """Run one step, once: its statements and its ledger row in one transaction.

        Returns:
            False when the ledger already had it.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": step.table, "step": step.name, "generation": generation,
            "epoch": right.epoch, "undo": Jsonb(dict(step.undo)),
        }  # fmt: skip
        with self._fenced(f"{step.name} of {step.table}") as db:
            if db.execute(SQL["add_step"], entry).rowcount == 0:
                return False
            failpoint("inside_step")
            if step.path is not None:
                db.execute(steps.look_in(step.path))
            for statement in step.statements:
                db.execute(statement)
        return True

    def load_again(
        self, table: TablePlan, name: str, generation: str, noted: Mapping[str, Any], pieces: Sequence[Piece]
    ) -> bool:
        """Add rows that were in quarantine to a loaded table, once: ledger row, COPY and epoch check in one transaction.

        No trigger fires, as none does when a table is loaded. What was appended is also kept beside the table, so that a
        rollback finds it.

        Args:
            name: of the step.
            noted: what the ledger keeps of it; `rows` is how many rows must arrive.

        Returns:
            False when the ledger already had it.

        Raises:
            DataError: the target does not take one of the rows; none was added.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": table.target, "step": name, "generation": generation, "epoch": right.epoch,
            "undo": Jsonb({"replayed": dict(noted)}),
        }  # fmt: skip
        with self._fenced(f"rows of {table.target} from quarantine") as db:
            if not db.execute(SQL["add_step"], entry).rowcount:
                return False  # a replay that was killed has added them
            if table.definition and table.definition.uses_objects:
                db.execute(steps.look_in(table.target_schema))
            relation = steps.table_name(table.target_schema, table.target_table)
            for statement in quiet_triggers([relation]):
                db.execute(statement)
            beside = [steps.landing(right.key, table)] if table.mode is TableMode.APPEND else []
            for place in (relation, *beside):
                arrived, _ = _copy(db, ddl.copy_into(place, table), pieces)
                if arrived != noted["rows"]:
                    raise TerminalError(
                        f"{arrived} rows instead of {noted['rows']} arrived in {table.target}",
                        hint="Replay again; nothing was committed",
                        table=table.target,
                    )
            for statement in wake_triggers():
                db.execute(statement)
            failpoint("inside_replay")
        return True

    def refuse(
        self,
        table: TablePlan,
        name: str,
        generation: str,
        others: refusals.Others,
        keep: Callable[[Iterator[BadRow]], None],
        *,
        orphans: bool = False,
    ) -> Mapping[int, Digest]:
        """Take those of a table's loaded rows out that its keys and conditions refuse, once.

        They are handed over before the transaction ends: should it not, the next attempt finds and hands over the same.

        Args:
            name: of the step.
            others: see `refusals.find`, as for `orphans`.
            keep: keeps them for good; what it raises lets them stay where they are.

        Returns:
            Their digest, by index of their chunk; all with the first chunk where chunks cannot be told apart. Empty where
            the table refuses none, which leaves no step.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": table.target, "step": name, "generation": generation, "epoch": right.epoch,
        }  # fmt: skip
        with self._fenced(f"rows that {table.target} refuses") as db:
            if (done := db.execute(SQL["step_undo"], entry).fetchone()) is not None:
                return refused_rows([done[0]])
            if not refusals.find(db, right.key, table, others, orphans=orphans):
                return {}
            keep(refusals.rows(db, right.key, table))
            found = self._digest_by_chunk(db, table, ddl.landing(right.key, table), refusals.PLACES)
            refusals.take_out(db, right.key, table)
            stored = {"refused": {str(chunk): digest.stored() for chunk, digest in found.items()}}
            db.execute(SQL["add_step"], {**entry, "undo": Jsonb(stored)})
            failpoint("inside_refusal")
        failpoint("refused_after_commit")
        return found

    def take_back(
        self, table: TablePlan, name: str, generation: str, noted: Mapping[str, Any], pieces: Sequence[Piece]
    ) -> bool:
        """As `load_again`, of rows that `refuse` has taken out: what the ledger says of those shrinks by them.

        Args:
            pieces: as CSV, whatever the table was loaded by.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": table.target, "step": name, "generation": generation, "epoch": right.epoch,
        }  # fmt: skip
        as_csv = table.model_copy(update={"wire": Wire.CSV})
        with self._fenced(f"rows of {table.target} from quarantine") as db:
            if db.execute(SQL["step_undo"], entry).fetchone() is not None:
                return False  # a replay that was killed has added them
            if table.definition and table.definition.uses_objects:
                db.execute(steps.look_in(table.target_schema))
            db.execute(refusals.create_again(table))
            arrived, _ = _copy(db, ddl.copy_into(refusals.AGAIN, as_csv), pieces)
            found = self._digest_by_chunk(db, table, refusals.AGAIN)
            for statement in refusals.insert_again(right.key, table):
                db.execute(statement)
            taken = {str(chunk): (Digest() - digest).stored() for chunk, digest in found.items()}
            undo = {"replayed": {**noted, "rows": arrived}, "refused": taken}
            db.execute(SQL["add_step"], {**entry, "undo": Jsonb(undo)})
            failpoint("inside_replay")
        return True

    def undo_objects(self, schema: str) -> None:
        """Take back the objects of a schema that were made on rows, so that their tables can be made anew."""
        right = self._claimed()
        with self._fenced(f"objects of schema {schema}") as db:
            undo.undo_objects(db, right.key, steps.beside(schema))

    def ensure_schema(self, schema: str) -> None:
        """Create the target schema where it is missing; the ledger notes that it is ours."""
        right = self._claimed()
        entry = {
            "key": right.key, "table": f"{schema}.*", "step": "schema", "generation": "", "epoch": right.epoch,
            "undo": Jsonb({"drop_schema": schema}),
        }  # fmt: skip
        with self._fenced(f"schema {schema}") as db:
            if db.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is None:
                db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                db.execute(SQL["add_step"], entry)

    def reset(self, table: TablePlan) -> None:
        """Undo what an earlier extraction of this table brought, so that it can be loaded anew.

        Only what this migration created goes: the landing table, the foreign keys to it, and their ledger
        rows. A table that was set aside stays aside.
        """
        right = self._claimed()
        names = {
            "key": right.key, "table": table.target, "schema": table.target_schema, "name": table.target_table,
            "beside": table.beside,
        }  # fmt: skip
        if table.large_objects_of is not None:
            large_objects.remove_all(right.key, self._fenced)
            with self._fenced(f"large objects of {right.key}") as db:
                db.execute(SQL["forget_table"], names)
            return
        with self._fenced(f"reset of {table.target}") as db:
            if db.execute(SQL["made"], names).fetchone() is not None:
                for schema, child, name in db.execute(SQL["references_made"], names).fetchall():
                    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
                    db.execute(drop.format(sql.Identifier(schema, child), sql.Identifier(name)))
                    db.execute(
                        SQL["forget_reference"], {**names, "table": qualified(schema, child), "name": name}
                    )
                # What stands beside the table for a rollback is made again together with its landing table.
                beside = [steps.numbers(right.key, table.target)] if names["beside"] else []
                for name in (ddl.landing(right.key, table), *beside):
                    db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            db.execute(SQL["forget_table"], names)
            failpoint("inside_reset")

    def conclude_next(self, since: int) -> str | None:
        """Let stand what loads before the epoch `since` have made: remove the next thing that they kept for a rollback.

        Returns:
            What was removed, or None when nothing of those loads is left.
        """
        right = self._claimed()
        with self._fenced(f"the end of earlier loads of {right.key}") as db:
            concluded = conclude.conclude_oldest(db, right.key, since)
            failpoint("inside_conclude")
        return concluded

    def undo_next(self) -> str | None:
        """Undo the latest step that changed something, with its ledger row, in one transaction.

        Returns:
            What was undone, or None when nothing of this migration is left but its epoch.

        Raises:
            TerminalError: something of others depends on what is to be dropped.
        """
        right = self._claimed()
        with self._fenced(f"rollback of {right.key}") as db:
            undone = undo.undo_latest(db, right.key)
            failpoint("inside_undo")
        return undone

    def undoable(self, key: str, since: int = 0) -> None:
        """Look whether a rollback can restore everything.

        Raises:
            ConflictError: rows were appended to a table without a key and cannot be told from others.
        """
        for _, entry in self.ledger(key, since).steps.values():
            undo.check(entry)


def _receive(db: Session, key: str, table: TablePlan, pieces: Iterable[Piece]) -> tuple[int, int]:
    """As `_copy`, into the landing table, or into large objects."""
    if table.large_objects_of is None:
        return _copy(db, ddl.copy_statement(key, table), pieces)
    large_objects.prepare(db)
    counted = _copy(db, ddl.copy_into(large_objects.LANDING, table), pieces)
    large_objects.make(db, key)
    return counted


def _copy(db: Session, statement: sql.Composed, pieces: Iterable[Piece]) -> tuple[int, int]:
    """Send the pieces; returns the rows the server counted, and the bytes."""
    sent = 0
    with db.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for piece in pieces:
                copy.write(piece)
                sent += len(piece)
        return cursor.rowcount, sent
