"""Rows of MySQL that the plan's columns cannot hold: which those are, their addresses, and reading past them.

What belongs here: SQL that tells bad rows from good ones, and positions. What does not: the condition of a bad value
(`mysql_census`), the choice of types (`core/types_mysql.py`), reading good rows (`mysql_snapshot`).

A row's position is its primary key, or another key without NULLs, as JSON of names and values: integers (of an ENUM
its index) as they are, all else as the hex of the bytes that are stored. So no collation takes one row for another, nor
is a text needed that its character set cannot read. Tables without such a key have no addresses.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from jivs_pipeline.core.plan import Chunk, ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.ports import Refusal
from jivs_pipeline.core.quarantine import BadRow, RawText
from jivs_pipeline.core.types_mysql import MysqlType, mysql_type
from jivs_pipeline.infra.sources.key_breaks import Reference
from jivs_pipeline.infra.sources.mysql_carriers import printed
from jivs_pipeline.infra.sources.mysql_census import (
    chunk_condition,
    conditions_of,
    orphan_conditions,
    source_rows,
)
from jivs_pipeline.infra.sources.mysql_session import Session, literal, quoted, rows_of

__all__ = ["address_of", "bad_conditions", "bad_rows", "charsets", "chunk_rows", "orphans", "present"]

_WHY = {
    "zero_dates": "no day of the calendar, which PostgreSQL cannot hold",
    "nul": "a NUL character, which PostgreSQL text cannot hold",
    "unreadable": "bytes that are no characters of the column's character set",
    "malformed": "JSON to MariaDB but not to PostgreSQL",
    "beyond": "an integer that is too large for this column",
}
_INEXACT = frozenset({"float", "double"})  # whose printed digits do not tell all values apart


# ── addresses ───────────────────────────────────────────────────────────────────────────────────────────


def address_of(session: Session, schema: str, table: str) -> dict[str, MysqlType]:
    """Columns of the key by which single rows are found, the primary key before others; empty without one."""
    rows = session.texts(
        "SELECT s.INDEX_NAME, s.COLUMN_NAME, c.COLUMN_TYPE, c.IS_NULLABLE, s.SUB_PART"
        " FROM information_schema.STATISTICS s LEFT JOIN information_schema.COLUMNS c"
        " ON c.TABLE_SCHEMA = s.TABLE_SCHEMA AND c.TABLE_NAME = s.TABLE_NAME AND c.COLUMN_NAME = s.COLUMN_NAME"
        f" WHERE s.NON_UNIQUE = 0 AND s.TABLE_SCHEMA = {literal(schema)} AND s.TABLE_NAME = {literal(table)}"
        " ORDER BY s.INDEX_NAME <> 'PRIMARY', s.INDEX_NAME, s.SEQ_IN_INDEX"
    )
    keys: dict[str, dict[str, MysqlType]] = {}
    unusable: set[str] = set()
    for index, name, type_, nullable, prefix in rows:
        declared = mysql_type(type_ or "")
        keys.setdefault(str(index), {})[str(name)] = declared
        if nullable != "NO" or prefix is not None or not declared.family or declared.family in _INEXACT:
            unusable.add(str(index))
    return next((columns for index, columns in keys.items() if index not in unusable), {})


def _numbered(declared: MysqlType) -> bool:
    return declared.integer or declared.family in {"enum", "set"}


def _parts(address: Mapping[str, MysqlType]) -> list[str]:
    """SQL of each part of a position."""
    return [
        f"({quoted(name)} + 0)" if _numbered(declared) else f"HEX(CAST({quoted(name)} AS BINARY))"
        for name, declared in address.items()
    ]


def _position(address: Mapping[str, MysqlType], parts: Sequence[bytes | None]) -> str:
    """The parts, as `_parts` gives them, as text."""
    texts = [(part or b"").decode() for part in parts]
    values = [int(t) if _numbered(d) else t for t, d in zip(texts, address.values(), strict=True)]
    return json.dumps(dict(zip(address, values, strict=True)))


def _among(positions: Sequence[str]) -> str:
    """Condition of the rows at these positions, which all name the same columns."""
    places = [json.loads(position) for position in positions]
    if not places:
        return "FALSE"
    columns = [
        quoted(name) if isinstance(value, int) else f"CAST({quoted(name)} AS BINARY)"
        for name, value in places[0].items()
    ]
    rows = [
        ", ".join(str(v) if isinstance(v, int) else f"x'{v}'" for v in place.values()) for place in places
    ]
    return f"({', '.join(columns)}) IN ({', '.join(f'({row})' for row in rows)})"


def chunk_rows(table: TablePlan, chunk: Chunk, condition: str | None = None) -> str:
    """`FROM … WHERE …` of the chunk's rows without those that are sifted out, narrowed down by one more condition."""
    conditions = [chunk_condition(table.chunk_columns, chunk), table.where, condition]
    if isinstance(chunk, Sifted):
        if chunk.only is not None:
            conditions.append(_among(chunk.only))
        if chunk.without:
            conditions.append(f"NOT ({_among(chunk.without)})")
    return source_rows(table.source_schema, table.source_table, conditions)


def present(
    session: Session, table: TablePlan, address: Mapping[str, MysqlType], positions: Sequence[str]
) -> set[str]:
    """Those of the positions at which there is a row."""
    rows = chunk_rows(table, Sifted(index=0, only=tuple(positions)))
    return {_position(address, row) for row in session.table(f"SELECT {', '.join(_parts(address))} {rows}")}


# ── bad rows ────────────────────────────────────────────────────────────────────────────────────────────


def charsets(session: Session, schema: str, table: str) -> Mapping[str, str]:
    """Character set of each text column."""
    found = session.texts(
        "SELECT COLUMN_NAME, CHARACTER_SET_NAME FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(table)}"
    )
    return {str(name): charset or "" for name, charset in found}


def bad_conditions(column: ColumnPlan, charset: str) -> dict[str, str]:
    """Condition of the values that the column cannot hold -> what is wrong with them."""
    declared = mysql_type(column.source_type)
    counted = conditions_of(quoted(column.source), declared, charset, numbered=column.target_type == "bigint")
    if declared.family == "tinyint(1)" and column.target_type != "boolean":
        counted.pop("beyond")
    return {counted[kind]: why for kind, why in _WHY.items() if kind in counted}


def bad_rows(
    session: Session,
    table: TablePlan,
    chunk: Chunk,
    address: Mapping[str, MysqlType],
    known: Mapping[str, str],
    broken: Mapping[str, Refusal],
) -> Iterator[BadRow]:
    """The chunk's rows that are bad or `broken` by their keys, in the order of their addresses.

    Args:
        known: character set of each text column.
    """
    cases = [
        (n, *bad)
        for n, c in enumerate(table.columns)
        for bad in bad_conditions(c, known.get(c.source, "")).items()
    ]
    wrong = [condition for _, condition, _ in cases] + ([_among(tuple(broken))] if broken else [])
    if not wrong:
        return
    which = " ".join(f"WHEN {condition} THEN {n}" for n, (_, condition, _) in enumerate(cases))
    values = [_shown(c, known.get(c.source, "")) for c in table.columns]
    wanted = ", ".join([*_parts(address), f"CASE {which} END" if cases else "NULL", *values])
    rows = chunk_rows(table, chunk, " OR ".join(f"({condition})" for condition in wrong))
    stream = session.stream(f"SELECT {wanted} {rows} ORDER BY {', '.join(map(quoted, address))}", rows=1_000)
    at = len(address)
    try:
        for columns in stream:
            for row in rows_of(columns):
                place = _position(address, row[:at])
                why = _reason(table, cases, row[at]) or broken[place]
                found = {
                    c.source: _value(c, value, raw=why == Refusal(c.source, _WHY["unreadable"]))
                    for c, value in zip(table.columns, row[at + 1 :], strict=True)
                }
                key = {name: found.get(name, json.loads(place)[name]) for name in address}
                yield BadRow.of(place, key, why.column, why.reason, found)
    finally:
        stream.close()


def _reason(table: TablePlan, cases: Sequence[tuple[int, str, str]], number: bytes | None) -> Refusal | None:
    if number is None:
        return None
    column, _, why = cases[int(number)]
    return Refusal(table.columns[column].source, why)


def orphans(
    session: Session,
    reference: Reference,
    address: Mapping[str, MysqlType],
    without: Collection[str],
    known: Mapping[str, str],
) -> list[str]:
    """Positions of rows whose parent is not among those that are loaded; `known` are the parent's character sets."""
    table, parent = reference.table, reference.parent
    bad = [c for p in parent.columns for c in bad_conditions(p, known.get(p.source, ""))]
    those = [parent.where, f"({' OR '.join(f'({c})' for c in bad)}) IS NOT TRUE" if bad else None]
    if without:
        those.append(f"NOT ({_among(tuple(without))})")
    missing = orphan_conditions(
        table.source_table,
        [(c.source, mysql_type(c.source_type)) for c in reference.columns],
        (parent.source_schema, parent.source_table),
        [c.source for c in reference.parent_columns],
        those,
    )
    rows = source_rows(table.source_schema, table.source_table, [table.where, *missing])
    return [_position(address, row) for row in session.table(f"SELECT {', '.join(_parts(address))} {rows}")]


def _shown(column: ColumnPlan, charset: str) -> str:
    """SQL of the value for people; where its character set cannot read it, the bytes that are stored."""
    c = quoted(column.source)
    declared = mysql_type(column.source_type)
    unreadable = conditions_of(c, declared, charset, numbered=False).get("unreadable")
    if unreadable is None:
        return printed(column)
    return f"IF({unreadable}, CAST({c} AS BINARY), CAST(CONVERT({c} USING utf8mb4) AS BINARY))"


def _value(column: ColumnPlan, value: bytes | None, *, raw: bool) -> object:
    if value is None:
        return None
    if column.carrier == "integer":
        return int(value)
    return value if raw or column.carrier in {"bytes", "ewkb"} else RawText(value)
