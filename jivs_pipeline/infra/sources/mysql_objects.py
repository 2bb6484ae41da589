"""What hangs on a MySQL database besides tables: CHECKs, views, and objects that are not carried.

What belongs here: queries that differ between MySQL and MariaDB, views in the order of their use, and triggers,
routines, events, sequences with the reason why they stay behind. What does not: tables (`mysql_catalog`), the query of a
view (`mysql_views`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

import pymysql

from jivs_pipeline.core.model import LeftOut, SchemaObject
from jivs_pipeline.core.names import fits_identifier, short_hash
from jivs_pipeline.core.types_mysql import MysqlType
from jivs_pipeline.infra.sources.mysql_expressions import UntranslatableError, sql_text
from jivs_pipeline.infra.sources.mysql_session import Session, literal
from jivs_pipeline.infra.sources.mysql_view_kinds import identifier
from jivs_pipeline.infra.sources.mysql_views import Relation, View, translate

__all__ = ["checks_of", "other_objects", "views_of"]

_MARIADB_CHECKS = """
SELECT TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
WHERE CONSTRAINT_SCHEMA = {schema} ORDER BY TABLE_NAME, CONSTRAINT_NAME
"""
_MYSQL_CHECKS = """
SELECT t.TABLE_NAME, c.CONSTRAINT_NAME, c.CHECK_CLAUSE
FROM information_schema.CHECK_CONSTRAINTS c JOIN information_schema.TABLE_CONSTRAINTS t
    ON t.CONSTRAINT_SCHEMA = c.CONSTRAINT_SCHEMA AND t.CONSTRAINT_NAME = c.CONSTRAINT_NAME
WHERE c.CONSTRAINT_SCHEMA = {schema} AND t.CONSTRAINT_TYPE = 'CHECK' AND t.ENFORCED = 'YES'
ORDER BY t.TABLE_NAME, c.CONSTRAINT_NAME
"""
_OBJECTS = (
    (
        "sequence",
        (
            "SELECT TABLE_NAME, NULL FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}"
            " AND TABLE_TYPE = 'SEQUENCE' ORDER BY 1"
        ),
    ),
    (
        "trigger",
        (
            "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS"
            " WHERE TRIGGER_SCHEMA = {schema} ORDER BY 1"
        ),
    ),
    (
        "routine",
        "SELECT ROUTINE_NAME, NULL FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {schema} ORDER BY 1",
    ),
    (
        "event",
        "SELECT EVENT_NAME, NULL FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema} ORDER BY 1",
    ),
)
_VIEWS = """
SELECT TABLE_NAME, VIEW_DEFINITION, CHECK_OPTION FROM information_schema.VIEWS
WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME
"""
_JSON = re.compile(r"json_valid\(`((?:[^`]|``)+)`\)", re.IGNORECASE)


def checks_of(
    session: Session, schema: str, *, mariadb: bool
) -> dict[str, tuple[frozenset[str], list[tuple[str, str]]]]:
    """By table: the columns that MariaDB calls JSON, and the other CHECKs with their clauses."""
    found: dict[str, tuple[frozenset[str], list[tuple[str, str]]]] = {}
    rows: list[tuple[str | None, ...]] = []
    query = _MARIADB_CHECKS if mariadb else _MYSQL_CHECKS
    # Servers before 8.0.16 have no CHECKs, and no such view.
    with suppress(pymysql.err.OperationalError, pymysql.err.ProgrammingError):
        rows = session.texts(query.format(schema=literal(schema)))
    for table, name, clause in rows:
        valid, others = found.get(str(table), (frozenset[str](), []))
        if json := _JSON.fullmatch(str(clause).strip()):
            valid |= {json[1].replace("``", "`")}
        else:
            others.append((str(name), str(clause)))
        found[str(table)] = (valid, others)
    return found


def other_objects(session: Session, schema: str) -> list[LeftOut]:
    """Objects of the schema that hold no rows and are not carried."""
    found: list[LeftOut] = []
    for kind, query in _OBJECTS:
        for name, table in session.texts(query.format(schema=literal(schema))):
            reason = f"{kind}s are not carried; create it in the target by hand"
            found.append(LeftOut(str(name), kind, reason, table))
    return found


_TRUNCATED = {
    0: "date_trunc('second', statement_timestamp())",
    3: "date_trunc('milliseconds', statement_timestamp())",
}


def on_update_trigger(table: str, column: str, declared: MysqlType) -> SchemaObject:
    """ON UPDATE CURRENT_TIMESTAMP: whoever changes another column without this one sets it to now."""
    digits = declared.length or 0
    now = _TRUNCATED.get(digits, "statement_timestamp()")
    kind = "timestamptz" if declared.family == "timestamp(n)" else "timestamp"
    function, trigger = (
        name if fits_identifier(name) else f"on_update_{short_hash(table, column)}"
        for name in (f"on_update_{table}_{column}", f"on_update_{column}")
    )
    c = identifier(column)
    # As text, because json has no equality.
    body = (
        f"BEGIN IF NEW::text IS DISTINCT FROM OLD::text AND NEW.{c} IS NOT DISTINCT FROM OLD.{c} THEN"
        f" NEW.{c} := CAST({now} AS {kind}({digits})); END IF; RETURN NEW; END"
    )
    return SchemaObject(
        "trigger",
        f"{table}.{trigger}",
        (
            f"CREATE FUNCTION {identifier(function)}() RETURNS trigger LANGUAGE plpgsql AS {sql_text(body)}",
            (
                f"CREATE TRIGGER {identifier(trigger)} BEFORE UPDATE ON {identifier(table)}"
                f" FOR EACH ROW EXECUTE FUNCTION {identifier(function)}()"
            ),
        ),
        f"DROP FUNCTION {identifier(function)}() CASCADE",
        uses=frozenset({(table, None), (table, column)}),
        on_update=column,
    )


def views_of(
    session: Session, schema: str, relations: Mapping[str, Relation]
) -> tuple[list[SchemaObject], list[LeftOut]]:
    """Views that PostgreSQL means the same by, those that others read first, and the rest with their reasons.

    Args:
        relations: the tables.
    """
    known, made, reasons = dict(relations), list[SchemaObject](), dict[str, str]()
    waiting = [tuple(map(str, row)) for row in session.texts(_VIEWS.format(schema=literal(schema)))]
    while waiting:
        left: list[tuple[str, ...]] = []
        for name, definition, checked in waiting:
            try:
                view = _translated(name, definition, checked, schema, known)
            except UntranslatableError as reason:
                reasons[name] = str(reason)
                left.append((name, definition, checked))
                continue
            known[name] = Relation(view.columns)
            made.append(_view(name, view, relations))
        if len(left) == len(waiting):
            break
        waiting = left
    return made, [
        LeftOut(name, "view", f"{reasons[name]}; create it in the target by hand") for name, *_ in waiting
    ]


def _translated(name: str, definition: str, checked: str, schema: str, known: Mapping[str, Relation]) -> View:
    if checked != "NONE":
        raise UntranslatableError("it has a CHECK OPTION")
    if not fits_identifier(name):
        raise UntranslatableError("its name is longer than 63 bytes")
    return translate(definition, schema, known)


def _view(name: str, view: View, tables: Mapping[str, Relation]) -> SchemaObject:
    used = {(relation, column) for relation, column in view.uses if relation in tables}
    return SchemaObject(
        "view",
        name,
        (f"CREATE VIEW {identifier(name)} AS {view.query}",),
        f"DROP VIEW {identifier(name)}",
        needs=frozenset(("view", relation) for relation in view.relations if relation not in tables),
        uses=frozenset({*used, *((relation, None) for relation in view.relations if relation in tables)}),
        optional=True,
    )
