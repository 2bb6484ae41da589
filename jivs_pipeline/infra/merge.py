"""Tables that were there before and keep their place: chunks land beside them and are moved in at the end.

What belongs here: the side table, and the one step that merges. What does not: taking it back (`undo.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from jivs_pipeline.core.plan import Range, TableMode, TablePlan
from jivs_pipeline.infra.steps import Step, kept, landing, names, numbers, raw, table_name
from jivs_pipeline.infra.updating import check_references, exchange, loosen_references, upsert

__all__ = ["merge", "quiet_triggers", "side", "wake_triggers"]


def side(key: str, table: TablePlan) -> Step:
    """The table that the chunks are copied to, and how far the sequences of the table itself are before the merge."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.target), raw(c.target_type)) for c in table.columns
    )
    statements: list[sql.SQL | sql.Composed] = [
        sql.SQL("CREATE TABLE {} ({})").format(landing(key, table), columns)
    ]
    numbered = [c.name for c in table.definition.columns if c.identity] if table.definition else []
    if numbered:
        kept_numbers = numbers(key, table.target)
        statements.append(
            sql.SQL(
                'CREATE TABLE {} ("column" text, last bigint, called boolean, high numeric, low numeric)'
            ).format(kept_numbers)
        )
        statements += [_keep_number(table, column, kept_numbers) for column in numbered]
    return Step(table.target, "side", tuple(statements), {"drop_side": True, "numbers": bool(numbered)})


def _keep_number(table: TablePlan, column: str, where: sql.Identifier) -> sql.Composed:
    """Only a statement that names the sequence can read it, and only the server knows its name."""
    relation = table_name(table.target_schema, table.target_table).as_string()
    body = sql.SQL(
        "DECLARE s regclass := pg_get_serial_sequence({relation}, {column})::regclass; BEGIN IF s IS NOT NULL THEN"
        " EXECUTE format('INSERT INTO %s SELECT %L, last_value, is_called, (SELECT max(%I) FROM %s),"
        " (SELECT min(%I) FROM %s) FROM %s', {where}, {column}, {column}, {relation}, {column}, {relation}, s);"
        " END IF; END"
    ).format(relation=sql.Literal(relation), column=sql.Literal(column), where=sql.Literal(where.as_string()))
    return sql.SQL("DO {}").format(sql.Literal(body.as_string()))


def merge(
    key: str, tables: Sequence[TablePlan], ranges: Mapping[str, Sequence[Range]] | None = None
) -> list[Step]:
    """One step that moves side tables into the tables that existed before, in the given order.

    One transaction for all: readers of the target see everything or nothing, and foreign keys among
    the tables hold at every statement when the order is parents first.

    Args:
        ranges: of the chunk key, by target table, where one that is updated may differ; none where it does not.
    """
    emptied = [t for t in tables if t.mode is TableMode.TRUNCATE]
    ranges = ranges or {}
    updated = [t for t in tables if t.mode is TableMode.UPDATE and ranges.get(t.target)]
    upserted = [t for t in tables if t.upsert]
    beside = [t for t in tables if t.beside and (t.mode is not TableMode.UPDATE or t in updated)]
    if not beside:
        return []
    statements: list[sql.SQL | sql.Composed] = [
        sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept(key, t), _relation(t)) for t in emptied
    ]
    statements += quiet_triggers([_relation(t) for t in beside])
    if emptied:
        statements.append(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(_relation, emptied))))
    if updated:
        statements += loosen_references(map(_relation, updated))
    exchanged = [exchange(key, t, ranges[t.target]) for t in updated]
    statements += [s for remove, _ in exchanged for s in remove]
    statements += [s for _, insert in exchanged for s in insert]
    statements += [s for t in upserted for s in upsert(key, t)]
    if updated:
        statements += check_references()
    for table in [t for t in beside if t not in updated and t not in upserted]:
        columns = names(c.target for c in table.columns)
        statements.append(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                _relation(table), columns, columns, landing(key, table)
            )
        )
    statements += wake_triggers()
    # What was appended is needed to take it away again; what was emptied is kept beside it.
    statements += [sql.SQL("DROP TABLE {}").format(landing(key, table)) for table in emptied]
    undo = {
        # In the order of the merge: parents first.
        "merged": [
            {
                "table": [t.target_schema, t.target_table],
                "emptied": t.mode is TableMode.TRUNCATE,
                "key": list(t.existing_key),
                **({"updated": [c.target for c in t.columns]} if t in updated else {}),
                **({"upserted": True} if t in upserted else {}),
            }
            for t in beside
        ]
    }
    return [Step("*", "merge", tuple(statements), undo)]


def _relation(table: TablePlan) -> sql.Identifier:
    return table_name(table.target_schema, table.target_table)


def quiet_triggers(tables: Sequence[sql.Identifier]) -> list[sql.SQL | sql.Composed]:
    """Put the user's triggers to sleep, which would change, double or refuse rows, until `wake_triggers`.

    ENABLE TRIGGER USER would also wake those that were asleep before, hence the list of those that were not.
    """
    listed = sql.SQL(", ").join(sql.SQL("{}::regclass").format(sql.Literal(t.as_string())) for t in tables)
    return [
        sql.SQL(
            "SELECT set_config('jivs.triggers', coalesce(string_agg(format('ALTER TABLE %s ENABLE %sTRIGGER %I',"
            " tgrelid::regclass, CASE tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END, tgname),"
            " '; '), 'RESET jivs.triggers'), true)"
            " FROM pg_trigger WHERE tgrelid IN ({}) AND NOT tgisinternal AND tgenabled <> 'D'"
        ).format(listed),
        *(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(t) for t in tables),
    ]


def wake_triggers() -> list[sql.SQL | sql.Composed]:
    """Wake the triggers that `quiet_triggers` has put to sleep."""
    return [
        # Deferred checks that are still to come would forbid it.
        sql.SQL("SET CONSTRAINTS ALL IMMEDIATE"),
        sql.SQL("DO 'BEGIN EXECUTE current_setting(''jivs.triggers''); END'"),
    ]
