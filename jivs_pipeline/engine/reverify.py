"""`jivs verify`: source and target as they are now, compared again by each side's own digest.

What belongs here: reading both sides of a stored plan. What does not: claiming or changing anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.plan import Plan, TableMode, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.engine.migrate import Services
from jivs_pipeline.engine.pool import Guard, run_all
from jivs_pipeline.engine.ports import Target

__all__ = ["reverify"]


def reverify(
    services: Services, row: Mapping[str, Any], level: str | None, *, only: str | None = None
) -> dict[str, Any]:
    """The contract's document of `jivs verify`.

    Args:
        row: the migration's row in the control database.
        level: count, digest or rows; None takes the spec's.
        only: one target table, `schema.table`, instead of all.

    Raises:
        ConfigError: the migration has no plan, or an end does not let us in.
    """
    if row["plan"] is None:
        raise ConfigError(
            f"Migration {row['key']!r} has loaded nothing to compare yet", hint=f"Run {row['key']} first"
        )
    spec, plan = parse_spec(row["spec"]), Plan.model_validate(row["plan"])
    level = level or spec.verify
    # Rows that were appended cannot be told from those that were there before.
    wanted = [t for t in plan.carried if t.mode is not TableMode.APPEND and only in {None, t.target}]
    found: dict[str, dict[str, Any]] = {}
    source = services.open_source(services.resolve(spec.source))
    try:
        target = services.open_target(services.resolve(spec.target))
        try:
            with source.snapshot(min(spec.parallelism, spec.limits.source_connections)) as snapshot:

                def compare(table: TablePlan) -> None:
                    found[table.target] = _compare(table, snapshot, target, level)

                jobs = [lambda t=t: compare(t) for t in wanted]
                run_all(jobs, spec.parallelism, Guard())
        finally:
            target.close()
    finally:
        source.close()
    tables = [found[t.target] for t in wanted]
    return {"key": row["key"], "level": level, "equal": all(t["equal"] for t in tables), "tables": tables}


def _compare(table: TablePlan, snapshot: Snapshot, target: Target, level: str) -> dict[str, Any]:
    counts_only = level == "count"
    if counts_only:
        source = Digest(sum(snapshot.count(table, c) for c in table.chunks))
        there = Digest(target.count(table))
    else:
        source = sum((snapshot.digest(table, c) for c in table.chunks), Digest())
        there = target.digest_now(table)
    differences: list[dict[str, Any]] = []
    if source.rows != there.rows:
        differences.append({"kind": "rows", "source": source.rows, "target": there.rows})
    return {
        "source_table": table.source,
        "target_table": table.target,
        "source_rows": source.rows,
        "target_rows": there.rows,
        "source_digest": None if counts_only else source.hex,
        "target_digest": None if counts_only else there.hex,
        "equal": source == there,
        "differences": differences,
    }
