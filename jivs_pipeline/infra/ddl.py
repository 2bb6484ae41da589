"""The catalog changes that a plan asks of a target, as steps of composed SQL.

What belongs here: turning a `TablePlan` into statements. What does not: running them (`infra/target.py`,
fenced and in the ledger) and deciding what is carried (`engine/planning.py`).

Identifiers go through `psycopg.sql.Identifier` only. Types, defaults and expressions are PostgreSQL
text from a catalog or a checked spec and are put in as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, cast

from psycopg import sql

from jivs_pipeline.core.model import Check, Column, ForeignKey, Index, IndexPart, Key, Table
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import TableMode, TablePlan, Wire

__all__ = [
    "LEDGER",
    "Step",
    "analyze",
    "build_indexes",
    "build_keys",
    "build_references",
    "copy_statement",
    "create",
    "describe",
    "landing",
    "merge",
    "number",
]

LEDGER = "jivs_ledger"


@dataclass(frozen=True, slots=True)
class Step:
    """One catalog change: its statements commit together with its row in the ledger.

    Attributes:
        table: `schema.table` of the target it belongs to, or `*`.
        name: unique per table; a step that the ledger has is never done again.
        undo: what a rollback does about it.
    """

    table: str
    name: str
    statements: tuple[sql.SQL | sql.Composed, ...]
    undo: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _raw(text: str) -> sql.SQL:
    """SQL that a catalog or a checked spec gave us as text."""
    return sql.SQL(cast("LiteralString", text))


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _table(schema: str, name: str) -> sql.Identifier:
    return sql.Identifier(schema, name)


def _side_name(key: str, table: TablePlan, what: str) -> str:
    return f"{what}_{short_hash(key, table.target)}"


def landing(key: str, table: TablePlan) -> sql.Identifier:
    """Where the chunks are copied to: the table itself, or beside it when it existed before."""
    if table.mode in {TableMode.TRUNCATE, TableMode.APPEND}:
        return _table(LEDGER, _side_name(key, table, "side"))
    return _table(table.target_schema, table.target_table)


def kept(key: str, table: TablePlan) -> sql.Identifier:
    """Where the rows (truncate) or the table (replace) of before are kept, so that a rollback can bring them back.

    A replaced table gets a schema of its own: its indexes and sequences move along under their names.
    """
    if table.mode is TableMode.REPLACE:
        return _table(_kept_schema(key, table), table.target_table)
    return _table(LEDGER, _side_name(key, table, "kept"))


def _kept_schema(key: str, table: TablePlan) -> str:
    return _side_name(key, table, "jivs_kept")


def copy_statement(key: str, table: TablePlan) -> sql.Composed:
    """COPY … FROM STDIN into the landing table."""
    options = {
        Wire.BINARY: sql.SQL("FORMAT binary"),
        Wire.TEXT: sql.SQL("FORMAT text, ENCODING 'UTF8'"),
        Wire.CSV: sql.SQL("FORMAT csv, ENCODING 'UTF8'"),
    }[table.wire]
    columns = (
        sql.SQL("({})").format(_names(c.target for c in table.columns)) if table.columns else sql.SQL("")
    )
    return sql.SQL("COPY {} {} FROM STDIN ({})").format(landing(key, table), columns, options)


# Before the load


def create(key: str, table: TablePlan) -> list[Step]:
    """Steps that make the landing table; a table that is replaced is set aside first."""
    steps: list[Step] = []
    name = _table(table.target_schema, table.target_table)
    if table.mode in {TableMode.TRUNCATE, TableMode.APPEND}:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(c.target), _raw(c.target_type)) for c in table.columns
        )
        side = landing(key, table)
        return [
            Step(
                table.target,
                "side",
                (sql.SQL("CREATE TABLE {} ({})").format(side, columns),),
                {"drop_side": True},
            )
        ]
    if table.mode is TableMode.REPLACE:
        schema = sql.Identifier(_kept_schema(key, table))
        statements = (
            sql.SQL("CREATE SCHEMA {}").format(schema),
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(name, schema),
        )
        steps.append(Step(table.target, "set aside", statements, {"restore": _kept_schema(key, table)}))
    steps.append(Step(table.target, "create", tuple(_create_statements(table)), {"drop": True}))
    return steps


def _create_statements(table: TablePlan) -> Iterable[sql.SQL | sql.Composed]:
    definition = table.definition
    carried = {c.target: c for c in table.columns}
    columns = definition.columns if definition else ()
    parts: list[sql.Composable] = []
    sequences: list[tuple[Column, str]] = []
    for column in columns:
        planned = carried.get(column.name)
        parts.append(_column(column, planned.target_type if planned else column.type))
        if column.identity and column.identity.sequence:
            sequences.append((column, column.identity.sequence))
    kind = sql.SQL("UNLOGGED ") if definition and definition.unlogged else sql.SQL("")
    name = _table(table.target_schema, table.target_table)
    yield sql.SQL("CREATE {}TABLE {} ({})").format(kind, name, sql.SQL(", ").join(parts))
    for column, sequence in sequences:
        qualified = _table(table.target_schema, sequence)
        planned_type = carried[column.name].target_type if column.name in carried else "bigint"
        yield sql.SQL("CREATE SEQUENCE {} AS {} {}").format(
            qualified, _raw(planned_type), _sequence_options(column)
        )
        yield sql.SQL("ALTER SEQUENCE {} OWNED BY {}").format(
            qualified, sql.Identifier(table.target_schema, table.target_table, column.name)
        )
        literal = sql.Literal(qualified.as_string())
        yield sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET DEFAULT nextval({}::regclass)").format(
            name, sql.Identifier(column.name), literal
        )


def _sequence_options(column: Column) -> sql.Composed:
    identity = column.identity
    if identity is None:
        return sql.Composed([])
    parts: list[sql.Composable] = [
        sql.SQL("START WITH {} INCREMENT BY {} CACHE {}").format(
            sql.Literal(identity.start), sql.Literal(identity.increment), sql.Literal(identity.cache)
        )
    ]
    if identity.minimum is not None:
        parts.append(sql.SQL("MINVALUE {}").format(sql.Literal(identity.minimum)))
    if identity.maximum is not None:
        parts.append(sql.SQL("MAXVALUE {}").format(sql.Literal(identity.maximum)))
    if identity.cycle:
        parts.append(sql.SQL("CYCLE"))
    return sql.SQL(" ").join(parts)


def _column(column: Column, type_: str) -> sql.Composed:
    parts: list[sql.Composable] = [sql.Identifier(column.name), _raw(type_)]
    if column.collation:
        parts.append(sql.SQL("COLLATE ") + _raw(column.collation))
    if column.generated is not None:
        parts.append(sql.SQL("GENERATED ALWAYS AS ({}) STORED").format(_raw(column.generated)))
    elif column.identity is not None and not column.identity.sequence:
        when = sql.SQL("ALWAYS" if column.identity.always else "BY DEFAULT")
        parts.append(sql.SQL("GENERATED {} AS IDENTITY ({})").format(when, _sequence_options(column)))
    elif column.default is not None and column.identity is None:
        parts.append(sql.SQL("DEFAULT ") + _raw(column.default))
    if not column.nullable:
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


# After the load


def merge(key: str, tables: Sequence[TablePlan]) -> list[Step]:
    """One step that moves side tables into the tables that existed before, in the given order.

    One transaction for all: readers of the target see everything or nothing, and foreign keys among
    the tables hold at every statement when the order is parents first.
    """
    emptied = [t for t in tables if t.mode is TableMode.TRUNCATE]
    beside = [t for t in tables if t.mode in {TableMode.TRUNCATE, TableMode.APPEND}]
    if not beside:
        return []
    statements: list[sql.SQL | sql.Composed] = []
    for table in emptied:
        name = _table(table.target_schema, table.target_table)
        statements.append(sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept(key, table), name))
    if emptied:
        statements.append(
            sql.SQL("TRUNCATE {}").format(
                sql.SQL(", ").join(_table(t.target_schema, t.target_table) for t in emptied)
            )
        )
    for table in beside:
        name, columns = (
            _table(table.target_schema, table.target_table),
            _names(c.target for c in table.columns),
        )
        # Triggers of the user's would change or double the rows; DISABLE TRIGGER is part of this transaction.
        # ENABLE TRIGGER USER would also wake those that were asleep before, hence the list of those that were not.
        statements += [
            sql.SQL(
                "SELECT set_config('jivs.triggers', coalesce(string_agg(format('ALTER TABLE %s ENABLE %sTRIGGER %I',"
                " {name}, CASE tgenabled WHEN 'A' THEN 'ALWAYS ' WHEN 'R' THEN 'REPLICA ' ELSE '' END, tgname), '; '),"
                " 'RESET jivs.triggers'), true)"
                " FROM pg_trigger WHERE tgrelid = {name}::regclass AND NOT tgisinternal AND tgenabled <> 'D'"
            ).format(name=sql.Literal(name.as_string())),
            sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name),
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                name, columns, columns, landing(key, table)
            ),
            sql.SQL("DO 'BEGIN EXECUTE current_setting(''jivs.triggers''); END'"),
        ]
    # What was appended is needed to take it away again; what was emptied is kept beside it.
    statements += [sql.SQL("DROP TABLE {}").format(landing(key, table)) for table in emptied]
    return [Step("*", "merge", tuple(statements), {"merged": [t.target for t in beside]})]


def _alter(table: TablePlan, name: str | None, rest: sql.Composable) -> sql.Composed:
    constraint = sql.SQL("CONSTRAINT {} ").format(sql.Identifier(name)) if name else sql.SQL("")
    return sql.SQL("ALTER TABLE {} ADD {}{}").format(
        _table(table.target_schema, table.target_table), constraint, rest
    )


def _deferral(key: Key | ForeignKey) -> sql.SQL:
    if not key.deferrable:
        return sql.SQL("")
    return sql.SQL(" DEFERRABLE INITIALLY DEFERRED" if key.initially_deferred else " DEFERRABLE")


def _key_clause(key: Key, kind: LiteralString) -> sql.Composed:
    distinct = sql.SQL(" NULLS NOT DISTINCT" if key.nulls_not_distinct else "")
    include = sql.SQL(" INCLUDE ({})").format(_names(key.include)) if key.include else sql.SQL("")
    return sql.SQL("{}{} ({}){}{}").format(
        sql.SQL(kind), distinct, _names(key.columns), include, _deferral(key)
    )


def build_keys(table: TablePlan) -> list[Step]:
    """Primary and unique keys."""
    definition = table.definition
    if definition is None:
        return []
    steps: list[Step] = []
    if definition.primary_key:
        clause = _key_clause(definition.primary_key, "PRIMARY KEY")
        steps.append(Step(table.target, "primary key", (_alter(table, definition.primary_key.name, clause),)))
    for position, key in enumerate(definition.unique_keys):
        label = f"unique {key.name or position}"
        steps.append(Step(table.target, label, (_alter(table, key.name, _key_clause(key, "UNIQUE")),)))
    return steps


def build_indexes(table: TablePlan) -> list[Step]:
    """Plain and unique indexes, and checks: everything that needs the rows but no other table."""
    definition = table.definition
    if definition is None:
        return []
    steps = [Step(table.target, f"index {i.name}", (_index(table, i),)) for i in definition.indexes]
    steps += [
        Step(table.target, f"check {c.name or position}", (_check(table, c),))
        for position, c in enumerate(definition.checks)
    ]
    return steps


def _check(table: TablePlan, check: Check) -> sql.Composed:
    suffix = sql.SQL((" NO INHERIT" if check.no_inherit else "") + ("" if check.valid else " NOT VALID"))
    return _alter(table, check.name, sql.SQL("CHECK ({}){}").format(_raw(check.expression), suffix))


def _index_part(part: IndexPart) -> sql.Composed:
    body = (
        sql.Identifier(part.column)
        if part.column is not None
        else sql.SQL("({})").format(_raw(part.expression or ""))
    )
    pieces: list[sql.Composable] = [body]
    if part.collation:
        pieces.append(sql.SQL("COLLATE ") + _raw(part.collation))
    if part.opclass:
        pieces.append(_raw(part.opclass))
    if part.descending:
        pieces.append(sql.SQL("DESC"))
    if part.nulls_first is not None:
        pieces.append(sql.SQL("NULLS FIRST" if part.nulls_first else "NULLS LAST"))
    return sql.SQL(" ").join(pieces)


def _index(table: TablePlan, index: Index) -> sql.Composed:
    parts: list[sql.Composable] = [
        sql.SQL("CREATE {}INDEX {} ON {} USING {} ({})").format(
            sql.SQL("UNIQUE " if index.unique else ""),
            sql.Identifier(index.name),
            _table(table.target_schema, table.target_table),
            sql.Identifier(index.method),
            sql.SQL(", ").join(map(_index_part, index.parts)),
        )
    ]
    if index.include:
        parts.append(sql.SQL("INCLUDE ({})").format(_names(index.include)))
    if index.nulls_not_distinct:
        parts.append(sql.SQL("NULLS NOT DISTINCT"))
    if index.with_options:
        parts.append(sql.SQL("WITH ({})").format(sql.SQL(", ").join(map(_raw, index.with_options))))
    if index.predicate:
        parts.append(sql.SQL("WHERE ({})").format(_raw(index.predicate)))
    return sql.SQL(" ").join(parts)


def build_references(table: TablePlan) -> list[Step]:
    """Foreign keys: made without a scan, then validated, so that no key is believed unchecked."""
    definition = table.definition
    if definition is None:
        return []
    steps: list[Step] = []
    for position, key in enumerate(definition.foreign_keys):
        name = key.name or _reference_name(definition, key, position)
        statements: list[sql.SQL | sql.Composed] = [
            _alter(table, name, _reference(key) + sql.SQL(" NOT VALID"))
        ]
        if key.valid:
            statements.append(
                sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                    _table(table.target_schema, table.target_table), sql.Identifier(name)
                )
            )
        steps.append(Step(table.target, f"foreign key {name}", tuple(statements)))
    return steps


def _reference_name(definition: Table, key: ForeignKey, position: int) -> str:
    name = f"{definition.name}_{'_'.join(key.columns)}_fkey"
    taken = {k.name for k in definition.foreign_keys}
    if (
        name in taken
        or len(name.encode()) > 63
        or [k.columns for k in definition.foreign_keys].count(key.columns) > 1
    ):
        return f"{short_hash(definition.name, *key.columns)}_{position}_fkey"
    return name


def _reference(key: ForeignKey) -> sql.Composed:
    return sql.SQL("FOREIGN KEY ({}) REFERENCES {} ({}){} ON DELETE {} ON UPDATE {}{}").format(
        _names(key.columns),
        _table(key.target_schema, key.target_table),
        _names(key.target_columns),
        sql.SQL(" MATCH FULL" if key.match_full else ""),
        _raw(key.on_delete),
        _raw(key.on_update),
        _deferral(key),
    )


def number(table: TablePlan, next_values: Mapping[str, int]) -> list[Step]:
    """Self-numbering columns go on where the source would, and never inside what is there."""
    statements: list[sql.SQL | sql.Composed] = []
    name = _table(table.target_schema, table.target_table)
    for column in table.definition.columns if table.definition else ():
        if column.identity is None or (value := next_values.get(column.name)) is None:
            continue
        up = column.identity.increment > 0
        # Rows that were there before may be gone again, and their numbers must not come back.
        past = (
            sql.SQL(", pg_sequence_last_value(s.seqrelid)::numeric + s.seqincrement")
            if table.mode is TableMode.APPEND
            else sql.SQL("")
        )
        # In numeric, because one after the largest bigint is no bigint; a used-up sequence is left at its end.
        statements.append(
            sql.SQL(
                "SELECT setval(s.seqrelid, greatest(least(n.next, s.seqmax), s.seqmin)::bigint, n.next {beyond})"
                " FROM pg_sequence s, (SELECT {edge}({column})::numeric AS edge FROM {table}) t,"
                " LATERAL (SELECT {pick}(CASE WHEN t.edge {taken} {value}::numeric THEN t.edge + s.seqincrement"
                " ELSE {value}::numeric END{past}) AS next) n"
                " WHERE s.seqrelid = pg_get_serial_sequence({name}, {label})::regclass"
            ).format(
                beyond=sql.SQL("> s.seqmax" if up else "< s.seqmin"),
                taken=sql.SQL(">=" if up else "<="),
                pick=sql.SQL("greatest" if up else "least"),
                edge=sql.SQL("max" if up else "min"),
                past=past,
                value=sql.Literal(value),
                column=sql.Identifier(column.name),
                table=name,
                name=sql.Literal(name.as_string()),
                label=sql.Literal(column.name),
            )
        )
    return [Step(table.target, "numbering", tuple(statements))] if statements else []


def describe(table: TablePlan) -> list[Step]:
    """Comments of the table and its columns."""
    definition = table.definition
    if definition is None:
        return []
    name = _table(table.target_schema, table.target_table)
    statements: list[sql.SQL | sql.Composed] = []
    if definition.comment:
        statements.append(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, sql.Literal(definition.comment)))
    statements += [
        sql.SQL("COMMENT ON COLUMN {} IS {}").format(
            sql.Identifier(table.target_schema, table.target_table, c.name), sql.Literal(c.comment)
        )
        for c in definition.columns
        if c.comment
    ]
    statements += [
        sql.SQL("COMMENT ON INDEX {} IS {}").format(
            _table(table.target_schema, i.name), sql.Literal(i.comment)
        )
        for i in definition.indexes
        if i.comment
    ]
    keys = [definition.primary_key, *definition.unique_keys, *definition.foreign_keys]
    statements += [
        sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
            sql.Identifier(k.name), name, sql.Literal(k.comment)
        )
        for k in keys
        if k and k.name and k.comment
    ]
    return [Step(table.target, "comments", tuple(statements))] if statements else []


def analyze(table: TablePlan) -> list[Step]:
    """Statistics for the planner of the target."""
    name = _table(table.target_schema, table.target_table)
    return [Step(table.target, "analyze", (sql.SQL("ANALYZE {}").format(name),))]
