"""The state machine twice: in `core/states.py` and in the control database. Both must say the same.

What belongs here: transitions, phases and the epoch as the database's own rules. What does not: the
verbs that use them (`test_control.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.states import RESUMABLE, TRANSITIONS, Phase, Status, allowed
from jivs_pipeline.infra import revisions


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        revisions.upgrade(connection, "control")
        yield connection


def _migration(db: psycopg.Connection[Any], key: str, status: Status, epoch: int = 1) -> None:
    db.execute(
        "INSERT INTO jivs.migrations (key, status, phase, source_name, target_name, spec, spec_hash, epoch)"
        " VALUES (%s, %s, 'finish', 'a', 'b', '{}', 'h', %s)",
        (key, status, epoch),
    )


def _taken(db: psycopg.Connection[Any], before: Status, after: Status) -> bool:
    db.execute("TRUNCATE jivs.migrations CASCADE")
    _migration(db, "m", before)
    try:
        db.execute("UPDATE jivs.migrations SET status = %s", (after,))
    except psycopg.Error as error:
        refusal = (error.sqlstate, error.diag.message_primary)
    else:
        return True
    assert refusal == ("JV001", f"a {before} migration cannot become {after}")
    return False


def test_both_allow_the_same_changes(db: psycopg.Connection[Any]) -> None:
    """Every pair of different statuses gets one verdict from Python and from the database."""
    pairs = list(itertools.permutations(Status, 2))
    assert len(pairs) == 56
    verdicts = {pair: _taken(db, *pair) for pair in pairs}
    assert verdicts == {pair: allowed(*pair) for pair in pairs}
    assert True in verdicts.values()
    assert False in verdicts.values()


def test_the_tables_of_transitions_are_equal(db: psycopg.Connection[Any]) -> None:
    """Also running -> running, which the trigger cannot see: an update that leaves the status alone is no change."""
    rows = db.execute("SELECT before, after FROM jivs.migration_transitions").fetchall()
    assert set(rows) == {
        (before.value, after.value) for before, afters in TRANSITIONS.items() for after in afters
    }
    assert len(rows) == sum(map(len, TRANSITIONS.values()))
    assert set(TRANSITIONS) == set(Status)


def test_an_update_that_keeps_the_status_is_always_taken(db: psycopg.Connection[Any]) -> None:
    """Otherwise nothing about a finished migration could be stored."""
    for status in Status:
        assert _taken(db, status, status)


def test_what_can_be_resumed_can_run() -> None:
    assert all(allowed(status, Status.RUNNING) for status in RESUMABLE)


def _check_values(db: psycopg.Connection[Any], table: str, column: str) -> set[str]:
    definitions = db.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'"
        " AND conkey = ARRAY[(SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = %s)]",
        (table, column),
    ).fetchall()
    assert len(definitions) == 1
    return set(re.findall(r"'(\w+)'", definitions[0][0]))


def test_the_checks_list_the_same_values(db: psycopg.Connection[Any]) -> None:
    """Status and phases of migrations; checkpoints have the phases that work on tables."""
    assert _check_values(db, "jivs.migrations", "status") == set(Status)
    assert _check_values(db, "jivs.migrations", "phase") == set(Phase)
    assert _check_values(db, "jivs.migration_performance_metrics", "phase") == set(Phase)
    assert _check_values(db, "jivs.migration_checkpoints", "phase") == set(Phase) - {Phase.PLAN, Phase.FINISH}


@pytest.mark.parametrize(("epoch", "taken"), [(4, False), (0, False), (5, True), (6, True)])
def test_the_epoch_never_falls(db: psycopg.Connection[Any], epoch: int, *, taken: bool) -> None:
    _migration(db, "m", Status.RUNNING, epoch=5)
    if taken:
        db.execute("UPDATE jivs.migrations SET epoch = %s", (epoch,))
    else:
        with pytest.raises(psycopg.Error) as caught:
            db.execute("UPDATE jivs.migrations SET epoch = %s", (epoch,))
        assert caught.value.sqlstate == "JV002"
    assert db.execute("SELECT epoch FROM jivs.migrations").fetchone() == (epoch if taken else 5,)


def test_every_change_is_dated(db: psycopg.Connection[Any]) -> None:
    _migration(db, "m", Status.RUNNING)
    db.execute("UPDATE jivs.migrations SET rows_done = 1, updated_at = '2020-01-01'")
    row = db.execute("SELECT updated_at > now() - interval '1 minute' FROM jivs.migrations").fetchone()
    assert row == (True,)
