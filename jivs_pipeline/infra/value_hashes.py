"""The links of `Spelling.RECORD`: a value hashed by PostgreSQL's own function for its type, seeded with the row so far.

What belongs here: which function, and what it does not see. What does not: how links become a row's hash (`digests.py`).

A text costs more to print than to hash, so a value is printed only where its type's function takes two values for one
(an amount and its negative, a timestamp and another) or is not there. Functions are those that hash partitions are made
by: the same since PostgreSQL 11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import LiteralString, cast

from psycopg import sql

__all__ = ["link"]


@dataclass(frozen=True, slots=True)
class _Hash:
    """`function` hashes `value`; `filler` takes the place of NULL, and is None where `value` is no NULL of one; `beside` is
    what the function does not see of the value. The function must mix its seed with whatever it is given: what gives
    the seed back, as that of floats does for zero, would let two columns cancel each other.
    """

    function: str
    value: str
    filler: str | None = None
    beside: str | None = None


# Zero and minus zero are one for them; these are the only values that are printed.
_FLOAT = "CASE WHEN {c} <> 0 THEN {c} WHEN {c} = 0 THEN 1 END"
_ZERO = "CASE WHEN {c} <> 0 THEN 0 ELSE length({c}::text) END"
_INTEGER = _Hash("hashint4extended", "{c}", "0")
_PRINTED = _Hash("hashtextextended", '{c}::text COLLATE "C"', "''")
_TEXT = _Hash("hashtextextended", '{c} COLLATE "C"', "''")
_BY_TYPE = {
    "smallint": _INTEGER,
    "integer": _INTEGER,
    "bigint": _Hash("hashint8extended", "{c}", "0", "({c} >> 32)"),  # it folds its halves into one
    "real": _Hash("hashfloat4extended", _FLOAT, "1", _ZERO),
    "double precision": _Hash("hashfloat8extended", _FLOAT, "1", _ZERO),
    "boolean": _Hash("hashint4extended", "{c}::int4", "0"),
    "date": _Hash(
        "hashint4extended",
        "CASE WHEN isfinite({c}) THEN {c} - date '2000-01-01'"
        " WHEN {c} > date '2000-01-01' THEN 2147483647 WHEN {c} < date '2000-01-01' THEN -2147483647 END",
        "0",
    ),
    "uuid": _Hash("uuid_hash_extended", "{c}", "'00000000-0000-0000-0000-000000000000'::uuid"),
    "text": _TEXT,
    "character varying": _TEXT,
    # There is no function for bytes alone before PostgreSQL 18.
    "bytea": _Hash("hash_array_extended", "ARRAY[coalesce({c}, '')]"),
    "numeric": _PRINTED,
    "timestamp without time zone": _PRINTED,
    "timestamp with time zone": _PRINTED,
}
# Where a length is given, blanks at the end say nothing.
_PADDED = _Hash("hashbpcharextended", '{c} COLLATE "C"', "''")
# As COPY prints it; a cast to text drops blanks and the like.
_ANY = _Hash("hashtextextended", 'concat({c}) COLLATE "C"')
_LENGTHS = re.compile(r"\(\d+(,-?\d+)?\)")
_NULL = "1099511627776"
"""Beside NULL: 2^40, which nothing else has beside itself."""


def link(column: str, type_: str, *, nullable: bool) -> tuple[sql.Composable, sql.Composable]:
    """What goes before and behind the hash of the columns before.

    Args:
        type_: as `format_type` names it; the column is of that type on both ends.
        nullable: a NULL in a column that is not may make the row's hash NULL.
    """
    bare = _LENGTHS.sub("", type_)
    how = _PADDED if bare == "character" and bare != type_ else _BY_TYPE.get(bare, _ANY)
    value, beside = how.value, how.beside
    if nullable or how.filler is None:
        value = f"coalesce({value}, {how.filler})" if how.filler else value
        # IS NULL is true of a composite of NULLs, too.
        null = "num_nulls({c}) = 1" if how is _ANY else "{c} IS NULL"
        beside = f"coalesce({beside}, {_NULL})" if beside else f"CASE WHEN {null} THEN {_NULL} ELSE 0 END"
    names = {"c": sql.Identifier(column)}
    return _sql(f"{how.function}({value}, ", names), _sql(f" # {beside})" if beside else ")", names)


def _sql(text: str, names: dict[str, sql.Identifier]) -> sql.Composed:
    return sql.SQL(cast("LiteralString", text)).format(**names)
