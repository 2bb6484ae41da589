"""The control database for tests: opened, looked at from outside, and one migration to take and to end.

What belongs here: what several test modules need of it. What does not: what must come out.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Claim, Ends, Owner
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.plan import ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.requests import RequestRef
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import this_process

SPEC = Spec(key="shop", source="legacy", target="warehouse")
ENDS = Ends(
    parse_url("postgresql://me:s3cret@old.example:5432/shop", "legacy"),
    parse_url("postgresql://me:s3cret@new.example:5432/shop", "warehouse"),
)
TABLE = TablePlan(
    source_schema="public", source_table="t", target_schema="public", target_table="t",
    columns=(ColumnPlan(source="a", target="a", source_type="int", target_type="integer"),),
    lane=Lane.COPY, wire=Wire.BINARY, spelling=Spelling.RECORD, rows=7,
)  # fmt: skip
PLAN = Plan(
    key="shop", spec_hash=SPEC.hash, source="legacy", target="warehouse", source_dialect="postgresql",
    source_version="18", target_version="18", tables=(TABLE,),
)  # fmt: skip
MEASURED = {
    "seconds": 1.5,
    "rows": 7,
    "bytes": 70,
    "cpu_seconds": 0.5,
    "peak_rss": 1 << 20,
    "samples": [[0.0, 1]],
}


def open_control(url: str, **more: Any) -> Control:
    """As another process has it. Who opens it closes it."""
    control = Control(url, **more)
    control.open()
    return control


@pytest.fixture
def control(database: str) -> Iterator[Control]:
    with closing(open_control(database)) as control:
        yield control


@pytest.fixture
def db(control: Control, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A look at the tables from outside."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def spec_of(key: str) -> Spec:
    return SPEC.model_copy(update={"key": key})


def take(
    control: Control,
    spec: Spec = SPEC,
    *,
    run_id: str = "run",
    owner: Owner | None = None,
    lease: float = 300,
    floor: int = 0,
    request: RequestRef | None = None,
) -> Claim:
    """Begin a run of the migration, which must not be completed."""
    claim = control.claim(
        spec, ENDS, owner or this_process(), run_id, lease_seconds=lease, floor=floor, request=request
    )
    assert claim is not None
    return claim


def end(control: Control, claim: Claim, status: Status) -> None:
    if status is Status.COMPLETED:
        control.set_phase(claim, Phase.FINISH)
    control.end(claim, status, error=None, result={})


def elsewhere() -> Owner:
    """An owner on another machine, of whose death nothing can be proved here."""
    return Owner(str(uuid.uuid4()), "far.example", "another-boot", 4711, "1")


def silence(db: psycopg.Connection[Any], seconds: float) -> None:
    """As if no holder had said anything for so long."""
    db.execute(
        "UPDATE jivs.migration_locks SET heartbeat_at = clock_timestamp() - make_interval(secs => %s)",
        (seconds,),
    )


def types_of(control: Control, key: str = "shop") -> list[str]:
    """Of the migration's events."""
    return [e["type"].removeprefix("migration.") for e in control.events(key)]
