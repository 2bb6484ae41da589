"""Ending a load for good: what it made stays, what it kept for a rollback goes, and the ledger forgets it.

What belongs here: what that means for each kind of step. What does not: the fence and the transaction around it
(`target.py`), and when a load is over: when a scheduled migration is loaded anew (`engine/load.py`).

Large objects go: nothing can be set aside that has no name but its number, and the next load brings them anew.

The next load then finds tables that were there before, like any other, and treats them as the spec says. The order is
the oldest step first; a run that was killed goes on, as the ledger's row goes with what it describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.core.names import qualified
from jivs_pipeline.infra import large_objects
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.steps import LEDGER, numbers, side_name, table_name
from jivs_pipeline.infra.target_sessions import SQL

__all__ = ["conclude_oldest"]


def conclude_oldest(db: Session, key: str, since: int) -> str | None:
    """Forget steps of loads before `since`, up to the first that has kept something; None when none is left."""
    parameters = {"key": key, "since": since}
    while (row := db.execute(SQL["oldest_step"], parameters).fetchone()) is not None:
        table, step, undo = row
        if undo.get("large_objects") and large_objects.remove_some(db, key):
            return f"large objects of {key}"  # others may be left
        removed = _remove_kept(db, key, table, undo)
        db.execute(SQL["forget_step"], {"key": key, "table": table, "step": step})
        if removed:
            return f"{step} of {table}"
    db.execute(SQL["forget_older_chunks"], parameters)
    return None


def _remove_kept(db: Session, key: str, table: str, undo: Mapping[str, Any]) -> bool:
    if schema := undo.get("restore"):
        _drop_replaced(db, schema, table.partition(".")[2])
    elif undo.get("drop_side"):
        _drop(db, table_name(LEDGER, side_name(key, table, "side")), table)
        if undo.get("numbers"):
            _drop(db, numbers(key, table), table)
    elif merged := undo.get("merged"):
        for m in merged:
            if m["emptied"] or "updated" in m or "upserted" in m:
                table = qualified(*m["table"])
                _drop(db, table_name(LEDGER, side_name(key, table, "kept")), table)
    else:
        return False
    return True


def _drop_replaced(db: Session, schema: str, name: str) -> None:
    kept = table_name(schema, name)
    for child_schema, child, constraint in db.execute(
        SQL["references_kept"], {"kept": kept.as_string()}
    ).fetchall():
        # Its own table is kept for the same load, and goes as well.
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        db.execute(drop.format(sql.Identifier(child_schema, child), sql.Identifier(constraint)))
    _drop(db, kept, f"{schema}.{name}")
    _drop(db, sql.Identifier(schema), f"{schema}.{name}", "SCHEMA")


def _drop(db: Session, name: sql.Identifier, called: str, kind: LiteralString = "TABLE") -> None:
    try:
        db.execute(sql.SQL("DROP {} IF EXISTS {}").format(sql.SQL(kind), name))
    except psycopg.errors.DependentObjectsStillExist as error:
        # DETAIL holds names of objects here, not rows.
        others = "; ".join((error.diag.message_detail or "other objects depend on it").splitlines())
        raise TerminalError(
            f"What was kept of {called} for a rollback cannot be removed: {others}",
            hint="Drop what was built on it, then run again",
        ) from error
