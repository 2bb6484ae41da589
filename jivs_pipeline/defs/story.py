"""What a run tells in the Dagster UI: log sentences, materializations, checks and tables as metadata.

What belongs here: turning engine values into Dagster's. What does not: deciding anything.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from jivs_pipeline.core.estimates import Estimate
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.defs.partitions import MIGRATION_ASSET
from jivs_pipeline.engine.reverification import Comparison, Outcome

__all__ = [
    "CHECK",
    "check_metadata",
    "checks",
    "comparison_metadata",
    "materializations",
    "plan_metadata",
    "recheck",
    "report_metadata",
    "sentence",
    "table_key",
    "validations",
    "verdict",
]

CHECK = "equals_source"
"""Name of the check that every loaded table has."""


def table_key(connection: str, table: str) -> dg.AssetKey:
    """`[target connection, schema, table]`; the schema has no dot by the planner's rule, the table may."""
    schema, _, name = table.partition(".")
    return dg.AssetKey([connection, schema, name])


def plan_metadata(plan: Plan, expected: Estimate | None) -> dict[str, Any]:
    """The plan as tables that the run page shows; with what it is expected to take, where it is made anew."""
    times = {"expected_seconds": round(expected.seconds, 1), "expected": expected.basis} if expected else {}
    return {
        **times,
        "tables": len(plan.tables),
        "rows": plan.rows,
        "bytes": plan.bytes,
        "chunks": sum(len(t.chunks) for t in plan.carried),
        "plan": dg.MetadataValue.md(
            _markdown(
                ("source", "target", "lane", "rows", "chunks", "mode", "refused"),
                [
                    (t.source, t.target, t.lane, f"{t.rows:,}", len(t.chunks), t.mode, t.refused or "")
                    for t in plan.tables
                ],
            )
        ),
        "warnings": dg.MetadataValue.md(
            _markdown(
                ("table", "column", "kind", "reason"),
                [(w.table, w.column or "", w.kind, w.reason) for w in plan.warnings],
            )
            if plan.warnings
            else "Everything is carried exactly."
        ),
        "plan_hash": plan.hash,
    }


def materializations(document: Mapping[str, Any]) -> Iterator[dg.AssetMaterialization]:
    """One per loaded table. The numbers plot over the runs in the asset catalog."""
    for table in document["tables"]:
        if table["error"] or not table["chunks"]:
            continue
        seconds = table["seconds"] or 0.001
        yield dg.AssetMaterialization(
            asset_key=table_key(document["target"]["name"], table["target_table"]),
            description=f"{table['target_rows']:,} rows from {table['source_table']}",
            metadata={
                "rows": table["target_rows"],
                "bytes": table["bytes"],
                "rows/s": round(table["target_rows"] / seconds, 1),
                "chunks": table["chunks"],
                "seconds": table["seconds"],
                "epoch": document["epoch"],
                "digest": table["target_digest"] or "not computed",
                "lane": table["lane"],
                "source": table["source_table"],
                "migration": document["key"],
                "dagster/row_count": table["target_rows"],
                **{k: table[k] for k in ("moved_rows", "inserted", "updated", "deleted") if k in table},
            },
        )


def checks(document: Mapping[str, Any]) -> Iterator[dg.AssetCheckEvaluation]:
    """One per compared table: equal or not, with both digests."""
    for table in document["tables"]:
        if (equal := table["verified"]) is not None:
            said = "Count and digest computed by source and target are equal" if equal else _DIFFERS
            yield _check(document["target"]["name"], table, said, passed=equal)


def recheck(connection: str, table: Mapping[str, Any]) -> dg.AssetCheckEvaluation:
    """The check of a table that was compared again, from the document of `jivs verify`."""
    said = "Compared again; count and digest are equal" if table["equal"] else f"Compared again; {_DIFFERS}"
    return _check(connection, table, said, passed=table["equal"])


def validations(document: Mapping[str, Any]) -> Iterator[dg.AssetCheckEvaluation]:
    """One per validation of a table."""
    severities = {"critical": dg.AssetCheckSeverity.ERROR}
    for check in (document["validation"] or {"checks": ()})["checks"]:
        left = check["failed"] - check["quarantined"]
        yield dg.AssetCheckEvaluation(
            asset_key=table_key(document["target"]["name"], check["table"]),
            check_name=_NOT_A_NAME.sub("_", check["name"]).strip("_")[:200] or "validation",
            passed=check["passed"],
            severity=severities.get(check["severity"], dg.AssetCheckSeverity.WARN),
            description=check["broken"] or f"{left:,} of {check['rows']:,} rows do not pass {check['name']}",
            metadata={k: check[k] for k in ("kind", "rows", "failed", "quarantined", "at_least")}
            | {"how grave": check["severity"]},
        )


_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_]+")
_DIFFERS = "the target differs from the source"


def _check(connection: str, table: Mapping[str, Any], said: str, *, passed: bool) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=table_key(connection, table["target_table"]),
        check_name=CHECK,
        passed=passed,
        description=said[0].upper() + said[1:],
        metadata=check_metadata(table),
    )


def comparison_metadata(found: Sequence[Comparison], left: Sequence[str]) -> dict[str, Any]:
    """What the weekly comparison has found, as a table that the run page shows."""
    rows = [(c.key, c.outcome.value, c.detail) for c in found]
    counts = Counter(c.outcome.value for c in found)
    return {
        **{outcome.value: counts[outcome.value] for outcome in Outcome},
        "left for the next run": len(left),
        "migrations": dg.MetadataValue.md(_markdown(("migration", "outcome", "what"), rows)),
    }


def check_metadata(table: Mapping[str, Any]) -> dict[str, Any]:
    """What both databases said of a table."""
    return {
        "source_rows": table["source_rows"],
        "target_rows": table["target_rows"],
        "source_digest": table["source_digest"] or "count only",
        "target_digest": table["target_digest"] or "count only",
    }


def sentence(document: Mapping[str, Any]) -> str:
    """The outcome in one line of the run's log."""
    how = "count" if document["verify"] == "count" else "digest"
    return (
        f"Verified: {len(document['tables'])} tables, {document['rows']:,} rows, every table equal to its source"
        f" by {how}; {document['consistency']}; {document['seconds']:.1f} s. Report: {document['report']}"
    )


def report_metadata(report: str | None) -> dict[str, Any]:
    """The link to a report, where one could be written."""
    return {"report": dg.MetadataValue.path(report)} if report else {}


def verdict(document: Mapping[str, Any]) -> dg.AssetMaterialization:
    """The outcome of the run, on the migration's own asset."""
    return dg.AssetMaterialization(
        asset_key=MIGRATION_ASSET,
        partition=document["key"],
        description=f"{document['status']}: {len(document['tables'])} tables, {document['rows']:,} rows",
        metadata={
            "status": document["status"],
            "rows": document["rows"],
            "bytes": document["bytes"],
            "seconds": document["seconds"],
            "epoch": document["epoch"],
            "consistency": document["consistency"] or "",
            **report_metadata(document["report"]),
            "tables": dg.MetadataValue.md(
                _markdown(
                    ("target", "rows", "verified", "digest"),
                    [
                        (
                            t["target_table"],
                            f"{t['target_rows']:,}",
                            t["verified"],
                            (t["target_digest"] or "")[:12],
                        )
                        for t in document["tables"]
                    ],
                )
            ),
        },
    )


def _markdown(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    def cell(value: Any) -> str:
        return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(map(cell, row)) for row in rows[:500]]
    if len(rows) > 500:
        lines.append(f"… {len(rows) - 500} more | " + " | ".join("" for _ in head[1:]))
    return "\n".join(f"| {line} |" for line in lines)
