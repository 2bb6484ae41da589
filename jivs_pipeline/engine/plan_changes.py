"""What has changed from one plan to the next: tables, columns, how rows travel, what is refused.

What belongs here: comparing two plans. What does not: making or storing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jivs_pipeline.core.plan import Plan, PlanWarning, TablePlan

__all__ = ["changes_between"]


def changes_between(before: Plan, after: Plan) -> list[dict[str, Any]]:
    """Each a `table`, what is meant (`what`), and how it was and is (`before`, `after`; None: was or is not there)."""
    old, new = ({t.source: t for t in p.tables} for p in (before, after))
    found: list[dict[str, Any]] = []
    for name in sorted({*old, *new}):
        if name not in new or name not in old:
            found.append(_change(name, "table", _named(old.get(name)), _named(new.get(name))))
        else:
            found += _of_table(old[name], new[name])
    found += _of_warnings(before, after)
    was, now = ({(o.kind, o.name) for o in p.objects} for p in (before, after))
    found += [_change(name, kind, name, None) for kind, name in sorted(was - now)]
    found += [_change(name, kind, None, name) for kind, name in sorted(now - was)]
    return found


def _change(table: str, what: str, before: object, after: object) -> dict[str, Any]:
    return {"table": table, "what": what, "before": before, "after": after}


def _named(table: TablePlan | None) -> str | None:
    return table.target if table else None


def _of_table(before: TablePlan, after: TablePlan) -> Iterator[dict[str, Any]]:
    for what in ("target", "rows", "lane", "mode", "where", "refused"):
        if (was := getattr(before, what)) != (now := getattr(after, what)):
            yield _change(after.source, what, was, now)
    if len(before.chunks) != len(after.chunks):
        yield _change(after.source, "chunks", len(before.chunks), len(after.chunks))
    if before.rules != after.rules:
        yield _change(after.source, "rules", before.rules and "others", after.rules and "changed")
    old, new = _columns(before), _columns(after)
    for name in [*old, *(n for n in new if n not in old)]:
        if old.get(name) != new.get(name):
            yield _change(after.source, f"column {name}", old.get(name), new.get(name))


def _columns(table: TablePlan) -> Mapping[str, str]:
    return {
        c.source: f"{c.target} {c.target_type}" + (f" ({c.note})" if c.note else "") for c in table.columns
    }


def _of_warnings(before: Plan, after: Plan) -> Iterator[dict[str, Any]]:
    old, new = set(before.warnings), set(after.warnings)
    for warning in sorted(old - new, key=_order):
        yield _change(warning.table, warning.kind, warning.reason, None)
    for warning in sorted(new - old, key=_order):
        yield _change(warning.table, warning.kind, None, warning.reason)


def _order(warning: PlanWarning) -> tuple[str, str, str]:
    return warning.table, warning.column or "", warning.reason
