"""Runs go on after a kill although the target or the staging area is not as it was left.

What belongs here: things that are gone, older or damaged. What does not: servers and networks that fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.acceptance.rows import ledger, tables_of
from jivs_pipeline_tests.faults.cases import Case, Cases, uncounted
from jivs_pipeline_tests.fix_cli import database_of
from jivs_pipeline_tests.fix_engine import until

pytestmark = pytest.mark.faults


@pytest.fixture(params=["sqlite", "postgresql"])
def case(cases: Cases, request: pytest.FixtureRequest) -> Iterator[Case]:
    with cases.case(uncounted(2), "create", request.param) as made:
        yield made


def test_a_target_that_lost_its_tables_is_noticed(case: Case, cases: Cases) -> None:
    """The target's own ledger has the last word: a target made anew between two runs is loaded from the start."""
    case.die("after_commit@14")
    assert ledger(case.target, case.key)
    _make(cases, database_of(case.target), "template0")
    case.complete()


def test_a_target_that_was_restored_is_noticed(case: Case, cases: Cases) -> None:
    """A backup from the middle of the load comes back after more was loaded: what it lacks is loaded again."""
    case.die("after_commit@12")
    name, backup = database_of(case.target), f"{database_of(case.target)}_backup"
    _make(cases, backup, name)
    try:
        middle = ledger(case.target, case.key)
        case.die("before_commit@8")
        later = ledger(case.target, case.key)
        assert sum(map(len, later.values())) > sum(map(len, middle.values())), "the second run added nothing"
        _make(cases, name, backup)
    finally:
        with psycopg.connect(cases.server, autocommit=True) as server:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(backup)))
    case.complete()
    after = ledger(case.target, case.key)
    for table, chunks in middle.items():
        assert set(chunks) <= set(after[table]), f"what the backup had of {table} was loaded again"


def _make(cases: Cases, name: str, template: str) -> None:
    """A database that is a copy of another, instead of the one of its name."""
    new, old = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(cases.server, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(new))
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (template,)
        )

        def copied() -> bool:
            try:
                server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(new, old))
            except psycopg.errors.ObjectInUse:
                return False
            return True

        until(copied, f"a copy of {template}", 10, 0.1)


@pytest.mark.parametrize("damage", ["one bit", "truncated"])
def test_a_staged_file_that_is_broken_is_never_loaded(case: Case, damage: str) -> None:
    """Whatever happens to the staging area between extract and load, the target gets the source's rows."""
    case.die("inside_step")
    assert len(case.staged) >= 20
    victim = case.staged[-1]
    content = bytearray(victim.read_bytes())
    if damage == "truncated":
        del content[-100:]
    else:
        content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    run = case.start()
    if run.wait() != 0:
        # Refusing is right as well, if running again repairs it.
        assert run.wait() == 1, run
        assert "error" in run.document, run
        with psycopg.connect(case.target) as db:
            assert "parents" in tables_of(db)
    case.complete()
