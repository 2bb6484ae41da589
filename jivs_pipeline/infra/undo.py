"""Taking back what a migration did to its target, step by step, latest first.

What belongs here: what undoing each kind of step means. What does not: the fence and the transaction around it
(`target.py`), and when a rollback happens (`engine/rollback.py`).

Only what the ledger says that this migration made is dropped, and never with CASCADE: what others have built on it
stops the rollback with a sentence. The ledger row goes in the same transaction, so a rollback that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from jivs_pipeline.core.errors import ConflictError, TerminalError
from jivs_pipeline.core.names import qualified
from jivs_pipeline.infra import large_objects
from jivs_pipeline.infra.merge import quiet_triggers, wake_triggers
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.steps import LEDGER, look_in, numbers, raw, side_name, table_name
from jivs_pipeline.infra.target_sessions import SQL
from jivs_pipeline.infra.updating import check_references, loosen_references, take_out

__all__ = ["check", "undo_latest", "undo_objects"]


def check(undo: Mapping[str, Any]) -> None:
    """Look whether a step can be undone.

    Raises:
        ConflictError: rows were appended to a table whose rows no key tells apart.
    """
    for merged in undo.get("merged", ()):
        if not merged["emptied"] and not merged["key"] and "updated" not in merged:
            raise ConflictError(
                f"The rows appended to {qualified(*merged['table'])} cannot be told from those that were there before,"
                " because the table has no key",
                hint="Take them out by hand, if they are to go",
            )


def undo_latest(db: Session, key: str) -> str | None:
    """Undo steps from the latest on, up to the first that has an effect; None when the ledger has none any more."""
    while (row := db.execute(SQL["latest_step"], {"key": key}).fetchone()) is not None:
        table, step, undo = row
        if undo.get("large_objects") and large_objects.remove_some(db, key):
            return f"large objects of {key}"  # others may be left
        acted = _undo(db, key, table, step, undo)
        names = {"key": key, "table": table, "step": step}
        db.execute(SQL["forget_step"], names)
        if undo.get("drop") or undo.get("drop_side") or undo.get("large_objects"):
            db.execute(SQL["forget_chunks"], names)
        if acted:
            return f"{step} of {table}"
    db.execute(SQL["forget_all"], {"key": key})
    return None


def _undo(db: Session, key: str, table: str, step: str, undo: Mapping[str, Any]) -> bool:
    if undo.get("drop"):
        _drop(db, table)
    elif schema := undo.get("restore"):
        _restore(db, table, schema)
    elif merged := undo.get("merged"):
        _unmerge(db, key, merged)
    elif undo.get("drop_side"):
        db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_side(key, table, "side")))
        if undo.get("numbers"):
            _restore_numbers(db, key, table)
    elif drop := undo.get("object"):
        _drop_object(db, table.removesuffix(".*"), step, drop)
    elif schema := undo.get("drop_schema"):
        _drop_schema(db, schema)
    elif step.startswith("foreign key "):
        # Its parent may go before the table that it is on.
        drop = sql.SQL("ALTER TABLE IF EXISTS {} DROP CONSTRAINT IF EXISTS {}")
        db.execute(drop.format(_name(table), sql.Identifier(step.removeprefix("foreign key "))))
    else:
        return False  # goes with its table
    return True


def undo_objects(db: Session, key: str, beside: str) -> None:
    """Undo what was made on the rows of a schema's tables, the latest first."""
    for step, undo in db.execute(SQL["objects_made"], {"key": key, "table": beside}).fetchall():
        if not undo["before"]:
            _undo(db, key, beside, step, undo)
            db.execute(SQL["forget_step"], {"key": key, "table": beside, "step": step})


def _drop_object(db: Session, schema: str, step: str, drop: str) -> None:
    """The statement is the one that was planned; a name that is gone was dropped by its owner, by hand."""
    try:
        with db.transaction():
            db.execute(look_in(schema))
            db.execute(raw(drop))
    except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction):
        return
    except psycopg.errors.DependentObjectsStillExist as error:
        others = "; ".join((error.diag.message_detail or "other objects depend on it").splitlines())
        raise TerminalError(
            f"{step} of schema {schema} cannot be dropped: {others}",
            hint="Drop what was built on it since, then roll back again",
        ) from error
    finally:
        db.execute("SET LOCAL search_path TO ''")


def _name(table: str) -> sql.Identifier:
    # A schema of ours has no dot; a table's name may.
    schema, _, name = table.partition(".")
    return table_name(schema, name)


def _side(key: str, table: str, what: str) -> sql.Identifier:
    return table_name(LEDGER, side_name(key, table, what))


def _drop(db: Session, table: str) -> None:
    try:
        db.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_name(table)))
    except psycopg.errors.DependentObjectsStillExist as error:
        # DETAIL holds names of objects here, not rows.
        others = "; ".join((error.diag.message_detail or "other objects depend on it").splitlines())
        raise TerminalError(
            f"Table {table} cannot be dropped: {others}",
            hint="Drop what was built on it since, then roll back again",
            table=table,
        ) from error


def _restore(db: Session, table: str, schema: str) -> None:
    """The table of before comes back with its indexes, sequences and triggers: it never was another one."""
    name = _name(table)
    kept = table_name(schema, table.partition(".")[2])
    db.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(kept, sql.Identifier(table.partition(".")[0])))
    db.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
    db.execute(sql.SQL("SELECT {}::regclass").format(sql.Literal(name.as_string())))


def _drop_schema(db: Session, schema: str) -> None:
    try:
        with db.transaction():
            db.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(schema)))
    except psycopg.errors.DependentObjectsStillExist:
        # Somebody else's are in it by now, so it is theirs.
        return


def _unmerge(db: Session, key: str, merged: list[Mapping[str, Any]]) -> None:
    """Put back what was emptied or changed and take out what was added, children first, in one go."""
    names = {qualified(*m["table"]): table_name(*m["table"]) for m in merged}
    changed = [qualified(*m["table"]) for m in merged if "updated" in m or "upserted" in m]
    for statement in quiet_triggers(list(names.values())):
        db.execute(statement)
    for statement in loosen_references(names[t] for t in changed) if changed else ():
        db.execute(statement)
    for m in reversed(merged):
        table = qualified(*m["table"])
        if "updated" in m and not m["key"]:
            db.execute(take_out(key, table, names[table], m["updated"]))
        elif not m["emptied"]:
            _take_out(db, key, table, m["key"])
            # Somebody may have brought a row back that was deleted.
            if "updated" in m:
                _take_out(db, key, table, m["key"], "kept")
    emptied = [qualified(*m["table"]) for m in merged if m["emptied"]]
    if emptied:
        db.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names[t] for t in emptied)))
    for table in [*emptied, *changed]:
        kept, name = _side(key, table, "kept"), names[table]
        found = db.execute(SQL["plain_columns"], {"relation": name.as_string()}).fetchall()
        columns = sql.SQL(", ").join(sql.Identifier(column) for (column,) in found)
        insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}")
        db.execute(insert.format(name, columns, columns, kept))
    for statement in [*(check_references() if changed else ()), *wake_triggers()]:
        db.execute(statement)
    for table in [*emptied, *changed]:
        db.execute(sql.SQL("DROP TABLE {}").format(_side(key, table, "kept")))


def _take_out(db: Session, key: str, table: str, columns: Sequence[str], what: str = "side") -> None:
    """Delete the rows that were added, or those in the place of which others come; their key tells them from the rest."""
    same = sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(c)) for c in columns)
    delete = sql.SQL("DELETE FROM {} t USING {} s WHERE {}")
    db.execute(delete.format(_name(table), _side(key, table, what), same))


def _restore_numbers(db: Session, key: str, table: str) -> None:
    """Sequences go back to where they were, unless rows that came since have used their numbers."""
    kept, name = numbers(key, table), _name(table)
    query = sql.SQL('SELECT "column", last, called, high, low FROM {}').format(kept)
    for column, last, called, high, low in db.execute(query).fetchall():
        restore = sql.SQL(
            "SELECT setval(pg_get_serial_sequence({label}, {column})::regclass, {last}, {called})"
            " FROM (SELECT max({name})::numeric AS high, min({name})::numeric AS low FROM {table}) t,"
            " pg_sequence s WHERE s.seqrelid = pg_get_serial_sequence({label}, {column})::regclass AND coalesce("
            " CASE WHEN s.seqincrement > 0 THEN t.high <= greatest({last}, {high}::numeric)"
            " ELSE t.low >= least({last}, {low}::numeric) END, true)"
        )
        db.execute(
            restore.format(
                label=sql.Literal(name.as_string()), column=sql.Literal(column), name=sql.Identifier(column),
                last=sql.Literal(last), called=sql.Literal(called), high=sql.Literal(high), low=sql.Literal(low),
                table=name,
            )
        )  # fmt: skip
    db.execute(sql.SQL("DROP TABLE {}").format(kept))
