"""Reads who may do what in a PostgreSQL schema, and what grants it again.

What belongs here: rights on things that are carried. What does not: whether they are (`engine/objects.py`), and who owns
what was made, which is always who made it.

Rule: a right is granted, and may be granted on, by an object of its own each, so that a rollback takes back what was
given and no more. Who had granted it is not carried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jivs_pipeline.core.model import LeftOut, SchemaObject
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_facts import literal
from jivs_pipeline.infra.sources.postgresql_relations import block
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["read_grants", "read_large_object_grants"]

_SQL = load_blocks("jivs_pipeline.infra.sources", "postgresql_grants.sql")
_RELATIONS = frozenset({"table", "partitioned table", "view", "materialized view", "foreign table"})
_MOST = 1000
"""Rights on large objects that are carried: each is an object of its own in the plan."""
_TYPES = frozenset({"enum", "domain", "composite type", "range type"})


class _Right(NamedTuple):
    """A line of `-- name: grants`."""

    kind: str
    shown: str
    relation: str | None
    of: str | None
    column: str | None
    role: str | None
    taken: bool
    grantable: bool
    privileges: list[str]


def read_grants(
    session: Session,
    schema: str,
    made: Mapping[tuple[str, str], SchemaObject],
    adopted: Mapping[str, tuple[str, str]],
) -> tuple[SchemaObject, ...]:
    """Rights in a schema, in a transaction that is open.

    Args:
        made: the schema's other objects by kind and name.
        adopted: sequences that nobody owns -> table and column that own them in the target.
    """
    found: list[SchemaObject] = []
    for line in session.execute(_SQL["grants"], {"schema": schema}).fetchall():
        right = _Right(*line)
        if right.kind == "sequence" and right.shown in adopted:
            relation, column = adopted[right.shown]
            right = right._replace(relation=relation, of="table", column=column)
        found += _grants(right, made)
    lines = session.execute(_SQL["defaults"], {"schema": schema}).fetchall()
    return (*found, *map(_by_default, lines))


def _by_default(line: tuple[Any, ...]) -> SchemaObject:
    """A right that what is made later in the schema will be given. Only its owner, and who may act as that, can say so."""
    owner, things, privilege, role, grantable = line

    def said(verb: str, tail: str) -> str:
        start = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)} IN SCHEMA "
        rest = f" {verb} {privilege} ON {things.upper()} {tail}"
        return block(
            f"EXECUTE {literal(start)} || pg_catalog.quote_ident(pg_catalog.current_schema()) || {literal(rest)};"
        )

    who = quoted(role) if role is not None else "PUBLIC"
    return SchemaObject(
        kind="grant",
        name=f"(default of {owner}: {privilege} on {things} to {role or 'PUBLIC'}{', grantable' if grantable else ''})",
        statements=(said("GRANT", f"TO {who}{' WITH GRANT OPTION' if grantable else ''}"),),
        drop=said("REVOKE", f"FROM {who}"),
        needs=frozenset(
            {("role", owner)}
            | ({("role", role)} if role is not None else set())
            | ({("privilege", privilege)} if privilege == "MAINTAIN" else set())
        ),
        optional=True,
    )


def read_large_object_grants(session: Session) -> tuple[tuple[SchemaObject, ...], tuple[LeftOut, ...]]:
    """Rights on large objects, and a line if there are too many of them to be each an object."""
    lines = session.execute(_SQL["on_large_objects"], {"most": _MOST}).fetchall()
    found: list[SchemaObject] = []
    for oid, role, grantable, privileges in lines[:_MOST]:
        what, who = ", ".join(privileges), quoted(role) if role is not None else "PUBLIC"
        shown = f"{what} to {role or 'PUBLIC'}{', grantable' if grantable else ''}"
        found.append(
            SchemaObject(
                kind="grant",
                name=f"large object {oid} ({shown})",
                statements=(
                    f"GRANT {what} ON LARGE OBJECT {oid} TO {who}{' WITH GRANT OPTION' if grantable else ''}",
                ),
                # Gone with the object, which a rollback removes as well.
                drop=f"REVOKE {what} ON LARGE OBJECT {oid} FROM {who}",
                needs=frozenset({("large objects", "all"), *([("role", role)] if role is not None else [])}),
            )
        )
    reason = f"rights on large objects are carried of the first {_MOST:,} only; grant the others again"
    left = (LeftOut("large objects", "grant", reason, severity="lossy"),) if len(lines) > _MOST else ()
    return tuple(found), left


def _grants(right: _Right, made: Mapping[tuple[str, str], SchemaObject]) -> list[SchemaObject]:
    role = quoted(right.role) if right.role is not None else "PUBLIC"
    what = ", ".join(right.privileges)
    of_column = f" ({quoted(right.column or '')})" if right.kind == "column" else ""
    said = ", ".join(f"{p}{of_column}" for p in right.privileges)

    def grant(shown: str, create: tuple[str, str], drop: tuple[str, str]) -> SchemaObject:
        return SchemaObject(
            kind="grant",
            name=f"{right.shown} ({what} {shown})".lstrip(),
            statements=(_on(right, made, *create),),
            drop=_on(right, made, *drop),
            needs=_needs(right, made),
            uses=_uses(right, made),
            roots=frozenset({right.relation} if right.relation else ()),
        )

    give, take = (f"GRANT {said}", f"TO {role}"), (f"REVOKE {said}", f"FROM {role}")
    if right.taken:
        return [grant("not to PUBLIC", take, give)]
    to = f"to {right.role or 'PUBLIC'}"
    grants = [grant(to, give, take)]
    if right.grantable:
        on, off = f"TO {role} WITH GRANT OPTION", f"REVOKE GRANT OPTION FOR {said}"
        grants.append(grant(f"{to}, grantable", (f"GRANT {said}", on), (off, f"FROM {role}")))
    return grants


def _is_own(right: _Right, made: Mapping[tuple[str, str], SchemaObject]) -> bool:
    """Whether it is about a sequence that comes along with its column."""
    return right.kind == "sequence" and right.relation is not None and ("sequence", right.shown) not in made


def _needs(right: _Right, made: Mapping[tuple[str, str], SchemaObject]) -> frozenset[tuple[str, str]]:
    needs: set[tuple[str, str]] = set()
    if right.role is not None:
        needs.add(("role", right.role))
    if right.privileges == ["MAINTAIN"]:
        needs.add(("privilege", "MAINTAIN"))
    if right.kind == "column" or _is_own(right, made):
        if right.of != "table":
            needs.add((right.of or "", right.relation or ""))
    elif right.kind not in {"schema", "table"}:
        needs.add((right.kind, right.shown))
    return frozenset(needs)


def _uses(right: _Right, made: Mapping[tuple[str, str], SchemaObject]) -> frozenset[tuple[str, str | None]]:
    if right.kind == "table":
        return frozenset({(right.shown, None)})
    if right.of == "table" and (right.kind == "column" or _is_own(right, made)):
        return frozenset({(right.relation or "", right.column)})
    return frozenset()


def _on(right: _Right, made: Mapping[tuple[str, str], SchemaObject], verb: str, tail: str) -> str:
    """The whole statement. Names that only the target knows are put in by the target."""
    if right.kind == "schema":
        return _asked(verb, "SCHEMA", "pg_catalog.quote_ident(pg_catalog.current_schema())", tail)
    if _is_own(right, made):
        column = f"{literal(quoted(right.relation or ''))}, {literal(right.column or '')}"
        return _asked(verb, "SEQUENCE", f"pg_catalog.pg_get_serial_sequence({column})", tail)
    if right.kind == "column":
        place = f"TABLE {quoted(right.relation or '')}"
    elif right.kind in _RELATIONS:
        place = f"TABLE {quoted(right.shown)}"
    elif right.kind in _TYPES:
        place = f"TYPE {quoted(right.shown)}"
    elif right.kind == "sequence":
        place = f"SEQUENCE {quoted(right.shown)}"
    else:
        # As DROP names it, but for aggregates of no argument.
        one = made.get((right.kind, right.shown))
        _, _, identity = (one.drop if one else "").removeprefix("DROP ").partition(" ")
        place = f"ROUTINE {identity.removesuffix('(*)') + '()' if identity.endswith('(*)') else identity}"
    return f"{verb} ON {place} {tail}"


def _asked(verb: str, kind: str, name: str, tail: str) -> str:
    body = f"BEGIN EXECUTE {literal(f'{verb} ON {kind} ')} || {name} || {literal(f' {tail}')}; END"
    return f"DO {literal(body)}"
