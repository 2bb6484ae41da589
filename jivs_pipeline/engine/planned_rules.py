"""What the plan says of tables whose rows are worked with between reading and loading: rules, lookups, validations.

What belongs here: which tables those are, and what is asked of their sources for it. What does not: checking rules
(`infra/rules/`) and the rest of the plan (`planning.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.model import Catalog, Table
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import Check, Lane, TablePlan, Wire
from jivs_pipeline.core.ports import Source, Survey
from jivs_pipeline.core.spec import Spec, TableRule
from jivs_pipeline.engine.ports import RuleBook

__all__ = ["as_texts", "looked_into", "of_read", "ruled_tables", "takes_text", "with_checks"]


def ruled_tables(spec: Spec, chosen: Sequence[Table]) -> frozenset[str]:
    """Source tables whose rows are worked with between reading and loading: changed, checked, or checked against."""
    targets = {spec.rule(t.name).rename or t.name: t for t in chosen}
    by_name = {**{t.name: t for t in chosen}, **targets}
    ruled = {t.name for t in chosen if spec.rule(t.name).changes}
    lookups = [c.lookup for t in chosen for c in spec.rule(t.name).columns.values() if c.lookup]
    ruled |= {lookup.table for lookup in lookups}
    for check in spec.validation:
        if (table := by_name.get(check.table)) is None:
            raise SpecError(
                f"The spec validates table {check.table!r}, which is not part of the migration",
                hint=did_you_mean(check.table, list(targets), "tables"),
            )
        ruled.add(table.name)
        if check.kind != "referential":
            continue
        own = {k.target_table for k in table.foreign_keys if k.target_schema == table.schema}
        parents = {check.references.table} if check.references else own
        ruled |= {by_name[name].name for name in parents if name in by_name}
    return frozenset(ruled)


def looked_into(
    spec: Spec, rule: TableRule, catalog: Catalog, source: Source, names: Mapping[str, str]
) -> dict[str, TablePlan]:
    """The tables of a table's lookups, with the columns that are looked at; what is not there or dropped is missing."""
    found: dict[str, TablePlan] = {}
    for change in rule.columns.values():
        asked = change.lookup
        table = catalog.table(asked.table) if asked else None
        if asked is None or table is None or asked.table not in names:
            continue
        other = spec.rule(table.name).columns
        columns = [
            c
            for c in table.columns
            if c.name in {asked.key, asked.value} and not (c.name in other and other[c.name].drop)
        ]
        survey = as_texts(source.survey(table, columns, None, spec.chunk_bytes))
        before = found.get(asked.table)
        found[asked.table] = TablePlan(
            source_schema=table.schema, source_table=table.name, target_schema=spec.target_schema,
            target_table=names[table.name], columns=(*(before.columns if before else ()), *survey.columns),
            lane=survey.lane, wire=survey.wire, spelling=survey.spelling,
        )  # fmt: skip
    return found


def takes_text(name: str, rule: TableRule) -> bool:
    """Whether a column is read as text, because rules say what becomes of it."""
    change = rule.columns.get(name)
    return bool(rule.python or (change and change.changes))


_AS_PRINTED = {
    "smallint": Canon.INTEGER, "integer": Canon.INTEGER, "bigint": Canon.INTEGER, "date": Canon.DATE,
    "timestamp without time zone": Canon.TIMESTAMP,
}  # fmt: skip
"""Spelled as PostgreSQL prints them, and cheaper to hash than any text."""


def as_texts(survey: Survey) -> Survey:
    """The survey of a table whose rows rules will change: not as COPY's bytes, but as texts that can be worked with."""
    if survey.lane is Lane.ARROW:
        return survey
    columns = tuple(
        c.model_copy(update={"arrow": "string", "canon": _AS_PRINTED.get(c.target_type, Canon.TEXT)})
        for c in survey.columns
    )
    return replace(survey, columns=columns, lane=Lane.ARROW, wire=Wire.CSV, spelling=survey.spelling.of_texts)


def of_read(survey: Survey, plan: TablePlan) -> Survey:
    """What the survey says of columns that are read after all."""
    if plan.rules is None:
        return survey
    read = {c.source for c in plan.rules.read} | {""}
    return replace(
        survey,
        refused=tuple(r for r in survey.refused if r.column in read),
        lossy=tuple(r for r in survey.lossy if r.column in read),
    )


def with_checks(spec: Spec, tables: Sequence[TablePlan], rules: RuleBook) -> list[TablePlan]:
    """The tables with the validations of the spec."""
    made: dict[str, list[Check]] = {}
    for number, check in enumerate(spec.validation):
        table = next((t for t in tables if check.table in {t.target_table, t.source_table}), None)
        if table is not None and not table.refused:
            made.setdefault(table.target, []).extend(
                rules.compile_checks(check, f"validation.{number}", table, tables)
            )
    return [
        t.model_copy(update={"rules": t.rules.model_copy(update={"checks": _apart(made[t.target])})})
        if t.rules and t.target in made
        else t
        for t in tables
    ]


def _apart(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks of one table with names that tell them apart."""
    seen: dict[str, int] = {}
    named: list[Check] = []
    for check in checks:
        seen[check.name] = count = seen.get(check.name, 0) + 1
        named.append(check if count == 1 else check.model_copy(update={"name": f"{check.name} #{count}"}))
    return tuple(named)
