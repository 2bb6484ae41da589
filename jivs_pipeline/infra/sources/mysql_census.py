"""Looking at the rows of a MySQL table: what its values are, where to cut it, which references PostgreSQL would miss.

What belongs here: conditions on values and rows in MySQL's SQL, chunk bounds. What does not: deciding types by
what was found (`core/types_mysql.py`), reading rows (`mysql_snapshot.py`).

All aggregates of a table are one statement, one walk through its rows; of a large table two at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from jivs_pipeline.core.chunking import chunk_count
from jivs_pipeline.core.model import Column, ForeignKey, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy
from jivs_pipeline.core.types_mysql import MysqlType, MysqlValues, mysql_type
from jivs_pipeline.infra.sources.mysql_session import Session, literal, quoted

__all__ = [
    "Census",
    "chunk_condition",
    "conditions_of",
    "orphan_conditions",
    "rows_about",
    "source_rows",
    "take_census",
]

_FIXED_BYTES = 8  # of a value that is neither text nor bytes, in Arrow
_AGGREGATES = 1_000  # in one statement; MySQL takes 4,096 result columns
_NO_CONVERSION = frozenset({"utf8mb4", "utf8mb3", "utf8", ""})
_WIDE_CHARACTERS = frozenset({"ucs2", "utf16", "utf16le", "utf32"})
"""Character sets in which a byte of 0 need not be a NUL."""
_LARGEST_BIGINT = 9_223_372_036_854_775_807


@dataclass(frozen=True, slots=True)
class Census:
    """What one transaction saw of a table. `largest` are the bytes of its largest row, where a row may be too large;
    for `broken_keys` see `core.ports.Survey`.
    """

    rows: int
    bytes: int
    largest: int
    values: Mapping[str, MysqlValues]
    broken_keys: Mapping[tuple[str, ...], int]
    chunk_by: ChunkBy
    chunk_columns: tuple[str, ...]
    chunks: tuple[Chunk, ...]


def source_rows(schema: str, table: str, conditions: Iterable[str | None]) -> str:
    """`FROM … WHERE …` with all conditions; a newline ends a comment that a condition may end with."""
    wanted = " AND ".join(f"(\n{condition}\n)" for condition in conditions if condition)
    return f"FROM {quoted(schema, table)}" + (f" WHERE {wanted}" if wanted else "")


def chunk_condition(columns: Sequence[str], chunk: Chunk) -> str | None:
    """Condition of a chunk's rows. Bounds are compared by the key's own type and collation, here and nowhere else."""
    if not columns:
        return None
    key = quoted(columns[0])
    parts = [
        f"{key} {operator} {bound[0]}"
        for operator, bound in ((">=", chunk.lower), ("<", chunk.upper))
        if bound is not None
    ]
    return " AND ".join(parts) or None


# ── what values are ─────────────────────────────────────────────────────────────────────────────────────


def _no_day(c: str) -> str:
    """Condition of a date that no calendar has; MySQL keeps some whatever the SQL mode was when they came.

    Most dates are known for good by their first two conditions, and then the others cost nothing.
    """
    return (
        f"CASE WHEN DAYOFMONTH({c}) BETWEEN 1 AND 28 AND MONTH({c}) > 0 AND YEAR({c}) > 0 THEN FALSE ELSE"
        f" {c} IS NOT NULL AND (YEAR({c}) = 0 OR MONTH({c}) = 0 OR DAYOFMONTH({c}) = 0"
        f" OR LAST_DAY({c}) IS NULL OR DAYOFMONTH({c}) > DAYOFMONTH(LAST_DAY({c})) OR DAYOFMONTH({c}) IS NULL) END"
    )


# MariaDB's JSON is text, and its JSON_VALID takes any character after a backslash, and numbers that end in a point.
_JSON_STRING = r'(?s)"(?:[^"\\]++|\\.)*+"'
_JSON_ESCAPE = r'(?s)(?<!\\)(?:\\\\)*\\[^"\\/bfnrtu]'
_JSON_POINT = r"[0-9]\.(?![0-9])"


def _loose_json(c: str) -> str:
    """Condition of JSON that only MariaDB takes for JSON."""
    bare = f"REGEXP_REPLACE({c}, {literal(_JSON_STRING)}, '')"
    return f"{c} REGEXP {literal(_JSON_ESCAPE)} OR {bare} REGEXP {literal(_JSON_POINT)}"


def _utf8_inside(c: str) -> str:
    """Condition of a text whose bytes are well-formed UTF-8 with characters beyond ASCII."""
    raw = f"CAST({c} AS BINARY)"
    read = f"CONVERT({raw} USING utf8mb4)"
    return f"CAST({read} AS BINARY) = {raw} AND CHAR_LENGTH({read}) < LENGTH({raw})"


def conditions_of(c: str, declared: MysqlType, charset: str, *, numbered: bool) -> dict[str, str]:
    """What `MysqlValues` calls a kind of value -> its condition in SQL; `c` is SQL of the column."""
    found: dict[str, str] = {}
    if declared.family == "tinyint(1)":
        found["beyond"] = f"{c} NOT IN (0, 1)"
    if declared.family == "bigint unsigned" and numbered:
        found["beyond"] = f"{c} > {_LARGEST_BIGINT}"
    if declared.dated:
        found["zero_dates"] = _no_day(c)
    if declared.family == "enum":
        found["invalid"] = f"({c} + 0) = 0"
        if "" in declared.members:
            found["blank"] = f"{c} = '' AND ({c} + 0) > 0"
    elif declared.text:
        # As bytes: collations do not see a NUL.
        known = charset and charset not in _WIDE_CHARACTERS
        octets = c if known else f"CONVERT({c} USING utf8mb4)"
        found["nul"] = f"LOCATE(x'00', CAST({octets} AS BINARY)) > 0"
        if charset not in _NO_CONVERSION:
            again = f"CONVERT(CONVERT({c} USING utf8mb4) USING {charset})"
            found["unreadable"] = f"CAST({again} AS BINARY) <> CAST({c} AS BINARY)"
        if declared.family == "json" and charset:
            found["malformed"] = _loose_json(c)
        if charset == "latin1":
            found["disguised"] = _utf8_inside(c)
    return found


def _size(column: Column, declared: MysqlType) -> str | None:
    """SQL of a value's bytes as they are sent, where its type does not tell."""
    c = quoted(column.name)
    if declared.text or declared.family in {"binary", "varbinary", "blob"}:
        size = f"LENGTH({c})"
    elif declared.family == "geometry":
        return f"COALESCE(LENGTH(CAST({c} AS BINARY)), 0)"
    else:
        return None
    return f"COALESCE({size}, 0)" if column.nullable else size


def _most(declared: MysqlType) -> float:
    """Bytes that no value of this type exceeds, as far as the type tells."""
    if declared.family in {"char(n)", "varchar(n)", "binary", "varbinary"} and declared.length is not None:
        return 4 * declared.length
    return inf


@dataclass(slots=True)
class _Totals:
    """Aggregates over all rows, each in one of the sessions: one walk through the rows for each of those."""

    sessions: Sequence[Session]
    rows_sql: str
    asked: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def run(self) -> dict[tuple[str, str], int]:
        first, *others = self.sessions
        own, *shares = _shared(self.asked, len(self.sessions))
        with ThreadPoolExecutor(max(1, len(others)), thread_name_prefix="jivs-census") as pool:
            answers = [pool.submit(self._ask, *pair) for pair in zip(others, shares, strict=True)]
            try:
                found = self._ask(first, own)
                for answer in answers:
                    found |= answer.result()
            except BaseException:
                for session in others:
                    session.drop()  # so that nobody waits for what it would say
                raise
        return found

    def _ask(self, session: Session, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for start in range(0, len(keys), _AGGREGATES):
            part = keys[start : start + _AGGREGATES]
            row = session.texts(f"SELECT {', '.join(self.asked[key] for key in part)} {self.rows_sql}")[0]
            found.update({key: int(value or 0) for key, value in zip(part, row, strict=True)})
        return found


def _shared(asked: Mapping[tuple[str, str], str], count: int) -> list[list[tuple[str, str]]]:
    """What is asked, in parts that cost about the same; the longer its SQL, the more an aggregate costs."""
    parts: list[list[tuple[str, str]]] = [[] for _ in range(count)]
    costs = [0] * count
    for key in sorted(asked, key=lambda key: -len(asked[key])):
        least = costs.index(min(costs))
        parts[least].append(key)
        costs[least] += len(asked[key])
    return parts


def _look(
    sessions: Sequence[Session],
    table: Table,
    columns: Sequence[Column],
    where: str | None,
    charsets: Mapping[str, str],
    numbered: frozenset[str],
    limit: int,
) -> tuple[int, int, int, dict[str, MysqlValues]]:
    """Rows, bytes, bytes of the largest row (0 where all are surely within the limit), and the census of each column."""
    totals = _Totals(sessions, source_rows(table.schema, table.name, [where]))
    totals.asked["", "rows"] = "COUNT(*)"
    types = {c.name: mysql_type(c.type) for c in columns}
    in_key = _key_columns(table)
    for name, declared in types.items():
        counted = conditions_of(quoted(name), declared, charsets.get(name, ""), numbered=name in numbered)
        for what, condition in counted.items():
            # Not SUM, which adds decimals.
            totals.asked[name, what] = f"COUNT(({condition}) OR NULL)"
    sizes = {c.name: size for c in columns if (size := _size(c, types[c.name])) is not None}
    if sizes:
        whole = " + ".join(sizes.values())
        totals.asked["", "bytes"] = f"SUM({whole})"
        if sum(_most(types[name]) for name in sizes) > limit:
            totals.asked["", "largest"] = f"MAX({whole})"
    found = totals.run()
    rows = found["", "rows"]
    values: dict[str, MysqlValues] = {}
    for name in types:
        counts = {what: n for (column, what), n in found.items() if column == name}
        values[name] = MysqlValues(in_key=name in in_key, numbered=name in numbered, **counts)
    size = found.get(("", "bytes"), 0) + _FIXED_BYTES * rows * (len(types) - len(sizes))
    return rows, size, found.get(("", "largest"), 0), values


def _key_columns(table: Table) -> frozenset[str]:
    keys = [*([table.primary_key] if table.primary_key else []), *table.unique_keys, *table.foreign_keys]
    return frozenset(name for key in keys for name in key.columns)


def _broken(session: Session, table: Table, key: ForeignKey, where: str | None) -> int:
    """Rows whose reference PostgreSQL would not find: it compares texts byte by byte, whatever the collation here."""
    columns = [(c, mysql_type(table.column(c).type)) for c in key.columns]
    orphaned = orphan_conditions(
        table.name, columns, (key.target_schema, key.target_table), key.target_columns
    )
    return session.number(f"SELECT COUNT(*) {source_rows(table.schema, table.name, [where, *orphaned])}")


def orphan_conditions(
    table: str,
    columns: Sequence[tuple[str, MysqlType]],
    parent: tuple[str, str],
    parent_columns: Sequence[str],
    those: Sequence[str | None] = (),
) -> list[str]:
    """Conditions of a row that refers to a parent which is not there; `those` are conditions of the parents that count."""
    same: list[str] = []
    for (column, declared), target in zip(columns, parent_columns, strict=True):
        mine, theirs = quoted(table, column), quoted("jivs parent", target)
        same.append(f"{theirs} = {mine}")
        if declared.text:
            same.append(f"{_bytes(theirs)} = {_bytes(mine)}")
    wanted = " AND ".join(f"(\n{condition}\n)" for condition in [*same, *those] if condition)
    missing = f"NOT EXISTS (SELECT 1 FROM {quoted(*parent)} AS {quoted('jivs parent')} WHERE {wanted})"
    return [*(f"{quoted(table, column)} IS NOT NULL" for column, _ in columns), missing]


def _bytes(c: str) -> str:
    return f"CAST(CONVERT({c} USING utf8mb4) AS BINARY)"


# ── where to cut ────────────────────────────────────────────────────────────────────────────────────────


def _chunk_key(table: Table) -> tuple[str, MysqlType] | None:
    """First column of a key without NULLs, if it is of a type whose literals are sure; integers before others."""
    never_null = {c.name for c in table.columns if not c.nullable}
    found: list[tuple[str, MysqlType]] = []
    for key in (table.primary_key, *table.unique_keys):
        if key is None or not never_null.issuperset(key.columns):
            continue
        declared = mysql_type(table.column(key.columns[0]).type)
        if declared.integer or declared.family in {"char(n)", "varchar(n)", "binary", "varbinary"}:
            found.append((key.columns[0], declared))
    found.sort(key=lambda pair: not pair[1].integer)
    return found[0] if found else None


def _bound(value: bytes | None, declared: MysqlType) -> str:
    """A key's value as a literal; texts as characters, so that the key's collation compares them."""
    if declared.integer:
        return (value or b"").decode()
    return literal((value or b"").decode()) if declared.text else f"x'{(value or b'').hex()}'"


def _chunks(
    session: Session, table: Table, where: str | None, step: int
) -> tuple[ChunkBy, tuple[str, ...], tuple[Chunk, ...]]:
    """Chunks of about `step` rows each, or one."""
    found = _chunk_key(table)
    if found is None:
        return _WHOLE
    name, declared = found
    key = quoted(name)
    spelled = f"({key} + 0)" if declared.integer else _bytes(key) if declared.text else key

    def first(*conditions: str | None, offset: int = 0) -> str | None:
        """The key of the row at `offset` among those where the conditions hold, as a bound."""
        rows = source_rows(table.schema, table.name, [where, *conditions])
        found = session.table(f"SELECT {spelled} {rows} ORDER BY {key} LIMIT 1 OFFSET {offset}")
        return _bound(found[0][0], declared) if found else None

    cuts: list[str] = []
    while (bound := first(f"{key} >= {cuts[-1]}" if cuts else None, offset=step)) is not None:
        # Where one value fills more than a chunk: the next one that is greater, by the key's own order.
        if (bound := first(f"{key} >= {bound}", f"{key} > {cuts[-1]}" if cuts else None)) is None:
            break
        cuts.append(bound)
    edges = [None, *((cut,) for cut in cuts), None]
    chunks = (Chunk(index=i, lower=low, upper=high) for i, (low, high) in enumerate(pairwise(edges)))
    return ChunkBy.KEY, (name,), tuple(chunks)


_WHOLE = (ChunkBy.WHOLE, (), (Chunk(index=0),))


def rows_about(session: Session, table: Table) -> int:
    """How many rows the table has, as the server estimates."""
    return session.number(
        "SELECT TABLE_ROWS FROM information_schema.TABLES"
        f" WHERE TABLE_SCHEMA = {literal(table.schema)} AND TABLE_NAME = {literal(table.name)}"
    )


def take_census(
    sessions: Sequence[Session],
    table: Table,
    columns: Sequence[Column],
    where: str | None,
    chunk_bytes: int,
    *,
    charsets: Mapping[str, str],
    numbered: frozenset[str],
    limit: int,
) -> Census:
    """Look at all rows, in the transactions that the sessions are in.

    Args:
        sessions: at least one. A column's values are looked at by one of them, and rows by the first.
        charsets: character set of each text column.
        numbered: columns that number themselves, or refer to one that does.
        limit: bytes of a row that the server surely sends.
    """
    rows, size, largest, values = _look(sessions, table, columns, where, charsets, numbered, limit)
    session = sessions[0]
    carried = {c.name for c in columns}
    broken = {
        key.columns: count
        for key in table.foreign_keys
        if carried.issuperset(key.columns) and (count := _broken(session, table, key, where))
    }
    wanted = min(chunk_count(size, chunk_bytes), rows)
    by, names, chunks = _WHOLE
    if wanted > 1:
        by, names, chunks = _chunks(session, table, where, -(-rows // wanted))
    return Census(rows, size, largest, values, broken, by, names, chunks)
