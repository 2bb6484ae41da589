"""A gate in a stack's target: loads stand still where they create their table, for as long as a test wants.

What belongs here: the gate, who waits at it, and the stack that has it. What does not: what is done meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from jivs_pipeline_tests.fix_stack import Stack, stack_of

GATE = """
CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity LIKE 'k_%.towns') THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
        IF obj_description('public'::regnamespace) = 'forbidden' THEN RAISE EXCEPTION 'not allowed here'; END IF;
    END IF;
END $$;
CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION gate();
"""
"""While a test holds the lock, every load stands still where it creates its table; while it is forbidden, it fails."""


@contextmanager
def gated_stack(jivs_home: tuple[Path, str], directory: Path, script: str) -> Iterator[Stack]:
    """As `stack_of`, with an open gate before each table `towns` in a schema `k_…`."""
    # The gate may be closed for longer than a database may usually be silent.
    with stack_of(jivs_home, directory, script, {"JIVS_IO_TIMEOUT_SECONDS": "120"}) as stack:
        with psycopg.connect(stack.target, autocommit=True) as db:
            db.execute(GATE)  # pyright: ignore[reportArgumentType]
        yield stack


@contextmanager
def closed_gate(stack: Stack) -> Iterator[Callable[[], None]]:
    """No load gets on until the given function is called, or the block ends."""
    with psycopg.connect(stack.target, autocommit=True) as db:
        db.execute("SELECT pg_advisory_lock(4711)")
        yield lambda: db.execute("SELECT pg_advisory_unlock_all()") and None


def wait_at_gate(stack: Stack, run_id: str) -> None:
    """Until a load stands there; the run's story tells why none does."""
    deadline = time.monotonic() + 90
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
    with psycopg.connect(stack.target, autocommit=True) as db:
        while db.execute(query).fetchone() == (0,):
            assert time.monotonic() < deadline, stack.story(run_id)
            time.sleep(0.1)


def forbid(stack: Stack, *, forbidden: bool) -> None:
    """Whether loads fail that come through the gate."""
    with psycopg.connect(stack.target, autocommit=True) as db:
        db.execute(f"COMMENT ON SCHEMA public IS '{'forbidden' if forbidden else ''}'".encode())
