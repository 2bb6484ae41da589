"""What stands beside the tables: which objects of a catalog go along, and when they are made.

What belongs here: choosing, and the order around the tables' load. What does not: reading them
(`infra/sources/postgresql_objects.py`) and the fence (`infra/target.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from jivs_pipeline.core.errors import ConfigError, ResourceError, TerminalError
from jivs_pipeline.core.model import Catalog, SchemaObject
from jivs_pipeline.core.names import qualified
from jivs_pipeline.core.plan import ObjectPlan, PlanWarning, TableMode, TablePlan
from jivs_pipeline.core.ports import LedgerView
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.extensions import missing
from jivs_pipeline.engine.large_objects import ALL as ALL_LARGE_OBJECTS
from jivs_pipeline.engine.pool import run_all, with_retries
from jivs_pipeline.engine.ports import StepLike
from jivs_pipeline.engine.run import Run

__all__ = ["choose", "make_after", "make_before", "take_back_for"]

_ROUTINES = frozenset({"function", "procedure"})
_HANGING = frozenset({"trigger", "rule", "exclusion constraint", "foreign key", "policy", "index"})
_SETTINGS = frozenset(
    {
        "grant",
        "policy",
        "row-level security",
        "forced row-level security",
        "replica identity",
        "clustering",
        "typed table",
    }
)
"""Kinds that a relation keeps as they are when it was there before."""
_GIVEN = frozenset(
    {"extension", "role", "right", "privilege", "collation provider", "locale", "foreign server"}
)
"""Kinds of what no migration makes."""
_NAMED = 5
_RELATIONS = ("table", "view", "materialized view", "sequence", "partitioned table", "foreign table")
"""Kinds that share their names."""


def choose(
    spec: Spec,
    catalog: Catalog,
    tables: Sequence[TablePlan],
    there: frozenset[tuple[str, str]],
    warnings: list[PlanWarning],
) -> tuple[ObjectPlan, ...]:
    """The objects that go along, in their order.

    Args:
        tables: as they are planned.
        there: (kind, name) of those that the target's schema has already, not made by this migration.
        warnings: gets a line for each that does not.
    """
    carried = {t.source_table: t for t in tables if t.refused is None and t.large_objects_of is None}
    usable = {(kind, name) for kind, name in there if kind in _GIVEN} | _indexes(carried.values())
    if any(t.large_objects_of is not None and t.refused is None for t in tables):
        usable.add(ALL_LARGE_OBJECTS)
    kept: set[tuple[str, str]] = set()
    chosen: list[ObjectPlan] = []
    for one in _offered(spec, catalog, usable, there, warnings):
        if not one.before and not _wanted(one, spec):
            continue
        name, label = qualified(catalog.schema, one.name), (one.kind, one.name)
        if one.on_update:
            warnings.append(_on_update(one, one.on_update, spec))
            if spec.on_update == "warn":
                continue
        if label in there and not _goes_aside(one, carried):
            usable.add(label)
            kept.add(label)
            if one.kind == "grant":
                continue  # the schema gives this right already, and goes on to
            reason = f"{one.kind}: the target has one of that name already, which is kept"
            if spec.type == "full":  # an incremental migration is about rows
                warnings.append(PlanWarning(table=name, kind="lossy", reason=reason))
        elif problem := _problem(one, carried, usable, kept) or _name_problem(one, there):
            warnings.append(PlanWarning(table=name, kind="refused", reason=f"{one.kind}: {problem}"))
        else:
            usable.add(label)
            chosen.append(
                ObjectPlan(
                    kind=one.kind,
                    name=one.name,
                    statements=one.statements,
                    drop=one.drop,
                    before=one.before,
                    sequences=one.sequences,
                    optional=one.optional,
                )
            )
            if _names_schema(one, spec, catalog):
                reason = f"{one.kind}: its body may name schema {catalog.schema}, and stays as it is"
                warnings.append(PlanWarning(table=name, kind="lossy", reason=reason))
    return tuple(chosen)


def _offered(
    spec: Spec,
    catalog: Catalog,
    usable: set[tuple[str, str]],
    there: frozenset[tuple[str, str]],
    warnings: list[PlanWarning],
) -> list[SchemaObject]:
    """The catalog's objects, without rights that nobody asks for, or that hang on large objects that stay behind."""
    objects = [o for o in catalog.objects if ALL_LARGE_OBJECTS not in o.needs - usable]
    if spec.grants:
        return objects
    _tell_of_rights(spec, catalog.schema, objects, there, warnings)
    return [o for o in objects if o.kind != "grant"]


def _tell_of_rights(
    spec: Spec,
    schema: str,
    objects: Iterable[SchemaObject],
    there: frozenset[tuple[str, str]],
    warnings: list[PlanWarning],
) -> None:
    """One line for all of them: rights are carried by those who ask for it."""
    grants = [o for o in objects if o.kind == "grant" and _wanted(o, spec)]
    grants = [o for o in grants if (o.kind, o.name) not in there]
    if grants:
        roles = {name for o in grants for kind, name in o.needs if kind == "role"}
        named = ", ".join(sorted(roles or {"PUBLIC"})[:_NAMED])
        more = f" and {len(roles) - _NAMED} more" if len(roles) > _NAMED else ""
        reason = f"grants: what {named}{more} may do is not carried; ask for it with grants: true"
        warnings.append(PlanWarning(table=schema, kind="lossy", reason=reason))


def _on_update(one: SchemaObject, column: str, spec: Spec) -> PlanWarning:
    reason = "on update: ON UPDATE CURRENT_TIMESTAMP is not carried; on_update: trigger in the spec makes a trigger of it"
    if spec.on_update == "trigger":
        reason = "on update: a trigger; other than in MySQL it also fires where an UPDATE sets the column to what it was"
    return PlanWarning(table=f"{_bare(one)}.{column}", kind="lossy", reason=reason)


def _goes_aside(one: SchemaObject, carried: Mapping[str, TablePlan]) -> bool:
    """Whether the target's one hangs on a table that is replaced, with which it goes."""
    tables = [carried[table] for table, _ in one.uses if table in carried]
    return one.kind in _HANGING and any(t.mode is TableMode.REPLACE for t in tables)


def _wanted(one: SchemaObject, spec: Spec) -> bool:
    # A partition that is left out on purpose is not missed by its table.
    tied = [table for table, _ in one.uses] if one.kind == "partition" else []
    if one.kind == "grant" and (not _bare(one) or ALL_LARGE_OBJECTS in one.needs):
        return True  # on the schema itself, or on what is in none
    return spec.tables.takes(_bare(one), *one.roots) and all(
        spec.tables.takes(table, *one.roots) for table in tied
    )


def _name_problem(one: SchemaObject, there: frozenset[tuple[str, str]]) -> str | None:
    if one.kind not in _RELATIONS:
        return None
    other = next((kind for kind in _RELATIONS if kind != one.kind and (kind, one.name) in there), None)
    return f"the target has a {other} of that name" if other else None


def _bare(one: SchemaObject) -> str:
    """What `tables.exclude` is compared with: the name of a view or function, or of the relation that it hangs on."""
    return one.name.partition("(")[0].partition(".")[0].rstrip()


def _indexes(tables: Iterable[TablePlan]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for definition in (t.definition for t in tables if t.definition):
        keys = [k for k in (definition.primary_key, *definition.unique_keys) if k is not None]
        found |= {
            ("index", name)
            for name in (*(i.name for i in definition.indexes), *(k.name for k in keys))
            if name
        }
    return found


def _problem(
    one: SchemaObject,
    carried: Mapping[str, TablePlan],
    usable: set[tuple[str, str]],
    kept: set[tuple[str, str]],
) -> str | None:
    for kind, name in sorted(one.needs - usable):
        return _lack(kind, name)
    if one.kind in _SETTINGS and (before := sorted(one.needs & kept)):
        kind, name = before[0]
        return f"{kind} {name} was there before and keeps what hangs on it"
    for table, column in sorted(one.uses, key=lambda u: (u[0], u[1] or "")):
        if (plan := carried.get(table)) is None:
            return f"it uses table {table}, which is not carried"
        if plan.beside:
            return f"table {plan.target} was there before and keeps what hangs on it"
        if plan.target_table != table:
            return f"it uses table {table}, which is renamed"
        if column is not None and column not in _columns(plan):
            return f"it uses column {table}.{column}, which is renamed or dropped"
    return None


def _lack(kind: str, name: str) -> str:
    if kind == "extension":
        return missing(name)
    if kind == "role":
        return f"it names role {name}, which the target lacks; create it there first"
    if kind == "privilege":
        return f"the target's version knows no privilege {name}"
    if kind == "collation provider":
        return f"the target knows no collations of {name}"
    if kind == "locale":
        return f"the target's system has no locale {name}"
    if kind == "foreign server":
        return (
            f"the target has no server {name} that we may use; create it there first, with its user mappings"
        )
    if (kind, name) == ("right", "SUPERUSER"):
        return "only superusers make one, and the target's role is none; make it again after the run"
    if kind == "right":
        return f"the target's role has no {name} and could not verify the rows any more; switch it on after the migration"
    return f"it uses {kind} {name}, which is not carried"


def _columns(plan: TablePlan) -> set[str]:
    """Those that have the same name at both ends."""
    carried = {c.target for c in plan.columns if c.source == c.target}
    renamed = {c.target for c in plan.columns if c.source != c.target}
    made = {c.name for c in plan.definition.columns} if plan.definition else set[str]()
    return carried | (made - renamed)


def _names_schema(one: SchemaObject, spec: Spec, catalog: Catalog) -> bool:
    if one.kind not in _ROUTINES or spec.target_schema == catalog.schema:
        return False
    word = re.compile(rf'(?<![\w"])"?{re.escape(catalog.schema)}"?\s*\.')
    return any(word.search(statement) for statement in one.statements)


def take_back_for(run: Run, tables: Sequence[TablePlan], ledger: LedgerView) -> None:
    """What was made on rows goes before one of its tables is made anew."""
    schema = run.plan.target_schema
    stale = any(ledger.stale(t.target, run.generation_of(t)) for t in tables)
    if stale and ledger.objects(schema):
        _retried(run, partial(run.target.undo_objects, schema))


def make_before(run: Run) -> None:
    """What tables need."""
    _make(run, [o for o in run.plan.objects if o.before])


def make_after(run: Run) -> None:
    """All others, as soon as no table is missing: the run that repairs it makes them."""
    if not run.failures and len(run.plan.carried) == len(run.plan.tables):
        _make(run, [o for o in run.plan.objects if not o.before])
        stand = sorted({(s, *at) for m in run.extracted.values() for s, at in m.sequences.items()})
        if stand:
            for step in run.builder.stand(run.plan.target_schema, stand):
                _apply(run, step)


def _make(run: Run, objects: Sequence[ObjectPlan]) -> None:
    for step, made in zip(run.builder.make_objects(run.plan.target_schema, objects), objects, strict=True):
        try:
            _apply(run, step)
        except TerminalError as error:
            if not made.optional or isinstance(error, ResourceError | ConfigError):
                raise
            _leave_out(run, made, error.message)


def _apply(run: Run, step: StepLike) -> None:
    run.guard.check()
    _retried(run, partial(run.target.apply, step, ""))


def _leave_out(run: Run, made: ObjectPlan, reason: str) -> None:
    """Name what the target does not take among the warnings of the run."""
    name = qualified(run.plan.target_schema, made.name)
    run.checkpoints.left_out(PlanWarning(table=name, kind="refused", reason=f"{made.kind}: {reason}"))


def _retried(run: Run, job: Callable[[], object]) -> None:
    told = partial(run.checkpoints.retried, "*", Phase.LOAD, None)

    def attempt() -> None:
        with_retries(job, run.guard, told)

    run_all([attempt], 1, run.guard)
