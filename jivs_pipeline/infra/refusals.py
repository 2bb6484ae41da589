"""Rows that the target's own keys and conditions refuse: finding them among those that are loaded, and taking them out.

What belongs here: the statements. What does not: the demands (`demands.py`), the transaction around them (`target.py`)
and the budget (`engine/refused.py`).

The target evaluates its own expressions, on rows that it has already: of a table that was there before they are beside
it until the merge, of one that is made they are there before its keys are built. So it takes a scan per demand instead
of an attempt per row, and nothing but the refused rows leaves the server.

Of rows with one key that comes first whose primary key does, then whose text does: the same whatever order the chunks
were loaded in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from psycopg import sql

from jivs_pipeline.core.plan import RULED, Range, TableMode, TablePlan
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.infra.demands import PLACE, Alike, Demands, Holds, Refers, of_definition, of_relation
from jivs_pipeline.infra.merge import quiet_triggers, wake_triggers
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.steps import landing, look_in, names, raw, table_name
from jivs_pipeline.infra.updating import untouched

__all__ = ["AGAIN", "PLACES", "Others", "create_again", "find", "insert_again", "rows", "take_out"]

_KEPT = sql.Identifier("pg_temp", "jivs_refused")
_PLACE = sql.Identifier(PLACE)
PLACES = sql.SQL("ctid = ANY (ARRAY(SELECT place FROM {}))").format(_KEPT)
"""The condition of the refused rows, where they are."""
_CREATE = sql.SQL(
    'CREATE TEMP TABLE jivs_refused (place tid PRIMARY KEY, "column" text, reason text) ON COMMIT DROP'
)
_STILL = sql.SQL("NOT EXISTS (SELECT FROM {} AS x WHERE x.place = {})")
_MOST_SHOWN = 5

Others = Mapping[tuple[str, str], tuple[TablePlan, Sequence[Range]]]
"""Tables of the migration by schema and name in the target, with the ranges in which one that is updated may differ."""


def find(db: Session, key: str, table: TablePlan, others: Others, *, orphans: bool) -> int:
    """Note all rows that the table refuses, and say how many they are.

    Args:
        others: all tables that are loaded together, this one among them.
        orphans: of a table that is made: those that break a foreign key, and no others.
    """
    db.execute(_CREATE)
    if table.definition and table.definition.uses_objects:
        db.execute(look_in(table.target_schema))
    side = landing(key, table)
    demands = of_relation(db, table, side) if table.beside else of_definition(table)
    if table.beside or not orphans:
        for holds in demands.holds:
            _note(db, holds.reason, holds.column, _failing(demands, holds))
        # A row that is bad by itself does not keep others out.
        for alike in demands.alike:
            if (there := _standing(key, others, table)) is not None:
                _note(db, alike.reason, alike.column, _taken(table, demands, alike, there))
            _note(db, alike.reason, alike.column, _doubles(table, side, demands, alike))
    if table.beside or orphans:
        itself = any(r.parent == (table.target_schema, table.target_table) for r in demands.refers)
        # What is refused by now may have been what others of the same table refer to.
        while sum(
            _note(db, r.reason, r.columns[0], _orphans(key, table, demands, r, others))
            for r in demands.refers
        ):
            if not itself:
                break
    row = db.execute(sql.SQL("SELECT count(*) FROM {}").format(_KEPT)).fetchone()
    return int(row[0]) if row else 0


def _note(db: Session, reason: str, column: str | None, places: sql.Composed) -> int:
    insert = sql.SQL("INSERT INTO {} SELECT place, {}, {} FROM ({}) AS f ON CONFLICT DO NOTHING")
    return db.execute(insert.format(_KEPT, sql.Literal(column), sql.Literal(reason), places)).rowcount


def _failing(demands: Demands, holds: Holds) -> sql.Composed:
    return sql.SQL("SELECT {} AS place FROM {} WHERE ({}) IS FALSE").format(
        _PLACE, demands.rows, holds.condition
    )


def _keyed(alike: Alike, source: sql.Composable, more: sql.Composable) -> sql.Composed:
    """Rows of `source` that the keys are about, with these named k0, k1, and so on."""
    keys = sql.SQL(", ").join(sql.SQL("{} AS {}").format(k, _key_name(n)) for n, k in enumerate(alike.keys))
    predicate = alike.predicate or sql.SQL("true")
    return sql.SQL("(SELECT {}{} FROM {} WHERE ({}))").format(keys, more, source, predicate)


def _key_name(number: int) -> sql.Identifier:
    return sql.Identifier(f"k{number}")


def _each(alike: Alike, condition: sql.SQL) -> sql.Composed:
    """A condition on every key."""
    return sql.SQL(" AND ").join(condition.format(_key_name(n)) for n in range(len(alike.keys)))


def _taken(table: TablePlan, demands: Demands, alike: Alike, there: sql.Composable) -> sql.Composed:
    """Rows whose key one that is there, and stays, has."""
    named = sql.SQL("{} AS {}").format(there, sql.Identifier(table.target_table))
    same = sql.SQL("a.{0} IS NOT DISTINCT FROM b.{0}") if alike.nulls else sql.SQL("a.{0} = b.{0}")
    return sql.SQL("SELECT a.place FROM {} AS a WHERE EXISTS (SELECT FROM {} AS b WHERE {})").format(
        _keyed(alike, demands.rows, sql.SQL(", {} AS place").format(_PLACE)),
        _keyed(alike, named, sql.SQL("")),
        _each(alike, same),
    )


def _doubles(table: TablePlan, side: sql.Identifier, demands: Demands, alike: Alike) -> sql.Composed:
    """Rows whose key an earlier one of those that are not refused has; only such are put in order."""
    carried = {c.target for c in table.columns}
    primary = table.definition.primary_key if table.definition else None
    first = [c for c in primary.columns if c in carried] if primary else []
    columns = [
        sql.SQL("s.{}").format(sql.Identifier(c)) for c in (*first, *(c.target for c in table.columns))
    ]
    text = sql.SQL('ROW({})::text COLLATE "C"').format(sql.SQL(", ").join(columns[len(first) :]))
    keys = sql.SQL(", ").join(_key_name(n) for n in range(len(alike.keys)))
    known = sql.SQL("true") if alike.nulls else _each(alike, sql.SQL("{} IS NOT NULL"))
    still = _STILL.format(_KEPT, sql.SQL("a.place"))
    return sql.SQL(
        "SELECT place FROM (SELECT w.place, row_number() OVER (PARTITION BY {keys} ORDER BY {order}) AS turn"
        " FROM (SELECT a.*, count(*) OVER (PARTITION BY {keys}) AS many FROM {keyed} AS a WHERE {known} AND {still}) AS w"
        " JOIN ONLY {side} AS s ON s.ctid = w.place WHERE w.many > 1) AS d WHERE turn > 1"
    ).format(
        keys=keys,
        order=sql.SQL(", ").join([*columns[: len(first)], text]),
        keyed=_keyed(alike, demands.rows, sql.SQL(", {} AS place").format(_PLACE)),
        known=known,
        still=still,
        side=side,
    )


def _standing(key: str, others: Others, table: TablePlan) -> sql.Composable | None:
    """What stands after FROM for the rows that are in a table already and stay as they are; None where there are none."""
    relation = table_name(table.target_schema, table.target_table)
    if table.upsert:
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{0} = s.{0}").format(sql.Identifier(c)) for c in table.existing_key
        )
        return sql.SQL("(SELECT * FROM {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {}))").format(
            relation, landing(key, table), same
        )
    if table.mode is TableMode.APPEND:
        return relation
    _, ranges = others.get((table.target_schema, table.target_table), (table, ()))
    if table.mode is TableMode.UPDATE and table.chunk_key is not None:
        return untouched(relation, table.chunk_key, ranges)
    return None


def _orphans(key: str, table: TablePlan, demands: Demands, refers: Refers, others: Others) -> sql.Composed:
    """Rows that refer to what is neither there, and stays, nor comes."""
    relation = table_name(*refers.parent)
    parent = others[refers.parent][0] if refers.parent in others else None
    if parent is None or (parent.beside and not table.beside):
        there: list[sql.Composable] = [relation]  # all that will be in it is there by now
    else:
        itself = refers.parent == (table.target_schema, table.target_table)
        still = _STILL.format(_KEPT, sql.SQL("s.ctid")) if itself else sql.SQL("true")
        coming = sql.SQL("(SELECT s.* FROM ONLY {} AS s WHERE {})").format(landing(key, parent), still)
        standing = _standing(key, others, parent)
        there = [coming] if standing is None else [standing, coming]
    pairs = list(zip(refers.columns, refers.there, strict=True))
    same = sql.SQL(" AND ").join(
        sql.SQL("p.{} = c.{}").format(sql.Identifier(b), sql.Identifier(a)) for a, b in pairs
    )
    missing = [sql.SQL("NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(one, same) for one in there]
    known = [sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(c)) for c in refers.columns]
    return sql.SQL("SELECT c.{place} AS place FROM (SELECT * FROM {rows}) AS c WHERE {still} AND {condition}").format(
        place=_PLACE, rows=demands.rows, still=_STILL.format(_KEPT, sql.SQL("c.{}").format(_PLACE)),
        condition=sql.SQL(" AND ").join([*known, *missing]),
    )  # fmt: skip


# What becomes of them


def rows(db: Session, key: str, table: TablePlan) -> Iterator[BadRow]:
    """The refused rows, with the values that would have been loaded as the target spells them."""
    side = landing(key, table)
    sources = {c.target: c.source if c.carrier != RULED else c.target for c in table.columns}
    shown = _shown(table)
    texts = sql.SQL("").join(sql.SQL(", s.{}::text").format(sql.Identifier(c)) for c in sources)
    query = sql.SQL(
        'SELECT x."column", x.reason{texts} FROM {kept} AS x JOIN ONLY {side} AS s ON s.ctid = x.place ORDER BY x.place'
    ).format(texts=texts, kept=_KEPT, side=side)
    for number, (column, reason, *values) in enumerate(db.cursor().stream(query)):
        row = dict(zip(sources.values(), values, strict=True))
        place = {sources[c]: row[sources[c]] for c in shown}
        yield BadRow.of(str(number), place, sources.get(column), reason, row)


def _shown(table: TablePlan) -> list[str]:
    """Columns that tell a person which row it is."""
    carried = [c.target for c in table.columns]
    primary = table.definition.primary_key if table.definition else None
    key = primary.columns if primary else table.existing_key
    return [c for c in key if c in carried] or carried[:_MOST_SHOWN]


def take_out(db: Session, key: str, table: TablePlan) -> None:
    """Delete the refused rows from where they were loaded to; nothing refers to them yet."""
    db.execute(sql.SQL("DELETE FROM ONLY {} WHERE {}").format(landing(key, table), PLACES))


# And back


AGAIN = sql.Identifier("pg_temp", "jivs_again")


def create_again(table: TablePlan) -> sql.Composed:
    """Where rows are put that are tried again, in the types that they were loaded in."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c.target), raw(c.target_type)) for c in table.columns
    )
    return sql.SQL("CREATE TEMP TABLE jivs_again ({}) ON COMMIT DROP").format(columns)


def insert_again(key: str, table: TablePlan) -> Iterator[sql.SQL | sql.Composed]:
    """Into the table, past its triggers as a load; those that are appended beside it as well, for a rollback."""
    relation = table_name(table.target_schema, table.target_table)
    listed = names(c.target for c in table.columns)
    yield from quiet_triggers([relation])
    for place in (relation, *([landing(key, table)] if table.mode is TableMode.APPEND else [])):
        overriding = sql.SQL(" OVERRIDING SYSTEM VALUE") if place is relation else sql.SQL("")
        yield sql.SQL("INSERT INTO {} ({}){} SELECT {} FROM {}").format(
            place, listed, overriding, listed, AGAIN
        )
    yield from wake_triggers()
