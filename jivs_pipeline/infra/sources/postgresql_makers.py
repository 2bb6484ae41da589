"""Statements that make types, routines, views and what hangs on a relation again, from a PostgreSQL catalog.

What belongs here: the statements of each kind, and the way into all of them. What does not: sequences, partitions and
constraints (`postgresql_relations.py`), what computes and compares (`postgresql_operators.py`), and which objects are
carried (`postgresql_objects.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_facts import Facts, Found, Made, literal, read_facts
from jivs_pipeline.infra.sources.postgresql_operators import OPERATORS
from jivs_pipeline.infra.sources.postgresql_relations import RELATIONS, block
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["make"]

_STATES = {"D": "DISABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
_COMMENTED_INSIDE = frozenset({"view", "materialized view", "composite type", "domain"})
_COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "*": "ALL"}


def make(session: Session, schema: str, found: Sequence[Found]) -> dict[tuple[int, int], Made]:
    """Statements by class and oid."""
    facts = read_facts(session, schema, found)
    return {one.node: _with_comments(one, _MAKERS[one.kind](one, facts), facts) for one in found}


def _with_comments(one: Found, made: Made, facts: Facts) -> Made:
    inside = facts.all("comments_inside", one.oid) if one.kind in _COMMENTED_INSIDE else []
    more = [f"COMMENT ON {part} IS {literal(comment)}" for part, comment in inside]
    made = made._replace(create=(*made.create, *more))
    if one.comment is None:
        return made
    # DROP names things as COMMENT ON does, except for those that it cannot drop alone.
    on = made.drop.removeprefix("DROP ")
    if one.kind in {"exclusion constraint", "foreign key"}:
        on = f"CONSTRAINT {quoted(one.name)} ON {quoted(one.relation or '')}"
    elif one.kind == "partitioned table":
        on = f"TABLE {quoted(one.name)}"
    return made._replace(create=(*made.create, f"COMMENT ON {on} IS {literal(one.comment)}"))


def _enum(one: Found, facts: Facts) -> Made:
    labels = ", ".join(literal(label) for (label,) in facts.all("enums", one.oid))
    return Made((f"CREATE TYPE {quoted(one.name)} AS ENUM ({labels})",), f"DROP TYPE {quoted(one.name)}")


def _domain(one: Found, facts: Facts) -> Made:
    base, mod, required, has_default, collation = facts.one("domains", one.oid)
    parts = [f"CREATE DOMAIN {quoted(one.name)} AS {facts.text('type', base, mod)}"]
    parts[0] += facts.collation(collation or "")
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


def _composite(one: Found, facts: Facts) -> Made:
    attributes = ", ".join(
        f"{quoted(name)} {facts.text('type', type_, mod)}{facts.collation(collation or '')}"
        for name, type_, mod, collation in facts.all("composites", one.oid)
    )
    return Made((f"CREATE TYPE {quoted(one.name)} AS ({attributes})",), f"DROP TYPE {quoted(one.name)}")


def _range(one: Found, facts: Facts) -> Made:
    subtype, opclass, collation, difference, multirange = facts.one("ranges", one.oid)
    options = [f"SUBTYPE = {facts.text('type', subtype, -1)}"]
    if opclass:
        options.append(f"SUBTYPE_OPCLASS = {opclass}")
    if collation:
        options.append(f"COLLATION = {facts.collation(collation).removeprefix(' COLLATE ')}")
    if difference:
        options.append(f"SUBTYPE_DIFF = {facts.text('procedure', difference)}")
    if multirange:
        options.append(f"MULTIRANGE_TYPE_NAME = {quoted(multirange)}")
    create = f"CREATE TYPE {quoted(one.name)} AS RANGE ({', '.join(options)})"
    return Made((create,), f"DROP TYPE {quoted(one.name)}")


def _function(one: Found, facts: Facts) -> Made:
    kind = one.kind.upper()
    # The server writes its own schema into the name whatever the search_path is.
    _, _, rest = facts.text("function", one.oid).partition(f"{kind} ")
    for spelled in (quoted(facts.schema), facts.schema):
        rest = rest.removeprefix(f"{spelled}.")
    identity = f"{quoted(one.name)}({facts.text('arguments', one.oid)})"
    return Made((f"CREATE {kind} {rest}",), f"DROP {kind} {identity}")


def _view(one: Found, facts: Facts) -> Made:
    options, filled = facts.one("views", one.oid)
    kind = one.kind.upper()
    having = f" WITH ({', '.join(options)})" if options else ""
    ending = "" if kind == "VIEW" or filled else " WITH NO DATA"
    create = f"CREATE {kind} {quoted(one.name)}{having} AS {facts.text('view', one.oid)}{ending}"
    indexes = [facts.text("index", index) for (index,) in facts.all("view_indexes", one.oid)]
    defaults = [
        f"ALTER VIEW {quoted(one.name)} ALTER COLUMN {quoted(column)} SET DEFAULT {facts.text('default', default)}"
        for column, default in facts.all("view_defaults", one.oid)
    ]
    return Made((create, *defaults, *indexes), f"DROP {kind} {quoted(one.name)}")


def _trigger(one: Found, facts: Facts) -> Made:
    [state] = facts.one("trigger_states", one.oid)
    made = _on_relation(one, "TRIGGER", facts.text("trigger", one.oid), state)
    clones = [_clone(one.name, relation, state) for relation, state in facts.all("trigger_clones", one.oid)]
    return made._replace(create=(*made.create, *clones))


def _clone(name: str, relation: str, state: str) -> str:
    """Switches a trigger in one partition, if that has come along."""
    there = f"tgrelid = to_regclass({literal(quoted(relation))}) AND tgname = {literal(name)}"
    switch = f"ALTER TABLE ONLY {quoted(relation)} {_STATES.get(state, 'ENABLE')} TRIGGER {quoted(name)}"
    return block(f"IF EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE {there}) THEN {switch}; END IF;")


def _rule(one: Found, facts: Facts) -> Made:
    [state] = facts.one("rule_states", one.oid)
    return _on_relation(one, "RULE", facts.text("rule", one.oid), state)


def _on_relation(one: Found, kind: str, create: str, state: str) -> Made:
    relation = quoted(one.relation or "")
    statements = [create]
    if state in _STATES:
        statements.append(f"ALTER TABLE {relation} {_STATES[state]} {kind} {quoted(one.name)}")
    return Made(tuple(statements), f"DROP {kind} {quoted(one.name)} ON {relation}")


def _policy(one: Found, facts: Facts) -> Made:
    permissive, command, everybody, roles = facts.one("policies", one.oid)
    relation, name = quoted(one.relation or ""), quoted(one.name)
    to = ", ".join([*(["PUBLIC"] if everybody else []), *map(quoted, roles)])
    parts = [f"CREATE POLICY {name} ON {relation} AS {'PERMISSIVE' if permissive else 'RESTRICTIVE'}"]
    parts.append(f"FOR {_COMMANDS[command]} TO {to}")
    for clause, what in (("USING", "policy using"), ("WITH CHECK", "policy check")):
        if (what, one.oid, 0) in facts.texts:
            parts.append(f"{clause} ({facts.text(what, one.oid)})")
    given = tuple(("role", role) for role in roles)
    return Made((" ".join(parts),), f"DROP POLICY {name} ON {relation}", given)


def _dictionary(one: Found, facts: Facts) -> Made:
    template, options = facts.one("dictionaries", one.oid)
    name = f"TEXT SEARCH DICTIONARY {quoted(one.name)}"
    return Made(
        (f"CREATE {name} (TEMPLATE = {template}{f', {options}' if options else ''})",), f"DROP {name}"
    )


def _configuration(one: Found, facts: Facts) -> Made:
    [parser] = facts.one("parsers", one.oid)
    name = f"TEXT SEARCH CONFIGURATION {quoted(one.name)}"
    mappings = [
        f"ALTER {name} ADD MAPPING FOR {quoted(token)} WITH {dictionaries}"
        for token, dictionaries in facts.all("mappings", one.oid)
    ]
    return Made((f"CREATE {name} (PARSER = {parser})", *mappings), f"DROP {name}")


def _statistics(one: Found, facts: Facts) -> Made:
    _, _, rest = facts.text("statistics", one.oid).partition("CREATE STATISTICS ")
    for spelled in (quoted(facts.schema), facts.schema):
        rest = rest.removeprefix(f"{spelled}.")
    targets = [
        f"ALTER STATISTICS {quoted(one.name)} SET STATISTICS {target}"
        for (target,) in facts.all("statistics_targets", one.oid)
    ]
    return Made((f"CREATE STATISTICS {rest}", *targets), f"DROP STATISTICS {quoted(one.name)}")


_MAKERS = {
    "enum": _enum,
    "domain": _domain,
    "composite type": _composite,
    "range type": _range,
    "function": _function,
    "procedure": _function,
    "view": _view,
    "materialized view": _view,
    "trigger": _trigger,
    "rule": _rule,
    "policy": _policy,
    "text search dictionary": _dictionary,
    "text search configuration": _configuration,
    "statistics object": _statistics,
    **OPERATORS,
    **RELATIONS,
}
