"""Rows of the control database as the contract's documents."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from jivs_pipeline.core.claims import Checkpoint
from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.estimates import Estimate
from jivs_pipeline.core.incidents import Incidents
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, PlanWarning, TablePlan, Wire
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.engine.document import build_document, plan_document, status_document

BEGAN = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)

# CONTRACT.md, word for word.
RUN_FIELDS = {
    "key",
    "run_id",
    "status",
    "resumed",
    "tables",
    "rows",
    "bytes",
    "seconds",
    "phases",
    "report",
    "error",
}
TABLE_FIELDS = {
    "source_table",
    "target_table",
    "source_rows",
    "target_rows",
    "quarantined_rows",
    "chunks",
    "lane",
    "verified",
    "error",
}
STATUS_FIELDS = {
    "key",
    "status",
    "phase",
    "run_id",
    "rows",
    "total_rows",
    "bytes",
    "rate",
    "eta_seconds",
    "retries",
    "quarantined",
    "error",
    "request",
}


def table(name: str, **changes: Any) -> TablePlan:
    return TablePlan(
        source_schema="main", source_table=name, target_schema="public", target_table=name,
        columns=(ColumnPlan(source="id", target="key", source_type="INTEGER", target_type="bigint", note="declared INT"),),
        lane=Lane.ARROW, wire=Wire.BINARY, spelling=Spelling.CANONICAL, rows=12, bytes=1200, chunks=(Chunk(index=0), Chunk(index=1)), **changes,
    )  # fmt: skip


PLAN = Plan(
    key="k", spec_hash="s", source="legacy", target="warehouse", source_dialect="sqlite", source_version="3.45", target_version="18.1",
    tables=(table("film"), table("actor", refused="mixes", refused_column="id")),
    warnings=(PlanWarning(table="main.actor", column="id", kind="refused", reason="mixes"),),
)  # fmt: skip


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "key": "k", "run_id": "r2", "status": Status.COMPLETED, "phase": "finish", "plan": PLAN.model_dump(mode="json"), "plan_hash": PLAN.hash,
        "spec_hash": "s", "spec": {"verify": "rows"}, "source_name": "legacy", "target_name": "warehouse", "epoch": 4, "error": None, "result": None,
        "started_at": BEGAN, "finished_at": BEGAN + dt.timedelta(seconds=9), "running_seconds": 4.0, "rows_done": 8, "rows_total": 12,
        "bytes_done": 800, "retries": 1, "quarantined": 2,
    }  # fmt: skip
    return {**values, **changes}


def points(**verify: Any) -> list[Checkpoint]:
    checked = {
        "source_rows": 11,
        "target_rows": 11,
        "equal": True,
        "source_digest": "d",
        "target_digest": "d",
        **verify,
    }
    return [
        Checkpoint(
            "public.film",
            Phase.EXTRACT,
            "g1",
            rows=11,
            bytes=1000,
            chunks=2,
            seconds=1.0,
            data={"consistency": "one snapshot"},
        ),
        Checkpoint("public.film", Phase.LOAD, "g1", rows=11, bytes=1000, chunks=2, seconds=2.0),
        Checkpoint("public.film", Phase.VERIFY, "g1", rows=11, seconds=0.5, data=checked),
    ]


def measured(run: str, phase: str, start: float, seconds: float, samples: Any = None) -> dict[str, Any]:
    return {
        "run_id": run,
        "phase": phase,
        "started_at": BEGAN + dt.timedelta(seconds=start),
        "seconds": seconds,
        "samples": samples,
        "rows": 10,
        "bytes": 100,
        "cpu_seconds": 0.25,
        "peak_rss_bytes": 1 << 20,
    }


def test_the_run_document_has_the_contracts_fields_and_is_json():
    document = build_document(row(), points(), [], resumed=False, seconds=9.12345)
    assert set(document) >= RUN_FIELDS
    assert all(set(t) >= TABLE_FIELDS for t in document["tables"])
    assert json.loads(json.dumps(document)) == document
    assert (
        document["key"],
        document["run_id"],
        document["status"],
        document["resumed"],
        document["seconds"],
    ) == ("k", "r2", "completed", False, 9.123)
    assert (document["started_at"], document["epoch"], document["verify"]) == (
        "2026-01-01T12:00:00+00:00",
        4,
        "rows",
    )


def test_a_verified_table_shows_what_was_counted():
    film = build_document(row(), points(), [], resumed=False)["tables"][0]
    assert {k: film[k] for k in ("source_table", "target_table", "source_rows", "target_rows", "chunks", "planned_chunks", "lane", "verified", "bytes", "seconds", "error")} == {
        "source_table": "main.film", "target_table": "public.film", "source_rows": 11, "target_rows": 11, "chunks": 2, "planned_chunks": 2,
        "lane": "arrow", "verified": True, "bytes": 1000, "seconds": 3.5, "error": None,
    }  # fmt: skip


def test_a_difference_is_shown_with_both_counts():
    film = build_document(
        row(status=Status.MISMATCH), points(target_rows=10, equal=False, target_digest="e"), [], resumed=False
    )["tables"][0]
    assert (film["source_rows"], film["target_rows"], film["verified"]) == (11, 10, False)
    assert (film["source_digest"], film["target_digest"]) == ("d", "e")


@pytest.mark.parametrize(
    ("reached", "source_rows", "target_rows", "chunks"), [(0, 12, 0, 0), (1, 11, 0, 0), (2, 11, 11, 2)]
)
def test_a_table_that_is_not_verified_shows_how_far_it_came(reached, source_rows, target_rows, chunks):
    film = build_document(row(), points()[:reached], [], resumed=False)["tables"][0]
    assert (film["source_rows"], film["target_rows"], film["chunks"], film["verified"]) == (
        source_rows,
        target_rows,
        chunks,
        None,
    )


def test_rows_and_bytes_are_those_in_the_target():
    document = build_document(row(), points(), [], resumed=False)
    assert (document["rows"], document["bytes"]) == (11, 1000)
    assert document["tables"][1]["target_rows"] == 0


def test_a_failed_table_has_its_reason():
    failed = Checkpoint(
        "public.film",
        Phase.LOAD,
        "g1",
        ok=False,
        data={"message": "a key twice", "hint": "", "column": "id", "rows_stand": False},
    )
    film = build_document(row(status=Status.FAILED), [points()[0], failed], [], resumed=False)["tables"][0]
    assert film["error"] == {"message": "a key twice", "column": "id"}
    assert (film["target_rows"], film["chunks"]) == (0, 0)


def test_a_failure_of_this_run_goes_before_a_recorded_one():
    film = build_document(row(), points(), [], resumed=False, failures={"public.film": {"message": "gone"}})[
        "tables"
    ][0]
    assert film["error"] == {"message": "gone", "column": None}


def test_a_run_that_ends_while_its_row_says_running_has_failed():
    assert build_document(row(status=Status.RUNNING), [], [], resumed=True)["status"] == "failed"
    assert build_document(row(status=Status.PAUSED), [], [], resumed=True)["status"] == "paused"


def test_phases_are_the_seconds_of_this_run_and_the_timeline_is_of_all():
    performance = [measured("r1", "plan", 0, 1.0), measured("r1", "extract", 1, 2.0, [[0, 0, 0]]), measured("r2", "extract", 10, 3.0, [[0, 0, 0], [1, 5, 50]]),
                   measured("r2", "extract", 13, 1.5)]  # fmt: skip
    document = build_document(row(), points(), performance, resumed=True)
    assert document["phases"] == {
        "plan": 0.0,
        "extract": 4.5,
        "transform": 0.0,
        "validate": 0.0,
        "load": 0.0,
        "verify": 0.0,
        "finish": 0.0,
    }
    assert [(t["phase"], t["start"], t["seconds"], t["attempt"]) for t in document["timeline"]] == [
        ("plan", 0.0, 1.0, 1), ("extract", 1.0, 2.0, 1), ("extract", 10.0, 3.0, 2), ("extract", 13.0, 1.5, 2),
    ]  # fmt: skip
    assert document["attempts"] == 2
    assert document["throughput"] == [[0, 0, 0], [1, 5, 50]]


def test_without_measurements_there_is_one_attempt_and_no_timeline():
    document = build_document(row(), [], [], resumed=False)
    assert (document["timeline"], document["throughput"], document["attempts"], document["consistency"]) == (
        [],
        [],
        1,
        "",
    )


def test_the_consistency_is_the_snapshots_or_names_the_tables_of_another():
    def extracted(name: str, generation: str, *, ok: bool = True) -> Checkpoint:
        return Checkpoint(name, Phase.EXTRACT, generation, ok=ok, data={"consistency": "one snapshot"})

    same = [extracted("public.a", "g1"), extracted("public.b", "g1"), extracted("public.c", "g2", ok=False)]
    assert build_document(row(), same, [], resumed=False)["consistency"] == "one snapshot"
    other = [extracted("public.a", "g1"), extracted("public.c", "g2"), extracted("public.b", "g1")]
    assert (
        build_document(row(), other, [], resumed=False)["consistency"]
        == "2 snapshots: public.c read at another time than the rest"
    )


def test_a_stored_document_comes_back_with_the_state_of_today():
    stored = {
        "key": "k",
        "status": "completed",
        "error": None,
        "tables": ["as they were"],
        "report": "r.html",
    }
    document = build_document(
        row(result=stored, status=Status.ROLLED_BACK, error={"message": "x"}), points(), []
    )
    assert document == {**stored, "status": "rolled_back", "error": {"message": "x"}}


def test_the_run_that_ends_makes_its_own_document():
    document = build_document(row(result={"tables": []}), points(), [], resumed=True)
    assert len(document["tables"]) == 2
    assert document["resumed"] is True


def test_a_run_that_never_had_a_plan_still_has_a_document():
    document = build_document(
        row(plan=None, plan_hash=None, started_at=None, finished_at=None, status=Status.FAILED),
        [],
        [],
        resumed=False,
    )
    assert (document["tables"], document["rows"], document["warnings"]) == ([], 0, [])
    assert (document["source"], document["target"]) == ({"name": "legacy"}, {"name": "warehouse"})
    assert (document["started_at"], document["finished_at"]) == (None, None)


def test_of_a_run_that_was_killed_the_document_tells_what_is_known():
    """Which tables the plan refused, and the seconds of the phases that were over."""
    document = build_document(row(status=Status.FAILED), [], [measured("r2", "plan", 0, 1.5)])
    assert document["tables"][1]["error"] == {"message": "mixes", "column": "id"}
    assert document["tables"][0]["error"] is None
    assert document["seconds"] == 1.5


def test_what_was_planned_stands_beside_what_was_done():
    film = build_document(row(), points(), [], resumed=False)["tables"][0]
    assert {k: film[k] for k in ("planned_rows", "planned_rows_exact", "planned_bytes", "planned_chunks")} == {
        "planned_rows": 12, "planned_rows_exact": True, "planned_bytes": 1200, "planned_chunks": 2,
    }  # fmt: skip


def loaded(seconds: float, **data: Any) -> dict[str, Any]:
    point = Checkpoint(
        "public.film", Phase.LOAD, "g1", rows=11, bytes=1000, chunks=2, seconds=seconds, data=data
    )
    film = build_document(row(), [point], [], resumed=False)["tables"][0]
    return {k: film[k] for k in ("rows_per_second", "bytes_per_second")}


def test_rates_are_of_what_was_moved_in_that_time():
    """A run that went on loaded two chunks of the table's hundred; the other rows cost it no time."""
    assert loaded(2.0, moved={"rows": 5, "bytes": 100}) == {"rows_per_second": 2.5, "bytes_per_second": 50.0}
    unknown = {"rows_per_second": None, "bytes_per_second": None}
    assert loaded(0.0, moved={"rows": 0, "bytes": 0}) == unknown
    assert loaded(2.0, moved={"rows": 0, "bytes": 0}) == unknown
    assert loaded(2.0) == unknown


def test_phases_tell_what_they_took_of_the_machine():
    (plan,) = build_document(row(), [], [measured("r1", "plan", 0, 1.0)], resumed=False)["timeline"]
    assert plan == {
        "phase": "plan", "start": 0.0, "seconds": 1.0, "attempt": 1, "rows": 10, "bytes": 100,
        "cpu_seconds": 0.25, "peak_rss_bytes": 1 << 20,
    }  # fmt: skip


def test_what_was_met_on_the_way_is_counted_and_told():
    retry = {
        "total": 250, "at": BEGAN, "phase": "load", "table": "public.film", "chunk": 1, "attempt": 2, "error": "cut",
        "delay_seconds": 0.5,
    }  # fmt: skip
    change = {
        "total": 1, "at": BEGAN, "endpoint": "source", "name": "legacy@12345678", "before": "closed", "after": "open",
        "reason": "5 of 10 calls failed",
    }  # fmt: skip
    rejected = {
        "table": "public.film", "rows": 3, "kinds": 1,
        "reasons": [{"column": "a", "reason": "too long", "rows": 3}],
    }  # fmt: skip
    document = build_document(
        row(), points(), [], Incidents([retry] * 2, [change], [rejected]), resumed=False
    )
    assert json.loads(json.dumps(document)) == document
    assert document["retries"]["total"] == 250
    told = {k: v for k, v in retry.items() if k != "total"} | {"at": "2026-01-01T12:00:00+00:00"}
    assert document["retries"]["first"] == [told, told]
    assert document["breaker_events"]["total"] == 1
    assert document["quarantine"] == {"total": 3, "tables": [rejected]}
    assert [t["quarantined_rows"] for t in document["tables"]] == [3, 0]


def test_nothing_met_is_said_as_such():
    document = build_document(row(), points(), [], resumed=False)
    nothing = {"total": 0, "first": []}
    assert (document["retries"], document["breaker_events"]) == (nothing, nothing)
    assert document["quarantine"] == {"total": 0, "tables": []}


def test_warnings_and_ends_are_those_of_the_plan():
    document = build_document(row(), [], [], resumed=False, versions={"jivs": "1"})
    assert document["warnings"] == [
        {"table": "main.actor", "column": "id", "kind": "refused", "reason": "mixes"}
    ]
    assert document["source"] == {"name": "legacy", "dialect": "sqlite", "version": "3.45"}
    assert document["target"] == {"name": "warehouse", "dialect": "postgresql", "version": "18.1"}
    assert document["versions"] == {"jivs": "1"}


# jivs status


def test_the_status_of_a_running_migration_has_rate_and_time_left():
    document = status_document(row(status=Status.RUNNING))
    assert set(document) == STATUS_FIELDS
    assert (document["rows"], document["total_rows"], document["rate"], document["eta_seconds"]) == (
        8,
        12,
        2.0,
        2.0,
    )
    assert (document["retries"], document["quarantined"], document["phase"]) == (1, 2, "finish")


def test_the_status_tells_of_the_latest_request():
    assert status_document(row())["request"] is None
    asked = {"request_id": "r", "request_status": "queued", "request_attempt": 2, "request_priority": 5}
    assert status_document(row(**asked))["request"] == {
        "request_id": "r", "status": "queued", "attempt": 2, "priority": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"status": Status.PAUSED}, {"rows_done": 0}, {"running_seconds": None}, {"running_seconds": 0.0}],
)
def test_what_does_not_move_has_no_rate(change):
    document = status_document(row(**{"status": Status.RUNNING, **change}))
    assert (document["rate"], document["eta_seconds"]) == (None, None)


def test_an_estimate_that_was_too_low_leaves_no_negative_time():
    assert status_document(row(status=Status.RUNNING, rows_done=20))["eta_seconds"] == 0


def test_an_ended_migration_has_the_numbers_of_its_result():
    document = status_document(row(result={"rows": 11, "bytes": 1000}))
    assert (document["rows"], document["bytes"]) == (11, 1000)


# jivs plan


def test_the_plan_document_lists_tables_with_their_columns_and_reasons():
    document = plan_document(PLAN, Estimate({"load": 2.04}, 1200, "a guess"))
    assert json.loads(json.dumps(document)) == document
    film, actor = document["tables"]
    assert {k: film[k] for k in ("source_table", "target_table", "lane", "rows", "bytes", "chunks", "refused", "mode")} == {
        "source_table": "main.film", "target_table": "public.film", "lane": "arrow", "rows": 12, "bytes": 1200, "chunks": 2, "refused": None, "mode": "create",
    }  # fmt: skip
    assert film["columns"] == [
        {
            "source": "id",
            "target": "key",
            "source_type": "INTEGER",
            "target_type": "bigint",
            "note": "declared INT",
        }
    ]
    assert actor["refused"] == "mixes"
    assert document["warnings"] == [
        {"table": "main.actor", "column": "id", "kind": "refused", "reason": "mixes"}
    ]
    assert (document["rows"], document["bytes"], document["plan_hash"]) == (12, 1200, PLAN.hash)
    assert document["estimate"] == {
        "seconds": 2.0, "phases": {"load": 2.0}, "staging_bytes": 1200, "basis": "a guess"
    }  # fmt: skip
