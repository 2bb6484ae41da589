"""Makes the plan: catalog and survey of the source, names and tables of the target, rules of the spec.

What belongs here: deciding per table what is carried, how, and what is refused. Touches nothing.
What does not: dialects (`infra/sources/`) and the values of a plan (`core/plan.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jivs_pipeline.core.errors import ConfigError, SpecError
from jivs_pipeline.core.model import Catalog, LeftOut, Table
from jivs_pipeline.core.names import did_you_mean, fits_identifier, qualified
from jivs_pipeline.core.plan import (
    ColumnPlan,
    Lane,
    Plan,
    PlanWarning,
    Spelling,
    TableMode,
    TablePlan,
    Wire,
)
from jivs_pipeline.core.ports import ExistingTable, Source
from jivs_pipeline.core.spec import Spec, TableRule
from jivs_pipeline.core.widening import widens
from jivs_pipeline.engine.definition import Definer, point_references
from jivs_pipeline.engine.extensions import asks, fitted, missing, quoted
from jivs_pipeline.engine.large_objects import plan_large_objects, without
from jivs_pipeline.engine.objects import choose
from jivs_pipeline.engine.planned_digests import compared_in
from jivs_pipeline.engine.planned_rules import (
    as_texts,
    looked_into,
    of_read,
    ruled_tables,
    takes_text,
    with_checks,
)
from jivs_pipeline.engine.planned_update import (
    chunked_by_key,
    gone_tables,
    mode_of,
    update_problem,
    watermarked,
)
from jivs_pipeline.engine.ports import RuleBook, Target
from jivs_pipeline.engine.row_types import with_row_types
from jivs_pipeline.engine.sifting import tolerated
from jivs_pipeline.engine.streaming import unstaged

__all__ = ["Checked", "build_plan", "check", "check_rules"]

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Checked:
    """A spec that fits both databases: the source's catalog, the tables chosen from it with their target
    names, and the target's tables of those names and its objects, as far as this migration did not make them.
    """

    catalog: Catalog
    chosen: Sequence[Table]
    names: Mapping[str, str]
    existing: Mapping[str, ExistingTable]
    aside: frozenset[str]
    objects: frozenset[tuple[str, str]]


def check(spec: Spec, source: Source, target: Target, *, since: int = 0, filters: bool = False) -> Checked:
    """Find what is wrong with a spec before anything is written anywhere.

    Args:
        since: what earlier epochs have made in the target is as if it had always been there.
        filters: also have the source read every `where`, which a plan does anyhow.

    Raises:
        SpecError: the spec names a table, column or feature that is not there.
        ConfigError: nothing to migrate, or a target table exists and `on_existing` is `fail`.
    """
    if spec.grants and (dialect := source.info().dialect) != "postgresql":
        raise SpecError(
            f"grants: true is for sources that are PostgreSQL, and {spec.source!r} is {dialect}",
            hint="Remove grants from the spec",
        )
    catalog = source.catalog(spec.source_schema)
    ledger = target.ledger(spec.key, since)
    ours, there = ledger.objects(spec.target_schema), frozenset[tuple[str, str]]()
    if asks(catalog):
        there = target.objects(spec.target_schema)
    others = frozenset((kind, name) for kind, name in there if f"{kind} {name}" not in ours)
    catalog = fitted(catalog, there, spec.target_schema)
    chosen = _choose(spec, catalog)
    names = {t.name: spec.rule(t.name).rename or t.name for t in chosen}
    existing = target.inspect(spec.target_schema, sorted(names.values()))
    existing = {n: e for n, e in existing.items() if qualified(spec.target_schema, n) not in ledger.made}
    _check_existing(spec, existing)
    for table in chosen if filters else ():
        if where := spec.rule(table.name).where:
            source.survey(table, table.columns[:1], where, spec.chunk_bytes)
    aside = frozenset(n for n in names.values() if ledger.set_aside(qualified(spec.target_schema, n)))
    return Checked(catalog, chosen, names, existing, aside, others)


def check_rules(spec: Spec, checked: Checked, source: Source, rules: RuleBook) -> None:
    """Find what is wrong with rules and validations, as the plan would; only tables that have some are looked at.

    Raises:
        SpecError: one does not fit its table.
        ConfigError: one needs what the environment does not have.
    """
    catalog, chosen, unsaid = checked.catalog, checked.chosen, list[PlanWarning]()
    ruled = ruled_tables(spec, chosen)
    tables = [
        _plan_table(spec, t, catalog, checked.names, source, rules, checked.existing, unsaid)
        for t in chosen
        if t.name in ruled
    ]
    with_checks(spec, [point_references(t, tables, catalog, unsaid) for t in tables], rules)


def build_plan(spec: Spec, source: Source, target: Target, rules: RuleBook, since: int = 0) -> Plan:
    """The plan for `spec` as both databases are now; arguments and errors are those of `check`."""
    checked = check(spec, source, target, since=since)
    info, catalog, chosen = source.info(), checked.catalog, checked.chosen
    names, existing = checked.names, checked.existing
    left_out = without(spec, catalog.left_out)
    missed = [o for o in left_out if o.holds_rows and spec.tables.takes(_bare(catalog, o))]
    warnings = gone_tables(spec, catalog, names, target) if spec.type == "incremental" else []
    warnings += [_left_out(o) for o in left_out if o not in missed and (o.table is None or o.table in names)]
    ruled = ruled_tables(spec, chosen)
    tables = [
        _with_extensions(
            _plan_table(
                spec, t, catalog, names, source, rules if t.name in ruled else None, existing, warnings
            ),
            t,
            checked.objects,
        )
        for t in chosen
    ]
    tables = [
        watermarked(
            chunked_by_key(t, source_table, target, warnings),
            spec.rule(source_table.name),
            info.dialect,
            warnings,
        )
        if t.mode is TableMode.UPDATE and not t.refused
        else t
        for t, source_table in zip(tables, chosen, strict=True)
    ]
    # What an earlier attempt has set aside is still to be replaced, although its name is free now.
    tables = [
        t.model_copy(update={"mode": TableMode.REPLACE}) if t.target_table in checked.aside else t
        for t in tables
    ]
    tables += [_missed(spec, catalog, o) for o in missed]
    tables = with_row_types(_refuse_twins(tables), chosen)
    tables = [point_references(t, tables, catalog, warnings) for t in tables]
    tables = with_checks(spec, tables, rules)
    if (large := plan_large_objects(spec, source, target)) is not None:
        tables.append(large)
    warnings += [
        PlanWarning(table=t.source, column=t.refused_column, kind="refused", reason=t.refused)
        for t in tables
        if t.refused
    ]
    warnings += unstaged(spec, tables)
    objects = choose(spec, catalog, tables, checked.objects, warnings)
    receiver = target.info()
    if receiver.encoding != "UTF8":
        # RECORD hashes the database's own bytes, which differ there for equal text.
        tables = [t.model_copy(update={"spelling": Spelling.CANONICAL}) for t in tables]
    return Plan(
        key=spec.key,
        spec_hash=spec.hash,
        source=spec.source,
        target=spec.target,
        source_dialect=info.dialect,
        source_version=info.version,
        target_version=receiver.version,
        # Largest first: the last chunk to finish should be a small one.
        tables=tuple(sorted(tables, key=lambda t: (-t.bytes, t.target))),
        warnings=tuple(sorted(warnings, key=lambda w: (w.table, w.column or "", w.kind, w.reason))),
        target_schema=spec.target_schema,
        objects=objects,
    )


def _choose(spec: Spec, catalog: Catalog) -> list[Table]:
    names = [t.name for t in catalog.tables]
    roots = {t.root for t in catalog.tables}
    for pattern in spec.tables.include:
        plain = not any(c in pattern for c in "*?[")
        if plain and pattern not in names and pattern not in roots:
            left = next((o for o in catalog.left_out if o.name.split(".")[-1] == pattern), None)
            reason = f"; it is a {left.kind}: {left.reason}" if left else ""
            raise SpecError(
                f"The source has no table {pattern!r} in schema {catalog.schema!r}{reason}",
                hint=did_you_mean(pattern, names, "tables"),
            )
    for name, rule in spec.rules.items():
        if (table := catalog.table(name)) is None:
            raise SpecError(
                f"The spec has rules for table {name!r}, which the source lacks",
                hint=did_you_mean(name, names, "tables"),
            )
        for column, change in rule.columns.items():
            # With an expression it is a column that is added, and a python rule may have added it before.
            if change.expression or change.lookup or rule.python:
                continue
            if column not in (known := [c.name for c in table.columns]):
                raise SpecError(
                    f"The spec has rules for column {name}.{column}, which the source lacks",
                    hint=did_you_mean(column, known, "columns"),
                )
        if rule.watermark is not None and rule.watermark not in (known := [c.name for c in table.columns]):
            raise SpecError(
                f"rules.{name}.watermark: the source has no column {name}.{rule.watermark}",
                hint=did_you_mean(rule.watermark, known, "columns"),
            )
        if table.columns and all(c.name in rule.columns and rule.columns[c.name].drop for c in table.columns):
            raise SpecError(
                f"The spec drops every column of table {name!r}", hint=f"Put {name} under tables.exclude"
            )
    chosen = [t for t in catalog.tables if spec.tables.takes(t.name, *([t.root] if t.root else []))]
    if not chosen:
        raise ConfigError(
            f"There is no table to migrate in schema {catalog.schema!r} of source {spec.source!r}",
            hint="Check source_schema and tables in the spec",
        )
    return chosen


def _check_existing(spec: Spec, existing: Mapping[str, ExistingTable]) -> None:
    kinds = {
        "v": "a view",
        "m": "a materialized view",
        "S": "a sequence",
        "f": "a foreign table",
        "i": "an index",
    }
    for name, table in sorted(existing.items()):
        if table.kind not in {"r", "p"}:
            raise ConfigError(
                f"The target has {kinds.get(table.kind, 'something')} called {spec.target_schema}.{name}",
                hint="Rename the table in the spec, or move the other object away",
            )
    if existing and spec.on_existing == "fail" and spec.type == "full":
        first = min(existing)
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise ConfigError(
            f"The target already has table {spec.target_schema}.{first}{more}",
            hint="Set on_existing to replace, truncate or append, or choose another target_schema",
        )


def _left_out(thing: LeftOut) -> PlanWarning:
    return PlanWarning(
        table=thing.name, column=None, kind=thing.severity, reason=f"{thing.kind}: {thing.reason}"
    )


def _bare(catalog: Catalog, thing: LeftOut) -> str:
    return thing.name.removeprefix(f"{catalog.schema}.")


def _missed(spec: Spec, catalog: Catalog, thing: LeftOut) -> TablePlan:
    """A table that cannot be carried is refused like any other: a run that leaves rows behind is no success."""
    name = _bare(catalog, thing)
    return TablePlan(
        source_schema=catalog.schema,
        source_table=name,
        target_schema=spec.target_schema,
        target_table=name,
        columns=(),
        lane=Lane.COPY,
        wire=Wire.BINARY,
        spelling=Spelling.RECORD,
        refused=f"{thing.kind}: {thing.reason}; put it under tables.exclude to leave it out on purpose",
    )


def _plan_table(
    spec: Spec,
    table: Table,
    catalog: Catalog,
    names: Mapping[str, str],
    source: Source,
    rules: RuleBook | None,
    existing: Mapping[str, ExistingTable],
    warnings: list[PlanWarning],
) -> TablePlan:
    """The plan of a table; its rows go through `rules` where there are some for it."""
    there = existing.get(names[table.name])
    rule = spec.rule(table.name)
    kept = [c for c in table.columns if not (r := rule.columns.get(c.name)) or not r.drop]
    # Expressions may use what is dropped.
    asked = [replace(c, as_text=takes_text(c.name, rule)) for c in table.columns] if rules else kept
    survey = tolerated(source.survey(table, asked, rule.where, spec.chunk_bytes), spec.quarantine.max_rows)
    survey = as_texts(survey) if rules else survey
    made = {c.name for c in asked if c.made}
    columns = tuple(_in_schema(c, spec.target_schema) if c.source in made else c for c in survey.columns)
    plan = TablePlan(
        source_schema=table.schema,
        source_table=table.name,
        target_schema=spec.target_schema,
        target_table=names[table.name],
        columns=columns if rules else tuple(_rename(c, rule) for c in columns),
        lane=survey.lane,
        wire=survey.wire,
        spelling=survey.spelling,
        mode=(mode := mode_of(spec, there)),
        streamed=spec.staging == "none"
        and rules is None
        and survey.lane is Lane.COPY
        and mode is not TableMode.UPDATE,
        where=rule.where,
        chunk_by=survey.chunk_by,
        chunk_columns=survey.chunk_columns,
        chunks=survey.chunks,
        rows=survey.rows,
        rows_exact=survey.rows_exact,
        bytes=survey.bytes,
    )
    plan = rules.compile(plan, rule, looked_into(spec, rule, catalog, source, names)) if rules else plan
    survey = of_read(survey, plan)
    warnings += [
        PlanWarning(table=table.qualified, column=r.column or None, kind="lossy", reason=r.reason)
        for r in survey.lossy
    ]
    renamed = {c.name: (r.rename if (r := rule.columns.get(c.name)) and r.rename else c.name) for c in kept}
    definer = Definer(table, kept, renamed, plan.columns, survey.broken_keys or {}, warnings, plan.rules)
    definition = definer.define(spec.target_schema, names[table.name])
    plan = plan.model_copy(
        update={
            "definition": definition,
            "existing_key": _existing_key(there, plan.columns),
            "parents": _parents(plan, existing) if plan.beside else (),
            "upsert": rule.load == "upsert" and plan.mode is TableMode.APPEND,
        }
    )
    if plan.mode is TableMode.APPEND and not plan.existing_key:
        reason = (
            "append: the target's table has no key among these columns, so there is no rollback of these rows"
        )
        warnings.append(PlanWarning(table=table.qualified, kind="lossy", reason=reason))
    if survey.refused:
        first = survey.refused[0]
        return plan.model_copy(update={"refused": first.reason, "refused_column": first.column or None})
    if problem := _name_problem(plan) or _fit_problem(plan, there, existing) or update_problem(plan, there):
        return plan.model_copy(update={"refused": problem})
    return plan if plan.mode is TableMode.REPLACE else compared_in(plan, there)


def _with_extensions(plan: TablePlan, table: Table, there: frozenset[tuple[str, str]]) -> TablePlan:
    carried = {c.source for c in plan.columns}
    for column in table.columns:
        needed = column.extension if column.name in carried else None
        if needed and ("extension", needed) not in there and plan.refused is None:
            reason = f"its type {column.type} is not there: {missing(needed)}"
            return plan.model_copy(update={"refused": reason, "refused_column": column.name})
    return plan


def _existing_key(existing: ExistingTable | None, columns: Sequence[ColumnPlan]) -> tuple[str, ...]:
    """The key by which appended rows can be told from those of before: all of it has to be carried."""
    carried = {c.target for c in columns}
    return existing.key if existing and carried.issuperset(existing.key) else ()


def _parents(plan: TablePlan, existing: Mapping[str, ExistingTable]) -> tuple[str, ...]:
    """Of the tables that are there, those to which this one has a foreign key."""
    own = ("foreign key", plan.target_schema, plan.target_table)
    return tuple(
        sorted(
            qualified(plan.target_schema, name)
            for name, other in existing.items()
            if own in {(d.kind, d.schema, d.table) for d in other.dependents}
        )
    )


def _rename(column: ColumnPlan, rule: TableRule) -> ColumnPlan:
    change = rule.columns.get(column.source)
    return column.model_copy(update={"target": change.rename}) if change and change.rename else column


def _in_schema(column: ColumnPlan, schema: str) -> ColumnPlan:
    """Its type is one that is made in the target's schema; spelled as the target spells it."""
    spelled = schema if _PLAIN.fullmatch(schema) else quoted(schema)
    return column.model_copy(update={"target_type": f"{spelled}.{column.target_type}"})


def _name_problem(plan: TablePlan) -> str | None:
    if not fits_identifier(plan.target_table):
        return f"the table's name is longer than 63 bytes; give it another one with rules.{plan.source_table}.rename"
    seen: set[str] = set()
    for column in plan.columns:
        if not fits_identifier(column.target):
            return f"the name of column {column.target[:80]!r} is longer than 63 bytes; rename it in the spec"
        if column.target in seen:
            return f"two columns would both be called {column.target!r}; rename one in the spec"
        seen.add(column.target)
    return None


def _fit_problem(
    plan: TablePlan, existing: ExistingTable | None, all_existing: Mapping[str, ExistingTable]
) -> str | None:
    """Why the rows cannot go into the table that exists, or the old table cannot be moved."""
    if existing is None:
        return None
    if held := _held(plan, existing, all_existing):
        return held
    if plan.mode is TableMode.REPLACE:
        if existing.parent is not None:
            return f"the target's table is a partition of {existing.parent}; drop that first or use on_existing: truncate"
        return None
    if existing.hides_rows:
        return "row-level security of the target's table hides rows from the target's role; give it BYPASSRLS"
    there = {c.name: c for c in existing.columns}
    for column in plan.columns:
        if (found := there.get(column.target)) is None:
            return f"the target's table has no column {column.target!r}"
        if found.generated:
            return f"the target's column {column.target!r} is generated"
        if not widens(column.target_type, found.type):
            return f"the target's column {column.target!r} is {found.type}, which does not hold every {column.target_type}"
    carried = {c.target for c in plan.columns}
    for column in existing.columns:
        if column.required and not column.filled and not column.generated and column.name not in carried:
            return f"the target's column {column.name!r} is NOT NULL and the source does not fill it"
    return None


def _held(plan: TablePlan, existing: ExistingTable, all_existing: Mapping[str, ExistingTable]) -> str | None:
    """What holds on to the table that exists."""
    for other in existing.dependents:
        # A key between two tables that are emptied or moved together is in nobody's way; a view does not mind emptying.
        together = other.schema == plan.target_schema and other.table in all_existing
        in_the_way = not together if other.kind == "foreign key" else plan.mode is TableMode.REPLACE
        if plan.mode not in {TableMode.APPEND, TableMode.UPDATE} and in_the_way:
            return f"{other.kind} {other.name!r} depends on the target's table; drop it first or use on_existing: append"
    return None


def _refuse_twins(tables: Sequence[TablePlan]) -> list[TablePlan]:
    """Two tables with one target name: neither is right, so neither is carried."""
    names = [t.target for t in tables]
    return [
        t.model_copy(update={"refused": f"two tables would both become {t.target}; rename one in the spec"})
        if names.count(t.target) > 1 and not t.refused
        else t
        for t in tables
    ]
