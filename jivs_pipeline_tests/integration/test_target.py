"""The target: who may write, what commits together, and what the catalog looks like afterwards.

What belongs here: `infra/target.py` with the steps of `infra/ddl.py` on a real PostgreSQL, through every way
in which two runs can meet and a commit can be lost. What does not: the order of the steps in a migration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Canon, Digest, Spelling
from jivs_pipeline.core.errors import (
    ConflictError,
    DataError,
    FencedError,
    JivsError,
    TerminalError,
    TransientError,
)
from jivs_pipeline.core.model import Check, Column, ForeignKey, Identity, Index, IndexPart, Key, Table
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TableMode, TablePlan, Wire
from jivs_pipeline.core.ports import LedgerView
from jivs_pipeline.infra import ddl, steps
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_postgresql import at_port

_CONTROL = str(uuid.UUID(int=1))
_OTHER_CONTROL = str(uuid.UUID(int=2))
_BIG = 2**63 - 1
Row = tuple[Any, ...]


def _table(
    name: str = "t",
    columns: Sequence[Column] = (Column("a", "integer"), Column("b", "text")),
    *,
    schema: str = "public",
    mode: TableMode = TableMode.CREATE,
    wire: Wire = Wire.TEXT,
    spelling: Spelling = Spelling.RECORD,
    **definition: Any,
) -> TablePlan:
    carried = tuple(
        ColumnPlan(source=c.name, target=c.name, source_type=c.type, target_type=c.type)
        for c in columns
        if c.generated is None
    )
    return TablePlan(
        source_schema="s", source_table=name, target_schema=schema, target_table=name, columns=carried,
        lane=Lane.COPY, wire=wire, spelling=spelling, mode=mode, chunks=(Chunk(index=0), Chunk(index=1)),
        definition=Table(schema, name, tuple(columns), **definition),
    )  # fmt: skip


def _plan(*tables: TablePlan) -> Plan:
    return Plan(
        key="shop", spec_hash="h", source="a", target="b", source_dialect="postgresql", source_version="18",
        target_version="18", tables=tables,
    )  # fmt: skip


def _line(row: Row) -> bytes:
    """A row of COPY's text form."""

    def spelled(value: Any) -> str:
        if value is None:
            return r"\N"
        return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    return ("\t".join(map(spelled, row)) + "\n").encode()


@pytest.fixture
def make_target(database: str) -> Iterator[Callable[..., PostgresqlTarget]]:
    """Makes targets, claimed for an epoch where one is given."""
    made: list[PostgresqlTarget] = []

    def make(
        epoch: int | None = None, *, url: str = database, key: str = "shop", control: str = _CONTROL
    ) -> PostgresqlTarget:
        target = PostgresqlTarget(parse_url(url, "warehouse"), io_timeout_seconds=10)
        made.append(target)
        if epoch is not None:
            target.claim(key, control, epoch, f"owner{epoch}")
        return target

    yield make
    for target in made:
        target.close()


@pytest.fixture
def target(make_target: Callable[..., PostgresqlTarget]) -> PostgresqlTarget:
    return make_target(1)


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A look from outside."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        yield connection


@pytest.fixture
def failpoints() -> Iterator[Callable[[str], None]]:
    yield arm
    arm(None)


def _load(
    target: PostgresqlTarget, table: TablePlan, rows: Sequence[Row], chunk: int = 0, generation: str = "g"
) -> bool:
    lines = [_line(row) for row in rows]
    size = sum(map(len, lines))
    return target.load_chunk(table, Chunk(index=chunk), generation, len(rows), size, "d", lines)


def _apply(target: PostgresqlTarget, steps: Sequence[ddl.Step], generation: str = "g") -> list[bool]:
    return [target.apply(step, generation) for step in steps]


def _made(target: PostgresqlTarget, table: TablePlan, rows: Sequence[Row] = ()) -> TablePlan:
    """Create the landing table and fill it."""
    _apply(target, ddl.create("shop", table))
    _load(target, table, rows)
    return table


def total(digests: Sequence[Digest]) -> Digest:
    return sum(digests, Digest())


def _rows(db: psycopg.Connection[Any], relation: str = "public.t", columns: str = "*") -> list[Row]:
    return db.execute(f"SELECT {columns} FROM {relation} t ORDER BY t".encode()).fetchall()


def _one(
    db: psycopg.Connection[Any], query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> Any:
    row = db.execute(query.encode(), parameters).fetchone()
    assert row
    return row[0]


# ── Claiming ─────────────────────────────────────────────────────────────────────────────────────────────


def test_looking_leaves_no_trace(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any]
) -> None:
    """Until the claim a target is untouched: no ledger, and an empty view of it."""
    target = make_target()
    assert target.ledger("shop") == LedgerView()
    assert target.inspect("public", ["t"]) == {}
    assert target.info().dialect == "postgresql"
    assert _one(db, "SELECT to_regnamespace('jivs_ledger') IS NULL") is True


def test_a_claim_raises_the_epoch(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any]
) -> None:
    """It never falls, and an equal one is only its own owner's."""
    target = make_target()
    target.claim("shop", _CONTROL, 5, "me")
    assert target.ledger("shop").epoch == 5
    target.claim("shop", _CONTROL, 5, "me")
    for epoch, owner in ((4, "me"), (1, "me"), (5, "you")):
        with pytest.raises(FencedError, match="A newer run has claimed migration 'shop'"):
            make_target().claim("shop", _CONTROL, epoch, owner)
    assert _rows(db, "jivs_ledger.migrations", "key, control_id::text, epoch, owner") == [
        ("shop", _CONTROL, 5, "me")
    ]
    make_target().claim("shop", _CONTROL, 9, "you")
    assert target.ledger("shop").epoch == 9
    make_target().claim("other", _CONTROL, 1, "you")
    assert target.ledger("other").epoch == 1


def test_without_a_claim_nothing_can_be_written(make_target: Callable[..., PostgresqlTarget]) -> None:
    target = make_target()
    for write in _WRITES.values():
        with pytest.raises(TerminalError, match="not claimed"):
            write(target)


class _Stuck:
    """A chunk whose COPY has begun and does not end before `go`."""

    def __init__(
        self, target: PostgresqlTarget, table: TablePlan, rows: Sequence[Row], pool: ThreadPoolExecutor
    ) -> None:
        self.began, self.go = threading.Event(), threading.Event()

        def pieces() -> Iterator[bytes]:
            yield _line(rows[0])
            self.began.set()
            assert self.go.wait(30)
            for row in rows[1:]:
                yield _line(row)

        self.result: Future[bool] = pool.submit(
            target.load_chunk, table, Chunk(index=0), "g", len(rows), 1, "d", pieces()
        )
        assert self.began.wait(10)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_a_takeover_ends_an_open_copy(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    """The old run's backend holds the ledger's row; it is terminated, and nothing of its chunk stays."""
    old = make_target(1)
    table = _made(old, _table())
    db.execute("TRUNCATE jivs_ledger.chunks, public.t")
    stuck = _Stuck(old, table, [(1, "x"), (2, "y")], pool)
    try:
        began = time.monotonic()
        new = make_target(2)
        assert time.monotonic() - began < 5
    finally:
        stuck.go.set()
    with pytest.raises(TransientError):
        stuck.result.result(10)
    assert _rows(db) == []
    assert new.ledger("shop").chunks == {}
    with pytest.raises(FencedError):
        _load(old, table, [(1, "x"), (2, "y")])
    assert _load(new, table, [(3, "z")])
    assert _rows(db) == [(3, "z")]


def test_a_takeover_waits_for_a_writer_that_it_cannot_end(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    """The fence is a lock: as long as a writer's transaction is open, no newer epoch begins."""
    old = make_target(1)
    table = _table()
    _apply(old, ddl.create("shop", table))
    stuck = _Stuck(old, table, [(1, "x"), (2, "y")], pool)
    db.execute("DELETE FROM jivs_ledger.backends")
    claim = pool.submit(make_target, 2)
    try:
        time.sleep(0.4)
        assert not claim.done()
        assert _one(db, "SELECT epoch FROM jivs_ledger.migrations") == 1
    finally:
        stuck.go.set()
    assert stuck.result.result(10) is True
    new: PostgresqlTarget = claim.result(10)
    assert new.ledger("shop").chunks == {("public.t", 0): ("g", 2, 1)}


def test_a_takeover_leaves_other_applications_alone(
    make_target: Callable[..., PostgresqlTarget], database: str, db: psycopg.Connection[Any]
) -> None:
    """Process ids are used again: pid, start time and application name must all match."""
    make_target(1)
    with psycopg.connect(database, application_name="psql", autocommit=True) as innocent:
        pid = innocent.info.backend_pid
        start = _one(db, "SELECT backend_start FROM pg_stat_activity WHERE pid = %s", (pid,))
        add = "INSERT INTO jivs_ledger.backends VALUES ('shop', 1, %s, %s::timestamptz + %s::interval, %s)"
        db.execute(add, (pid, start, "0", "jivs/x/1"))
        db.execute(add, (pid, start, "1 second", "psql"))
        make_target(2)
        assert innocent.execute("SELECT 1").fetchone() == (1,)
        db.execute("DELETE FROM jivs_ledger.backends")
        db.execute(add, (pid, start, "0", "psql"))
        make_target(3)
        with pytest.raises(psycopg.OperationalError):
            innocent.execute("SELECT 1")


def test_a_takeover_leaves_other_migrations_and_newer_epochs_alone(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any]
) -> None:
    """A claim that comes too late must not end the run that overtook it."""
    new, other = make_target(5), make_target(1, key="other")
    _apply(new, ddl.create("shop", _table("t")))
    _apply(other, ddl.create("other", _table("u")))
    before = {row[0] for row in _rows(db, "jivs_ledger.backends", "pid")}
    assert len(before) == 2
    with pytest.raises(FencedError):
        make_target(3)
    make_target(1, key="third")
    alive = {
        row[0] for row in db.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY (%s)", (list(before),))
    }
    assert alive == before
    assert _load(new, _table("t"), [(1, "x")])
    assert _load(other, _table("u"), [(1, "x")])


def test_two_control_databases_notice_each_other(make_target: Callable[..., PostgresqlTarget]) -> None:
    """Epochs of two control databases say nothing about each other, so a live run is not robbed."""
    one = make_target(1)
    _apply(one, ddl.create("shop", _table()))
    with pytest.raises(ConflictError, match="Another control database"):
        make_target(2, control=_OTHER_CONTROL)
    assert _load(one, _table(), [(1, "x")])
    one.close()
    time.sleep(0.1)
    until(lambda: _can(lambda: make_target(2, control=_OTHER_CONTROL)), "the way is free", 15)


def _can(action: Callable[[], object]) -> bool:
    try:
        action()
    except ConflictError:
        return False
    return True


def test_release_forgets_the_backends_and_keeps_the_epoch(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    _made(target, _table())
    assert _one(db, "SELECT count(*) FROM jivs_ledger.backends") == 1
    target.release()
    assert _one(db, "SELECT count(*) FROM jivs_ledger.backends") == 0
    assert target.ledger("shop").epoch == 1


# ── Fencing ──────────────────────────────────────────────────────────────────────────────────────────────

_STEP = ddl.Step("public.t", "extra", (sql.SQL("CREATE TABLE public.extra ()"),), {"drop": True})
_WRITES: dict[str, Callable[[PostgresqlTarget], object]] = {
    "load_chunk": lambda target: _load(target, _table(), [(1, "stale")], chunk=1),
    "apply": lambda target: target.apply(_STEP, "g"),
    "reset": lambda target: target.reset(_table()),
    "ensure_schema": lambda target: target.ensure_schema("fresh"),
    "undo_next": lambda target: target.undo_next(),
}


def _state(db: psycopg.Connection[Any]) -> dict[str, Any]:
    return {
        "rows": _rows(db) if _one(db, "SELECT to_regclass('public.t') IS NOT NULL") else None,
        "chunks": _rows(db, "jivs_ledger.chunks"),
        "steps": _rows(db, "jivs_ledger.steps"),
        "epochs": _rows(db, "jivs_ledger.migrations"),
        "backends": _rows(db, "jivs_ledger.backends"),
        "relations": db.execute("SELECT oid, relname FROM pg_class ORDER BY oid").fetchall(),
        "schemas": db.execute("SELECT nspname FROM pg_namespace ORDER BY oid").fetchall(),
    }


@pytest.mark.parametrize("write", list(_WRITES))
@pytest.mark.parametrize("known", ["its sessions are unknown", "it has none", "it is terminated"])
def test_a_stale_run_writes_nothing(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any], known: str, write: str
) -> None:
    """Whether the takeover could end its connections, found none or did not know them."""
    if known == "it has none":
        _made(make_target(1), _table(), [(1, "x")])
        old = make_target()
        old.claim("shop", _CONTROL, 1, "owner1")
    else:
        old = make_target(1)
        _made(old, _table(), [(1, "x")])
    if known == "its sessions are unknown":
        db.execute("DELETE FROM jivs_ledger.backends")
    new = make_target(2)
    before = _state(db)
    if known == "it is terminated":
        # By the time it is noticed, it is the connection that is lost, or the right to have another.
        with pytest.raises((TransientError, FencedError)):
            _WRITES[write](old)
        assert _state(db) == before
    with pytest.raises(FencedError, match=r"overtaken|taken migration 'shop' over from epoch 1"):
        _WRITES[write](old)
    assert _state(db) == before
    _WRITES[write](new)
    assert _state(db) != before


def test_a_migration_cannot_write_as_another(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any]
) -> None:
    """Equal epochs of two keys are two rights."""
    one, two = make_target(1), make_target(1, key="other")
    _made(one, _table())
    two.apply(ddl.Step("public.t", "create", (sql.SQL("CREATE TABLE public.u ()"),)), "g")
    two.reset(_table("u"))
    assert ("public.t", "create") in one.ledger("shop").steps
    assert _one(db, "SELECT to_regclass('public.u') IS NOT NULL") is True


# ── Chunks ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chunk_loads_once(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """The second call says so and does not even read the pieces."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    assert _load(target, table, [(1, "x"), (2, None)]) is True

    def untouched() -> Iterator[bytes]:
        pytest.fail("read")
        yield b""

    assert target.load_chunk(table, Chunk(index=0), "g", 2, 8, "d", untouched()) is False
    assert _load(target, table, [(3, "y")], chunk=1) is True
    assert _load(target, table, [], chunk=2) is True
    assert _rows(db) == [(1, "x"), (2, None), (3, "y")]
    assert target.ledger("shop").chunks == {
        ("public.t", 0): ("g", 2, 9), ("public.t", 1): ("g", 1, 4), ("public.t", 2): ("g", 0, 0),
    }  # fmt: skip
    assert target.ledger("shop").loaded("public.t", "g") == {0, 1, 2}
    assert _rows(db, "jivs_ledger.chunks", "epoch, digest") == [(1, "d")] * 3


def test_a_chunk_of_another_extraction_is_refused(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """Two snapshots in one table would be neither."""
    table = _made(target, _table(), [(1, "x")])
    with pytest.raises(TerminalError, match="from another extraction"):
        _load(target, table, [(1, "x")], generation="g2")
    assert _rows(db) == [(1, "x")]
    assert target.ledger("shop").stale("public.t", "g2")
    assert not target.ledger("shop").stale("public.t", "g")


@pytest.mark.parametrize("announced", [0, 1, 3, 1000])
def test_a_wrong_count_rolls_everything_back(
    target: PostgresqlTarget, db: psycopg.Connection[Any], announced: int
) -> None:
    """Neither rows nor ledger entry; with the right number it loads afterwards."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    lines = [_line((1, "x")), _line((2, "y"))]
    with pytest.raises(TerminalError, match=f"brought 2 rows instead of {announced}"):
        target.load_chunk(table, Chunk(index=0), "g", announced, 8, "d", lines)
    assert _rows(db) == []
    assert target.ledger("shop").chunks == {}
    assert target.load_chunk(table, Chunk(index=0), "g", 2, 8, "d", lines)


def _broken(error: Exception) -> Iterator[bytes]:
    yield _line((1, "x"))
    raise error


def test_a_source_that_breaks_in_the_middle_leaves_nothing(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    table = _table()
    _apply(target, ddl.create("shop", table))
    with pytest.raises(OSError, match="disk"):
        target.load_chunk(table, Chunk(index=0), "g", 2, 8, "d", _broken(OSError("disk")))
    with pytest.raises(DataError) as caught:
        _load(target, table, [(1, "x"), ("s3cret", "y")])
    assert "s3cret" not in str(caught.value)
    assert _rows(db) == []
    assert target.ledger("shop").chunks == {}
    assert _load(target, table, [(1, "x")])


def test_the_same_chunk_twice_at_once(
    target: PostgresqlTarget, db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    """A retry beside an attempt that still runs waits for it, and finds its entry."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    stuck = _Stuck(target, table, [(1, "x"), (2, "y")], pool)
    retry = pool.submit(_load, target, table, [(1, "x"), (2, "y")])
    time.sleep(0.2)
    assert not retry.done()
    stuck.go.set()
    assert stuck.result.result(10) is True
    assert retry.result(10) is False
    assert _rows(db) == [(1, "x"), (2, "y")]


def test_chunks_side_by_side(
    target: PostgresqlTarget, db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    table = _table()
    _apply(target, ddl.create("shop", table))
    rows = [[(chunk * 10 + n, "x") for n in range(10)] for chunk in range(20)]
    assert all(pool.map(lambda c: _load(target, table, rows[c], chunk=c), range(20)))
    assert not any(pool.map(lambda c: _load(target, table, rows[c], chunk=c), range(20)))
    assert [r[0] for r in _rows(db)] == list(range(200))


@pytest.mark.parametrize("wire", list(Wire))
def test_each_wire_form_arrives_as_it_left(
    target: PostgresqlTarget, db: psycopg.Connection[Any], wire: Wire
) -> None:
    """NULL, the empty text and the characters that the forms use themselves."""
    db.execute("CREATE TABLE public.source (a integer, b text)")
    texts = [None, "", "\\N", '"', "a\tb\nc", ",", "ü🦆", "\\.", " "]
    db.cursor().executemany("INSERT INTO public.source VALUES (%s, %s)", list(enumerate(texts)))
    form = {Wire.BINARY: "binary", Wire.TEXT: "text", Wire.CSV: "csv"}[wire]
    with db.cursor().copy(f"COPY public.source TO STDOUT (FORMAT {form})".encode()) as stream:
        pieces = [bytes(piece) for piece in stream]
    table = _table(wire=wire)
    _apply(target, ddl.create("shop", table))
    assert target.load_chunk(table, Chunk(index=0), "g", len(texts), 1, "d", pieces)
    assert _rows(db) == list(enumerate(texts))
    source = table.model_copy(update={"target_table": "source"})
    assert total(target.digests(table)) == total(target.digests_now(source))
    assert total(target.digests(table)).rows == target.count(table) == len(texts)


def test_a_load_that_only_waits_has_its_time(
    target: PostgresqlTarget, database: str, db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    """The server ends it by itself, here behind a lock of somebody else's; afterwards it loads."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    hasty = PostgresqlTarget(
        parse_url(database, "warehouse"), io_timeout_seconds=10, load_timeout_seconds=0.5
    )
    try:
        hasty.claim("shop", _CONTROL, 1, "owner1")
        with db.transaction():
            db.execute("LOCK TABLE public.t")
            load = pool.submit(_load, hasty, table, [(1, "x")])
            error = load.exception(8)
        assert isinstance(error, JivsError)
        assert (_rows(db), target.ledger("shop").chunks) == ([], {})
        assert _load(hasty, table, [(1, "x")])
    finally:
        hasty.close()


# ── Commits whose answer is lost ─────────────────────────────────────────────────────────────────────────


class _Cutter:
    """A proxy that cuts the connection at the next COMMIT: before the server gets it, or before its answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = at_port(url, self._listener.getsockname()[1])
        self.armed: str | None = None
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            thread = threading.Thread(target=self._relay, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if end is client and self.armed and b"COMMIT\0" in data:
                        how, self.armed = self.armed, None
                        self.cuts += 1
                        if how == "answer lost":
                            server.sendall(data)
                            assert server.recv(65536)
                        return
                    (server if end is client else client).sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def cutter(database: str) -> Iterator[_Cutter]:
    cutter = _Cutter(database)
    yield cutter
    cutter.close()


@pytest.mark.parametrize("how", ["never sent", "answer lost"])
def test_a_lost_commit_is_settled_by_the_ledger(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any], cutter: _Cutter, how: str
) -> None:
    """Both look alike from here; the retry loads what did not stand, and only that."""
    target = make_target(1, url=cutter.url)
    table, stood = _table(), how == "answer lost"
    try:
        cutter.armed = how
        with pytest.raises(TransientError):
            target.apply(ddl.create("shop", table)[0], "g")
        assert target.apply(ddl.create("shop", table)[0], "g") is not stood
        cutter.armed = how
        with pytest.raises(TransientError):
            _load(target, table, [(1, "x"), (2, "y")])
        assert _load(target, table, [(1, "x"), (2, "y")]) is not stood
    finally:
        target.close()
    assert cutter.cuts == 2
    assert _rows(db) == [(1, "x"), (2, "y")]
    assert [r[:3] for r in _rows(db, "jivs_ledger.chunks")] == [("shop", "public.t", 0)]


_PLACES = ["after_ledger_before_copy", "after_copy_before_commit", "before_commit", "after_commit"]


@pytest.mark.parametrize("place", _PLACES)
def test_an_error_anywhere_in_a_chunk(
    target: PostgresqlTarget, db: psycopg.Connection[Any], failpoints: Callable[[str], None], place: str
) -> None:
    """Rows and ledger agree at every point, and the retry completes."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    failpoints(f"{place}:error")
    with pytest.raises(TransientError):
        _load(target, table, [(1, "x")])
    stands = place == "after_commit"
    assert _rows(db) == ([(1, "x")] if stands else [])
    assert len(target.ledger("shop").chunks) == len(_rows(db))
    assert _load(target, table, [(1, "x")]) is not stands
    assert _rows(db) == [(1, "x")]


def test_a_backend_that_is_ended_before_its_commit(
    target: PostgresqlTarget,
    db: psycopg.Connection[Any],
    failpoints: Callable[[str], None],
    pool: ThreadPoolExecutor,
) -> None:
    """An administrator's pg_terminate_backend between COPY and COMMIT."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    failpoints("before_commit:sleep=1")
    load = pool.submit(_load, target, table, [(1, "x")])
    ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'jivs/%%' AND state = 'idle in transaction' AND query LIKE 'COPY%%'"
    until(lambda: _one(db, ended, ()) == 1, "a session to end", 15)
    with pytest.raises(TransientError):
        load.result(10)
    assert (_rows(db), target.ledger("shop").chunks) == ([], {})
    assert _load(target, table, [(1, "x")])


def test_a_restarted_server_costs_no_attempt(
    target: PostgresqlTarget, db: psycopg.Connection[Any], pool: ThreadPoolExecutor
) -> None:
    """However many connections lay idle: the policy tries three times, and each dead one would cost a try."""
    table = _table()
    _apply(target, ddl.create("shop", table))
    barrier = threading.Barrier(4)

    def pieces(number: int) -> Iterator[bytes]:
        barrier.wait(10)
        yield _line((number, "x"))

    list(pool.map(lambda n: target.load_chunk(table, Chunk(index=n), "g", 1, 1, "d", pieces(n)), range(4)))
    ended = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name LIKE 'jivs/%%'"
    assert _one(db, ended, ()) == 4
    assert _load(target, table, [(9, "x")], chunk=9)


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_runs_once(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """Its statements are not repeatable; the ledger says that it is done."""
    assert target.apply(_STEP, "g") is True
    assert target.apply(_STEP, "g2") is False
    assert target.ledger("shop").steps == {("public.t", "extra"): ("g", {"drop": True})}
    assert _one(db, "SELECT count(*) FROM pg_class WHERE relname = 'extra'") == 1


def test_a_step_happens_whole_or_not_at_all(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    statements = (sql.SQL("CREATE TABLE public.extra ()"), sql.SQL("SELECT 1 / 0"))
    with pytest.raises(DataError):
        target.apply(ddl.Step("public.t", "extra", statements), "g")
    assert target.ledger("shop").steps == {}
    assert _one(db, "SELECT to_regclass('public.extra') IS NULL") is True
    assert target.apply(_STEP, "g") is True


@pytest.mark.parametrize("place", ["inside_step", "before_commit", "after_commit"])
def test_an_error_anywhere_in_a_step(
    target: PostgresqlTarget, db: psycopg.Connection[Any], failpoints: Callable[[str], None], place: str
) -> None:
    failpoints(f"{place}:error")
    with pytest.raises(TransientError):
        target.apply(_STEP, "g")
    stands = place == "after_commit"
    assert (("public.t", "extra") in target.ledger("shop").steps) is stands
    assert _one(db, "SELECT to_regclass('public.extra') IS NOT NULL") is stands
    assert target.apply(_STEP, "g") is not stands


def test_the_schema_is_made_where_it_is_missing(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    for name in ('we"ird', "public", 'we"ird'):
        target.ensure_schema(name)
    assert _one(db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'we\"ird'") == 1


# ── Reset ────────────────────────────────────────────────────────────────────────────────────────────────


def test_reset_makes_room_for_another_extraction(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """The table and its entries go, those of other tables stay."""
    table, other = _made(target, _table(), [(1, "x")]), _made(target, _table("u"), [(1, "x")])
    target.reset(table)
    assert _one(db, "SELECT to_regclass('public.t') IS NULL") is True
    assert set(target.ledger("shop").steps) == {("public.u", "create")}
    assert set(target.ledger("shop").chunks) == {("public.u", 0)}
    _apply(target, ddl.create("shop", table), "g2")
    assert _load(target, table, [(2, "y")], generation="g2")
    assert (_rows(db), _rows(db, "public.u")) == ([(2, "y")], [(1, "x")])
    assert other.target == "public.u"


def test_reset_drops_only_what_we_made(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """A table of that name without our entry is somebody's."""
    db.execute("CREATE TABLE public.t AS SELECT 1 AS a, 'precious' AS b")
    for mode in TableMode:
        target.reset(_table(mode=mode))
    assert _one(db, "SELECT to_regclass('public.t') IS NOT NULL") is True
    assert _rows(db) == [(1, "precious")]


def test_reset_keeps_what_was_set_aside(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """The rows of before come back only from there."""
    db.execute("CREATE TABLE public.t AS SELECT 1 AS a, 'before' AS b")
    table = _made(target, _table(mode=TableMode.REPLACE), [(1, "x")])
    target.reset(table)
    assert set(target.ledger("shop").steps) == {("public.t", "set aside")}
    assert not target.ledger("shop").stale("public.t", "g2")
    _apply(target, ddl.create("shop", table), "g2")
    assert _load(target, table, [(2, "y")], generation="g2")
    assert _rows(db) == [(2, "y")]
    assert _rows(db, _kept(table)) == [(1, "before")]


def test_reset_of_a_table_that_others_refer_to(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """Our keys to it go and are made again; somebody else's keep the table, and nothing is lost silently."""
    parent, child = _family()
    for table, rows in ((parent, [(1, None)]), (child, [(1, 1)])):
        _made(target, table, rows)
        _apply(target, [*ddl.build_keys(table), *ddl.build_references(table), *ddl.check_references(table)])
    assert ("public.child", "foreign key child_fk") in target.ledger("shop").steps
    target.reset(parent)
    assert set(target.ledger("shop").steps) == {("public.child", "create")}
    _made(target, parent, [(1, None)])
    assert all(
        _apply(
            target,
            [
                *ddl.build_keys(parent),
                *ddl.build_references(parent),
                *ddl.check_references(parent),
                *ddl.build_references(child),
                *ddl.check_references(child),
            ],
        )
    )
    assert _constraints(db, "child")["child_fk"][0] == "FOREIGN KEY (p) REFERENCES public.parent(id)"
    db.execute("CREATE TABLE public.theirs (p integer REFERENCES public.parent (id))")
    with pytest.raises(TerminalError):
        target.reset(parent)
    assert _rows(db, "public.parent") == [(1, None)]
    assert ("public.child", "foreign key child_fk") in target.ledger("shop").steps


# ── Tables that were there before ────────────────────────────────────────────────────────────────────────


def _kept(table: TablePlan) -> str:
    return steps.kept("shop", table).as_string()


def _side(table: TablePlan) -> str:
    return ddl.landing("shop", table).as_string()


def _family(mode: TableMode = TableMode.CREATE) -> tuple[TablePlan, TablePlan]:
    """A parent that refers to itself, and its child."""
    integers = (Column("id", "integer", nullable=False), Column("p", "integer"))
    parent = _table(
        "parent", integers, mode=mode, primary_key=Key("parent_pk", ("id",)),
        foreign_keys=(ForeignKey("parent_fk", ("p",), "public", "parent", ("id",)),),
    )  # fmt: skip
    child = _table(
        "child",
        integers,
        mode=mode,
        foreign_keys=(ForeignKey("child_fk", ("p",), "public", "parent", ("id",)),),
    )
    return parent, child


def test_replace_sets_the_old_table_aside(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """Its indexes and sequences go along, so that their names are free."""
    db.execute(
        "CREATE TABLE public.t (a serial CONSTRAINT t_pkey PRIMARY KEY, b text, c text); INSERT INTO public.t VALUES (9, 'old', 'c')"
    )
    numbered = (
        Column("a", "integer", nullable=False, identity=Identity(sequence="t_a_seq")),
        Column("b", "text"),
    )
    table = _table(columns=numbered, mode=TableMode.REPLACE, primary_key=Key("t_pkey", ("a",)))
    assert _apply(target, ddl.create("shop", table)) == [True, True]
    assert _rows(db) == []
    assert _rows(db, _kept(table)) == [(9, "old", "c")]
    assert target.ledger("shop").steps[("public.t", "set aside")][1] == {
        "restore": _kept(table).split(".")[0].strip('"')
    }
    assert target.ledger("shop").made == {"public.t"}
    _load(target, table, [(1, "new")])
    _apply(target, [*ddl.build_keys(table), *ddl.number(table, {"a": 2})])
    assert _apply(target, ddl.create("shop", table)) == [False, False]
    assert not target.ledger("shop").stale("public.t", "g"), "a run that resumes here would drop the table"
    assert _rows(db, _kept(table)) == [(9, "old", "c")]
    assert _rows(db) == [(1, "new")]
    assert _one(db, "INSERT INTO public.t (b) VALUES ('next') RETURNING a") == 2


def _guarded(db: psycopg.Connection[Any], name: str = "t") -> None:
    """Triggers that would change, double or refuse rows, in each state that a trigger can be in."""
    db.execute(
        "CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.b := TG_NAME; RETURN NEW; END $$"
    )
    for trigger, state in (
        ("on", "ENABLE"),
        ("off", "DISABLE"),
        ("re plica", "ENABLE REPLICA"),
        ('alw"ays', "ENABLE ALWAYS"),
    ):
        quoted = sql.Identifier(trigger)
        table = sql.Identifier("public", name)
        db.execute(
            sql.SQL(
                "CREATE TRIGGER {} BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION public.meddle()"
            ).format(quoted, table)
        )
        db.execute(sql.SQL("ALTER TABLE {} " + state + " TRIGGER {}").format(table, quoted))


def _triggers(db: psycopg.Connection[Any], name: str = "t") -> dict[str, str]:
    query = "SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
    return dict(db.execute(query, (f"public.{name}",)).fetchall())


@pytest.mark.parametrize("mode", [TableMode.TRUNCATE, TableMode.APPEND])
def test_rows_are_merged_at_the_end(
    target: PostgresqlTarget, db: psycopg.Connection[Any], mode: TableMode
) -> None:
    """Until then readers see the table as it was; then all at once, with nobody's triggers between."""
    db.execute(
        "CREATE TABLE public.t (b text, extra text DEFAULT 'filled', a integer); INSERT INTO public.t VALUES ('old', 'mine', 0)"
    )
    _guarded(db)
    table = _made(target, _table(mode=mode), [(1, "x"), (2, None)])
    assert _rows(db) == [("old", "mine", 0)]
    assert (
        total(target.digests(table)).rows == target.count(table) == (1 if mode is TableMode.TRUNCATE else 2)
    )
    (merge,) = ddl.merge("shop", [table])
    assert target.apply(merge, "") is True
    assert target.apply(merge, "") is False
    new = [("x", "filled", 1), (None, "filled", 2)]
    assert sorted(_rows(db), key=str) == sorted(
        new if mode is TableMode.TRUNCATE else [("old", "mine", 0), *new], key=str
    )
    assert _triggers(db) == {"on": "O", "off": "D", "re plica": "R", 'alw"ays': "A"}
    emptied = mode is TableMode.TRUNCATE
    assert target.ledger("shop").steps[("*", "merge")][1] == {
        "merged": [{"table": ["public", "t"], "emptied": emptied, "key": []}]
    }
    assert total(target.digests(table)).rows == 2
    if mode is TableMode.TRUNCATE:
        assert _rows(db, _kept(table)) == [("old", "mine", 0)]
    assert not target.ledger("shop").stale("public.t", "g")
    left = "SELECT relname FROM pg_class WHERE relnamespace = 'jivs_ledger'::regnamespace AND relname ~ '^(side|kept)_'"
    assert str(_one(db, left)).startswith("kept_" if mode is TableMode.TRUNCATE else "side_"), (
        "one copy, not two"
    )


def test_one_merge_for_all_tables_or_none(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """A row that the second table refuses leaves the first as it was, triggers included."""
    db.execute("CREATE TABLE public.t (a integer, b text); INSERT INTO public.t VALUES (0, 'old')")
    db.execute("CREATE TABLE public.u (a integer CHECK (a < 5), b text)")
    _guarded(db)
    tables = [
        _made(target, _table(n, mode=TableMode.TRUNCATE), [(1, "x"), (a, "y")])
        for n, a in (("t", 2), ("u", 5))
    ]
    with pytest.raises(DataError):
        _apply(target, ddl.merge("shop", tables), "")
    assert (_rows(db), _rows(db, "public.u")) == ([(0, "old")], [])
    assert _triggers(db)["on"] == "O"
    assert ("*", "merge") not in target.ledger("shop").steps
    db.execute("ALTER TABLE public.u DROP CONSTRAINT u_a_check")
    assert _apply(target, ddl.merge("shop", tables), "") == [True]


@pytest.mark.parametrize("mode", [TableMode.TRUNCATE, TableMode.APPEND])
def test_foreign_keys_hold_during_a_merge(
    target: PostgresqlTarget, db: psycopg.Connection[Any], mode: TableMode
) -> None:
    """Parents first; rows of one table may refer to each other in any order."""
    db.execute(
        "CREATE TABLE public.parent (id integer PRIMARY KEY, p integer REFERENCES public.parent (id));"
        "CREATE TABLE public.child (id integer, p integer REFERENCES public.parent (id));"
        "INSERT INTO public.parent VALUES (100, NULL); INSERT INTO public.child VALUES (1, 100)"
    )
    parent, child = _family(mode)
    _made(target, parent, [(1, 2), (2, 3), (3, None)])
    _made(target, child, [(7, 3)])
    with pytest.raises(DataError):
        _apply(target, ddl.merge("shop", [child, parent]), "")
    assert _apply(target, ddl.merge("shop", [parent, child]), "") == [True]
    before = mode is TableMode.APPEND
    assert _rows(db, "public.parent") == [(1, 2), (2, 3), (3, None), *([(100, None)] if before else [])]
    assert _rows(db, "public.child") == [*([(1, 100)] if before else []), (7, 3)]


def test_there_is_nothing_to_merge_for_new_tables() -> None:
    assert ddl.merge("shop", [_table()]) == []


def test_tables_of_one_name_are_replaced_in_two_schemas(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """What is set aside keeps the names of its indexes, and they do not meet."""
    for schema in ("one", "two"):
        db.execute(
            f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (a integer CONSTRAINT t_pkey PRIMARY KEY)".encode()
        )
        table = _table("t", schema=schema, mode=TableMode.REPLACE, primary_key=Key("t_pkey", ("a",)))
        assert all(_apply(target, [*ddl.create("shop", table), *ddl.build_keys(table)]))


def test_an_identity_is_taken_over_as_it_is(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """GENERATED ALWAYS would number the rows anew."""
    db.execute("CREATE TABLE public.t (a integer GENERATED ALWAYS AS IDENTITY, b text)")
    table = _made(target, _table(mode=TableMode.APPEND), [(41, "x")])
    assert _apply(target, ddl.merge("shop", [table]), "") == [True]
    assert _rows(db) == [(41, "x")]


# ── Numbering ────────────────────────────────────────────────────────────────────────────────────────────

_END = "end"
_NUMBERS: list[tuple[str, Identity, Sequence[int], int, int | str]] = [
    # type, identity, rows, the source's next number -> ours
    ("bigint", Identity(), [], 1, 1),
    ("bigint", Identity(), [1, 2, 5], 8, 8),
    ("bigint", Identity(), [1, 2, 5], 6, 6),
    ("bigint", Identity(), [1, 2, 10], 3, 11),
    ("bigint", Identity(), [10], 10, 11),
    ("bigint", Identity(start=500), [-5, -1], 500, 500),
    ("bigint", Identity(increment=10), [1, 11, 21], 31, 31),
    ("bigint", Identity(increment=10), [1, 11, 25], 31, 31),
    ("bigint", Identity(increment=10), [1, 33], 31, 43),
    ("bigint", Identity(), [_BIG - 1], _BIG, _BIG),
    ("bigint", Identity(), [_BIG], _BIG + 1, _END),
    ("bigint", Identity(), [_BIG], 5, _END),
    ("bigint", Identity(), [3], _BIG + 1, _END),
    ("smallint", Identity(), [32766], 32767, 32767),
    ("smallint", Identity(), [32767], 32768, _END),
    ("integer", Identity(maximum=100), [100], 101, _END),
    ("integer", Identity(maximum=100, cycle=True), [100], 101, 1),
    ("integer", Identity(minimum=50, start=50), [60], 61, 61),
    ("bigint", Identity(increment=-1, start=-1), [], -1, -1),
    ("bigint", Identity(increment=-1, start=-1), [-1, -5], -6, -6),
    ("bigint", Identity(increment=-1, start=-1), [-1, -10], -3, -11),
    ("bigint", Identity(increment=-1, start=-1), [-1, 10], -3, -3),
    ("bigint", Identity(increment=-2, start=-1, minimum=-9), [-1, -9], -11, _END),
    ("bigint", Identity(increment=-1, start=-1), [-_BIG - 1], -_BIG - 2, _END),
    ("bigint", Identity(increment=-1, start=-1), [-_BIG], -_BIG - 1, -_BIG - 1),
]  # fmt: skip


@pytest.mark.parametrize("sequence", [None, 'Se"q'], ids=["identity", "serial"])
def test_numbering_goes_on(
    target: PostgresqlTarget, db: psycopg.Connection[Any], sequence: str | None
) -> None:
    """Where the source would, but never on a number that is there; a used-up sequence stays used up."""
    for number, (kind, identity, rows, following, expected) in enumerate(_NUMBERS):
        own = f"{sequence}{number}" if sequence else None
        column = Column("a", kind, nullable=False, identity=dataclasses.replace(identity, sequence=own))
        table = _made(target, _table(f"t{number}", (column, Column("b", "text"))), [(r, "x") for r in rows])
        assert _apply(target, ddl.number(table, {"a": following})) == [True], _NUMBERS[number]
        insert = f"INSERT INTO public.t{number} (b) VALUES ('next') RETURNING a"
        if expected == _END:
            with pytest.raises(psycopg.errors.SequenceGeneratorLimitExceeded):
                db.execute(insert.encode())
        else:
            assert _one(db, insert) == expected, _NUMBERS[number]


def test_a_sequence_is_what_the_definition_says(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """Options, owner and, for identities, ALWAYS or BY DEFAULT."""
    options = Identity(start=7, increment=3, minimum=-5, maximum=1000, cache=20, cycle=True)
    columns = (
        Column("a", "smallint", nullable=False, identity=dataclasses.replace(options, always=True)),
        Column("b", "integer", nullable=False, identity=options),
        Column("c", "bigint", nullable=False, identity=dataclasses.replace(options, sequence="c_numbers")),
    )
    _apply(target, ddl.create("shop", _table("t", columns)))
    found = db.execute(
        "SELECT seqtypid::regtype::text, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle, d.deptype::text"
        " FROM pg_sequence s JOIN pg_depend d ON d.objid = s.seqrelid AND d.refobjid = 'public.t'::regclass ORDER BY d.refobjsubid"
    ).fetchall()
    assert found == [
        (t, 7, 3, -5, 1000, 20, True, d) for t, d in (("smallint", "i"), ("integer", "i"), ("bigint", "a"))
    ]
    identities = db.execute(
        "SELECT attidentity::text FROM pg_attribute WHERE attrelid = 'public.t'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert identities.fetchall() == [("a",), ("d",), ("",)]
    default = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'public.t'::regclass"
    assert _one(db, default) == "nextval('public.c_numbers'::regclass)"


def test_numbers_that_were_given_out_do_not_come_back(
    target: PostgresqlTarget, db: psycopg.Connection[Any], failpoints: Callable[[str], None]
) -> None:
    """Rows that the target had before may be deleted, but somebody may remember their numbers."""
    db.execute(
        "CREATE TABLE public.t (a bigserial, b text); INSERT INTO public.t (b) SELECT 'x' FROM generate_series(1, 50); DELETE FROM public.t WHERE a > 3"
    )
    columns = (Column("a", "bigint", nullable=False, identity=Identity()), Column("b", "text"))
    table = _made(target, _table("t", columns, mode=TableMode.APPEND), [(10, "new")])
    _apply(target, ddl.merge("shop", [table]))
    # A sequence keeps what it was set to in a transaction that did not commit.
    failpoints("before_commit:error")
    with pytest.raises(TransientError):
        _apply(target, ddl.number(table, {"a": 11}))
    arm(None)
    assert _apply(target, ddl.number(table, {"a": 11})) == [True]
    assert _one(db, "INSERT INTO public.t (b) VALUES ('next') RETURNING a") == 51


def test_an_existing_table_that_does_not_number_itself(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    db.execute("CREATE TABLE public.t (a bigint, b text)")
    columns = (Column("a", "bigint", nullable=False, identity=Identity()), Column("b", "text"))
    table = _made(target, _table("t", columns, mode=TableMode.APPEND), [(10, "new")])
    assert _apply(target, [*ddl.merge("shop", [table]), *ddl.number(table, {"a": 11})]) == [True, True]
    assert ddl.number(table, {}) == []


# ── The catalog ──────────────────────────────────────────────────────────────────────────────────────────


def _constraints(db: psycopg.Connection[Any], name: str) -> dict[str, Row]:
    """Name -> definition, deferrable, initially deferred, validated."""
    query = (
        "SELECT conname, pg_get_constraintdef(k.oid), condeferrable, condeferred, convalidated"
        " FROM pg_constraint k JOIN pg_class c ON c.oid = conrelid WHERE relname = %s AND contype <> 'n'"
    )
    return {row[0]: row[1:] for row in db.execute(query, (name,))}


def test_columns_are_what_the_definition_says(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    columns = (
        Column("a", "numeric(10,2)", nullable=False, default="1.50"),
        Column("b", "text", collation='pg_catalog."C"', comment='it\'s \\ "quoted"'),
        Column("c", "numeric", generated="a * (2)::numeric"),
        Column("d", "integer[]", default="'{1,2}'::integer[]"),
    )
    table = _table(columns=columns, unlogged=True, comment="a table's\ncomment")
    _made(target, table, [("2.25", "x", "{3}")])
    _apply(target, ddl.describe(table))
    found = db.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid), attgenerated::text,"
        " CASE WHEN attcollation = '\"C\"'::regcollation THEN 'C' END, col_description(attrelid, attnum)"
        " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = 'public.t'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    assert found == [
        ("a", "numeric(10,2)", True, "1.50", "", None, None),
        ("b", "text", False, None, "", "C", 'it\'s \\ "quoted"'),
        ("c", "numeric", False, "(a * (2)::numeric)", "s", None, None),
        ("d", "integer[]", False, "'{1,2}'::integer[]", "", None, None),
    ]
    assert [str(v) for v in _rows(db)[0]] == ["2.25", "x", "4.50", "[3]"]
    assert _one(db, "SELECT relpersistence::text FROM pg_class WHERE oid = 'public.t'::regclass") == "u"
    assert _one(db, "SELECT obj_description('public.t'::regclass)") == "a table's\ncomment"


_ABC = (Column("a", "integer", nullable=False), Column("b", "integer"), Column("c", "text"))


def test_keys_are_what_the_definition_says(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    keys = (
        Key("u1", ("b", "a")),
        Key("u2", ("b",), deferrable=True),
        Key("u3", ("a", "b"), deferrable=True, initially_deferred=True, comment="third"),
        Key("u4", ("b",), nulls_not_distinct=True, include=("c",)),
        Key(None, ("c",)),
    )
    table = _made(
        target, _table(columns=_ABC, primary_key=Key("t pk", ("a",), include=("c",)), unique_keys=keys)
    )
    _apply(target, [*ddl.build_keys(table), *ddl.describe(table)])
    assert _constraints(db, "t") == {
        "t pk": ("PRIMARY KEY (a) INCLUDE (c)", False, False, True),
        "u1": ("UNIQUE (b, a)", False, False, True),
        "u2": ("UNIQUE (b) DEFERRABLE", True, False, True),
        "u3": ("UNIQUE (a, b) DEFERRABLE INITIALLY DEFERRED", True, True, True),
        "u4": ("UNIQUE NULLS NOT DISTINCT (b) INCLUDE (c)", False, False, True),
        "t_c_key": ("UNIQUE (c)", False, False, True),
    }
    assert (
        _one(db, "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'u3'")
        == "third"
    )


def test_checks_are_what_the_definition_says(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    checks = (
        Check("c1", "(a > 0)"),
        Check("c2", "a < 10", valid=False),
        Check("c3", "c ~~ '%x%'::text", no_inherit=True),
        Check(None, "a <> 5"),
    )
    table = _made(target, _table(columns=_ABC, checks=checks), [(50, 1, "x")])
    assert all(_apply(target, [*ddl.build_indexes(table), *ddl.build_checks(table)]))
    assert _constraints(db, "t") == {
        "c1": ("CHECK ((a > 0))", False, False, True),
        "c2": ("CHECK ((a < 10)) NOT VALID", False, False, False),
        "c3": ("CHECK ((c ~~ '%x%'::text)) NO INHERIT", False, False, True),
        "t_a_check": ("CHECK ((a <> 5))", False, False, True),
    }


def test_indexes_are_what_the_definition_says(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    def part(column: str | None, **more: Any) -> IndexPart:
        return IndexPart(column, **more)

    indexes = (
        Index("i1", (part("a"), part("b", descending=True))),
        Index(
            "i2", (part("a", nulls_first=True), part("b", descending=True, nulls_first=False)), unique=True
        ),
        Index("i3", (part(None, expression="lower(c)"),), predicate="a > 5"),
        Index("i4", (part("c", collation='pg_catalog."C"', opclass="text_pattern_ops"),)),
        Index("i5", (part("c"),), method="hash", comment="hashed"),
        Index("i6", (part("a"),), method="brin", with_options=("pages_per_range=16",)),
        Index("i7", (part("a"),), unique=True, include=("b", "c"), nulls_not_distinct=True),
        Index("i8", (part(None, expression="a + b"), part("c")), with_options=("fillfactor=50",)),
    )
    table = _made(target, _table(columns=_ABC, indexes=indexes))
    assert all(_apply(target, [*ddl.build_indexes(table), *ddl.build_checks(table), *ddl.describe(table)]))
    found = {
        name: text.partition(" USING ")[::2]
        for name, text in db.execute(
            "SELECT indexname, indexdef FROM pg_catalog.pg_indexes WHERE schemaname = 'public'"
        )
    }
    plain, unique = "CREATE INDEX {} ON public.t", "CREATE UNIQUE INDEX {} ON public.t"
    assert found == {
        "i1": (plain.format("i1"), "btree (a, b DESC)"),
        "i2": (unique.format("i2"), "btree (a NULLS FIRST, b DESC NULLS LAST)"),
        "i3": (plain.format("i3"), "btree (lower(c)) WHERE (a > 5)"),
        "i4": (plain.format("i4"), 'btree (c COLLATE "C" text_pattern_ops)'),
        "i5": (plain.format("i5"), "hash (c)"),
        "i6": (plain.format("i6"), "brin (a) WITH (pages_per_range='16')"),
        "i7": (unique.format("i7"), "btree (a) INCLUDE (b, c) NULLS NOT DISTINCT"),
        "i8": (plain.format("i8"), "btree (((a + b)), c) WITH (fillfactor='50')"),
    }
    assert _one(db, "SELECT obj_description('public.i5'::regclass)") == "hashed"


def test_foreign_keys_are_what_the_definition_says(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    parent = _made(
        target, _table("parent", _ABC, primary_key=Key(None, ("a",)), unique_keys=(Key(None, ("b", "a")),))
    )
    to = ("public", "parent")
    references = (
        ForeignKey("f1", ("b",), *to, ("a",)),
        ForeignKey("f2", ("b",), *to, ("a",), "CASCADE", "SET NULL", deferrable=True),
        ForeignKey("f3", ("b", "a"), *to, ("b", "a"), "RESTRICT", "SET DEFAULT", match_full=True),
        ForeignKey("f4", ("b",), *to, ("a",), deferrable=True, initially_deferred=True, comment="fourth"),
        ForeignKey("f5", ("b",), *to, ("a",), valid=False),
        ForeignKey(None, ("a",), *to, ("a",)),
    )
    child = _made(target, _table("child", _ABC, foreign_keys=references))
    assert all(
        _apply(
            target,
            [
                *ddl.build_keys(parent),
                *ddl.build_references(child),
                *ddl.check_references(child),
                *ddl.describe(child),
            ],
        )
    )
    b, ba = "FOREIGN KEY (b) REFERENCES public.parent(a)", "FOREIGN KEY (b, a) REFERENCES public.parent(b, a)"
    assert _constraints(db, "child") == {
        "f1": (b, False, False, True),
        "f2": (f"{b} ON UPDATE SET NULL ON DELETE CASCADE DEFERRABLE", True, False, True),
        "f3": (f"{ba} MATCH FULL ON UPDATE SET DEFAULT ON DELETE RESTRICT", False, False, True),
        "f4": (f"{b} DEFERRABLE INITIALLY DEFERRED", True, True, True),
        "f5": (f"{b} NOT VALID", False, False, False),
        "child_a_fkey": ("FOREIGN KEY (a) REFERENCES public.parent(a)", False, False, True),
    }
    assert (
        _one(db, "SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'f4'")
        == "fourth"
    )


def test_unnamed_foreign_keys_get_names_of_their_own(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """Also where the usual name is taken, too long, or would serve two."""
    long = "é" * 31
    parent = _made(
        target, _table("parent", _ABC, primary_key=Key(None, ("a",)), unique_keys=(Key(None, ("b",)),))
    )
    _apply(target, ddl.build_keys(parent))
    to = ("public", "parent")
    references = (
        ForeignKey("child_a_fkey", ("b",), *to, ("a",)),
        ForeignKey(None, ("a",), *to, ("a",)),
        ForeignKey(None, ("b",), *to, ("a",)),
        ForeignKey(None, ("b",), *to, ("b",)),
        ForeignKey(None, (long,), *to, ("a",)),
    )
    child = _made(target, _table("child", (*_ABC, Column(long, "integer")), foreign_keys=references))
    assert all(_apply(target, [*ddl.build_references(child), *ddl.check_references(child)]))
    found = _constraints(db, "child")
    assert len(found) == 5
    assert sorted(d[0].partition(" REFERENCES ")[2] for d in found.values()) == ["public.parent(a)"] * 4 + [
        "public.parent(b)"
    ]


def test_a_key_that_rows_break_is_not_believed(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """A foreign key that rows break stays what the server calls not valid, and is checked again by the next run."""
    parent, child = _family()
    _made(target, parent, [(1, None)])
    _made(target, child, [(1, 99)])
    _apply(target, [*ddl.build_keys(parent), *ddl.build_references(child)])
    for _ in range(2):
        with pytest.raises(DataError):
            _apply(target, ddl.check_references(child))
        assert not _constraints(db, "child")["child_fk"][-1]
        assert ("public.child", "checking foreign key child_fk") not in target.ledger("shop").steps


_HOSTILE = [
    'quo"te', "it's", "a b", " lead", "MixedCase", "ünïcødé", "名前", "🦆", "select", "user", "x" * 63, "é" * 31, "%s",
    "%(key)s", "{}", "{0}", "a.b", "back\\slash", "--", ";DROP TABLE x", "/*", "$$", "tab\tnew\nline", ":a", "1",
]  # fmt: skip


@pytest.mark.parametrize("mode", list(TableMode))
def test_names_are_only_names(target: PostgresqlTarget, db: psycopg.Connection[Any], mode: TableMode) -> None:
    """Schemas, tables, columns, keys, indexes and sequences of any name, in every mode and stage."""
    for number, name in enumerate(_HOSTILE):
        other = f"{number}other"
        columns = (
            Column(
                name, "integer", nullable=False, identity=Identity(sequence=f"{number}seq'\"%"), comment=name
            ),
            Column(other, "text", default="'%s {} %(a)s'"),
        )
        table = _table(
            name, columns, schema=name, mode=mode, comment=name,
            spelling=list(Spelling)[number % 2],
            primary_key=Key(f'{number}pk %s"', (name,), comment=name),
            foreign_keys=(ForeignKey(f"{number}fk {{}}'", (name,), name, name, (name,), comment=name),),
            indexes=(Index(f'{number}ix {{0}}"', (IndexPart(name), IndexPart(other)), comment=name),),
            checks=(Check(f"{number}ck %%", "1 > 0"),),
        )  # fmt: skip
        relation = sql.Identifier(name, name)
        if mode is TableMode.CREATE:
            target.ensure_schema(name)
        else:
            db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            db.execute(
                sql.SQL("CREATE TABLE {} ({} serial PRIMARY KEY, {} text)").format(
                    relation, *map(sql.Identifier, (name, other))
                )
            )
        assert not target.ledger("shop").stale(table.target, "g")
        _made(target, table, [(1, "x"), (2, name)])
        if mode in {TableMode.CREATE, TableMode.REPLACE}:
            steps = [
                *ddl.build_keys(table),
                *ddl.build_indexes(table),
                *ddl.build_checks(table),
                *ddl.build_references(table),
                *ddl.check_references(table),
                *ddl.describe(table),
            ]
        else:
            merge = ddl.merge("shop", [table], {table.target: [(None, None)]})
            steps = [dataclasses.replace(step, name=f"merge {number}") for step in merge]
        assert all(_apply(target, [*steps, *ddl.number(table, {name: 3}), *ddl.analyze(table)])), name
        assert total(target.digests(table)).rows == target.count(table) == 2
        assert total(target.digests_now(table)) == total(target.digests(table))
        (found,) = target.inspect(name, [name]).values()
        assert [c.name for c in found.columns] == [name, other]
        texts = db.execute(sql.SQL("SELECT {} FROM {}").format(sql.Identifier(other), relation)).fetchall()
        assert texts == [("x",), (name,)]
        assert db.execute(
            sql.SQL("INSERT INTO {} DEFAULT VALUES RETURNING {}").format(relation, sql.Identifier(name))
        ).fetchone() == (3,)
        assert target.ledger("shop").loaded(table.target, "g") == {0}
        if mode is TableMode.CREATE:
            target.reset(table)
            assert target.inspect(name, [name]) == {}


def test_tables_of_one_name_in_two_schemas_are_set_aside(
    target: PostgresqlTarget, db: psycopg.Connection[Any]
) -> None:
    """Table names in the ledger's schema carry a hash of migration and table."""
    tables = [_table("t", schema=schema, mode=TableMode.TRUNCATE) for schema in ("one", "two")]
    for table in tables:
        db.execute(
            f"CREATE SCHEMA {table.target_schema}; CREATE TABLE {table.target} (a integer, b text)".encode()
        )
        _made(target, table, [(1, table.target)])
    assert _apply(target, ddl.merge("shop", tables), "") == [True]
    assert [_rows(db, t.target) for t in tables] == [[(1, "one.t")], [(1, "two.t")]]


def test_inspect_says_what_is_in_the_way(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    """Kinds, columns, and who would be hurt."""
    db.execute(
        "CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.t ();"
        "CREATE TABLE public.t (a integer PRIMARY KEY, b varchar(5) NOT NULL DEFAULT 'x', c integer GENERATED ALWAYS AS (a) STORED,"
        " d bigint GENERATED BY DEFAULT AS IDENTITY, gone text, self integer REFERENCES public.t (a));"
        "ALTER TABLE public.t DROP COLUMN gone;"
        "CREATE TABLE public.child (p integer CONSTRAINT child_fk REFERENCES public.t (a));"
        "CREATE VIEW public.v AS SELECT a FROM public.t;"
        "CREATE SEQUENCE public.s; CREATE INDEX i ON public.t (b)"
    )
    found = target.inspect("public", ["t", "v", "s", "i", "nothing", "T"])
    assert {n: e.kind for n, e in found.items()} == {"t": "r", "v": "v", "s": "S", "i": "i"}
    assert [(c.name, c.type, c.required, c.generated, c.filled) for c in found["t"].columns] == [
        ("a", "integer", True, False, False),
        ("b", "character varying(5)", True, False, True),
        ("c", "integer", False, True, True),
        ("d", "bigint", True, False, True),
        ("self", "integer", False, False, False),
    ]
    assert {(d.kind, d.name, d.schema, d.table) for d in found["t"].dependents} == {
        ("foreign key", "child_fk", "public", "child"),
        ("view", "v", "public", "v"),
    }
    assert found["v"].dependents == ()


@pytest.mark.parametrize("spelling", list(Spelling))
def test_the_digest_is_of_the_table_alone(
    target: PostgresqlTarget, db: psycopg.Connection[Any], spelling: Spelling
) -> None:
    """Rows of tables that inherit from it are theirs."""
    table = _made(target, _table(spelling=spelling), [(1, "x"), (2, None)])
    before = total(target.digests(table))
    db.execute("CREATE TABLE public.heir () INHERITS (public.t); INSERT INTO public.heir VALUES (3, 'y')")
    assert total(target.digests(table)) == total(target.digests_now(table)) == before
    assert target.count(table) == before.rows == 2
    db.execute("UPDATE ONLY public.t SET b = 'y' WHERE a = 1")
    assert total(target.digests(table)) != before


def test_a_reader_that_was_ended_comes_back(target: PostgresqlTarget, db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'jivs'")
    assert target.ledger("shop").epoch == 1


def test_a_canon_is_used_per_column(target: PostgresqlTarget) -> None:
    """Numbers of other scale are equal in the canonical spelling when the plan says numeric."""
    columns = (Column("a", "numeric"), Column("b", "text"))
    tables = [_table(name, columns, spelling=Spelling.CANONICAL) for name in ("t", "u")]
    numeric = [
        t.model_copy(
            update={"columns": (t.columns[0].model_copy(update={"canon": Canon.NUMERIC}), t.columns[1])}
        )
        for t in tables
    ]
    for table, value in zip(tables, ("1.5", "1.500"), strict=True):
        _made(target, table, [(value, "x")])
    assert total(target.digests(tables[0])) != total(target.digests(tables[1]))
    assert total(target.digests(numeric[0])) == total(target.digests(numeric[1]))


@pytest.mark.parametrize(("given", "wanted"), [("the default", "256MB"), ("32MB", "32MB"), ("1GB", "1GB")])
def test_indexes_get_as_much_memory_as_the_server_is_large_or_as_it_was_told(
    make_target: Callable[..., PostgresqlTarget], db: psycopg.Connection[Any], given: str, wanted: str
) -> None:
    name = sql.Identifier(db.info.dbname)
    if given != "the default":
        db.execute(
            sql.SQL("ALTER DATABASE {} SET maintenance_work_mem = {}").format(name, sql.Literal(given))
        )
    look = sql.SQL(
        "CREATE TABLE public.seen AS SELECT pg_catalog.current_setting('maintenance_work_mem') AS memory"
    )
    assert _apply(make_target(1), [ddl.Step("public.*", "look", (look,))]) == [True]
    # The embedded server's shared buffers are 256 MB.
    assert _rows(db, "public.seen") == [(wanted,)]
