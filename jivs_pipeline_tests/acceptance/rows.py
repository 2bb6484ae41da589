"""What databases hold, read without the product: rows with their types, and the catalog as plain values.

What belongs here: reading and comparing. What does not: starting anything.
"""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Row = tuple[Any, ...]
ELSEWHERE = "Other Shop"
"""A schema of the target's: its name has to be quoted everywhere, and is not the source's."""


# ── SQLite against PostgreSQL ────────────────────────────────────────────────────────────────────────────


def _expected(value: Any, target_type: str) -> Any:
    """The Python value that psycopg must give for SQLite's `value` in a column of `target_type`."""
    if value is None:
        return None
    base = target_type.split("(", 1)[0]
    match base:
        case "smallint" | "integer" | "bigint" | "bytea" | "double precision":
            return value
        case "text" | "character varying":
            return value
        case "numeric":
            return Decimal(repr(value))
        case "boolean":
            return {0: False, 1: True}[value]
        case "date":
            return date.fromisoformat(value)
        case "timestamp without time zone":
            return datetime.fromisoformat(value)
        case "time without time zone":
            return time.fromisoformat(value)
    raise AssertionError(f"the comparison does not know {target_type}")


def _typed(value: Any) -> Any:
    """Equal only when type and value are equal: 1, 1.0, True and Decimal(1) are four values; so are 0.0 and -0.0."""
    if isinstance(value, float):
        return ("float", struct.pack(">d", value))
    if isinstance(value, memoryview | bytearray):
        value = bytes(value)
    return (type(value).__name__, value)


def columns(db: psycopg.Connection[Any], schema: str, table: str) -> dict[str, str]:
    """Name -> type of a table's columns, in order."""
    found = db.execute(
        """SELECT a.attname, format_type(a.atttypid, a.atttypmod)
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        (schema, table),
    ).fetchall()
    return dict(found)


def _difference(there: Counter[Any], here: Counter[Any]) -> str:
    missing, surplus = there - here, here - there
    return (
        f"{sum(missing.values())} rows are missing, such as {list(missing)[:2]}; "
        f"{sum(surplus.values())} rows are too many, such as {list(surplus)[:2]}"
    )


def assert_same_table(
    source: Path,
    target: str,
    table: str,
    *,
    schema: str = "public",
    target_table: str | None = None,
    where: str = "1",
    renamed: Mapping[str, str] | None = None,
    dropped: Sequence[str] = (),
    times: int = 1,
) -> int:
    """Every row of the SQLite table, `times` times, and none else, with every type exact. Returns the rows."""
    name = target_table or table
    with closing(sqlite3.connect(source)) as lite, psycopg.connect(target) as db:
        there = columns(db, schema, name)
        info = [r[1] for r in lite.execute(f"PRAGMA table_info({_quoted(table)})")]
        wanted = [c for c in info if c not in dropped]
        assert [(renamed or {}).get(c, c) for c in wanted] == list(there), f"columns of {name}"
    expected = sqlite_rows(source, table, list(there.values()), names=wanted, where=where)
    with psycopg.connect(target) as db:
        actual = rows_of(db, name, schema)
    if times != 1:
        expected = Counter({row: n * times for row, n in expected.items()})
    assert_same_rows(table, expected, actual)
    return sum(actual.values())


def sqlite_rows(
    source: Path, table: str, types: Sequence[str], *, names: Sequence[str] = (), where: str = "1"
) -> Counter[Any]:
    """The rows of a SQLite table as they must be in columns of these PostgreSQL types, with their types."""
    with closing(sqlite3.connect(source)) as lite:
        lite.text_factory = lambda b: b.decode()
        listed = ", ".join(map(_quoted, names)) or "*"
        rows = lite.execute(f"SELECT {listed} FROM {_quoted(table)} WHERE {where}").fetchall()
    return Counter(tuple(_typed(_expected(v, t)) for v, t in zip(row, types, strict=True)) for row in rows)


def rows_of(db: psycopg.Connection[Any], table: str, schema: str = "public") -> Counter[Any]:
    """The rows of a PostgreSQL table as they are, with their types."""
    found = db.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))).fetchall()
    return Counter(tuple(map(_typed, row)) for row in found)


def assert_same_rows(table: str, expected: Counter[Any], actual: Counter[Any]) -> None:
    assert expected == actual, f"{table}: {_difference(expected, actual)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def sqlite_tables(source: Path) -> list[str]:
    with closing(sqlite3.connect(source)) as lite:
        found = lite.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        return [name for (name,) in found]


def assert_same_database(source: Path, target: str, **options: Any) -> None:
    """All tables of the SQLite file are in the target, and no others."""
    tables = sqlite_tables(source)
    with psycopg.connect(target) as db:
        assert sorted(tables_of(db)) == sorted(tables)
    for table in tables:
        assert_same_table(source, target, table, **options)


# ── PostgreSQL against PostgreSQL ────────────────────────────────────────────────────────────────────────


def tables_of(db: psycopg.Connection[Any], schema: str = "public") -> list[str]:
    found = db.execute(
        """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relkind IN ('r', 'p') ORDER BY 1""",
        (schema,),
    ).fetchall()
    return [name for (name,) in found]


def fingerprint(db: psycopg.Connection[Any], table: str, schema: str = "public") -> tuple[int, str]:
    """Rows, and md5 over the text of all rows in order. NULL and empty text differ: the text is a record's."""
    relation = sql.Identifier(schema, table)
    query = sql.SQL(
        """SELECT count(*), coalesce(md5(string_agg(h, '' ORDER BY h)), '')
             FROM (SELECT md5((t.*)::text) AS h FROM ONLY {} AS t) AS hashed"""
    )
    for setting in (
        "extra_float_digits = 3",
        "intervalstyle = 'postgres'",
        "bytea_output = 'hex'",
        "timezone = 'UTC'",
        "datestyle = 'ISO'",
    ):
        db.execute(sql.SQL("SET " + setting))  # pyright: ignore[reportArgumentType]
    row = db.execute(query.format(relation)).fetchone()
    assert row is not None
    return row[0], row[1]


def fingerprints(url: str, schema: str = "public") -> dict[str, tuple[int, str]]:
    """Table -> fingerprint of all tables."""
    with psycopg.connect(url) as db:
        return {t: fingerprint(db, t, schema) for t in tables_of(db, schema)}


# ── The catalog ──────────────────────────────────────────────────────────────────────────────────────────


def constraints(db: psycopg.Connection[Any], kind: str, schema: str = "public") -> set[tuple[Any, ...]]:
    """(table, definition, validated) of the constraints of a kind: p, u, f, c, x."""
    db.execute("SET search_path = pg_catalog")
    found = db.execute(
        """SELECT c.relname, pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND k.contype = %s""",
        (schema, kind),
    ).fetchall()
    return set(found)


def indexes(db: psycopg.Connection[Any], schema: str = "public") -> set[str]:
    """Definitions of all indexes."""
    found = db.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s", (schema,)).fetchall()
    return {definition for (definition,) in found}


def catalog(url: str) -> dict[str, Iterable[Any]]:
    """Everything in a database that a migration could have touched: objects, files, columns, rows, sequences."""
    with psycopg.connect(url) as db:
        objects = db.execute(
            """SELECT n.nspname, c.relname, c.relkind::text, c.relfilenode::bigint, c.relhastriggers, c.relrowsecurity
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname !~ '^(pg_|information_schema)' ORDER BY 1, 2"""
        ).fetchall()
        schemas = db.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)' ORDER BY 1"
        ).fetchall()
        details = db.execute(
            """SELECT a.attrelid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE a.attnum > 0 AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1, 2"""
        ).fetchall()
        keys = db.execute(
            """SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
                WHERE connamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^(pg_|information_schema)') ORDER BY 1, 2"""
        ).fetchall()
        triggers = db.execute(
            "SELECT tgname, tgenabled::text FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
        ).fetchall()
        rows = {
            (schema, name): fingerprint(db, name, schema)
            for schema, name, kind, *_ in objects
            if kind in {"r", "p"}
        }
    return {
        "objects": objects,
        "schemas": schemas,
        "columns": details,
        "keys": keys,
        "triggers": triggers,
        "rows": [*rows.items()],
    }


def next_value(db: psycopg.Connection[Any], table: str, column: str, schema: str = "public") -> int:
    """The number that the next row gets. It is used up, as a user's insert would."""
    relation = f'"{schema}"."{table}"'
    row = db.execute("SELECT nextval(pg_get_serial_sequence(%s, %s))", (relation, column)).fetchone()
    assert row is not None
    return int(row[0])


def ledger(url: str, key: str) -> dict[str, list[tuple[Any, ...]]]:
    """Table -> (chunk, rows, loaded_at, generation) of a migration."""
    with psycopg.connect(url) as db:
        found = db.execute(
            'SELECT "table", chunk, rows, loaded_at, generation FROM jivs_ledger.chunks WHERE key = %s ORDER BY 1, 2',
            (key,),
        ).fetchall()
    tables: dict[str, list[tuple[Any, ...]]] = {}
    for table, *rest in found:
        tables.setdefault(table, []).append(tuple(rest))
    return tables
