"""What hangs on a MySQL database besides tables: CHECKs, and objects that are not carried.

What belongs here: queries that differ between MySQL and MariaDB, and views, triggers, routines, events, sequences
with the reason why they stay behind. What does not: tables (`mysql_catalog`).
"""

from __future__ import annotations

import re
from contextlib import suppress

import pymysql

from jivs_pipeline.core.model import LeftOut
from jivs_pipeline.infra.sources.mysql_session import Session, literal

__all__ = ["checks_of", "other_objects"]

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
        "view",
        "SELECT TABLE_NAME, NULL FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema} ORDER BY 1",
    ),
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
