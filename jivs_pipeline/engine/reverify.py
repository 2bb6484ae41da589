"""`jivs verify`: source and target as they are now, compared again by each side's own digest.

What belongs here: reading both sides of a stored plan. What does not: claiming or changing anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError, Crowded, JivsError
from jivs_pipeline.core.plan import Plan, TableMode, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.engine.narrow import differing_rows
from jivs_pipeline.engine.pool import Guard, run_all, with_retries
from jivs_pipeline.engine.ports import Target
from jivs_pipeline.engine.run import take_permits
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.verify import compare

__all__ = ["reverify"]

_MOST = 10
"""Differences that a table is said to have; the contract's number."""


def reverify(
    services: Services,
    row: Mapping[str, Any],
    level: str | None,
    *,
    only: str | None = None,
    narrow: bool = False,
) -> dict[str, Any]:
    """The contract's document of `jivs verify`.

    Args:
        row: the migration's row in the control database.
        level: count, digest or rows; None takes the spec's.
        only: one target table, `schema.table`, instead of all.
        narrow: look for the rows that differ; their keys are in the document then, so it must not be kept.

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
    readers = min(spec.parallelism, spec.limits.source_connections)
    guard = Guard(services.patience_seconds)
    with services.opened(spec) as (source, target), ExitStack() as opened:
        with_retries(
            partial(take_permits, source, target, spec.parallelism), guard, _tell_nobody, only=Crowded
        )
        snapshot = with_retries(
            lambda: opened.enter_context(source.snapshot(readers)), guard, _tell_nobody, only=Crowded
        )

        def one(table: TablePlan) -> None:
            found[table.target] = _compare(table, snapshot, target, level, narrow=narrow)

        run_all([partial(one, t) for t in wanted], spec.parallelism, guard)
    tables = [found[t.target] for t in wanted]
    return {"key": row["key"], "level": level, "equal": all(t["equal"] for t in tables), "tables": tables}


def _tell_nobody(_attempt: int, _error: JivsError, _delay: float) -> None:
    """Retries are events of runs; this is none."""


def _compare(
    table: TablePlan, snapshot: Snapshot, target: Target, level: str, *, narrow: bool
) -> dict[str, Any]:
    counts_only = level == "count"
    if counts_only:
        expected = [Digest(snapshot.count(table, c)) for c in table.chunks]
        found = (Digest(target.count(table)),)
    else:
        expected = [snapshot.digest(table, c) for c in table.chunks]
        found = target.digests_now(table)
    result = compare(expected, found, counts_only=counts_only)
    different = result["different_chunks"]
    rows: list[dict[str, Any]] = []
    if narrow and not result["equal"] and not counts_only:
        both = zip(expected, found, strict=False) if different else ()
        most = max((max(a.rows, b.rows) for n, (a, b) in enumerate(both) if n in different), default=0)
        most = most * len(different) or max(result["source_rows"], result["target_rows"])
        rows = differing_rows(table, snapshot, target, different, most, _MOST)
    return {
        "source_table": table.source,
        "target_table": table.target,
        **result,
        "differences": rows or _differences(table, expected, found, result),
    }


def _differences(
    table: TablePlan, expected: Sequence[Digest], found: Sequence[Digest], result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Up to ten places that differ: ranges of the key where chunks can be told apart, else the table."""
    if result["equal"]:
        return []
    places = [
        {
            "chunk": n,
            "key": table.chunk_key,
            "from": lower[0] if (lower := table.chunks[n].lower) else None,
            "below": upper[0] if (upper := table.chunks[n].upper) else None,
            "source_rows": expected[n].rows,
            "target_rows": found[n].rows,
        }
        for n in result["different_chunks"]
    ]
    whole = {"chunk": None, "source_rows": result["source_rows"], "target_rows": result["target_rows"]}
    return places[:_MOST] or [whole]
