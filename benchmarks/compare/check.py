"""Whether a candidate brought the rows: count and digest of each table, in a spelling that all of them meet.

What belongs here: looking into a target. What does not: the product's own digests, which are not used here on purpose.

Tools differ in types (char as text, numeric(15,2) as numeric(38,9), dates as timestamps): each column is spelled as what its
value means, and blanks at the end of text, which char(n) has, do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

__all__ = ["Expected", "expect", "problem_in", "structure_of"]

_KINDS = {
    "int2": "{}::int8::text", "int4": "{}::int8::text", "int8": "{}::int8::text", "numeric": "trim_scale({}::numeric)::text",
    "date": "{}::date::text", "bpchar": "rtrim({}::text)", "varchar": "rtrim({}::text)", "text": "rtrim({}::text)",
}  # fmt: skip
_STRUCTURE = """
SELECT (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
         WHERE c.relnamespace = 'public'::regnamespace)
     + (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated
         AND connamespace = 'public'::regnamespace)
"""
_COLUMNS = """
SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_FIND = """
SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relname = %s AND c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a table must hold: `digest` is `rows:sum of hashes` over `columns` (name -> expression over `{}`)."""

    columns: Mapping[str, str]
    digest: str


def expect(url: str, table: str, columns: Mapping[str, str] | None = None, where: str = "true") -> Expected:
    """What a source's table holds.

    Args:
        columns: which count and how; by default every column by its type.
        where: of the rows that count.
    """
    with psycopg.connect(url) as db:
        if columns is None:
            columns = {name: _KINDS[kind] for name, kind in db.execute(_COLUMNS, (table,)).fetchall()}
        return Expected(columns, _digest(db, table, columns, where))


def _digest(
    db: psycopg.Connection[tuple[object, ...]], table: str, columns: Mapping[str, str], where: str = "true"
) -> str:
    each: list[sql.Composable] = [sql.SQL(how).format(sql.Identifier(name)) for name, how in columns.items()]
    row = db.execute(
        sql.SQL("SELECT count(*), sum(hashtextextended(concat_ws('|', {}), 0)) FROM {} WHERE {}").format(
            sql.SQL(", ").join(each), sql.SQL(table), sql.SQL(where)
        )
    ).fetchone()
    return f"{row[0]}:{row[1]}" if row else ""


def structure_of(url: str) -> int:
    """Indexes and valid foreign keys of schema public."""
    with psycopg.connect(url) as db:
        row = db.execute(_STRUCTURE).fetchone()
        return int(row[0]) if row else 0


def problem_in(url: str, expected: Mapping[str, Expected], indexes: int | None) -> str | None:
    """What is not as it should be in a target; tables are found in whichever schema a tool has put them."""
    with psycopg.connect(url) as db:
        for table, wanted in expected.items():
            places = db.execute(_FIND, (table,)).fetchall()
            try:
                found = [_digest(db, place, wanted.columns) for (place,) in places]
            except psycopg.Error as error:
                return f"table {table}: {str(error).splitlines()[0]}"
            if wanted.digest not in found:
                return f"table {table}: {', '.join(found) or 'missing'} instead of {wanted.digest}"
    if indexes is not None and (there := structure_of(url)) < indexes:
        return f"{there} of {indexes} keys and indexes"
    return None
