"""The document of a migration: what `jivs run --json`, `jivs status` and the report are made of.

What belongs here: turning rows of the control database into the contract's JSON. Pure; reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jivs_pipeline.core.claims import Checkpoint
from jivs_pipeline.core.estimates import Estimate
from jivs_pipeline.core.incidents import Incidents
from jivs_pipeline.core.plan import Plan, TablePlan
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.core.validation import CheckResult, score

__all__ = ["build_document", "plan_document", "status_document"]


def build_document(
    row: Mapping[str, Any],
    points: Sequence[Checkpoint],
    performance: Sequence[Mapping[str, Any]],
    incidents: Incidents | None = None,
    *,
    resumed: bool | None = None,
    versions: Mapping[str, str] | None = None,
    seconds: float | None = None,
    failures: Mapping[str, Mapping[str, Any]] | None = None,
    expected: Estimate | None = None,
) -> dict[str, Any]:
    """The contract's document of `jivs run`.

    A migration that ended has its document stored; it is brought back, with the state as it is now.

    Args:
        row: the migration's row.
        points: its checkpoints.
        performance: measurements of its phases, oldest first.
        incidents: what it met on its way.
        resumed, versions, seconds, failures, expected: what only the run that ends knows.
    """
    stored = row.get("result")
    if stored and resumed is None:
        return {**stored, "status": row["status"], "error": row["error"]}
    plan = Plan.model_validate(row["plan"]) if row["plan"] else None
    met = incidents or Incidents()
    tables = [_table(t, points, failures or {}, met) for t in plan.tables] if plan else []
    status, phases = row["status"], _phases(performance, row["run_id"])
    return {
        "key": row["key"],
        "run_id": row["run_id"],
        "status": "failed" if status == Status.RUNNING else status,
        "resumed": bool(resumed),
        "source": {"name": row["source_name"], "dialect": plan.source_dialect, "version": plan.source_version}
        if plan
        else {"name": row["source_name"]},
        "target": {"name": row["target_name"], "dialect": "postgresql", "version": plan.target_version}
        if plan
        else {"name": row["target_name"]},
        "tables": tables,
        "rows": sum(t["target_rows"] or 0 for t in tables),
        "bytes": sum(t["bytes"] for t in tables),
        # Of a run that was killed, what its phases took is all that is known.
        "seconds": round(sum(phases.values()) if seconds is None else seconds, 3),
        "phases": phases,
        "estimate": expected.document() if expected else None,
        "timeline": _timeline(performance),
        "throughput": _throughput(performance),
        **met.document(),
        "warnings": _warnings(plan, points),
        "validation": _validation(points),
        "consistency": _consistency(points),
        "verify": row["spec"].get("verify", "digest"),
        "plan_hash": row["plan_hash"],
        "spec_hash": row["spec_hash"],
        "epoch": row["epoch"],
        "attempts": len({p["run_id"] for p in performance}) or 1,
        "started_at": row["started_at"].isoformat() if row["started_at"] else None,
        "finished_at": row["finished_at"].isoformat() if row["finished_at"] else None,
        "versions": dict(versions or {}),
        "report": None,
        "error": row["error"],
    }


def _table(
    table: TablePlan, points: Sequence[Checkpoint], failures: Mapping[str, Mapping[str, Any]], met: Incidents
) -> dict[str, Any]:
    mine = {p.phase: p for p in points if p.table == table.target}
    extract, loaded, verify = (mine.get(p) for p in (Phase.EXTRACT, Phase.LOAD, Phase.VERIFY))
    checked: Mapping[str, Any] = verify.data if verify and verify.ok else {}
    refused = {"message": table.refused, "column": table.refused_column} if table.refused else None
    failure = failures.get(table.target) or next((p.data for p in mine.values() if not p.ok), refused)
    return {
        "source_table": table.source,
        "target_table": table.target,
        "source_rows": checked.get("source_rows", _extracted(extract, table.rows)),
        "target_rows": checked.get("target_rows", loaded.rows if loaded and loaded.ok else 0),
        "quarantined_rows": met.rejected(table.target),
        "rules": _rules(mine.get(Phase.TRANSFORM)),
        "chunks": loaded.chunks if loaded and loaded.ok else 0,
        "planned_chunks": len(table.chunks),
        "planned_rows": table.rows,
        "planned_rows_exact": table.rows_exact,
        "planned_bytes": table.bytes,
        "lane": table.lane,
        "verified": checked.get("equal"),
        "bytes": loaded.bytes if loaded and loaded.ok else 0,
        "seconds": round(sum(p.seconds for p in mine.values()), 3),
        **_rates(loaded),
        "source_digest": checked.get("source_digest"),
        "target_digest": checked.get("target_digest"),
        "error": {"message": failure["message"], "column": failure.get("column")} if failure else None,
    }


def _rules(transformed: Checkpoint | None) -> dict[str, int]:
    """How many values and rows each rule has changed."""
    changed = transformed.data.get("refined") if transformed and transformed.ok else None
    return {name: count for name, count in sorted((changed or {}).items()) if count}


def _validation(points: Sequence[Checkpoint]) -> dict[str, Any] | None:
    """What the validations found, or None where there are none."""
    found = [p.data["checks"] for p in points if p.phase is Phase.VALIDATE and p.ok and "checks" in p.data]
    results = [CheckResult.parse(c) for checks in found for c in checks]
    if not results:
        return None
    return {
        "score": score(results),
        "passed": all(r.passed for r in results),
        "checks": [r.stored() for r in sorted(results, key=lambda r: (r.table, r.name))],
    }


def _extracted(extract: Checkpoint | None, planned: int) -> int:
    """Rows that were read, also those that went to the quarantine."""
    if extract is None or not extract.ok:
        return planned
    return extract.rows + sum(chunk.get("rejected", 0) for chunk in extract.data.get("chunks", ()))


def _rates(loaded: Checkpoint | None) -> dict[str, float | None]:
    """What the load moved in a second; None where nothing had to be moved any more, or it is not known."""
    moved: Mapping[str, int] = loaded.data.get("moved", {}) if loaded and loaded.ok else {}
    seconds = loaded.seconds if loaded else 0.0
    return {
        f"{unit}_per_second": round(moved[unit] / seconds, 1) if moved.get(unit) and seconds > 0 else None
        for unit in ("rows", "bytes")
    }


def _phases(performance: Sequence[Mapping[str, Any]], run_id: str | None) -> dict[str, float]:
    seconds = {phase.value: 0.0 for phase in Phase}
    for p in performance:
        if p["run_id"] == run_id:
            seconds[p["phase"]] += p["seconds"]
    return {phase: round(value, 3) for phase, value in seconds.items()}


def _timeline(performance: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not performance:
        return []
    began = min(p["started_at"] for p in performance)
    attempts = {run: n for n, run in enumerate(dict.fromkeys(p["run_id"] for p in performance), 1)}
    return [
        {
            "phase": p["phase"],
            "start": round((p["started_at"] - began).total_seconds(), 3),
            "seconds": round(p["seconds"], 3),
            "attempt": attempts[p["run_id"]],
            "rows": p["rows"],
            "bytes": p["bytes"],
            "cpu_seconds": round(p["cpu_seconds"], 3),
            "peak_rss_bytes": p["peak_rss_bytes"],
        }
        for p in performance
    ]


def _throughput(performance: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    samples: list[list[float]] = []
    for p in performance:
        if p["samples"]:
            samples = p["samples"]
    return samples


def _warnings(plan: Plan | None, points: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Those of the plan, and what the target did not take in the end."""
    planned = [w.model_dump(mode="json") for w in plan.warnings] if plan else []
    return planned + [p.data["left_out"] for p in points if "left_out" in p.data]


def _consistency(points: Sequence[Checkpoint]) -> str:
    """One snapshot for all tables, or which tables are from another one."""
    read = [p for p in points if p.phase is Phase.EXTRACT and p.ok]
    generations = list(dict.fromkeys(p.generation for p in read))
    if len(generations) <= 1:
        return str(read[0].data.get("consistency", "")) if read else ""
    most = max(generations, key=lambda g: sum(p.generation == g for p in read))
    others = ", ".join(sorted(p.table for p in read if p.generation != most))
    return f"{len(generations)} snapshots: {others} read at another time than the rest"


def status_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """The contract's document of `jivs status KEY`."""
    seconds = row["running_seconds"] or 0.0
    running = row["status"] == Status.RUNNING
    rate = row["rows_done"] / seconds if running and seconds > 0 else None
    left = max(0, row["rows_total"] - row["rows_done"])
    result = row["result"] or {}
    return {
        "key": row["key"],
        "status": row["status"],
        "phase": row["phase"],
        "run_id": row["run_id"],
        "rows": result.get("rows", row["rows_done"]),
        "total_rows": row["rows_total"],
        "bytes": result.get("bytes", row["bytes_done"]),
        "rate": round(rate, 1) if rate else None,
        "eta_seconds": round(left / rate, 1) if rate else None,
        "retries": row["retries"],
        "quarantined": row["quarantined"],
        "error": row["error"],
        "request": _request(row),
    }


def _request(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The latest request for the migration, or None where it was only ever run by hand."""
    if row.get("request_id") is None:
        return None
    return {
        "request_id": row["request_id"],
        "status": row["request_status"],
        "attempt": row["request_attempt"],
        "priority": row["request_priority"],
    }


def _rules_planned(table: TablePlan) -> dict[str, Any] | None:
    """What is done to the rows of a table, as its plan has it."""
    rules = table.rules
    if rules is None:
        return None
    return {
        "columns": [
            {"column": m.target, "steps": [{"kind": s.kind, "sql": s.sql} for s in m.steps]}
            for m in rules.made
        ],
        "seen": dict(rules.seen),
        "dedupe": rules.dedupe.model_dump(mode="json") if rules.dedupe else None,
        "python": rules.python,
    }


def plan_document(plan: Plan, expected: Estimate) -> dict[str, Any]:
    """The contract's document of `jivs plan`, with how long it is expected to take."""
    return {
        "key": plan.key,
        "source": plan.source,
        "target": plan.target,
        "plan_hash": plan.hash,
        "rows": plan.rows,
        "bytes": plan.bytes,
        "tables": [
            {
                "source_table": t.source,
                "target_table": t.target,
                "lane": t.lane,
                "rows": t.rows,
                "rows_exact": t.rows_exact,
                "bytes": t.bytes,
                "chunks": len(t.chunks),
                "chunk_by": t.chunk_by,
                "mode": t.mode,
                "where": t.where,
                "refused": t.refused,
                "rules": _rules_planned(t),
                "checks": [c.model_dump(mode="json") for c in t.rules.checks] if t.rules else [],
                "columns": [
                    {
                        "source": c.source,
                        "target": c.target,
                        "source_type": c.source_type,
                        "target_type": c.target_type,
                        "note": c.note,
                    }
                    for c in t.columns
                ],
            }
            for t in plan.tables
        ],
        "objects": [{"kind": o.kind, "name": o.name} for o in plan.objects],
        "warnings": [w.model_dump(mode="json") for w in plan.warnings],
        "estimate": expected.document(),
    }
