"""The target: the only place where anything is written to it.

What belongs here: claiming the epoch, the fenced transaction, the ledger, loading a chunk, running a
step, digests. What does not: which steps there are (`infra/ddl.py`) and their order (`engine/load.py`).

Every write goes through `PostgresqlTarget._fenced`: it locks the migration's ledger row at this run's
epoch for the length of the transaction. A run that was overtaken finds no such row and writes nothing;
a takeover waits for, or terminates, whoever holds the lock. Rows, ledger entry and epoch check commit
together: with the ledger first, rows were lost in 4 of 6 killed migrations; with COPY first, doubled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import ConflictError, FencedError, TerminalError, TransientError
from jivs_pipeline.core.model import ServerInfo
from jivs_pipeline.core.names import qualified, short_hash
from jivs_pipeline.core.plan import Chunk, TableMode, TablePlan
from jivs_pipeline.core.ports import Dependent, ExistingColumn, ExistingTable, LedgerView, Piece
from jivs_pipeline.infra import ddl, digests, revisions
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session, connect, mapped

__all__ = ["PostgresqlTarget"]

_SQL = load_blocks("jivs_pipeline.infra", "target.sql")
_CLAIM_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class _Right:
    """The right to write, once claimed."""

    key: str
    epoch: int
    application_name: str


class PostgresqlTarget:
    """A PostgreSQL database that rows are loaded into. Methods may be called from several threads.

    Args:
        connection: where.
        io_timeout_seconds: longest silence of the server while it is not at work for us.
        load_timeout_seconds: longest time of one statement, such as one chunk's COPY.
    """

    def __init__(
        self, connection: Connection, *, io_timeout_seconds: float = 30, load_timeout_seconds: float = 1200
    ) -> None:
        self._connection = connection
        self._io_timeout = io_timeout_seconds
        self._load_timeout = load_timeout_seconds
        self._right: _Right | None = None
        self._idle: list[Session] = []
        self._open: list[Session] = []
        self._lock = threading.Lock()
        self._ask_lock = threading.Lock()
        self._reader = self._session("jivs", reconnect=False)
        self._encoding = self._reader.info.parameter_status("server_encoding")

    def close(self) -> None:
        """Release all connections; a transaction that is open is rolled back by the server."""
        with self._lock:
            sessions, self._open, self._idle = self._open, [], []
        for session in sessions:
            with suppress(psycopg.Error):
                session.close()

    def interrupt(self) -> None:
        """Cancel what the server is busy with for us, from any thread; the statements fail, nothing is committed."""
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            with suppress(psycopg.Error):
                session.cancel_safe(timeout=2)

    # Looking

    def info(self) -> ServerInfo:
        """Who is there."""
        with self._reading() as db:
            version = str(db.info.server_version // 10000)
            row = db.execute("SELECT current_setting('server_version')").fetchone()
        shown = str(row[0]).split()[0] if row else version
        return ServerInfo(self._connection.name, "postgresql", shown, self._encoding or "UTF8")

    def inspect(self, schema: str, names: Sequence[str]) -> Mapping[str, ExistingTable]:
        """What already bears these names in the schema, by name."""
        parameters = {"schema": schema, "names": list(names)}
        with self._reading() as db:
            kinds = dict(db.execute(_SQL["relations"], parameters).fetchall())
            columns = db.execute(_SQL["columns"], parameters).fetchall()
            dependents = db.execute(_SQL["dependents"], parameters).fetchall()
        return {
            name: ExistingTable(
                name,
                kind,
                tuple(ExistingColumn(*rest) for relation, *rest in columns if relation == name),
                tuple(Dependent(*rest) for relation, *rest in dependents if relation == name),
            )
            for name, kind in kinds.items()
        }

    def ledger(self, key: str) -> LedgerView:
        """What the ledger says of a migration; empty where there is no ledger."""
        with self._reading() as db:
            if not _value(db, "has_ledger"):
                return LedgerView()
            parameters = {"key": key}
            epoch = db.execute(_SQL["ledger_epoch"], parameters).fetchone()
            steps = db.execute(_SQL["ledger_steps"], parameters).fetchall()
            chunks = db.execute(_SQL["ledger_chunks"], parameters).fetchall()
        return LedgerView(
            epoch=epoch[0] if epoch else 0,
            steps={(table, step): (generation, undo) for table, step, generation, undo in steps},
            chunks={
                (table, chunk): (generation, rows, size) for table, chunk, generation, rows, size in chunks
            },
        )

    def digests(self, table: TablePlan) -> tuple[Digest, ...]:
        """Digests of the loaded rows, computed by the target: one per chunk where an integer key tells the chunks
        apart, else one for the whole table.
        """
        right = self._claimed()
        relation = ddl.landing(right.key, table) if table.mode == "append" else _relation(table)
        return self._digests_of(table, relation)

    def digests_now(self, table: TablePlan) -> tuple[Digest, ...]:
        """The same of the table as it is now, without a claim: for `jivs verify`."""
        return self._digests_of(table, _relation(table))

    def count(self, table: TablePlan) -> int:
        """Rows of the loaded table."""
        right = self._right
        relation = ddl.landing(right.key, table) if right and table.mode == "append" else _relation(table)
        with self._session_for_reading() as db, mapped(table.target):
            row = db.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(relation)).fetchone()
        return int(row[0]) if row else 0

    def _digests_of(self, table: TablePlan, relation: sql.Composable) -> tuple[Digest, ...]:
        only = sql.SQL("ONLY {}").format(relation)
        groups = digests.Groups(key, _bounds(table)) if (key := table.chunk_key) else None
        if table.spelling is Spelling.RECORD:
            query = digests.record_digest(only, [c.target for c in table.columns], groups=groups)
        else:
            spelled = [(c.target, c.canon) for c in table.columns]
            query = digests.canonical_digest(only, spelled, groups=groups, utf8=self._encoding == "UTF8")
        with self._session_for_reading() as db, mapped(table.target):
            rows = db.execute(query).fetchall()
        if groups is None:
            return tuple(Digest(*map(int, row)) for row in rows)
        found = {chunk: Digest(*map(int, parts)) for chunk, *parts in rows}
        return tuple(found.get(c.index, Digest()) for c in table.chunks)

    # Claiming

    def claim(self, key: str, control_id: str, epoch: int, owner: str) -> None:
        """Make this run the only writer: terminate the backends of older epochs and raise the epoch.

        Raises:
            FencedError: a newer run has claimed it.
            ConflictError: a live run of another control database holds it.
        """
        parameters = {"key": key, "control_id": control_id, "epoch": epoch, "owner": owner}
        where = f"the ledger of target {self._connection.name!r}"
        with self._reading() as db:
            revisions.upgrade(db, "ledger")
            if _value(db, "live_others", parameters):
                raise ConflictError(
                    f"Another control database is running migration {key!r} into this target",
                    hint="Wait for it, or use another key",
                )
            with mapped(where):
                claimed = self._raise_epoch(db, parameters)
        if not claimed:
            raise FencedError(f"A newer run has claimed migration {key!r}", hint=f"See jivs status {key}")
        self._right = _Right(key, epoch, f"jivs/{short_hash(key)}/{epoch}")

    def _raise_epoch(self, db: Session, parameters: Mapping[str, Any]) -> bool:
        for attempt in range(_CLAIM_ATTEMPTS):
            db.execute(_SQL["terminate_older"], parameters)
            try:
                with db.transaction():
                    # A backend that came between the two statements holds the row: end it and try again.
                    db.execute("SET LOCAL lock_timeout = '1s'")
                    return db.execute(_SQL["claim"], parameters).fetchone() is not None
            except psycopg.errors.LockNotAvailable:
                time.sleep(0.05 * attempt)
        raise TransientError("The ledger is locked by somebody else", hint="Look at pg_locks on the target")

    def release(self) -> None:
        """Forget the backends of this run; the epoch stays, it only ever rises."""
        if (right := self._right) is not None:
            with self._reading() as db:
                db.execute(_SQL["forget_backends"], {"key": right.key, "epoch": right.epoch})

    # Writing

    @contextmanager
    def _fenced(self, where: str) -> Iterator[Session]:
        right = self._claimed()
        session = self._borrow(right)
        try:
            with mapped(where), session.transaction():
                if (
                    session.execute(_SQL["fence"], {"key": right.key, "epoch": right.epoch}).fetchone()
                    is None
                ):
                    raise _overtaken(right)  # noqa: TRY301 - the transaction has to end by it
                yield session
                failpoint("before_commit")
            failpoint("after_commit")
        except BaseException:
            lost = session.closed
            self._drop(session)
            if lost:
                self._drop_idle()
            raise
        self._give_back(session)

    def load_chunk(
        self,
        table: TablePlan,
        chunk: Chunk,
        generation: str,
        rows: int,
        size: int,
        digest: str,
        pieces: Iterable[Piece],
    ) -> bool:
        """Load one chunk, once: ledger row, COPY and epoch check in one transaction.

        Returns:
            False when the ledger already had it. A commit whose answer was lost is settled that way, too:
            the next attempt waits for the old transaction's row and then sees whether it stands.

        Raises:
            TerminalError: the number of rows that arrived is not the manifest's.
        """
        right = self._claimed()
        entry = {
            "key": right.key, "table": table.target, "chunk": chunk.index, "generation": generation,
            "epoch": right.epoch, "rows": rows, "bytes": size, "digest": digest,
        }  # fmt: skip
        with self._fenced(f"chunk {chunk.index} of {table.target}") as db:
            if db.execute(_SQL["add_chunk"], entry).rowcount == 0:
                found = db.execute(_SQL["chunk_generation"], entry).fetchone()
                if found and found[0] == generation:
                    return False
                raise TerminalError(
                    f"The ledger holds chunk {chunk.index} of {table.target} from another extraction",
                    hint="Drop the table in the target and run again",
                    table=table.target,
                )
            failpoint("after_ledger_before_copy")
            arrived = _copy(db, ddl.copy_statement(right.key, table), pieces)
            failpoint("after_copy_before_commit")
            if arrived != rows:
                raise TerminalError(
                    f"Chunk {chunk.index} of {table.target} brought {arrived} rows instead of {rows}",
                    hint="Run again; the chunk was not committed",
                    table=table.target,
                )
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
            if db.execute(_SQL["add_step"], entry).rowcount == 0:
                return False
            failpoint("inside_step")
            for statement in step.statements:
                db.execute(statement)
        return True

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
                db.execute(_SQL["add_step"], entry)

    def reset(self, table: TablePlan) -> None:
        """Undo what an earlier extraction of this table brought, so that it can be loaded anew.

        Only what this migration created goes: the landing table, the foreign keys to it, and their ledger
        rows. A table that was set aside stays aside.
        """
        right = self._claimed()
        names = {
            "key": right.key, "table": table.target, "schema": table.target_schema, "name": table.target_table,
            "beside": table.mode in {TableMode.TRUNCATE, TableMode.APPEND},
        }  # fmt: skip
        with self._fenced(f"reset of {table.target}") as db:
            if db.execute(_SQL["made"], names).fetchone() is not None:
                for schema, child, name in db.execute(_SQL["references_made"], names).fetchall():
                    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
                    db.execute(drop.format(sql.Identifier(schema, child), sql.Identifier(name)))
                    db.execute(
                        _SQL["forget_reference"], {**names, "table": qualified(schema, child), "name": name}
                    )
                db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(ddl.landing(right.key, table)))
            db.execute(_SQL["forget_table"], names)
            failpoint("inside_reset")

    # Sessions

    def _claimed(self) -> _Right:
        if self._right is None:
            raise TerminalError(
                "The target was not claimed before a write", hint="This is a bug; please report it"
            )
        return self._right

    def _session(self, application_name: str, *, reconnect: bool = True) -> Session:
        session = connect(
            self._connection,
            application_name=application_name,
            io_timeout_seconds=self._io_timeout,
            reconnect=reconnect,
            settings={"statement_timeout": f"{int(self._load_timeout * 1000)}"},
        )
        with self._lock:
            self._open.append(session)
        session.alive = self._at_work
        return session

    def _at_work(self, session: Session) -> bool:
        # A session of its own: the silent one cannot be asked, and the reader may be the silent one.
        with self._ask_lock:
            asker = connect(
                self._connection, application_name="jivs", io_timeout_seconds=self._io_timeout, reconnect=True
            )
            try:
                row = asker.execute(_SQL["active"], {"pid": session.info.backend_pid}).fetchone()
                return bool(row and row[0])
            finally:
                asker.close()

    def _borrow(self, right: _Right) -> Session:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        session = self._session(right.application_name)
        with mapped("the ledger"):
            known = session.execute(
                _SQL["register_backend"], {"key": right.key, "epoch": right.epoch}
            ).fetchone()
        if known is None:
            self._drop(session)
            raise _overtaken(right)
        return session

    def _give_back(self, session: Session) -> None:
        with self._lock:
            self._idle.append(session)

    def _drop(self, session: Session) -> None:
        with self._lock:
            if session in self._open:
                self._open.remove(session)
        with suppress(psycopg.Error):
            session.close()

    def _drop_idle(self) -> None:
        # What ended one connection has probably ended all; each dead one would cost a retry.
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            self._drop(session)

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        if self._reader.closed or self._reader.broken:
            self._reader = self._session("jivs")
        with mapped(f"target {self._connection.name!r}"):
            yield self._reader

    @contextmanager
    def _session_for_reading(self) -> Iterator[Session]:
        """A session of its own, for long queries that run side by side."""
        session = self._session("jivs verify")
        try:
            yield session
        finally:
            self._drop(session)


def _overtaken(right: _Right) -> FencedError:
    return FencedError(
        f"Another run has taken migration {right.key!r} over from epoch {right.epoch}",
        hint=f"Nothing was written since; see jivs status {right.key}",
    )


def _bounds(table: TablePlan) -> list[int]:
    return [int(c.lower[0]) for c in table.chunks if c.lower is not None]


def _relation(table: TablePlan) -> sql.Identifier:
    return sql.Identifier(table.target_schema, table.target_table)


def _value(db: Session, name: str, parameters: Mapping[str, Any] | None = None) -> Any:
    row = db.execute(_SQL[name], parameters).fetchone()
    return row[0] if row else None


def _copy(db: Session, statement: sql.Composed, pieces: Iterable[Piece]) -> int:
    """Send the pieces; returns the rows the server counted."""
    with db.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for piece in pieces:
                copy.write(piece)
        return cursor.rowcount
