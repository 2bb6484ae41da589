"""Row 8, one wait at a time: each wait on the network that could last for ever, and how long it lasts.

What belongs here: single connections, to the target and to the control database. What does not: whole migrations
(`test_networks.py`) and the source's connections (`integration/test_postgresql_source_faults.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import JivsError, TransientError
from jivs_pipeline.core.model import Column, Table
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.infra import ddl
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline_tests.faults.wire import Fault, MakeWire
from jivs_pipeline_tests.faults.wire import Wire as Proxy

pytestmark = pytest.mark.faults

_PATIENCE = 0.6
_BOUND = _PATIENCE + 10
_CONTROL = "11111111-1111-4111-8111-111111111111"
_LINES = b"".join(b"%d\t%s\n" % (n, b"x" * 1000) for n in range(1000))


def _table() -> TablePlan:
    columns = (Column("a", "integer"), Column("b", "text"))
    return TablePlan(
        source_schema="s", source_table="t", target_schema="public", target_table="t",
        columns=tuple(ColumnPlan(source=c.name, target=c.name, source_type=c.type, target_type=c.type) for c in columns),
        wire=Wire.TEXT, lane=Lane.COPY, spelling=Spelling.RECORD, definition=Table("public", "t", columns),
    )  # fmt: skip


@pytest.fixture
def wire(make_wire: MakeWire, database: str) -> Proxy:
    return make_wire(database)


@pytest.fixture
def target(wire: Proxy) -> Iterator[PostgresqlTarget]:
    """Claimed, with a table."""
    target = PostgresqlTarget(parse_url(wire.url, "warehouse"), io_timeout_seconds=_PATIENCE)
    try:
        target.claim("shop", _CONTROL, 1, "owner")
        for step in ddl.create("shop", _table()):
            target.apply(step, "g")
        yield target
    finally:
        target.close()


def _load(target: PostgresqlTarget, before: Callable[[], object] = lambda: None) -> bool:
    def pieces() -> Iterator[bytes]:
        yield _LINES
        before()
        # More than the socket's buffers hold.
        for _ in range(19):
            yield _LINES

    return target.load_chunk(_table(), Chunk(index=0), "g", 20_000, 1, "d", pieces())


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.STALL_ALL])
def test_a_chunk_whose_connection_breaks_does_not_hinder_the_next(
    target: PostgresqlTarget, wire: Proxy, database: str, fault: Fault
) -> None:
    """The server does not know that its client is gone, and holds the locks of the ledger's row."""
    began = time.monotonic()
    with pytest.raises(TransientError):
        _load(target, lambda: wire.strike(fault))
    assert time.monotonic() - began < _BOUND
    began = time.monotonic()
    assert _load(target)
    assert time.monotonic() - began < _BOUND
    with psycopg.connect(database) as db:
        assert db.execute("SELECT count(*), count(DISTINCT a) FROM public.t").fetchone() == (20_000, 1000)


@pytest.mark.parametrize("fault", [Fault.STALL_ALL, Fault.MUTE])
def test_interrupting_and_closing_do_not_wait_for_the_network(
    target: PostgresqlTarget, wire: Proxy, fault: Fault
) -> None:
    """Somebody has pressed Ctrl-C; with eight connections."""
    with ThreadPoolExecutor(9) as pool:
        lock = target._session("jivs lock")
        lock.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
        others = [target._session("jivs other") for _ in range(8)]
        waiting = [pool.submit(o.execute, "SELECT pg_advisory_xact_lock(1)") for o in others]
        while lock.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        ).fetchone() != (8,):
            time.sleep(0.01)
        wire.strike(fault)
        began = time.monotonic()
        target.interrupt()
        target.close()
        assert time.monotonic() - began < 5
        ends = [one.exception(began + _BOUND - time.monotonic()) for one in waiting]
    assert all(isinstance(end, psycopg.Error | JivsError) for end in ends)


@pytest.mark.parametrize("fault", [Fault.STALL_ALL, Fault.DEAF])
def test_a_target_that_is_asked(target: PostgresqlTarget, wire: Proxy, fault: Fault) -> None:
    wire.strike(fault)
    for succeeds in (False, fault is not Fault.STALL_ALL):
        began = time.monotonic()
        if succeeds:
            assert target.ledger("shop").epoch == 1
        else:
            with pytest.raises(TransientError):
                target.ledger("shop")
        assert time.monotonic() - began < _BOUND


@pytest.mark.parametrize("fault", [Fault.STALL_ALL, Fault.DEAF, Fault.RESET])
def test_a_verb_of_the_control_database(wire: Proxy, fault: Fault) -> None:
    """It waits for a server that was lost, but not for ever; where new connections work, it is not lost at all."""
    control = Control(wire.url, timeout_seconds=_PATIENCE)
    control.open()
    try:
        assert control.find("shop") is None
        wire.strike(fault)
        began = time.monotonic()
        try:
            assert control.find("shop") is None
        except JivsError:
            assert fault is Fault.STALL_ALL or time.monotonic() - began > _PATIENCE
        assert time.monotonic() - began < _BOUND
        wire.heal()
        deadline = time.monotonic() + _BOUND
        while True:
            try:
                assert control.find("shop") is None
                break
            except JivsError:
                assert time.monotonic() < deadline, "the pool does not come back"
    finally:
        began = time.monotonic()
        control.close()
        assert time.monotonic() - began < _BOUND


def test_a_control_database_that_never_answers(wire: Proxy) -> None:
    wire.strike(Fault.STALL_ALL)
    control = Control(wire.url, timeout_seconds=_PATIENCE)
    began = time.monotonic()
    with pytest.raises(JivsError):
        control.open()
    assert time.monotonic() - began < _BOUND
