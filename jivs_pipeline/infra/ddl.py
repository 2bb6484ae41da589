"""The catalog changes that a plan asks of a target, as steps of composed SQL.

What belongs here: turning a `TablePlan` into statements. What does not: running them (`infra/target.py`,
fenced and in the ledger) and deciding what is carried (`engine/planning.py`).

Identifiers go through `psycopg.sql.Identifier` only. Types, defaults and expressions are PostgreSQL
text from a catalog or a checked spec and are put in as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import LiteralString

from psycopg import sql

from jivs_pipeline.core.model import Check, Column, ForeignKey, Index, IndexPart, Key, Table
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import ObjectPlan, TableMode, TablePlan, Wire
from jivs_pipeline.infra.merge import merge, side
from jivs_pipeline.infra.steps import (
    LEDGER,
    Step,
    beside,
    kept_schema,
    landing,
    names,
    raw,
    table_name,
)

__all__ = [
    "LEDGER",
    "Step",
    "analyze",
    "build_checks",
    "build_indexes",
    "build_keys",
    "build_references",
    "check_references",
    "copy_into",
    "copy_statement",
    "create",
    "describe",
    "landing",
    "make_objects",
    "merge",
    "number",
    "stand",
]


def make_objects(schema: str, objects: Iterable[ObjectPlan]) -> list[Step]:
    """Types, functions, views and so on, in their order."""
    return [
        Step(
            beside(schema),
            made.label,
            tuple(raw(statement) for statement in made.statements),
            {"object": made.drop, "before": made.before},
            path=schema,
        )
        for made in objects
    ]


def stand(schema: str, sequences: Iterable[tuple[str, int, bool]]) -> list[Step]:
    """Sequences of their own go on where the source's would, and never inside what a column has.

    `sequences`: SQL for the name, the last number, and whether it was given out.
    """
    # As in `number`, what is set stays when the transaction does not commit, and doing it again changes nothing.
    statement = sql.SQL(
        "SELECT setval(s.seqrelid, {last}, {called}) FROM pg_sequence s WHERE s.seqrelid = {name}::regclass"
        " AND coalesce(CASE WHEN s.seqincrement > 0 THEN {last} > pg_sequence_last_value(s.seqrelid)"
        " ELSE {last} < pg_sequence_last_value(s.seqrelid) END, true)"
    )
    statements = tuple(
        statement.format(name=raw(name), last=sql.Literal(last), called=sql.Literal(called))
        for name, last, called in sequences
    )
    # Undone with the sequences; it is an object's, so that it is done anew when they are.
    undo = {"object": "", "before": False}
    return [Step(beside(schema), "where sequences stand", statements, undo, path=schema)]


def _path(table: TablePlan) -> str | None:
    return table.target_schema if table.definition and table.definition.uses_objects else None


def copy_statement(key: str, table: TablePlan) -> sql.Composed:
    """COPY … FROM STDIN into the landing table."""
    return copy_into(landing(key, table), table)


def copy_into(place: sql.Identifier, table: TablePlan) -> sql.Composed:
    """COPY … FROM STDIN of the plan's columns."""
    options = {
        Wire.BINARY: sql.SQL("FORMAT binary"),
        Wire.TEXT: sql.SQL("FORMAT text, ENCODING 'UTF8'"),
        Wire.CSV: sql.SQL("FORMAT csv, ENCODING 'UTF8'"),
    }[table.wire]
    columns = sql.SQL("({})").format(names(c.target for c in table.columns)) if table.columns else sql.SQL("")
    return sql.SQL("COPY {} {} FROM STDIN ({})").format(place, columns, options)


# Before the load


def create(key: str, table: TablePlan) -> list[Step]:
    """Steps that make the landing table; a table that is replaced is set aside first."""
    steps: list[Step] = []
    name = table_name(table.target_schema, table.target_table)
    if table.beside:
        return [side(key, table)]
    if table.large_objects_of is not None:
        return [Step(table.target, "create", (), {"large_objects": True})]
    if table.mode is TableMode.REPLACE:
        schema = sql.Identifier(kept_schema(key, table))
        statements = (
            sql.SQL("CREATE SCHEMA {}").format(schema),
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(name, schema),
        )
        steps.append(Step(table.target, "set aside", statements, {"restore": kept_schema(key, table)}))
    steps.append(Step(table.target, "create", tuple(_create_statements(table)), {"drop": True}, _path(table)))
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
    name = table_name(table.target_schema, table.target_table)
    yield sql.SQL("CREATE {}TABLE {} ({})").format(kind, name, sql.SQL(", ").join(parts))
    for setting in definition.settings if definition else ():
        yield sql.SQL("ALTER TABLE {} {}").format(name, raw(setting))
    for column in columns:
        for setting in column.settings:
            alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}")
            yield alter.format(name, sql.Identifier(column.name), raw(setting))
    for column, sequence in sequences:
        qualified = table_name(table.target_schema, sequence)
        planned_type = carried[column.name].target_type if column.name in carried else "bigint"
        yield sql.SQL("CREATE SEQUENCE {} AS {} {}").format(
            qualified, raw(planned_type), _sequence_options(column)
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
    parts: list[sql.Composable] = [sql.Identifier(column.name), raw(type_)]
    if column.collation:
        parts.append(sql.SQL("COLLATE ") + raw(column.collation))
    if column.generated is not None:
        parts.append(sql.SQL("GENERATED ALWAYS AS ({}) STORED").format(raw(column.generated)))
    elif column.identity is not None and not column.identity.sequence:
        when = sql.SQL("ALWAYS" if column.identity.always else "BY DEFAULT")
        parts.append(sql.SQL("GENERATED {} AS IDENTITY ({})").format(when, _sequence_options(column)))
    elif column.default is not None and column.identity is None:
        parts.append(sql.SQL("DEFAULT ") + raw(column.default))
    if not column.nullable:
        if column.required_by is not None:
            parts.append(sql.SQL("CONSTRAINT {}").format(sql.Identifier(column.required_by)))
        parts.append(sql.SQL("NOT NULL"))
    return sql.SQL(" ").join(parts)


# After the load


def _alter(table: TablePlan, name: str | None, rest: sql.Composable) -> sql.Composed:
    constraint = sql.SQL("CONSTRAINT {} ").format(sql.Identifier(name)) if name else sql.SQL("")
    return sql.SQL("ALTER TABLE {} ADD {}{}").format(
        table_name(table.target_schema, table.target_table), constraint, rest
    )


def _deferral(key: Key | ForeignKey) -> sql.SQL:
    if not key.deferrable:
        return sql.SQL("")
    return sql.SQL(" DEFERRABLE INITIALLY DEFERRED" if key.initially_deferred else " DEFERRABLE")


def _key_clause(key: Key, kind: LiteralString) -> sql.Composed:
    distinct = sql.SQL(" NULLS NOT DISTINCT" if key.nulls_not_distinct else "")
    include = sql.SQL(" INCLUDE ({})").format(names(key.include)) if key.include else sql.SQL("")
    return sql.SQL("{}{} ({}){}{}").format(
        sql.SQL(kind), distinct, names(key.columns), include, _deferral(key)
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
    """Plain and unique indexes. They may be built side by side, also those of one table."""
    definition = table.definition
    if definition is None:
        return []
    path = _path(table)
    return [Step(table.target, f"index {i.name}", (_index(table, i),), path=path) for i in definition.indexes]


def build_checks(table: TablePlan) -> list[Step]:
    """Checks: each keeps everybody else away from the table."""
    definition = table.definition
    if definition is None:
        return []
    path = _path(table)
    return [
        Step(table.target, f"check {c.name or position}", (_check(table, c),), path=path)
        for position, c in enumerate(definition.checks)
    ]


def _check(table: TablePlan, check: Check) -> sql.Composed:
    suffix = sql.SQL((" NO INHERIT" if check.no_inherit else "") + ("" if check.valid else " NOT VALID"))
    return _alter(table, check.name, sql.SQL("CHECK ({}){}").format(raw(check.expression), suffix))


def _index_part(part: IndexPart) -> sql.Composed:
    body = (
        sql.Identifier(part.column)
        if part.column is not None
        else sql.SQL("({})").format(raw(part.expression or ""))
    )
    pieces: list[sql.Composable] = [body]
    if part.collation:
        pieces.append(sql.SQL("COLLATE ") + raw(part.collation))
    if part.opclass:
        pieces.append(raw(part.opclass))
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
            table_name(table.target_schema, table.target_table),
            sql.Identifier(index.method),
            sql.SQL(", ").join(map(_index_part, index.parts)),
        )
    ]
    if index.include:
        parts.append(sql.SQL("INCLUDE ({})").format(names(index.include)))
    if index.nulls_not_distinct:
        parts.append(sql.SQL("NULLS NOT DISTINCT"))
    if index.with_options:
        parts.append(sql.SQL("WITH ({})").format(sql.SQL(", ").join(map(raw, index.with_options))))
    if index.predicate:
        parts.append(sql.SQL("WHERE ({})").format(raw(index.predicate)))
    return sql.SQL(" ").join(parts)


def build_references(table: TablePlan) -> list[Step]:
    """Foreign keys, made without a scan; while one is made, it keeps writers away from both its tables."""
    return [
        Step(
            table.target,
            f"foreign key {name}",
            (_alter(table, name, _reference(key) + sql.SQL(" NOT VALID")),),
        )
        for name, key in _references(table)
    ]


def check_references(table: TablePlan) -> list[Step]:
    """The same checked, so that none is believed unchecked; while one is, others of its table wait."""
    statement = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
    name = table_name(table.target_schema, table.target_table)
    return [
        Step(table.target, f"checking foreign key {label}", (statement.format(name, sql.Identifier(label)),))
        for label, key in _references(table)
        if key.valid
    ]


def _references(table: TablePlan) -> Iterator[tuple[str, ForeignKey]]:
    """Foreign keys with their names."""
    if (definition := table.definition) is None:
        return
    for position, key in enumerate(definition.foreign_keys):
        yield key.name or _reference_name(definition, key, position), key


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
        names(key.columns),
        table_name(key.target_schema, key.target_table),
        names(key.target_columns),
        sql.SQL(" MATCH FULL" if key.match_full else ""),
        raw(key.on_delete),
        raw(key.on_update),
        _deferral(key),
    )


def number(table: TablePlan, next_values: Mapping[str, int]) -> list[Step]:
    """Self-numbering columns go on where the source would, and never inside what is there."""
    statements: list[sql.SQL | sql.Composed] = []
    name = table_name(table.target_schema, table.target_table)
    for column in table.definition.columns if table.definition else ():
        if column.numbers_from is not None:
            statements += _lift(name, column, table_name(table.target_schema, column.numbers_from))
        if column.identity is None or (value := next_values.get(column.name)) is None:
            continue
        up = column.identity.increment > 0
        # Rows that were there before may be gone again, and their numbers must not come back.
        past = (
            sql.SQL(", pg_sequence_last_value(s.seqrelid)::numeric + s.seqincrement")
            if table.mode is TableMode.APPEND
            else sql.SQL("")
        )
        # In numeric, because one after the largest bigint is no bigint; a used-up sequence is left at its end. What is set
        # stays when the transaction does not commit, and the next attempt looks at it: so it is a number that counts as
        # given out, wherever there is one before the next.
        statements.append(
            sql.SQL(
                "SELECT CASE WHEN n.next - s.seqincrement BETWEEN s.seqmin AND s.seqmax"
                " THEN setval(s.seqrelid, (n.next - s.seqincrement)::bigint, true)"
                " ELSE setval(s.seqrelid, greatest(least(n.next, s.seqmax), s.seqmin)::bigint, n.next {beyond}) END"
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


def _lift(table: sql.Identifier, column: Column, sequence: sql.Identifier) -> list[sql.Composed]:
    """A sequence of several columns stands beyond the numbers of this one, too."""
    label = sql.Literal(sequence.as_string())
    # Two tables at once must not both look at the same number.
    alone = sql.SQL(
        "SELECT pg_advisory_xact_lock('pg_sequence'::regclass::int, to_regclass({})::int)"
    ).format(label)
    lift = sql.SQL(
        "SELECT setval(s.seqrelid, t.edge, true) FROM pg_sequence s, LATERAL (SELECT CASE WHEN s.seqincrement > 0"
        " THEN max({column}) ELSE min({column}) END::bigint AS edge FROM {table}) t WHERE s.seqrelid = to_regclass({label})"
        " AND t.edge BETWEEN s.seqmin AND s.seqmax AND CASE WHEN s.seqincrement > 0"
        " THEN t.edge > coalesce(pg_sequence_last_value(s.seqrelid), s.seqmin - 1::numeric)"
        " ELSE t.edge < coalesce(pg_sequence_last_value(s.seqrelid), s.seqmax + 1::numeric) END"
    )
    return [alone, lift.format(column=sql.Identifier(column.name), table=table, label=label)]


def describe(table: TablePlan) -> list[Step]:
    """Comments of the table and its columns."""
    definition = table.definition
    if definition is None:
        return []
    name = table_name(table.target_schema, table.target_table)
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
            table_name(table.target_schema, i.name), sql.Literal(i.comment)
        )
        for i in definition.indexes
        if i.comment
    ]
    keys = [
        definition.primary_key,
        *definition.unique_keys,
        *definition.foreign_keys,
        *definition.checks,
    ]
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
    name = table_name(table.target_schema, table.target_table)
    return [Step(table.target, "analyze", (sql.SQL("ANALYZE {}").format(name),))]
