"""Rules that a replay is given for rows that those of the run reject: what they may change, and the plan with them.

What belongs here: comparing two specs of a migration. What does not: reading and loading the rows (`replay.py`).

The tables are there, and most of their rows were made by the rules of the run. So the new ones have to make the same
columns, from what was read of the source then.
"""

from __future__ import annotations

from collections.abc import Collection

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.plan import Later, Plan, TablePlan
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.planned_rules import with_checks
from jivs_pipeline.engine.ports import RuleBook

__all__ = ["with_new_rules"]

_OTHERWISE = "Roll back and run it by the new spec, so that all rows are made by it"
_FREE = {"rules", "validation", "strict", "quarantine", "schedule", "parallelism", "limits", "on_failure"}
"""Keys of a spec that say nothing of rows that are loaded, or that are what is changed here."""


def with_new_rules(plan: Plan, before: Spec, after: Spec, waiting: Collection[str], rules: RuleBook) -> Plan:
    """The plan with the rules of another spec behind those that its tables have.

    Args:
        before: the spec that the plan was made of.
        after: the one that is given now.
        waiting: target tables with rows in quarantine.

    Raises:
        SpecError: it changes what a replay cannot change.
    """
    old, new = (s.model_dump(mode="json", exclude=_FREE) for s in (before, after))
    if different := next((name for name in new if new[name] != old[name]), None):
        raise SpecError(
            f"The spec of a replay has another {different!r} than the run had, and it may only change rules and validation",
            hint=_OTHERWISE,
        )
    others = {t.source_table: t.as_texts for t in plan.tables}
    changed = [t for t in plan.carried if _changed(t, before, after)]
    made: dict[str, TablePlan] = {}
    for table in changed:
        _require_changeable(table, before, after, waiting)
        if table.rules is not None:
            # From what was read then: the source is not asked for more.
            read = table.model_copy(update={"columns": table.rules.read, "wire": table.rules.wire})
            read = read.model_copy(update={"rules": None, "later": ()})
            made[table.target] = rules.compile(read, after.rule(table.source_table), others)
    checked = with_checks(after, [made.get(t.target, t) for t in plan.tables], rules)
    return plan.model_copy(
        update={
            "tables": tuple(
                _amended(table, new, waiting) if table.target in made else table
                for table, new in zip(plan.tables, checked, strict=True)
            )
        }
    )


def _changed(table: TablePlan, before: Spec, after: Spec) -> bool:
    def checks(spec: Spec) -> list[object]:
        return [v for v in spec.validation if v.table in {table.source_table, table.target_table}]

    return before.rule(table.source_table) != after.rule(table.source_table) or checks(before) != checks(
        after
    )


def _require_changeable(table: TablePlan, before: Spec, after: Spec, waiting: Collection[str]) -> None:
    name = table.source_table
    if table.rules is None:
        _require_waiting(table, waiting)
        raise SpecError(
            f"The rows of table {name!r} in quarantine are bad in their source, and it was read for no rules",
            hint="Correct them there and replay without a spec. " + _OTHERWISE,
        )
    old, new = before.rule(name), after.rule(name)
    for what in ("rename", "where", "load", "dedupe", "python"):
        if getattr(old, what) != getattr(new, what) or (what in {"dedupe", "python"} and getattr(new, what)):
            raise SpecError(f"A replay cannot change or use rules.{name}.{what}", hint=_OTHERWISE)


def _require_waiting(table: TablePlan, waiting: Collection[str]) -> None:
    if table.target not in waiting:
        raise SpecError(
            f"The rules of table {table.source_table!r} are others, and none of its rows is in quarantine",
            hint="A replay makes rows in quarantine only. " + _OTHERWISE,
        )


def _amended(table: TablePlan, new: TablePlan, waiting: Collection[str]) -> TablePlan:
    """The table with the new rules behind those that it has, where they are others."""
    if table.rules is None or new.rules is None:
        return table
    read = {c.source for c in table.rules.read}
    if missing := next((c for c in new.rules.read if c.source not in read), None):
        raise SpecError(f"The run has not read column {table.source_table}.{missing.source}", hint=_OTHERWISE)
    for here, there in zip(table.columns, new.columns, strict=False):
        if (here.target, here.target_type, here.canon) != (there.target, there.target_type, there.canon):
            raise SpecError(
                f"By the new rules column {table.target}.{here.target} would be {there.target} {there.target_type},"
                f" and in the target it is {here.target_type}",
                hint="Name its type with type, or CAST the expression",
            )
    if len(table.columns) != len(new.columns):
        raise SpecError(f"By the new rules {table.target} would have other columns", hint=_OTHERWISE)
    key = table.definition.primary_key.columns if table.definition and table.definition.primary_key else ()
    made = {m.target for m in new.rules.made}
    if column := next((name for name in key if name in made), None):
        raise SpecError(
            f"The new rules change {table.target}.{column}, by which rows in quarantine are found again",
            hint=_OTHERWISE,
        )
    rules = new.rules.model_copy(update={"read": table.rules.read, "wire": table.rules.wire})
    if rules in (table.rules, *(one.rules for one in table.later)):
        return table  # a replay that was killed is run again
    _require_waiting(table, waiting)
    return table.model_copy(update={"later": (*table.later, Later(columns=new.columns, rules=rules))})
