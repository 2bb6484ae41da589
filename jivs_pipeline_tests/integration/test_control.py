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
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline.core.claims import Checkpoint, Claim
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConfigError, ConflictError, FencedError, JivsError, TerminalError
from jivs_pipeline.core.estimates import PastRun
from jivs_pipeline.core.events import EVENT_OF_STATUS
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.owner import this_process
from jivs_pipeline_tests.fix_control import (
    ENDS,
    MEASURED,
    PLAN,
    SPEC,
    elsewhere,
    end,
    open_control,
    silence,
    spec_of,
    take,
    types_of,
)
from jivs_pipeline_tests.fix_engine import until

_ROOT = Path(__file__).parents[2]


# ── Taking ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_claim(control: Control) -> None:
    """Row, lock, epoch and event are there at once."""
    claim = take(control, run_id="r1", lease=12.5)
    assert (claim.key, claim.epoch, claim.run_id, claim.resumed, claim.plan) == ("shop", 1, "r1", False, None)
    row = control.migration("shop")
    assert (row["status"], row["phase"], row["epoch"], row["run_id"]) == ("running", "plan", 1, "r1")
    assert (row["source_name"], row["target_name"]) == ("legacy", "warehouse")
    assert Spec.model_validate(row["spec"]) == SPEC
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
    claim = take(control)
    control.save_plan(claim, PLAN, [])
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
    end(control, take(control), Status.FAILED)
    assert take(control, floor=floor).epoch == epoch


def test_of_two_claimers_one_wins(control: Control, db: psycopg.Connection[Any]) -> None:
    """Whether the migration is new or was run before; the loser learns who holds it."""
    db.execute(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON jivs.migration_locks EXECUTE FUNCTION public.slow()"
    )
    for number in range(6):
        spec = spec_of(f"race{number}")
        before = number % 2
        if before:
            end(control, take(control, spec), Status.FAILED)
        barrier = threading.Barrier(2)

        def race(name: str, spec: Spec = spec, barrier: threading.Barrier = barrier) -> Claim | JivsError:
            owner = dataclasses.replace(elsewhere(), host=f"{name}.example")
            barrier.wait()
            try:
                return take(control, spec, run_id=name, owner=owner)
            except JivsError as error:
                return error

        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(race, ("left", "right")))
        (winner,) = [r for r in results if isinstance(r, Claim)]
        (loser,) = [r for r in results if isinstance(r, JivsError)]
        assert type(loser) is ConflictError
        assert f"held by process 4711 on {winner.run_id}.example" in loser.message
        assert f"(run {winner.run_id})" in loser.message
        assert winner.epoch == 1 + before
        assert types_of(control, spec.key) == ["started", "failed", "started"][0 if before else 2 :]
        holder = control.holder(spec.key)
        assert holder
        assert holder.owner == winner.owner.owner


_HOLDER = """
import sys, time
from jivs_pipeline_tests.fix_control import open_control, take
control = open_control(sys.argv[1])
take(control, run_id="doomed", lease=3600)
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
                take(control)
            process.send_signal(signal.SIGKILL)
            if reaped:
                process.wait()
            else:
                until(
                    lambda: (
                        Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
                    ),
                    "a zombie",
                    10,
                )
            claim = take(control, run_id="heir")
        finally:
            process.kill()
    assert claim.epoch == 2
    holder = control.holder("shop")
    assert holder
    assert (holder.run_id, holder.pid) == ("heir", os.getpid())


def test_another_process_with_the_holders_id_is_not_the_holder(control: Control) -> None:
    """Ids are used again; the start time tells."""
    take(control, owner=dataclasses.replace(this_process(), process_start="1"))
    assert take(control).epoch == 2


def test_a_holder_elsewhere_is_not_robbed_before_its_lease(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """Its process id does not live here, which proves nothing about another machine."""
    take(control, owner=elsewhere(), lease=100)
    for seconds in (0, 95):
        silence(db, seconds)
        with pytest.raises(ConflictError, match=r"process 4711 on far\.example"):
            take(control)
    silence(db, 101)
    assert take(control).epoch == 2


def test_a_boot_without_a_name_proves_nothing(control: Control) -> None:
    """Where there is no boot id, an equal one is no proof of being on the same machine."""
    take(control, owner=dataclasses.replace(elsewhere(), boot_id="unknown-1"))
    with pytest.raises(ConflictError):
        take(control)


def test_a_live_process_that_is_silent_beyond_its_lease_is_taken_over(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """A stopped or hanging process lives; the lease says how long that counts."""
    take(control, lease=100)
    silence(db, 99)
    with pytest.raises(ConflictError):
        take(control)
    silence(db, 101)
    assert take(control).epoch == 2


def test_a_heartbeat_renews_the_lock(control: Control, db: psycopg.Connection[Any]) -> None:
    """And brings what somebody asked for meanwhile."""
    claim = take(control, owner=elsewhere(), lease=100)
    silence(db, 1000)
    assert control.heartbeat(claim) is None
    with pytest.raises(ConflictError):
        take(control)
    db.execute("UPDATE jivs.migrations SET requested = 'pause'")
    assert control.heartbeat(claim) == "pause"


def test_release_lets_the_next_one_in(control: Control) -> None:
    """The migration stays `running`, which is what a run that could not record its end leaves behind."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    control.release(claim)
    assert control.holder("shop") is None
    again = take(control)
    assert (again.epoch, again.resumed) == (2, True)


# ── Fencing ──────────────────────────────────────────────────────────────────────────────────────────────

_POINT = Checkpoint("public.t", Phase.LOAD, "g", rows=1)
_VERBS: dict[str, Callable[[Control, Claim], object]] = {
    "heartbeat": lambda control, claim: control.heartbeat(claim),
    "set_phase": lambda control, claim: control.set_phase(claim, Phase.LOAD),
    "save_plan": lambda control, claim: control.save_plan(claim, PLAN, []),
    "checkpoint": lambda control, claim: control.checkpoint(claim, _POINT),
    "progress": lambda control, claim: control.progress(claim, 1000, 1000),
    "retry": lambda control, claim: control.retry(claim, Phase.LOAD, "public.t", 0, 1, "cut", 2.0),
    "measure": lambda control, claim: control.measure(claim, Phase.LOAD, MEASURED),
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
    old = take(control, owner=elsewhere(), lease=1)
    control.checkpoint(old, Checkpoint("public.t", Phase.EXTRACT, "g"))
    silence(db, 2)
    new = take(control)
    before = _everything(db)
    with pytest.raises(FencedError, match="epoch 1"):
        _VERBS[verb](control, old)
    assert _everything(db) == before
    _VERBS[verb](control, new)
    assert _everything(db) != before


@pytest.mark.parametrize("verb", sorted(set(_VERBS) - {"measure", "retry"}))
def test_a_run_that_ended_writes_nothing(control: Control, db: psycopg.Connection[Any], verb: str) -> None:
    """A thread that comes late must not change what was recorded as the end."""
    claim = take(control)
    end(control, claim, Status.PAUSED)
    before = _everything(db)
    with pytest.raises(FencedError):
        _VERBS[verb](control, claim)
    assert _everything(db) == before


def test_an_overtaken_run_cannot_give_away_the_lock(control: Control, db: psycopg.Connection[Any]) -> None:
    old = take(control, owner=elsewhere(), lease=1)
    silence(db, 2)
    new = take(control)
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
    claim = take(control)
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
    claim = take(control, run_id="one")
    control.save_plan(claim, PLAN, [])
    control.end(claim, status, error={"message": "m"}, result={"a": 1})
    began = control.migration("shop")["started_at"]
    db.execute("UPDATE jivs.migrations SET requested = 'pause'")
    again = take(control, run_id="two")
    assert (again.epoch, again.resumed, again.plan, again.same_spec) == (2, True, PLAN, True)
    row = control.migration("shop")
    assert (row["status"], row["phase"], row["run_id"]) == ("running", "plan", "two")
    assert [row[c] for c in ("requested", "error", "result", "finished_at")] == [None] * 4
    assert row["started_at"] == began
    assert types_of(control)[-1] == "resumed"


def test_a_run_without_a_plan_has_nothing_to_continue(control: Control) -> None:
    end(control, take(control), Status.FAILED)
    again = take(control)
    assert (again.resumed, again.plan) == (False, None)
    assert types_of(control)[-1] == "started"


def test_what_is_completed_is_not_claimed_again(control: Control, db: psycopg.Connection[Any]) -> None:
    """Who waited while somebody else finished it has nothing to do, and changes nothing."""
    end(control, take(control), Status.COMPLETED)
    before = db.execute("SELECT * FROM jivs.migrations").fetchall()
    assert control.claim(SPEC, ENDS, this_process(), "late", lease_seconds=300) is None
    assert db.execute("SELECT * FROM jivs.migrations").fetchall() == before
    assert control.holder("shop") is None


def test_the_next_run_begins_anew(control: Control, db: psycopg.Connection[Any]) -> None:
    """After what was undone, nothing of before is handed over."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    control.measure(claim, Phase.LOAD, MEASURED)
    end(control, claim, Status.FAILED)
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    began = control.migration("shop")["started_at"]
    again = take(control)
    assert (again.epoch, again.resumed, again.plan) == (2, False, None)
    assert control.migration("shop")["started_at"] > began
    assert control.performance("shop") == []


def test_another_spec_is_noticed(control: Control) -> None:
    """The plan comes along, because loaded tables can be kept; the caller decides."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, Status.FAILED)
    changed = SPEC.model_copy(update={"parallelism": 7})
    again = take(control, changed)
    assert (again.resumed, again.same_spec, again.plan) == (True, False, PLAN)
    assert control.migration("shop")["spec_hash"] == changed.hash


def test_a_spec_that_was_never_planned_does_not_make_the_plan_its_own(control: Control) -> None:
    """The plan of one spec must not be continued under another, however many runs died in between."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, Status.FAILED)
    changed = SPEC.model_copy(update={"on_existing": "append"})
    end(control, take(control, changed), Status.FAILED)
    last = take(control, changed)
    assert (last.plan, last.same_spec) == (PLAN, False)
    control.release(last)
    assert take(control, SPEC).same_spec


def test_a_run_that_began_anew_and_died_hands_over_nothing(
    control: Control, db: psycopg.Connection[Any]
) -> None:
    """What was undone is not continued, although the run after it planned nothing."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, Status.FAILED)
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    control.release(take(control))
    again = take(control)
    assert (again.resumed, again.plan) == (False, None)


def test_a_completed_key_is_not_run_with_another_spec(control: Control, db: psycopg.Connection[Any]) -> None:
    end(control, take(control), Status.COMPLETED)
    before = _everything(db)
    with pytest.raises(ConflictError, match="is completed, and its spec was another one"):
        take(control, SPEC.model_copy(update={"parallelism": 7}))
    assert _everything(db) == before


@pytest.mark.parametrize("status", [Status.FAILED, Status.COMPLETED])
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_key_belongs_to_its_databases(
    control: Control, db: psycopg.Connection[Any], which: str, status: Status
) -> None:
    """Continuing with another database would mix the rows of two; after a rollback the key is free."""
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, status)
    other = dataclasses.replace(ENDS, **{which: parse_url("postgresql://me:s3cret@other.example/shop", "x")})
    before = _everything(db)
    with pytest.raises(
        ConflictError, match=f"was begun with another {which} than other.example/shop"
    ) as caught:
        control.claim(SPEC, other, this_process(), "run", lease_seconds=300)
    assert "s3cret" not in str(caught.value)
    assert _everything(db) == before
    db.execute("UPDATE jivs.migrations SET status = 'rolled_back'")
    assert control.claim(SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_a_wrong_database_that_planned_nothing_does_not_bind_the_key(control: Control) -> None:
    end(control, take(control), Status.FAILED)
    other = dataclasses.replace(ENDS, source=parse_url("postgresql://me@other.example/shop", "x"))
    assert control.claim(SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_the_same_place_by_another_user_is_the_same_place(control: Control) -> None:
    claim = take(control)
    control.save_plan(claim, PLAN, [])
    end(control, claim, Status.FAILED)
    other = dataclasses.replace(ENDS, source=parse_url("postgresql://you:new@old.example:5432/shop", "old"))
    assert control.claim(SPEC, other, this_process(), "run", lease_seconds=300).epoch == 2


def test_an_end_that_the_state_machine_forbids_is_a_conflict(control: Control) -> None:
    """Nothing of it is recorded, the lock least of all."""
    claim = take(control)
    with pytest.raises(ConflictError, match="a running migration cannot become queued") as caught:
        control.end(claim, Status.QUEUED, error=None, result={})
    assert isinstance(caught.value.__cause__, psycopg.Error)
    assert control.migration("shop")["status"] == "running"
    assert control.holder("shop") is not None
    assert types_of(control) == ["started"]


# ── Plan, checkpoints, measurements ──────────────────────────────────────────────────────────────────────


def test_a_plan_forgets_the_checkpoints_of_tables_that_are_read_again(control: Control) -> None:
    claim = take(control)
    for table in ("public.a", "public.b", "public.c"):
        control.checkpoint(claim, Checkpoint(table, Phase.EXTRACT, "g"))
    control.save_plan(claim, PLAN, ["public.b", "public.nothing"])
    assert [p.table for p in control.checkpoints("shop")] == ["public.b"]
    row = control.migration("shop")
    assert (Plan.model_validate(row["plan"]), row["plan_hash"], row["rows_total"]) == (PLAN, PLAN.hash, 7)
    control.save_plan(claim, PLAN, [])
    assert control.checkpoints("shop") == []


def test_checkpoints_come_back_as_they_were(control: Control) -> None:
    """One per table and phase; the last one stands."""
    claim = take(control)
    first = Checkpoint("public.t", Phase.LOAD, "g1", ok=False, data={"message": "é", "n": [1, None]})
    last = Checkpoint("public.t", Phase.LOAD, "g2", True, 10**15, 2**62, 3, 1.25, {"a": {"b": 1}})
    other = Checkpoint("public.t", Phase.EXTRACT, "g2")
    control.checkpoint(claim, first)
    assert control.checkpoints("shop") == [first]
    control.checkpoint(claim, last)
    control.checkpoint(claim, other)
    assert control.checkpoints("shop") == [other, last]


def test_only_a_loaded_table_is_an_event(control: Control) -> None:
    claim = take(control)
    for phase in (Phase.EXTRACT, Phase.TRANSFORM, Phase.VALIDATE, Phase.LOAD, Phase.VERIFY):
        for ok in (True, False):
            control.checkpoint(claim, Checkpoint("public.t", phase, "g", ok=ok, rows=5))
    assert types_of(control) == ["started", "table_loaded"]
    assert control.events("shop", after=1)[0]["data"] == {"table": "public.t", "rows": 5}


def test_progress_retries_and_measurements_are_kept(control: Control, db: psycopg.Connection[Any]) -> None:
    claim = take(control)
    control.progress(claim, 12, 345)
    control.retry(claim, Phase.LOAD, "public.t", 3, 1, "cut", 2.5)
    control.retry(claim, Phase.LOAD, "public.t", None, 2, "cut", 4.5)
    row = control.migration("shop")
    assert (row["rows_done"], row["bytes_done"], row["retries"]) == (12, 345, 2)
    control.measure(claim, Phase.LOAD, MEASURED)
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
        spec = spec_of(key)
        claim = take(control, spec, run_id="first")
        control.save_plan(claim, PLAN.model_copy(update={"key": key}), [])
        for phase in (Phase.EXTRACT, Phase.LOAD):
            control.measure(claim, phase, MEASURED)
        if key == "resumed":
            end(control, claim, Status.FAILED)
            claim = take(control, spec, run_id="second")
        control.measure(claim, Phase.VERIFY, MEASURED)
        assert key not in {r.key for r in control.past_runs()}
        end(control, claim, Status.COMPLETED)
    (found,) = control.past_runs()
    phases = {"extract": 1.5, "load": 1.5, "verify": 1.5}
    assert found == PastRun("one", "legacy", "warehouse", "postgresql", PLAN.rows, PLAN.bytes, phases)


def test_a_migration_that_is_not_there(control: Control) -> None:
    """The nearest key is named."""
    take(control)
    assert control.find("shop2") is None
    with pytest.raises(ConfigError, match=r"There is no migration 'shop2'\. Did you mean 'shop'\?"):
        control.migration("shop2")
    assert control.holder("shop2") is None
    assert [m["key"] for m in control.migrations()] == ["shop"]


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────


def test_events_have_no_gaps_under_concurrent_writers(control: Control) -> None:
    """Numbers 1, 2, 3 … in the order of commits, whoever writes."""
    claim = take(control)
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
    claim = take(control)
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
    claim = take(control)
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
        take(control)
    assert control.find("shop") is None
    assert control.holder("shop") is None


# ── The connection ───────────────────────────────────────────────────────────────────────────────────────


def test_a_restarted_server_costs_nothing(control: Control, db: psycopg.Connection[Any]) -> None:
    """Connections that died in the pool are not handed out."""
    claim = take(control)
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
    other = open_control(database)
    assert other.control_id() == control.control_id()
    assert uuid.UUID(control.control_id())
    other.close()
