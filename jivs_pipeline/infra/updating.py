"""Changing a table that is there into what its source has: rows that differ go, rows that are new come.

What belongs here: the statements of that, of taking it back, and of keeping references out of their way. What does not:
the transaction around them (`merge.py`, `undo.py`) and which ranges differ (`engine/incremental.py`).

A changed row is deleted and inserted, never updated. Deleting what differs in all tables before anything is inserted is
what lets values of unique keys change places, rows refer to each other in circles, and numbers be written into columns
that are GENERATED ALWAYS. References are checked when all of it is done: those without an action are deferred, which is a
change of the catalog only; those with one (CASCADE, SET NULL, RESTRICT) act at once and cannot be deferred, so they are
dropped and made again, with their check, in the same transaction.

Rows are told apart by their text, the same that digests hash, and equal rows by their number among each other: a table
needs no key for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from jivs_pipeline.core.plan import Range, TablePlan
from jivs_pipeline.infra.steps import LEDGER, kept, landing, names, side_name, table_name

__all__ = ["check_references", "exchange", "loosen_references", "take_out", "untouched", "upsert"]

Statement = sql.SQL | sql.Composed
_ALL = sql.SQL("")
_SMALLEST, _LARGEST = -(1 << 63), (1 << 63) - 1


def exchange(key: str, table: TablePlan, ranges: Sequence[Range]) -> tuple[list[Statement], list[Statement]]:
    """What removes rows of a table that its side table has not, and what inserts those that only the side table has.

    Both look only at `ranges` of the chunk key; without a chunk key at all rows.
    """
    relation, side, old = _relation(table), landing(key, table), kept(key, table)
    columns = [c.target for c in table.columns]
    within = _within(table.chunk_key, ranges)
    here, there = _numbered(relation, columns, within), _numbered(side, columns)
    remove: list[Statement] = [
        sql.SQL("CREATE TABLE {} (LIKE {})").format(old, relation),
        sql.SQL("ANALYZE {}").format(side),
        # How many rows are in some ranges is a guess of the planner's that is far too high: it would read the whole table,
        # and compare each row with each range.
        sql.SQL("SET LOCAL enable_seqscan = off"),
        sql.SQL(
            "WITH gone AS (DELETE FROM ONLY {relation} AS o USING (SELECT h.place FROM {here} h"
            " LEFT JOIN {there} s USING (hash, number) WHERE s.hash IS NULL) AS g WHERE o.ctid = g.place RETURNING o.*)"
            " INSERT INTO {old} SELECT * FROM gone"
        ).format(relation=relation, here=here, there=there, old=old),
        # What is left of the table in these ranges is in the side table, too: no need to insert it.
        sql.SQL(
            "DELETE FROM {side} AS o USING (SELECT s.place FROM {there} s JOIN {here} h USING (hash, number)) AS g"
            " WHERE o.ctid = g.place"
        ).format(side=side, here=here, there=there),
        sql.SQL("SET LOCAL enable_seqscan = DEFAULT"),
    ]
    return remove, [_insert(relation, side, columns)]


def upsert(key: str, table: TablePlan) -> list[Statement]:
    """What puts the rows of the side table in the place of those with the same key, which are kept, or adds them."""
    relation, side = _relation(table), landing(key, table)
    columns = [c.target for c in table.columns]
    same = _same(table.existing_key)
    rest = [c for c in columns if c not in table.existing_key]
    change = (
        sql.SQL("UPDATE SET {}").format(
            sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in rest)
        )
        if rest
        else sql.SQL("NOTHING")
    )
    return [
        sql.SQL("CREATE TABLE {} AS SELECT t.* FROM ONLY {} t JOIN {} s ON {}").format(
            kept(key, table), relation, side, same
        ),
        _insert(relation, side, columns)
        + sql.SQL(" ON CONFLICT ({}) DO {}").format(names(table.existing_key), change),
    ]


def take_out(key: str, table: str, relation: sql.Identifier, columns: Sequence[str]) -> Statement:
    """What deletes the rows that `exchange` has inserted into a table (`schema.table`), as far as they are still there."""
    side = table_name(LEDGER, side_name(key, table, "side"))
    return sql.SQL(
        "DELETE FROM ONLY {relation} AS o USING (SELECT h.place FROM {here} h JOIN {there} s USING (hash, number)) AS g"
        " WHERE o.ctid = g.place"
    ).format(relation=relation, here=_numbered(relation, columns), there=_numbered(side, columns))


def loosen_references(tables: Iterable[sql.Identifier]) -> list[Statement]:
    """Put off the checks of all references to the tables until `check_references`."""
    listed = sql.SQL(", ").join(sql.SQL("{}::regclass").format(sql.Literal(t.as_string())) for t in tables)
    found = sql.SQL(
        " FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid IN ({}) AND k.conparentid = 0"
        " AND NOT (k.condeferrable AND k.confdeltype = 'a')"
    ).format(listed)
    return [
        _remember("jivs.references_back", _BACK, found),
        _remember("jivs.references_off", _OFF, found),
        _do("jivs.references_off"),
        sql.SQL("SET CONSTRAINTS ALL DEFERRED"),
    ]


def check_references() -> list[Statement]:
    """Check all references, and make them what they were."""
    return [sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"), _do("jivs.references_back")]


_OFF = sql.SQL(
    "CASE WHEN k.confdeltype = 'a' THEN format('ALTER TABLE %s ALTER CONSTRAINT %I DEFERRABLE INITIALLY DEFERRED',"
    " k.conrelid::regclass, k.conname) ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) END"
)
_BACK = sql.SQL(
    "CASE WHEN k.confdeltype = 'a' THEN format('ALTER TABLE %s ALTER CONSTRAINT %I NOT DEFERRABLE',"
    " k.conrelid::regclass, k.conname) ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname,"
    " pg_get_constraintdef(k.oid)) || coalesce(format('; COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname,"
    " k.conrelid::regclass, obj_description(k.oid, 'pg_constraint')), '') END"
)


def _remember(setting: str, statement: sql.SQL, found: sql.Composable) -> Statement:
    """Keep statements that only the server can write, for the rest of the transaction."""
    return sql.SQL("SELECT set_config({}, coalesce(string_agg({}, '; '), 'SELECT'), true){}").format(
        sql.Literal(setting), statement, found
    )


def _do(setting: str) -> Statement:
    body = sql.SQL("BEGIN EXECUTE current_setting({}); END").format(sql.Literal(setting))
    return sql.SQL("DO {}").format(sql.Literal(body.as_string()))


def _relation(table: TablePlan) -> sql.Identifier:
    return table_name(table.target_schema, table.target_table)


def _same(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(c)) for c in columns)


def _insert(relation: sql.Identifier, side: sql.Identifier, columns: Sequence[str]) -> sql.Composed:
    listed = names(columns)
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
        relation, listed, listed, side
    )


def _within(column: str | None, ranges: Sequence[Range]) -> sql.Composable:
    """A condition on rows `t`, by an index of the column: a range is a few rows of many."""
    if column is None:
        return _ALL
    return sql.SQL(" JOIN {} ON t.{} BETWEEN r.low AND r.last").format(
        _bounds(ranges), sql.Identifier(column)
    )


def _bounds(ranges: Sequence[Range]) -> sql.Composed:
    lower = [_SMALLEST if low is None else low for low, _ in ranges]
    # A range ends before `upper`; its last number is what lets the largest bigint be in one.
    last = [_LARGEST if up is None else up - 1 for _, up in ranges]
    return sql.SQL("unnest({}::int8[], {}::int8[]) AS r(low, last)").format(
        sql.Literal(lower), sql.Literal(last)
    )


def untouched(relation: sql.Identifier, column: str, ranges: Sequence[Range]) -> sql.Composed:
    """What stands after FROM for the rows outside of the ranges."""
    return sql.SQL(
        "(SELECT t.* FROM ONLY {} AS t WHERE NOT EXISTS (SELECT FROM {} WHERE t.{} BETWEEN r.low AND r.last))"
    ).format(relation, _bounds(ranges), sql.Identifier(column))


def _numbered(
    relation: sql.Identifier, columns: Sequence[str], within: sql.Composable = _ALL
) -> sql.Composed:
    """Rows as (place, hash, number): the hash of its text, and its number among rows of the same text."""
    listed = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(c)) for c in columns)
    return sql.SQL(
        "(SELECT place, hash, row_number() OVER (PARTITION BY hash) AS number FROM (SELECT t.ctid AS place,"
        " md5(ROW({})::text)::uuid AS hash FROM ONLY {} AS t{}) AS x)"
    ).format(listed, relation, within)
