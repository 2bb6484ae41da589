"""The verbs of the control database: who may run a migration, what a run may write, and the events of it.

What belongs here: `infra/control.py` and `infra/owner.py` on a real PostgreSQL. What does not: which
transitions there are (`test_states_in_sql.py`) and what a run does between its verbs.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Checkpoint, Claim, Ends, Owner
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import ConfigError, ConflictError, FencedError, JivsError, TerminalError
from jivs_pipeline.core.estimates import PastRun
from jivs_pipeline.core.events import EVENT_OF_STATUS
from jivs_pipeline.core.plan import ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import this_process

_ROOT = Path(__file__).parents[2]
_SPEC = Spec(key="shop", source="legacy", target="warehouse")
_ENDS = Ends(
    parse_url("postgresql://me:s3cret@old.example:5432/shop", "legacy"),
    parse_url("postgresql://me:s3cret@new.example:5432/shop", "warehouse"),
)
_TABLE = TablePlan(
    source_schema="public", source_table="t", target_schema="public", target_table="t",
    columns=(ColumnPlan(source="a", target="a", source_type="int", target_type="integer"),),
    lane=Lane.COPY, wire=Wire.BINARY, spelling=Spelling.RECORD, rows=7,
)  # fmt: skip
_PLAN = Plan(
    key="shop", spec_hash=_SPEC.hash, source="legacy", target="warehouse", source_dialect="postgresql",
    source_version="18", target_version="18", tables=(_TABLE,),
)  # fmt: skip
_MEASURED = {
    "seconds": 1.5,
    "rows": 7,
    "bytes": 70,
    "cpu_seconds": 0.5,
    "peak_rss": 1 << 20,
    "samples": [[0.0, 1]],
}


@pytest.fixture
def control(database: str) -> Iterator[Control]:
    control = Control(database)
    control.open()
    yield control
    control.close()


@pytest.fixture
def db(control: Control, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A look at the tables from outside."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def _claim(
    control: Control,
    spec: Spec = _SPEC,
    *,
    run_id: str = "run",
    owner: Owner | None = None,
    lease: float = 300,
    floor: int = 0,
) -> Claim:
    claim = control.claim(spec, _ENDS, owner or this_process(), run_id, lease_seconds=lease, floor=floor)
    assert claim is not None
    return claim


def _elsewhere() -> Owner:
    """An owner on another machine, of whose death nothing can be proved here."""
    return Owner(str(uuid.uuid4()), "far.example", "another-boot", 4711, "1")


def _silence(db: psycopg.Connection[Any], seconds: float) -> None:
    db.execute(
        "UPDATE jivs.migration_locks SET heartbeat_at = clock_timestamp() - make_interval(secs => %s)",
        (seconds,),
    )


def _types(control: Control, key: str = "shop") -> list[str]:
    return [e["type"].removeprefix("migration.") for e in control.events(key)]


def _end(control: Control, claim: Claim, status: Status) -> None:
    if status is Status.COMPLETED:
        control.set_phase(claim, Phase.FINISH)
    control.end(claim, status, error=None, result={})


# ── Taking ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_claim(control: Control) -> None:
    """Row, lock, epoch and event are there at once."""
    claim = _claim(control, run_id="r1", lease=12.5)
    assert (claim.key, claim.epoch, claim.run_id, claim.resumed, claim.plan) == ("shop", 1, "r1", False, None)
    row = control.migration("shop")
    assert (row["status"], row["phase"], row["epoch"], row["run_id"]) == ("running", "plan", 1, "r1")
    assert (row["source_name"], row["target_name"]) == ("legacy", "warehouse")
    assert Spec.model_validate(row["spec"]) == _SPEC
    holder = control.holder("shop")
    assert holder
    me = this_process()
    assert (holder.owner, holder.pid, holder.boot_id) == (claim.owner.owner, os.getpid(), me.boot_id)
    assert (holder.process_start, holder.run_id, holder.lease_seconds) == (me.process_start, "r1", 12.5)
    assert 0 <= holder.silent_seconds < 5
    assert not holder.gone
    assert [(e["id"], e["seq"], e["type"], e["data"], e["delivered"]) for e in control.events("shop")] == [
        ("shop:1", 1, "migration.started", {"run_id": "r1", "epoch": 1}, False)
    ]


def test_no_secret_is_stored(control: Control, db: psycopg.Connection[Any]) -> None:
    """Names and fingerprints of both ends, never their URLs."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    tables = db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jivs'::regnamespace AND relkind = 'r'"
    )
    for (table,) in tables.fetchall():
        rows = db.execute(f"SELECT t::text FROM jivs.{table} t".encode()).fetchall()
        assert "s3cret" not in str(rows)
        assert "old.example" not in str(rows)


@pytest.mark.parametrize(("floor", "epoch"), [(0, 2), (1, 2), (2, 3), (40, 41)])
def test_the_epoch_exceeds_the_targets(control: Control, floor: int, epoch: int) -> None:
    """A control database made anew must not hand out epochs that the target's ledger has seen."""
    _end(control, _claim(control), Status.FAILED)
    assert _claim(control, floor=floor).epoch == epoch


def test_of_two_claimers_one_wins(control: Control, db: psycopg.Connection[Any]) -> None:
    """Whether the migration is new or was run before; the loser learns who holds it."""
    db.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON jivs.migration_locks EXECUTE FUNCTION public.slow()"
    )
    for number in range(6):
        spec = _SPEC.model_copy(update={"key": f"race{number}"})
        before = number % 2
        if before:
            _end(control, _claim(control, spec), Status.FAILED)
        barrier = threading.Barrier(2)

        def take(name: str, spec: Spec = spec, barrier: threading.Barrier = barrier) -> Claim | JivsError:
            owner = dataclasses.replace(_elsewhere(), host=f"{name}.example")
            barrier.wait()
            try:
                return _claim(control, spec, run_id=name, owner=owner)
            except JivsError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(take, ("left", "right")))
        (winner,) = [r for r in results if isinstance(r, Claim)]
        (loser,) = [r for r in results if isinstance(r, JivsError)]
        assert type(loser) is ConflictError
        assert f"held by process 4711 on {winner.run_id}.example" in loser.message
        assert f"(run {winner.run_id})" in loser.message
        assert winner.epoch == 1 + before
        assert _types(control, spec.key) == ["started", "failed", "started"][0 if before else 2 :]
        holder = control.holder(spec.key)
        assert holder
        assert holder.owner == winner.owner.owner


_HOLDER = """
import sys, time
from jivs_pipeline_tests.integration.test_control import _claim, Control
control = Control(sys.argv[1])
control.open()
_claim(control, run_id="doomed", lease=3600)
print("claimed", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="death is proved by /proc")
def test_a_dead_holder_is_taken_over_at_once(control: Control, database: str, *, reaped: bool) -> None:
    """However long its lease; while it lives nobody gets in."""
    command = [sys.executable, "-c", _HOLDER, database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "claimed\n"
            with pytest.raises(ConflictError, match=f"process {process.pid} on .*run doomed"):
                _claim(control)
            process.send_signal(signal.SIGKILL)
            if reaped:
                process.wait()
            else:
                _until(
                    lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
                )
            claim = _claim(control, run_id="heir")
        finally:
            process.kill()
    assert claim.epoch == 2
    holder = control.holder("shop")
    assert holder
    assert (holder.run_id, holder.pid) == ("heir", os.getpid())


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_another_process_with_the_holders_id_is_not_the_holder(control: Control) -> None:
    """Ids are used again; the start time tells."""
    _claim(control, owner=dataclasses.replace(this_process(), process_start="1"))
    assert _claim(control).epoch == 2


def test_a_holder_elsewhere_is_not_robbed_before_its_lease(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """Its process id does not live here, which proves nothing about another machine."""
    _claim(control, owner=_elsewhere(), lease=100)
    for seconds in (0, 95):
        _silence(db, seconds)
        with pytest.raises(ConflictError, match=r"process 4711 on far\.example"):
            _claim(control)
    _silence(db, 101)
    assert _claim(control).epoch == 2


def test_a_boot_without_a_name_proves_nothing(control: Control) -> None:
    """Where there is no boot id, an equal one is no proof of being on the same machine."""
    _claim(control, owner=dataclasses.replace(_elsewhere(), boot_id="unknown-1"))
    with pytest.raises(ConflictError):
        _claim(control)


def test_a_live_process_that_is_silent_beyond_its_lease_is_taken_over(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """A stopped or hanging process lives; the lease says how long that counts."""
    _claim(control, lease=100)
    _silence(db, 99)
    with pytest.raises(ConflictError):
        _claim(control)
    _silence(db, 101)
    assert _claim(control).epoch == 2


def test_a_heartbeat_renews_the_lock(control: Control, db: psycopg.Connection[Any]) -> None:
    """And brings what somebody asked for meanwhile."""
    claim = _claim(control, owner=_elsewhere(), lease=100)
    _silence(db, 1000)
    assert control.heartbeat(claim) is None
    with pytest.raises(ConflictError):
        _claim(control)
    db.execute("UPDATE jivs.migrations SET requested = 'pause'")
    assert control.heartbeat(claim) == "pause"


def test_release_lets_the_next_one_in(control: Control) -> None:
    """The migration stays `running`, which is what a run that could not record its end leaves behind."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    control.release(claim)
    assert control.holder("shop") is None
    again = _claim(control)
    assert (again.epoch, again.resumed) == (2, True)


# ── Fencing ──────────────────────────────────────────────────────────────────────────────────────────────

_POINT = Checkpoint("public.t", Phase.LOAD, "g", rows=1)
_VERBS: dict[str, Callable[[Control, Claim], object]] = {
    "heartbeat": lambda control, claim: control.heartbeat(claim),
    "set_phase": lambda control, claim: control.set_phase(claim, Phase.LOAD),
    "save_plan": lambda control, claim: control.save_plan(claim, _PLAN, []),
    "checkpoint": lambda control, claim: control.checkpoint(claim, _POINT),
    "progress": lambda control, claim: control.progress(claim, 1000, 1000),
    "retry": lambda control, claim: control.retry(claim, Phase.LOAD, "public.t", 0, 1, "cut", 2.0),
    "measure": lambda control, claim: control.measure(claim, Phase.LOAD, _MEASURED),
    "end": lambda control, claim: control.end(claim, Status.FAILED, error=None, result={}),
}


def _everything(db: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    tables = db.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'jivs'::regnamespace AND relkind = 'r'"
    )
    return {
        name: db.execute(f"SELECT t::text FROM jivs.{name} t ORDER BY 1".encode()).fetchall()
        for (name,) in tables.fetchall()
    }


@pytest.mark.parametrize("verb", list(_VERBS))
def test_an_overtaken_run_writes_nothing(control: Control, db: psycopg.Connection[Any], verb: str) -> None:
    """Every verb of an old epoch is refused, and leaves not even an event."""
    old = _claim(control, owner=_elsewhere(), lease=1)
    control.checkpoint(old, Checkpoint("public.t", Phase.EXTRACT, "g"))
    _silence(db, 2)
    new = _claim(control)
    before = _everything(db)
    with pytest.raises(FencedError, match="epoch 1"):
        _VERBS[verb](control, old)
    assert _everything(db) == before
    _VERBS[verb](control, new)
    assert _everything(db) != before


@pytest.mark.parametrize("verb", sorted(set(_VERBS) - {"measure", "retry"}))
def test_a_run_that_ended_writes_nothing(control: Control, db: psycopg.Connection[Any], verb: str) -> None:
    """A thread that comes late must not change what was recorded as the end."""
    claim = _claim(control)
    _end(control, claim, Status.PAUSED)
    before = _everything(db)
    with pytest.raises(FencedError):
        _VERBS[verb](control, claim)
    assert _everything(db) == before


def test_an_overtaken_run_cannot_give_away_the_lock(control: Control, db: psycopg.Connection[Any]) -> None:
    old = _claim(control, owner=_elsewhere(), lease=1)
    _silence(db, 2)
    new = _claim(control)
    control.release(old)
    holder = control.holder("shop")
    assert holder
    assert holder.owner == new.owner.owner


# ── Ending, and what the next run is given ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "status", [Status.PAUSED, Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.MISMATCH]
)
def test_end_records_everything_and_releases(control: Control, status: Status) -> None:
    """Status, document, error, event and lock, at once."""
    claim = _claim(control)
    control.set_phase(claim, Phase.FINISH)
    error = {"code": "x", "message": "m", "hint": "h"} if status is Status.FAILED else None
    control.end(claim, status, error=error, result={"z": 1, "a": [2]})
    row = control.migration("shop")
    assert (row["status"], row["error"], list(row["result"])) == (status, error, ["z", "a"])
    assert row["finished_at"] is not None
    assert control.holder("shop") is None
    last = control.events("shop")[-1]
    assert last["type"] == EVENT_OF_STATUS[status]
    assert last["data"] == {"status": status, "run_id": "run"}


@pytest.mark.parametrize("status", [Status.PAUSED, Status.FAILED, Status.CANCELLED, Status.MISMATCH])
def test_the_next_run_continues(control: Control, db: psycopg.Connection[Any], status: Status) -> None:
    """It gets the plan of before, and the traces of the end are gone."""
    claim = _claim(control, run_id="one")
    control.save_plan(claim, _PLAN, [])
    control.end(claim, status, error={"message": "m"}, result={"a": 1})
    began = control.migration("shop")["started_at"]
    db.execute("UPDATE jivs.migrations SET requested = 'pause'")
    again = _claim(control, run_id="two")
    assert (again.epoch, again.resumed, again.plan, again.same_spec) == (2, True, _PLAN, True)
    row = control.migration("shop")
    assert (row["status"], row["phase"], row["run_id"]) == ("running", "plan", "two")
    assert [row[c] for c in ("requested", "error", "result", "finished_at")] == [None] * 4
    assert row["started_at"] == began
    assert _types(control)[-1] == "resumed"


def test_a_run_without_a_plan_has_nothing_to_continue(control: Control) -> None:
    _end(control, _claim(control), Status.FAILED)
    again = _claim(control)
    assert (again.resumed, again.plan) == (False, None)
    assert _types(control)[-1] == "started"


def test_what_is_completed_is_not_claimed_again(control: Control, db: psycopg.Connection[Any]) -> None:
    """Who waited while somebody else finished it has nothing to do, and changes nothing."""
    _end(control, _claim(control), Status.COMPLETED)
    before = db.execute("SELECT * FROM jivs.migrations").fetchall()
    assert control.claim(_SPEC, _ENDS, this_process(), "late", lease_seconds=300) is None
    assert db.execute("SELECT * FROM jivs.migrations").fetchall() == before
    assert control.holder("shop") is None


def test_the_next_run_begins_anew(control: Control, db: psycopg.Connection[Any]) -> None:
    """After what was undone, nothing of before is handed over."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    control.measure(claim, Phase.LOAD, _MEASURED)
    _end(control, claim, Status.FAILED)
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    began = control.migration("shop")["started_at"]
    again = _claim(control)
    assert (again.epoch, again.resumed, again.plan) == (2, False, None)
    assert control.migration("shop")["started_at"] > began
    assert control.performance("shop") == []


def test_another_spec_is_noticed(control: Control) -> None:
    """The plan comes along, because loaded tables can be kept; the caller decides."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    _end(control, claim, Status.FAILED)
    changed = _SPEC.model_copy(update={"parallelism": 7})
    again = _claim(control, changed)
    assert (again.resumed, again.same_spec, again.plan) == (True, False, _PLAN)
    assert control.migration("shop")["spec_hash"] == changed.hash


def test_a_spec_that_was_never_planned_does_not_make_the_plan_its_own(control: Control) -> None:
    """The plan of one spec must not be continued under another, however many runs died in between."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    _end(control, claim, Status.FAILED)
    changed = _SPEC.model_copy(update={"on_existing": "append"})
    _end(control, _claim(control, changed), Status.FAILED)
    last = _claim(control, changed)
    assert (last.plan, last.same_spec) == (_PLAN, False)
    control.release(last)
    assert _claim(control, _SPEC).same_spec


def test_a_run_that_began_anew_and_died_hands_over_nothing(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """What was undone is not continued, although the run after it planned nothing."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    _end(control, claim, Status.FAILED)
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    control.release(_claim(control))
    again = _claim(control)
    assert (again.resumed, again.plan) == (False, None)


def test_a_completed_key_is_not_run_with_another_spec(control: Control, db: psycopg.Connection[Any]) -> None:
    _end(control, _claim(control), Status.COMPLETED)
    before = _everything(db)
    with pytest.raises(ConflictError, match="is completed, and its spec was another one"):
        _claim(control, _SPEC.model_copy(update={"parallelism": 7}))
    assert _everything(db) == before


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_key_belongs_to_its_databases(control: Control, db: psycopg.Connection[Any], end: str) -> None:
    """Continuing with another database would mix the rows of two; after a rollback the key is free."""
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    _end(control, claim, Status.FAILED)
    other = dataclasses.replace(_ENDS, **{end: parse_url("postgresql://me:s3cret@other.example/shop", "x")})
    before = _everything(db)
    with pytest.raises(
        ConflictError, match=f"was begun with another {end} than other.example/shop"
    ) as caught:
        control.claim(_SPEC, other, this_process(), "run", lease_seconds=300)
    assert "s3cret" not in str(caught.value)
    assert _everything(db) == before
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    assert control.claim(_SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_a_wrong_database_that_planned_nothing_does_not_bind_the_key(control: Control) -> None:
    _end(control, _claim(control), Status.FAILED)
    other = dataclasses.replace(_ENDS, source=parse_url("postgresql://me@other.example/shop", "x"))
    assert control.claim(_SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_the_same_place_by_another_user_is_the_same_place(control: Control) -> None:
    claim = _claim(control)
    control.save_plan(claim, _PLAN, [])
    _end(control, claim, Status.FAILED)
    other = dataclasses.replace(_ENDS, source=parse_url("postgresql://you:new@old.example:5432/shop", "old"))
    assert control.claim(_SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_an_end_that_the_state_machine_forbids_is_a_conflict(control: Control) -> None:
    """Nothing of it is recorded, the lock least of all."""
    claim = _claim(control)
    with pytest.raises(ConflictError, match="a running migration cannot become queued") as caught:
        control.end(claim, Status.QUEUED, error=None, result={})
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert control.migration("shop")["status"] == "running"
    assert control.holder("shop") is not None
    assert _types(control) == ["started"]


# ── Plan, checkpoints, measurements ──────────────────────────────────────────────────────────────────────


def test_a_plan_forgets_the_checkpoints_of_tables_that_are_read_again(control: Control) -> None:
    claim = _claim(control)
    for table in ("public.a", "public.b", "public.c"):
        control.checkpoint(claim, Checkpoint(table, Phase.EXTRACT, "g"))
    control.save_plan(claim, _PLAN, ["public.b", "public.nothing"])
    assert [p.table for p in control.checkpoints("shop")] == ["public.b"]
    row = control.migration("shop")
    assert (Plan.model_validate(row["plan"]), row["plan_hash"], row["rows_total"]) == (_PLAN, _PLAN.hash, 7)
    control.save_plan(claim, _PLAN, [])
    assert control.checkpoints("shop") == []


def test_checkpoints_come_back_as_they_were(control: Control) -> None:
    """One per table and phase; the last one stands."""
    claim = _claim(control)
    first = Checkpoint("public.t", Phase.LOAD, "g1", ok=False, data={"message": "é", "n": [1, None]})
    last = Checkpoint("public.t", Phase.LOAD, "g2", True, 10**15, 2**62, 3, 1.25, {"a": {"b": 1}})
    other = Checkpoint("public.t", Phase.EXTRACT, "g2")
    control.checkpoint(claim, first)
    assert control.checkpoints("shop") == [first]
    control.checkpoint(claim, last)
    control.checkpoint(claim, other)
    assert control.checkpoints("shop") == [other, last]


def test_only_a_loaded_table_is_an_event(control: Control) -> None:
    claim = _claim(control)
    for phase in (Phase.EXTRACT, Phase.TRANSFORM, Phase.VALIDATE, Phase.LOAD, Phase.VERIFY):
        for ok in (True, False):
            control.checkpoint(claim, Checkpoint("public.t", phase, "g", ok=ok, rows=5))
    assert _types(control) == ["started", "table_loaded"]
    assert control.events("shop", after=1)[0]["data"] == {"table": "public.t", "rows": 5}


def test_progress_retries_and_measurements_are_kept(control: Control, db: psycopg.Connection[Any]) -> None:
    claim = _claim(control)
    control.progress(claim, 12, 345)
    control.retry(claim, Phase.LOAD, "public.t", 3, 1, "cut", 2.5)
    control.retry(claim, Phase.LOAD, "public.t", None, 2, "cut", 4.5)
    row = control.migration("shop")
    assert (row["rows_done"], row["bytes_done"], row["retries"]) == (12, 345, 2)
    control.measure(claim, Phase.LOAD, _MEASURED)
    row = control.migration("shop")
    # What the load has come to at its end: it may be shorter than the time between two heartbeats.
    assert (row["rows_done"], row["bytes_done"], row["retries"]) == (7, 70, 2)
    retries = db.execute(
        "SELECT table_name, chunk, attempt, error, delay_seconds FROM jivs.migration_retries ORDER BY id"
    )
    assert retries.fetchall() == [("public.t", 3, 1, "cut", 2.5), ("public.t", None, 2, "cut", 4.5)]
    (measured,) = control.performance("shop")
    assert (measured["phase"], measured["seconds"], measured["samples"]) == ("load", 1.5, [[0.0, 1]])


def test_estimates_learn_from_what_one_run_completed(control: Control) -> None:
    """Not from one that was resumed: nobody knows what each of its runs did."""
    for key in ("one", "resumed"):
        spec = _SPEC.model_copy(update={"key": key})
        claim = _claim(control, spec, run_id="first")
        control.save_plan(claim, _PLAN.model_copy(update={"key": key}), [])
        for phase in (Phase.EXTRACT, Phase.LOAD):
            control.measure(claim, phase, _MEASURED)
        if key == "resumed":
            _end(control, claim, Status.FAILED)
            claim = _claim(control, spec, run_id="second")
        control.measure(claim, Phase.VERIFY, _MEASURED)
        assert key not in {r.key for r in control.past_runs()}
        _end(control, claim, Status.COMPLETED)
    (found,) = control.past_runs()
    phases = {"extract": 1.5, "load": 1.5, "verify": 1.5}
    assert found == PastRun("one", "legacy", "warehouse", "postgresql", _PLAN.rows, _PLAN.bytes, phases)


def test_a_migration_that_is_not_there(control: Control) -> None:
    """The nearest key is named."""
    _claim(control)
    assert control.find("shop2") is None
    with pytest.raises(ConfigError, match=r"There is no migration 'shop2'\. Did you mean 'shop'\?"):
        control.migration("shop2")
    assert control.holder("shop2") is None
    assert [m["key"] for m in control.migrations()] == ["shop"]


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────


def test_events_have_no_gaps_under_concurrent_writers(control: Control) -> None:
    """Numbers 1, 2, 3 … in the order of commits, whoever writes."""
    claim = _claim(control)
    barrier = threading.Barrier(8)

    def write(writer: int) -> None:
        barrier.wait()
        for number in range(6):
            if writer % 3 == 0:
                control.set_phase(claim, Phase.LOAD)
            elif writer % 3 == 1:
                control.checkpoint(claim, Checkpoint(f"t{writer}.{number}", Phase.LOAD, "g"))
            else:
                control.retry(claim, Phase.LOAD, "t", number, 1, "e", 1.0)
            control.progress(claim, writer, number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    events = control.events("shop")
    assert [e["seq"] for e in events] == list(range(1, 50))
    assert control.migration("shop")["event_seq"] == 49
    assert [e["at"] for e in events] == sorted(e["at"] for e in events)
    assert [e["seq"] for e in control.events("shop", after=47)] == [48, 49]


def _break(db: psycopg.Connection[Any], table: str, event: str) -> None:
    """From now on the statement fails, as on a full disk."""
    db.execute(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
    )
    db.execute(f"CREATE TRIGGER fail BEFORE {event} ON jivs.{table} EXECUTE FUNCTION public.fail()".encode())


@pytest.mark.parametrize("verb", ["set_phase", "checkpoint", "retry", "end"])
def test_without_its_event_a_change_does_not_happen(
    control: Control, db: psycopg.Connection[Any], verb: str
) -> None:
    claim = _claim(control)
    _break(db, "migration_events", "INSERT")
    before = _everything(db)
    with pytest.raises(TerminalError) as caught:
        _VERBS[verb](control, claim)
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert _everything(db) == before


@pytest.mark.parametrize(
    ("verb", "table", "event"),
    [
        ("set_phase", "migrations", "UPDATE OF phase"),
        ("checkpoint", "migration_checkpoints", "INSERT"),
        ("retry", "migration_retries", "INSERT"),
        ("end", "migration_locks", "DELETE"),
    ],
)
def test_without_its_change_an_event_does_not_happen(
    control: Control, db: psycopg.Connection[Any], verb: str, table: str, event: str
) -> None:
    """Nor is its number used up."""
    claim = _claim(control)
    _break(db, table, event)
    before = _everything(db)
    with pytest.raises(TerminalError):
        _VERBS[verb](control, claim)
    assert _everything(db) == before
    db.execute(f"DROP TRIGGER fail ON jivs.{table}".encode())
    _VERBS[verb](control, claim)
    assert [e["seq"] for e in control.events("shop")] == [1, 2]


@pytest.mark.parametrize("table", ["migration_locks", "migration_events"])
def test_a_claim_happens_whole_or_not_at_all(
    control: Control, db: psycopg.Connection[Any], table: str
) -> None:
    """No epoch without a lock, no row without an event."""
    _break(db, table, "INSERT")
    with pytest.raises(TerminalError):
        _claim(control)
    assert control.find("shop") is None
    assert control.holder("shop") is None


# ── The connection ───────────────────────────────────────────────────────────────────────────────────────


def test_a_restarted_server_costs_nothing(control: Control, db: psycopg.Connection[Any]) -> None:
    """Connections that died in the pool are not handed out."""
    claim = _claim(control)
    killed = db.execute(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'jivs control' AND datname = current_database()"
    ).fetchone()
    assert killed
    assert killed[0] > 0
    for _ in range(4):
        assert control.heartbeat(claim) is None


def test_a_control_database_that_is_not_there_is_a_sentence(database: str) -> None:
    """And its password is not part of it."""
    nowhere = Control(f"{database}_not", timeout_seconds=1)
    with pytest.raises(ConfigError, match="The control database does not answer") as caught:
        nowhere.open()
    password = database.split(":")[2].split("@", maxsplit=1)[0]
    assert password not in str(caught.value)


def test_the_same_id_in_every_session(control: Control, database: str) -> None:
    other = Control(database)
    other.open()
    assert other.control_id() == control.control_id()
    assert uuid.UUID(control.control_id())
    other.close()
