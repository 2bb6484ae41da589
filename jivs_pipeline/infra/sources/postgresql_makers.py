"""Statements that make the objects of a PostgreSQL schema again, from its catalog.

What belongs here: the statements of each kind. What does not: which objects are carried (`postgresql_objects.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_spelling import OBJECTS as SQL
from jivs_pipeline.infra.sources.postgresql_spelling import Texts, quoted, spell

__all__ = ["Found", "Made", "make"]

_STATES = {"D": "DISABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
_PARALLEL = {"s": "SAFE", "r": "RESTRICTED", "u": "UNSAFE"}


class Found(NamedTuple):
    """A line of `-- name: objects`."""

    class_: int
    oid: int
    kind: str
    shown: str
    name: str
    relation: str | None
    comment: str | None
    problem: str | None

    @property
    def node(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.class_, self.oid


class Made(NamedTuple):
    """What makes an object and what drops it."""

    create: tuple[str, ...]
    drop: str


@dataclass(slots=True)
class _Facts:
    """Everything that the statements are put together from."""

    schema: str
    texts: Texts
    lines: dict[str, dict[int, list[tuple[Any, ...]]]]

    def text(self, what: str, oid: int, number: int = 0) -> str:
        return self.texts[what, oid, number].rstrip().rstrip(";")

    def all(self, block: str, oid: int) -> list[tuple[Any, ...]]:
        return self.lines[block].get(oid, [])

    def one(self, block: str, oid: int) -> tuple[Any, ...]:
        return self.all(block, oid)[0]


def make(session: Session, schema: str, found: Sequence[Found]) -> dict[tuple[int, int], Made]:
    """Statements by class and oid."""
    facts = _read(session, schema, found)
    return {one.node: _with_comment(one, _MAKERS[one.kind](one, facts)) for one in found}


def _read(session: Session, schema: str, found: Sequence[Found]) -> _Facts:
    def oids(*kinds: str) -> list[int]:
        return [f.oid for f in found if f.kind in kinds]

    asked = {
        "enums": oids("enum"), "domains": oids("domain"), "domain_checks": oids("domain"),
        "composites": oids("composite type"), "ranges": oids("range type"), "aggregates": oids("aggregate"),
        "views": oids("view", "materialized view"), "view_indexes": oids("materialized view"),
        "trigger_states": oids("trigger"), "rule_states": oids("rule"),
    }  # fmt: skip
    lines: dict[str, dict[int, list[tuple[Any, ...]]]] = {}
    for block, wanted in asked.items():
        grouped: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
        if wanted:
            for oid, *rest in session.execute(SQL[block], {"oids": wanted}).fetchall():
                grouped[oid].append(tuple(rest))
        lines[block] = grouped

    def each(block: str) -> list[tuple[Any, ...]]:
        return [line for group in lines[block].values() for line in group]

    aggregates = each("aggregates")
    texts = spell(
        session,
        schema,
        types=[
            *((base, mod) for base, mod, *_ in each("domains")),
            *((type_, mod) for _, type_, mod, _ in each("composites")),
            *((subtype, -1) for subtype, *_ in each("ranges")),
            *((line[1], -1) for line in aggregates),
        ],
        view=oids("view", "materialized view"),
        function=oids("function", "procedure"),
        arguments=oids("function", "procedure", "aggregate"),
        procedure=[
            *(p for line in aggregates for p in (line[0], line[2], line[3]) if p),
            *(line[3] for line in each("ranges") if line[3]),
        ],
        constraint=[*(line[0] for line in each("domain_checks")), *oids("exclusion constraint")],
        trigger=oids("trigger"),
        rule=oids("rule"),
        statistics=oids("statistics object"),
        index=[line[0] for line in each("view_indexes")],
        domain_default=oids("domain"),
    )
    return _Facts(schema, texts, lines)


def _with_comment(one: Found, made: Made) -> Made:
    if one.comment is None:
        return made
    # DROP names things as COMMENT ON does, except constraints, which it cannot drop.
    on = made.drop.removeprefix("DROP ")
    if one.kind == "exclusion constraint":
        on = f"CONSTRAINT {quoted(one.name)} ON {quoted(one.relation or '')}"
    return Made((*made.create, f"COMMENT ON {on} IS {_literal(one.comment)}"), made.drop)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _enum(one: Found, facts: _Facts) -> Made:
    labels = ", ".join(_literal(label) for (label,) in facts.all("enums", one.oid))
    return Made((f"CREATE TYPE {quoted(one.name)} AS ENUM ({labels})",), f"DROP TYPE {quoted(one.name)}")


def _domain(one: Found, facts: _Facts) -> Made:
    base, mod, required, has_default, collation = facts.one("domains", one.oid)
    parts = [f"CREATE DOMAIN {quoted(one.name)} AS {facts.text('type', base, mod)}"]
    if collation:
        parts.append(f"COLLATE {collation}")
    if has_default:
        parts.append(f"DEFAULT {facts.text('domain default', one.oid)}")
    if required:
        parts.append("NOT NULL")
    checks = facts.all("domain_checks", one.oid)
    # One that is not validated can only be added later.
    parts += [f"CONSTRAINT {quoted(n)} {facts.text('constraint', c)}" for c, n, valid in checks if valid]
    later = tuple(
        f"ALTER DOMAIN {quoted(one.name)} ADD CONSTRAINT {quoted(n)} {facts.text('constraint', c)}"
        for c, n, valid in checks
        if not valid
    )
    return Made((" ".join(parts), *later), f"DROP DOMAIN {quoted(one.name)}")


def _composite(one: Found, facts: _Facts) -> Made:
    attributes = ", ".join(
        f"{quoted(name)} {facts.text('type', type_, mod)}{f' COLLATE {collation}' if collation else ''}"
        for name, type_, mod, collation in facts.all("composites", one.oid)
    )
    return Made((f"CREATE TYPE {quoted(one.name)} AS ({attributes})",), f"DROP TYPE {quoted(one.name)}")


def _range(one: Found, facts: _Facts) -> Made:
    subtype, opclass, collation, difference, multirange = facts.one("ranges", one.oid)
    options = [f"SUBTYPE = {facts.text('type', subtype, -1)}"]
    if opclass:
        options.append(f"SUBTYPE_OPCLASS = {opclass}")
    if collation:
        options.append(f"COLLATION = {collation}")
    if difference:
        options.append(f"SUBTYPE_DIFF = {facts.text('procedure', difference)}")
    if multirange:
        options.append(f"MULTIRANGE_TYPE_NAME = {quoted(multirange)}")
    create = f"CREATE TYPE {quoted(one.name)} AS RANGE ({', '.join(options)})"
    return Made((create,), f"DROP TYPE {quoted(one.name)}")


def _function(one: Found, facts: _Facts) -> Made:
    kind = one.kind.upper()
    # The server writes its own schema into the name whatever the search_path is.
    _, _, rest = facts.text("function", one.oid).partition(f"{kind} ")
    for spelled in (quoted(facts.schema), facts.schema):
        rest = rest.removeprefix(f"{spelled}.")
    identity = f"{quoted(one.name)}({facts.text('arguments', one.oid)})"
    return Made((f"CREATE {kind} {rest}",), f"DROP {kind} {identity}")


def _aggregate(one: Found, facts: _Facts) -> Made:
    step, state, final, combine, initial, space, parallel = facts.one("aggregates", one.oid)
    options = [f"SFUNC = {facts.text('procedure', step)}", f"STYPE = {facts.text('type', state, -1)}"]
    if space:
        options.append(f"SSPACE = {space}")
    if final:
        options.append(f"FINALFUNC = {facts.text('procedure', final)}")
    if combine:
        options.append(f"COMBINEFUNC = {facts.text('procedure', combine)}")
    if initial is not None:
        options.append(f"INITCOND = {_literal(initial)}")
    options.append(f"PARALLEL = {_PARALLEL[parallel]}")
    identity = f"{quoted(one.name)}({facts.text('arguments', one.oid) or '*'})"
    return Made((f"CREATE AGGREGATE {identity} ({', '.join(options)})",), f"DROP AGGREGATE {identity}")


def _view(one: Found, facts: _Facts) -> Made:
    options, filled = facts.one("views", one.oid)
    kind = one.kind.upper()
    having = f" WITH ({', '.join(options)})" if options else ""
    ending = "" if kind == "VIEW" or filled else " WITH NO DATA"
    create = f"CREATE {kind} {quoted(one.name)}{having} AS {facts.text('view', one.oid)}{ending}"
    indexes = [facts.text("index", index) for (index,) in facts.all("view_indexes", one.oid)]
    return Made((create, *indexes), f"DROP {kind} {quoted(one.name)}")


def _trigger(one: Found, facts: _Facts) -> Made:
    [state] = facts.one("trigger_states", one.oid)
    return _on_relation(one, "TRIGGER", facts.text("trigger", one.oid), state)


def _rule(one: Found, facts: _Facts) -> Made:
    [state] = facts.one("rule_states", one.oid)
    return _on_relation(one, "RULE", facts.text("rule", one.oid), state)


def _on_relation(one: Found, kind: str, create: str, state: str) -> Made:
    relation = quoted(one.relation or "")
    statements = [create]
    if state in _STATES:
        statements.append(f"ALTER TABLE {relation} {_STATES[state]} {kind} {quoted(one.name)}")
    return Made(tuple(statements), f"DROP {kind} {quoted(one.name)} ON {relation}")


def _statistics(one: Found, facts: _Facts) -> Made:
    _, _, rest = facts.text("statistics", one.oid).partition("CREATE STATISTICS ")
    for spelled in (quoted(facts.schema), facts.schema):
        rest = rest.removeprefix(f"{spelled}.")
    return Made((f"CREATE STATISTICS {rest}",), f"DROP STATISTICS {quoted(one.name)}")


def _exclusion(one: Found, facts: _Facts) -> Made:
    relation, name = quoted(one.relation or ""), quoted(one.name)
    create = f"ALTER TABLE {relation} ADD CONSTRAINT {name} {facts.text('constraint', one.oid)}"
    return Made((create,), f"ALTER TABLE {relation} DROP CONSTRAINT {name}")


_MAKERS = {
    "enum": _enum,
    "domain": _domain,
    "composite type": _composite,
    "range type": _range,
    "function": _function,
    "procedure": _function,
    "aggregate": _aggregate,
    "view": _view,
    "materialized view": _view,
    "trigger": _trigger,
    "rule": _rule,
    "statistics object": _statistics,
    "exclusion constraint": _exclusion,
}
