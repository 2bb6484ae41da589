"""From the rules of a spec to those of a plan: checked against the columns, with the types that come out.

What belongs here: which steps a column goes through, their SQL and types. What does not: applying them (`refiner.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.errors import ConfigError, SpecError
from jivs_pipeline.core.file_types import CSV_TYPES, CsvType, csv_type, target_type
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import (
    RULED,
    ColumnPlan,
    Dedupe,
    Lane,
    Lookup,
    Made,
    Rules,
    Step,
    TablePlan,
    Wire,
)
from jivs_pipeline.core.spec import ColumnRule, LookupRule, TableRule
from jivs_pipeline.infra.rules.duck import calculator, columns_of, first_line, names_in, quoted, seen_type
from jivs_pipeline.infra.rules.masks import mask
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline.infra.rules.statement import found_in, previous, reading, text_of

__all__ = ["compile_rules"]

_GIVEN = {
    "BOOLEAN": "boolean", "TINYINT": "smallint", "UTINYINT": "smallint", "SMALLINT": "smallint", "USMALLINT": "integer",
    "INTEGER": "integer", "UINTEGER": "bigint", "BIGINT": "bigint", "UBIGINT": "numeric(20)", "HUGEINT": "numeric(39)",
    "UHUGEINT": "numeric(39)", "FLOAT": "real", "DOUBLE": "double precision", "VARCHAR": "text", "DATE": "date",
    "TIME": "time", "TIMESTAMP": "timestamp", "TIMESTAMP_S": "timestamp", "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz", "UUID": "uuid", "BLOB": "bytea", "JSON": "json",
}  # fmt: skip
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_ENDS = re.compile(r"\s+(ASC|DESC)\s*$", re.IGNORECASE)
_RESERVED = "jivs "


def compile_rules(
    table: TablePlan,
    rule: TableRule,
    others: Mapping[str, TablePlan],
    python: PythonRules,
    key_hash: str | None,
) -> TablePlan:
    """The table with the rules that change its values, and with the columns that come out of them.

    Args:
        table: as it is read, columns that are dropped included; in the arrow lane.
        others: tables of lookups, by source table, with the columns that are looked at.
        python: where functions are.
        key_hash: of the key of `mask: hmac`, None where there is none.

    Raises:
        SpecError: a rule does not fit the table.
        ConfigError: a rule needs what the environment does not have.
    """
    with calculator() as connection:
        return _Compiling(connection, table, rule, others, python, key_hash).table_plan()


@dataclass(slots=True)
class _Compiling:
    """One table's rules on their way into the plan."""

    connection: Any
    table: TablePlan
    rule: TableRule
    others: Mapping[str, TablePlan]
    python: PythonRules
    key_hash: str | None
    lookups: list[Lookup] = field(default_factory=list[Lookup])

    def table_plan(self) -> TablePlan:
        table, rule = self.table, self.rule
        by_name = {c.source: c for c in table.columns}
        if odd := next((n for n in by_name if n.casefold().startswith(_RESERVED)), None):
            raise SpecError(
                f"Rules cannot work with a column called {odd!r}", hint="Rename it in the source's view"
            )
        seen = {name: seen_type(column) for name, column in by_name.items()}
        returned: dict[str, str] = {}
        passed: dict[str, str] = {}
        if rule.python:
            used_anyhow = self._mentioned()
            passed = {n: t for n, t in seen.items() if n.casefold() in used_anyhow or not self._rule(n).drop}
            returned = self.python.returns(rule.python, passed, f"rules.{table.source_table}.python")
            if gone := next((n for n in passed if n not in returned), None):
                raise SpecError(
                    f"rules.{table.source_table}.python gives back no column {gone!r}",
                    hint="Return all columns that it was given; drop one with columns.<name>.drop",
                )
        used: dict[str, None] = {}
        types = {**seen, **returned} if rule.python else seen
        made: list[Made] = []
        columns: list[ColumnPlan] = []
        for name in [*by_name, *(n for n in (*returned, *rule.columns) if n not in by_name)]:
            change = self._rule(name)
            if change.drop or name in {c.source for c in columns}:
                continue
            if not change.changes and not rule.python:
                columns.append(_renamed(by_name[name], change))
                continue
            column, one, needs = self._made(name, by_name.get(name), change, types, len(made))
            columns.append(column)
            made.append(one)
            used.update(dict.fromkeys(needs))
        read = [c for c in table.columns if not self._rule(c.source).drop or c.source in used]
        if rule.python:
            read = [c for c in table.columns if c.source in returned and c.source in passed]
            used = dict.fromkeys(c.source for c in read)
        dedupe = self._dedupe(read, types, used)
        rules = Rules(
            read=tuple(read), wire=table.wire, seen=tuple((n, seen[n]) for n in used if n in seen),
            lookups=tuple(self.lookups), made=tuple(made), dedupe=dedupe,
            python=rule.python, returned=tuple(returned.items()),
            key_hash=self.key_hash if any(c.mask == "hmac" for c in rule.columns.values()) else None,
        )  # fmt: skip
        return table.model_copy(
            update={
                "columns": tuple(columns), "rules": rules, "lane": Lane.ARROW, "wire": Wire.CSV,
                "spelling": table.spelling.of_texts,
            }
        )  # fmt: skip

    def _rule(self, name: str) -> ColumnRule:
        return self.rule.columns.get(name, ColumnRule())

    def _mentioned(self) -> set[str]:
        """Names that expressions use, in small letters: what is dropped may be among them."""
        expressions = [c.expression for c in self.rule.columns.values() if c.expression]
        return {name.casefold() for text in expressions for name in names_in(self.connection, text)}

    def _made(
        self, name: str, column: ColumnPlan | None, change: ColumnRule, types: Mapping[str, str], number: int
    ) -> tuple[ColumnPlan, Made, Sequence[str]]:
        place = f"rules.{self.table.source_table}.columns.{name}"
        origin = name if name in types else None
        steps: list[Step] = []
        needs: list[str] = [name] if column is not None else []
        type_ = types.get(name, "NULL")

        def before() -> str:
            return previous(number, len(steps), origin)

        if change.lookup:
            lookup = self._lookup(change.lookup, name, types, f"{place}.lookup")
            needs.append(lookup.by)
            steps.append(Step(kind="lookup", sql=found_in(len(self.lookups))))
            self.lookups.append(lookup)
            type_ = lookup.type
        if change.expression:
            needs += columns_of(self.connection, change.expression, list(types), f"{place}.expression")
            type_ = self._type_of(change.expression, types, f"{place}.expression")
            steps.append(Step(kind="expression", sql=f"({change.expression})"))
        if change.default is not None:
            steps.append(
                Step(kind="default", sql=self._default(change.default, before(), type_, f"{place}.default"))
            )
        wanted = _wanted(change, place)
        result = wanted or self._result(column, change, types.get(name), type_, place)
        if wanted and not change.mask:
            steps.append(Step(kind="type", sql=text_of(type_, before())))
            type_ = "VARCHAR"
        if change.mask:
            if change.mask == "hmac" and self.key_hash is None:
                raise ConfigError(
                    f"{place}.mask: hmac needs a key",
                    hint="Set JIVS_MASK_KEY to at least 16 characters, always the same",
                )
            steps.append(Step(kind="mask", sql=mask(change.mask, text_of(type_, before()))))
            type_ = "VARCHAR"
        planned = ColumnPlan(
            source=name, target=change.rename or name, source_type=column.source_type if column else "made by a rule",
            target_type=result.target, carrier=RULED, arrow="string", canon=result.mapping.canon,
            nullable=True if change.mask == "null" else column.nullable if column else True,
            note=", ".join(f"mask {change.mask}" if s.kind == "mask" else s.kind for s in steps) or "python",
        )  # fmt: skip
        one = Made(
            target=planned.target, steps=tuple(steps), text=text_of(type_, before()),
            checked=type_ == "VARCHAR" and result.mapping.carrier != "text",
            masked=change.mask is not None, alike=change.mask in {"redact", "null"},
            required=not planned.nullable, origin=origin,
        )  # fmt: skip
        return planned, one, needs

    def _lookup(self, asked: LookupRule, name: str, types: Mapping[str, str], place: str) -> Lookup:
        other = self.others.get(asked.table)
        if other is None:
            raise SpecError(
                f"{place}: the migration has no table {asked.table!r}",
                hint="Name a source table that is part of it",
            )
        columns = {c.source: c for c in other.columns}
        for column in (asked.key, asked.value):
            if column not in columns:
                raise SpecError(
                    f"{place}: table {asked.table} has no column {column!r}", hint="Write the source's name"
                )
        by = asked.by or name
        if by not in types:
            raise SpecError(
                f"{place}.by: there is no column {by!r}", hint=did_you_mean(by, list(types), "columns")
            )
        return Lookup(
            table=other.target, key=asked.key, value=asked.value, by=by, type=seen_type(columns[asked.value])
        )

    def _type_of(self, expression: str, types: Mapping[str, str], place: str) -> str:
        """DuckDB's type of an expression."""
        columns = ", ".join(f"CAST(NULL AS {t}) AS {quoted(n)}" for n, t in types.items())
        try:
            query = f"DESCRIBE SELECT ({expression}) FROM (SELECT {columns}) AS row"
            described = self.connection.execute(query).fetchall()
        except self._errors() as error:
            shown = ", ".join(f"{n} {t}" for n, t in list(types.items())[:12])
            raise SpecError(
                f"{place} is not accepted: {first_line(error)}",
                hint=f"It is DuckDB's SQL over the columns {shown}",
            ) from None
        return str(described[0][1])

    def _errors(self) -> type[Exception]:
        import duckdb

        return duckdb.Error

    def _default(self, value: object, before: str, type_: str, place: str) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        literal = "'" + text.replace("'", "''") + "'"
        if type_ == "NULL":
            raise SpecError(f"{place} is for a column that is not there", hint="Give it an expression, too")
        try:
            self.connection.execute(f"SELECT {reading(type_, literal)}").fetchall()
        except self._errors():
            raise SpecError(
                f"{place} is no value of type {type_}: {text[:80]!r}", hint="Give a value of that type"
            ) from None
        return f"coalesce({before}, {reading(type_, literal)})"

    def _result(
        self, column: ColumnPlan | None, change: ColumnRule, seen: str | None, type_: str, place: str
    ) -> CsvType:
        """The type of the column in the target: its own where the value is still of that kind."""
        own = target_type(column.target_type) if column else None
        if change.mask == "null":
            return own or _named("text")
        if change.mask:
            length = {"sha256": 64, "hmac": 64, "redact": 10}[change.mask]
            fits = own is not None and own.mapping.carrier == "varchar" and own.numbers[0] >= length
            return own if own is not None and fits else _named("text")
        if own is not None and type_ == seen:
            return own
        if found := _DECIMAL.fullmatch(type_):
            return _named(f"numeric({found[1]},{found[2]})")
        if type_ not in _GIVEN:
            kind = "NULL" if type_ in {"NULL", '"NULL"'} else type_
            raise SpecError(
                f"{place} gives {kind}, which is no type of one value",
                hint="CAST it, or name the column's type with type",
            )
        return _named(_GIVEN[type_])

    def _dedupe(
        self, read: Sequence[ColumnPlan], types: Mapping[str, str], used: dict[str, None]
    ) -> Dedupe | None:
        asked = self.rule.dedupe
        if asked is None:
            return None
        place = f"rules.{self.table.source_table}.dedupe"
        known = [c.source for c in read]
        for name in asked.key:
            if name not in known:
                raise SpecError(
                    f"{place}.key: there is no column {name!r}", hint=did_you_mean(name, known, "columns")
                )
        used.update(dict.fromkeys(asked.key))
        if asked.order:
            order, descending = _direction(asked.order)
            used.update(dict.fromkeys(columns_of(self.connection, order, list(types), f"{place}.order")))
            self._type_of(order, types, f"{place}.order")
            return Dedupe(key=asked.key, order=order, descending=descending)
        return Dedupe(key=asked.key)


def _direction(order: str) -> tuple[str, bool]:
    """An order without its ASC or DESC, and whether it was DESC."""
    found = _ENDS.search(order)
    return (order[: found.start()], found[1].upper() == "DESC") if found else (order, False)


def _renamed(column: ColumnPlan, change: ColumnRule) -> ColumnPlan:
    """A column that goes on as it was read, but for its name; staged as text like all of its table."""
    return column.model_copy(update={"target": change.rename or column.source, "arrow": "string"})


def _named(type_: str) -> CsvType:
    found = csv_type(type_)
    if found is None:
        raise ValueError(type_)
    return found


def _wanted(change: ColumnRule, place: str) -> CsvType | None:
    if change.type is None:
        return None
    found = csv_type(change.type)
    if found is None:
        raise SpecError(
            f"{place}.type: a rule cannot make {change.type!r}",
            hint=f"It makes {', '.join(m.declared for m in CSV_TYPES)}",
        )
    if change.mask and found.mapping.canon is not Canon.TEXT:
        raise SpecError(
            f"{place}: mask gives text, and type is {change.type}", hint="Remove type, or make it text"
        )
    return found
