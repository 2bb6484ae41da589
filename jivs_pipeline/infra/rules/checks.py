"""Validations: from the spec's words to SQL, and which rows do not pass.

What belongs here: single rows, and sets of them (alike, without a parent). What does not: counting, deciding and
keeping (`engine/validate.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.errors import DataError, SpecError
from jivs_pipeline.core.file_types import CSV_TYPES, target_type
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import RULED, Check, ColumnPlan, TablePlan
from jivs_pipeline.core.spec import ValidationRule
from jivs_pipeline.infra.rules.duck import (
    as_arrow,
    calculator,
    columns_of,
    first_line,
    kind_of,
    quoted,
    seen_type,
)
from jivs_pipeline.infra.rules.statement import ROW, reading
from jivs_pipeline.infra.sources.csv_types import spelled, speller

__all__ = ["Checker", "alike", "compile_checks", "orphans"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Batches = Iterable[tuple[int, pa.RecordBatch]]
"""Batches of a table as it will be loaded, each with its chunk's index, those of a chunk in their order."""
Place = tuple[int, int]
"""A row: its chunk, and its number there."""


# From the spec


def compile_checks(
    rule: ValidationRule, place: str, table: TablePlan, tables: Sequence[TablePlan]
) -> list[Check]:
    """The checks that a validation is; `constraints` and `referential` without more are those of the table itself.

    Args:
        place: the key of the spec, for sentences.
        tables: all of the migration.

    Raises:
        SpecError: it does not fit the tables.
    """
    known = {c.target: c for c in table.columns}
    if rule.kind != "schema":
        _require(rule.named, known, f"{place}: table {table.target_table}")
    base = {
        "kind": rule.kind,
        "severity": rule.severity,
        "at_least": rule.at_least,
        "quarantine": rule.quarantine,
    }

    def check(name: str = rule.label, **more: Any) -> Check:
        return Check(name=name, columns=more.pop("columns", rule.named), **base, **more)

    if rule.kind == "schema":
        return [check(broken=_shape(rule, known))]
    if rule.expression:
        used = _used(rule.expression, known, f"{place}.expression")
        fails = f"NOT coalesce(CAST(({rule.expression}) AS BOOLEAN), true)"
        return [check(columns=rule.named or used, fails=_tried(fails, known, f"{place}.expression"))]
    if rule.kind == "data_type":
        return [_typed(rule, known, name, place, check) for name in rule.named or _typeable(known)]
    if rule.kind == "format":
        _require_pattern(rule.pattern or "", f"{place}.pattern")
        column = quoted(rule.named[0])
        pattern = (rule.pattern or "").replace("'", "''")
        fails = f"{column} IS NOT NULL AND NOT regexp_full_match(CAST({column} AS VARCHAR), '{pattern}')"
        return [check(fails=_tried(fails, known, f"{place}.pattern"))]
    if rule.kind == "referential":
        return _references(rule, place, table, tables, check)
    required, keys = _own_constraints(table)
    found: list[Check] = []
    if rule.kind in {"completeness", "constraints"} and (columns := rule.named or required):
        name = rule.label if rule.kind == "completeness" else f"{rule.label}: not null"
        found.append(check(name, columns=columns, fails=" OR ".join(f"{quoted(c)} IS NULL" for c in columns)))
    if rule.kind in {"uniqueness", "constraints"}:
        own = not (rule.named and rule.kind == "uniqueness")
        found += [
            check(f"{rule.label}: key {', '.join(key)}" if own else rule.label, columns=key, alike=True)
            for key in (keys if own else [rule.named])
        ]
    if not found:
        raise SpecError(
            f"{place}: table {table.target_table} has nothing of that kind to check", hint="Name the columns"
        )
    return found


def _typeable(known: Mapping[str, ColumnPlan]) -> list[str]:
    return [name for name, column in known.items() if target_type(column.target_type)]


def _typed(rule: ValidationRule, known: Mapping[str, ColumnPlan], name: str, place: str, check: Any) -> Check:
    wanted = rule.type or known[name].target_type
    if target_type(wanted) is None:
        types = ", ".join(m.declared for m in CSV_TYPES)
        raise SpecError(f"{place}.type: {wanted!r} cannot be checked", hint=f"Known are {types}")
    # A value that is carried as it is is one of its type.
    asked = wanted if rule.type or known[name].carrier == RULED else None
    return check(rule.label if rule.named else f"{rule.label}: {name}", columns=(name,), type=asked)


def _require_pattern(pattern: str, place: str) -> None:
    import duckdb

    try:
        with calculator() as connection:
            connection.execute("SELECT regexp_full_match('', ?)", [pattern]).fetchall()
    except duckdb.Error as error:
        raise SpecError(
            f"{place} is not accepted: {first_line(error)}", hint="It is a regular expression of RE2"
        ) from None


def _require(names: Iterable[str], known: Mapping[str, object], where: str) -> None:
    for name in names:
        if name not in known:
            raise SpecError(
                f"{where} has no column {name!r}", hint=did_you_mean(name, list(known), "columns")
            )


def _shape(rule: ValidationRule, known: Mapping[str, ColumnPlan]) -> str | None:
    missing = [n for n in rule.named if n not in known]
    if missing:
        return f"there is no column {', '.join(missing)}"
    odd = [n for n in rule.named if rule.type and known[n].target_type != rule.type]
    return f"column {odd[0]} is {known[odd[0]].target_type}, not {rule.type}" if odd else None


def _used(expression: str, known: Mapping[str, ColumnPlan], place: str) -> tuple[str, ...]:
    with calculator() as connection:
        return columns_of(connection, expression, list(known), place)


def _tried(fails: str, known: Mapping[str, ColumnPlan], place: str) -> str:
    """The condition, which DuckDB understands."""
    import duckdb

    columns = ", ".join(f"CAST(NULL AS {seen_type(c)}) AS {quoted(n)}" for n, c in known.items())
    try:
        with calculator() as connection:
            connection.execute(f"SELECT {fails} FROM (SELECT {columns}) AS row").fetchall()
    except duckdb.Error as error:
        shown = ", ".join(f"{n} {seen_type(c)}" for n, c in list(known.items())[:12])
        raise SpecError(
            f"{place} is not accepted: {first_line(error)}",
            hint=f"It is DuckDB's SQL over the columns {shown}",
        ) from None
    return fails


def _own_constraints(table: TablePlan) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns that must not be NULL, and the keys, as far as they are carried."""
    definition = table.definition
    if definition is None:
        return (), []
    carried = {c.target for c in table.columns}
    required = tuple(c.name for c in definition.columns if not c.nullable and c.name in carried)
    keys = [k.columns for k in (definition.primary_key, *definition.unique_keys) if k]
    return required, [k for k in keys if carried.issuperset(k)]


def _references(
    rule: ValidationRule, place: str, table: TablePlan, tables: Sequence[TablePlan], check: Any
) -> list[Check]:
    if rule.references is None:
        keys = table.definition.foreign_keys if table.definition else ()
        known = {(t.target_schema, t.target_table): t for t in tables}
        own = [
            (k.columns, parent, k.target_columns)
            for k in keys
            if (parent := known.get((k.target_schema, k.target_table)))
        ]
        if not own:
            raise SpecError(
                f"{place}: table {table.target_table} refers to no table of this migration",
                hint="Give it references",
            )
        return [
            check(f"{rule.label}: {', '.join(c)}", columns=c, parent=(p.target, there)) for c, p, there in own
        ]
    parent = next((t for t in tables if rule.references.table in {t.target_table, t.target}), None)
    if parent is None:
        names = [t.target_table for t in tables]
        raise SpecError(
            f"{place}.references: there is no table {rule.references.table!r}",
            hint=did_you_mean(rule.references.table, names, "tables"),
        )
    _require(
        rule.references.columns,
        {c.target: c for c in parent.columns},
        f"{place}.references: table {parent.target_table}",
    )
    return [check(parent=(parent.target, rule.references.columns))]


# Single rows


class Checker:
    """The checks of one table that look at one row at a time, for one thread; ends its DuckDB with the block."""

    def __init__(self, columns: Sequence[ColumnPlan], checks: Sequence[Check]) -> None:
        self._columns = columns
        self._checks = [c for c in checks if c.fails is not None or c.type is not None]
        self._duck = calculator()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._duck.close()

    def failing(self, batch: pa.RecordBatch) -> dict[str, list[int]]:
        """Numbers of the rows that do not pass, by the name of the check.

        Raises:
            DataError: a check cannot be computed for a row.
        """
        found = {c.name: self._misfits(batch, c) for c in self._checks if c.type is not None}
        asked = [c for c in self._checks if c.fails is not None]
        if asked and batch.num_rows:
            found |= self._asked(batch, asked)
        return {name: rows for name, rows in found.items() if rows}

    def _misfits(self, batch: pa.RecordBatch, check: Check) -> list[int]:
        type_ = target_type(check.type or "")
        texts = batch.column(check.columns[0])
        if type_ is None or (spell := speller(type_)) is None:
            return []
        odd = _pc.and_(_pc.is_valid(texts), _pc.is_null(spelled(texts, spell)))
        return pa.array(range(batch.num_rows), pa.int64()).filter(odd).to_pylist()

    def _asked(self, batch: pa.RecordBatch, checks: Sequence[Check]) -> dict[str, list[int]]:
        import duckdb

        used = {n for c in checks for n in c.columns}
        places = [(n, c) for n, c in enumerate(self._columns) if c.target in used or not used]
        arrays = [pa.array(range(batch.num_rows), pa.int64()), *(batch.column(n) for n, _ in places)]
        self._duck.register("raw", pa.table(arrays, names=[ROW, *(f"r{n}" for n, _ in places)]))
        seen = "".join(f", {reading(seen_type(c), f'r{n}')} AS {quoted(c.target)}" for n, c in places)
        results = ", ".join(f"({c.fails}) AS f{n}" for n, c in enumerate(checks))
        query = f'SELECT "{ROW}", {results} FROM (SELECT "{ROW}"{seen} FROM raw) ORDER BY "{ROW}"'
        try:
            table = as_arrow(self._duck, query)
        except duckdb.Error as error:
            names = ", ".join(c.name for c in checks)
            raise DataError(
                f"A row cannot be checked ({names}): {kind_of(error)}",
                hint="Write the expression so that it can be computed for every row, with TRY or TRY_CAST",
            ) from None
        rows = table.column(ROW)
        return {
            c.name: rows.filter(_pc.fill_null(table.column(f"f{n}"), False)).to_pylist()
            for n, c in enumerate(checks)
        }


# Sets of rows


def alike(batches: Batches, columns: Sequence[str], room: Path) -> Iterator[Place]:
    """Rows that are like one before them in these columns; a NULL is like no other value."""
    known = " AND ".join(f"k{n} IS NOT NULL" for n in range(len(columns)))
    by = ", ".join(f"k{n}" for n in range(len(columns)))
    with calculator(room) as connection:
        _collect(connection, "held", batches, columns, places=True)
        yield from _places(
            connection,
            "SELECT chunk, number FROM (SELECT chunk, number, row_number() OVER"
            f" (PARTITION BY {by} ORDER BY chunk, number) AS n FROM held WHERE {known}) WHERE n > 1"
            " ORDER BY chunk, number",
        )


def orphans(
    children: Batches,
    columns: Sequence[str],
    parents: Batches,
    there: Sequence[str],
    types: Sequence[str],
    room: Path,
) -> Iterator[Place]:
    """Rows whose values are in no row of the parents; a row with a NULL needs none.

    Args:
        types: DuckDB's types in which both are compared.
    """
    known = " AND ".join(f"c.k{n} IS NOT NULL" for n in range(len(columns)))
    same = " AND ".join(f"{reading(t, f'p.k{n}')} = {reading(t, f'c.k{n}')}" for n, t in enumerate(types))
    with calculator(room) as connection:
        _collect(connection, "parents", parents, there, places=False)
        _collect(connection, "children", children, columns, places=True)
        yield from _places(
            connection,
            f"SELECT c.chunk, c.number FROM children c WHERE {known}"
            f" AND NOT EXISTS (SELECT 1 FROM parents p WHERE {same}) ORDER BY 1, 2",
        )


def _places(connection: Any, query: str) -> Iterator[Place]:
    cursor = connection.execute(query)
    while rows := cursor.fetchmany(10_000):
        yield from rows


def _collect(connection: Any, name: str, batches: Batches, columns: Sequence[str], *, places: bool) -> None:
    """Put the texts of some columns into a table of DuckDB's, with the places of their rows."""
    keys = "".join(f", k{n} VARCHAR" for n in range(len(columns)))
    connection.execute(f"CREATE TABLE {name} (chunk INTEGER, number BIGINT{keys})").fetchall()
    after: dict[int, int] = {}
    for chunk, batch in batches:
        start = after.get(chunk, 0)
        after[chunk] = start + batch.num_rows
        arrays = [
            pa.array([chunk] * batch.num_rows, pa.int32()),
            pa.array(range(start, start + batch.num_rows), pa.int64()),
            *(batch.column(c) for c in columns),
        ]
        connection.register(
            "raw", pa.table(arrays, names=["chunk", "number", *(f"k{n}" for n in range(len(columns)))])
        )
        distinct = "" if places else "DISTINCT "
        head = "chunk, number" if places else "0, 0"
        select = ", ".join(f"k{n}" for n in range(len(columns)))
        connection.execute(f"INSERT INTO {name} SELECT {distinct}{head}, {select} FROM raw").fetchall()
