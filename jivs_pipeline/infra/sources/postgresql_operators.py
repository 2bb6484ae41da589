"""Statements that make aggregates, operators and their classes, casts, collations and conversions again, from a catalog.

What belongs here: what computes with values or compares them, and is no function itself. What does not: functions and
all other objects (`postgresql_makers.py`).
"""

from __future__ import annotations

from jivs_pipeline.infra.sources.postgresql_facts import Facts, Found, Made, literal
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["OPERATORS"]

_CONTEXTS = {"e": "", "a": " AS ASSIGNMENT", "i": " AS IMPLICIT"}
_MODIFY = {"r": "READ_ONLY", "s": "SHAREABLE", "w": "READ_WRITE"}
_PARALLEL = {"s": "SAFE", "r": "RESTRICTED", "u": "UNSAFE"}
_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}


def _aggregate(one: Found, facts: Facts) -> Made:
    kind, step, state, final, combine, initial, space, extra, modify, *moving, order, parallel = facts.one(
        "aggregates", one.oid
    )
    options = [f"SFUNC = {facts.text('procedure', step)}", f"STYPE = {facts.text('type', state, -1)}"]
    # What a final function does to the state by itself: nothing, unless it is of a kind that sorts.
    own = "r" if kind == "n" else "w"
    options += _state("", facts, space, final, modify if modify != own else None, initial)
    if extra:
        options.append("FINALFUNC_EXTRA")
    if combine:
        options.append(f"COMBINEFUNC = {facts.text('procedure', combine)}")
    again, back, moving_state, moving_final, moving_initial, moving_space, moving_extra, moving_modify = (
        moving
    )
    if again:
        options.append(f"MSFUNC = {facts.text('procedure', again)}")
        options.append(f"MINVFUNC = {facts.text('procedure', back)}")
        options.append(f"MSTYPE = {facts.text('type', moving_state, -1)}")
        modify = moving_modify if moving_modify != own else None
        options += _state("M", facts, moving_space, moving_final, modify, moving_initial)
        if moving_extra:
            options.append("MFINALFUNC_EXTRA")
    if order:
        options.append(f"SORTOP = {order}")
    options.append(f"PARALLEL = {_PARALLEL[parallel]}")
    if kind == "h":
        options.append("HYPOTHETICAL")
    identity = f"{quoted(one.name)}({facts.text('arguments', one.oid) or '*'})"
    return Made((f"CREATE AGGREGATE {identity} ({', '.join(options)})",), f"DROP AGGREGATE {identity}")


def _state(
    of: str, facts: Facts, space: int, final: int | None, modify: str | None, initial: str | None
) -> list[str]:
    """Options on the state of a plain aggregate, or (`M`) of a moving one."""
    options = [f"{of}SSPACE = {space}"] if space else []
    if final:
        options.append(f"{of}FINALFUNC = {facts.text('procedure', final)}")
    if modify:
        options.append(f"{of}FINALFUNC_MODIFY = {_MODIFY[modify]}")
    if initial is not None:
        options.append(f"{of}INITCOND = {literal(initial)}")
    return options


def _operator(one: Found, facts: Facts) -> Made:
    left, right, function, commutator, negator, restrict, join, hashes, merges = facts.one(
        "operators", one.oid
    )
    sides = [facts.text("type", side, -1) if side else None for side in (left, right)]
    options = [f"FUNCTION = {facts.text('procedure', function)}"]
    options += [f"{word} = {side}" for word, side in zip(("LEFTARG", "RIGHTARG"), sides, strict=True) if side]
    # One that is not there yet is announced by this, and made by its own statement.
    options += [
        f"{word} = {name}" for word, name in (("COMMUTATOR", commutator), ("NEGATOR", negator)) if name
    ]
    options += [
        f"{word} = {facts.text('procedure', estimator)}"
        for word, estimator in (("RESTRICT", restrict), ("JOIN", join))
        if estimator
    ]
    options += [word for word, good in (("HASHES", hashes), ("MERGES", merges)) if good]
    identity = f"{one.name} ({', '.join(side or 'NONE' for side in sides)})"
    return Made((f"CREATE OPERATOR {one.name} ({', '.join(options)})",), f"DROP OPERATOR {identity}")


def _cast(one: Found, facts: Facts) -> Made:
    source, target, function, context = facts.one("casts", one.oid)
    between = f"({facts.text('type', source, -1)} AS {facts.text('type', target, -1)})"
    how = "WITH INOUT"
    if function:
        how = f"WITH FUNCTION {facts.text('procedure', function)}({facts.text('arguments', function)})"
    return Made((f"CREATE CAST {between} {how}{_CONTEXTS[context]}",), f"DROP CAST {between}")


def _collation(one: Found, facts: Facts) -> Made:
    provider, deterministic, collate, ctype, locale, rules = facts.one("collations", one.oid)
    options = [f"PROVIDER = {_PROVIDERS[provider]}"]
    if provider == "c":
        options += [f"LC_COLLATE = {literal(collate)}", f"LC_CTYPE = {literal(ctype)}"]
        given = {("locale", collate), ("locale", ctype)}
    else:
        options.append(f"LOCALE = {literal(locale)}")
        given = {("collation provider", _PROVIDERS[provider])}
    if not deterministic:
        options.append("DETERMINISTIC = false")
    if rules is not None:
        options.append(f"RULES = {literal(rules)}")
        given.add(("collation provider", "icu with rules"))
    create = f"CREATE COLLATION {quoted(one.name)} ({', '.join(options)})"
    return Made((create,), f"DROP COLLATION {quoted(one.name)}", tuple(sorted(given)))


def _conversion(one: Found, facts: Facts) -> Made:
    default, source, target, function = facts.one("conversions", one.oid)
    name, by = quoted(one.name), facts.text("procedure", function)
    create = f"CREATE {'DEFAULT ' if default else ''}CONVERSION {name}"
    return Made(
        (f"{create} FOR {literal(source)} TO {literal(target)} FROM {by}",), f"DROP CONVERSION {name}"
    )


_SUPERUSER = (("right", "SUPERUSER"),)


def _family(one: Found, facts: Facts) -> Made:
    name = f"OPERATOR FAMILY {quoted(one.name)} USING {quoted(one.relation or '')}"
    loose = _members(one.oid, facts)
    more = (f"ALTER {name} ADD {', '.join(loose)}",) if loose else ()
    return Made((f"CREATE {name}", *more), f"DROP {name}", _SUPERUSER)


def _class(one: Found, facts: Facts) -> Made:
    method, default, type_, stored, family = facts.one("operator_classes", one.oid)
    name = f"OPERATOR CLASS {quoted(one.name)}"
    members = _members(one.oid, facts)
    # One without any member has to say something.
    if stored or not members:
        members.append(f"STORAGE {facts.text('type', stored or type_, -1)}")
    create = (
        f"CREATE {name} {'DEFAULT ' if default else ''}FOR TYPE {facts.text('type', type_, -1)}"
        f" USING {quoted(method)} FAMILY {family} AS {', '.join(members)}"
    )
    return Made((create,), f"DROP {name} USING {quoted(method)}", _SUPERUSER)


def _members(oid: int, facts: Facts) -> list[str]:
    """Operators and functions of an operator class, or of a family where they are in no class."""

    def between(left: int, right: int) -> str:
        # An operator for one side only has no type on the other.
        return f"({', '.join(facts.text('type', side, -1) if side else 'NONE' for side in (left, right))})"

    operators = [
        f"OPERATOR {number} {operator} {between(left, right)}{f' FOR ORDER BY {order}' if order else ''}"
        for number, operator, left, right, order in facts.all("class_operators", oid)
    ]
    functions = [
        f"FUNCTION {number} {between(left, right)} {facts.text('procedure', f)}({facts.text('arguments', f)})"
        for number, f, left, right in facts.all("class_functions", oid)
    ]
    return operators + functions


OPERATORS = {
    "operator class": _class,
    "operator family": _family,
    "aggregate": _aggregate,
    "cast": _cast,
    "collation": _collation,
    "conversion": _conversion,
    "operator": _operator,
}
