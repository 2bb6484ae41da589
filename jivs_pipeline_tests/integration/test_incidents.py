"""What the control database tells of a migration's way: retries, breakers of its own ends, rejected rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Claim, Ends
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.incidents import MOST, Incidents
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.breakers import endpoint_name
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import this_process

ENDS = Ends(
    parse_url("postgresql://me:s3cret@old.example:5432/shop", "legacy"),
    parse_url("postgresql://me:s3cret@new.example:5432/shop", "warehouse"),
)
SPEC = Spec(key="shop", source="legacy", target="warehouse")


@pytest.fixture
def control(database: str) -> Iterator[Control]:
    control = Control(database)
    control.open()
    yield control
    control.close()


@pytest.fixture
def db(control: Control, database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def claimed(control: Control) -> Claim:
    claim = control.claim(SPEC, ENDS, this_process(), "run", lease_seconds=300, floor=0)
    assert claim is not None
    return claim


def opens(db: psycopg.Connection[Any], name: str, when: str = "clock_timestamp()") -> None:
    db.execute(
        "INSERT INTO jivs.circuit_breaker_events (name, before, after, reason, at)"
        f" VALUES (%s, 'closed', 'open', '5 of 10 calls failed', {when})",
        (name,),
    )


def reject(
    db: psycopg.Connection[Any], table: str, reason: str, value: str | None, column: str = "c"
) -> None:
    db.execute(
        "INSERT INTO jivs.migration_quarantine (key, table_name, row_key, column_name, reason, value)"
        " VALUES ('shop', %s, %s, %s, %s, %s)",
        (table, json.dumps({"id": "row-key"}), column, reason, value),
    )


def test_nothing_was_met(control: Control) -> None:
    claimed(control)
    assert control.incidents("shop") == Incidents([], [], [])
    with pytest.raises(ConfigError):
        control.incidents("other")


def test_retries_are_told_in_order_and_counted(control: Control) -> None:
    claim = claimed(control)
    for attempt in range(MOST + 5):
        control.retry(claim, Phase.LOAD, "public.t", 3, attempt, "the connection was lost", 0.5)
    found = control.incidents("shop").retries
    assert len(found) == MOST
    assert found[0] == {
        "total": MOST + 5, "at": found[0]["at"], "phase": "load", "table": "public.t", "chunk": 3, "attempt": 0,
        "error": "the connection was lost", "delay_seconds": 0.5,
    }  # fmt: skip
    assert [r["attempt"] for r in found] == list(range(MOST))


def test_what_is_over_is_not_told(control: Control, db: psycopg.Connection[Any]) -> None:
    """Retries of a load before this one, and breakers that opened before it began or after it ended."""
    claim = claimed(control)
    control.retry(claim, Phase.LOAD, "public.t", None, 1, "long ago", 0.5)
    db.execute("UPDATE jivs.migration_retries SET at = now() - interval '1 day'")
    opens(db, endpoint_name(ENDS.source), "clock_timestamp() - interval '1 day'")
    opens(db, endpoint_name(ENDS.source))
    control.end(claim, Status.FAILED, error=None, result={})
    opens(db, endpoint_name(ENDS.source), "clock_timestamp() + interval '1 day'")
    found = control.incidents("shop")
    assert found.retries == []
    assert [e["total"] for e in found.breaker_events] == [1]


def test_only_breakers_of_its_own_ends_are_told(control: Control, db: psycopg.Connection[Any]) -> None:
    claimed(control)
    opens(db, endpoint_name(ENDS.target))
    opens(db, "warehouse@00000000")
    opens(db, "another@12345678")
    (event,) = control.incidents("shop").breaker_events
    assert event | {"at": None} == {
        "total": 1, "at": None, "endpoint": "target", "name": endpoint_name(ENDS.target), "before": "closed",
        "after": "open", "reason": "5 of 10 calls failed",
    }  # fmt: skip


def test_rejected_rows_are_counted_and_their_values_not_told(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """By table, with the reasons that came first. Where a reason quotes the value, it is left out there too."""
    claimed(control)
    for value in ("secret-1", "secret-2", "secret-2"):
        reject(db, "public.t", f'invalid input syntax for type integer: "{value}"', value)
    reject(db, "public.t", "too long", None, "d")
    reject(db, "public.t", "x" * 5000, "")
    reject(db, "public.t", "a fourth reason", "v")
    reject(db, "public.a", "too long", "v")
    found = control.incidents("shop")
    assert [(q["table"], q["rows"], q["kinds"]) for q in found.quarantine] == [
        ("public.a", 1, 1),
        ("public.t", 6, 4),
    ]
    assert found.quarantine[1]["reasons"] == [
        {"column": "c", "reason": 'invalid input syntax for type integer: "…"', "rows": 3},
        {"column": "d", "reason": "too long", "rows": 1},
        {"column": "c", "reason": "x" * 500, "rows": 1},
    ]
    assert (found.rejected("public.t"), found.rejected("public.none")) == (6, 0)
    told = json.dumps(found.document())
    assert "secret" not in told
    assert "row-key" not in told
