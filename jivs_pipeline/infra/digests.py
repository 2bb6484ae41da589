"""The SQL with which PostgreSQL digests rows; both ends run the same text (see `core/digest.py`).

What belongs here: the spellings of a row and the sums over them. What does not: running them, or how
other databases spell theirs.

A digest yields one line `rows, high, low`; with `Groups` there is a line per chunk, its index first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from jivs_pipeline.core.digest import LONG, Canon, Spelling

__all__ = ["Groups", "canonical_text", "column_list", "row_digest", "row_hashes"]

_NOTHING = sql.SQL("")


@dataclass(frozen=True, slots=True)
class Groups:
    """Digest by chunk in one pass: `bounds` are the lower bounds of all chunks but the first, ascending."""

    column: str
    bounds: Sequence[int]

    @property
    def index(self) -> sql.Composable:
        """The chunk's index of a row: how many bounds are not above its key."""
        if not self.bounds:
            return sql.SQL("0")
        array = sql.Literal("{" + ",".join(str(int(bound)) for bound in self.bounds) + "}")
        return sql.SQL("width_bucket({}::int8, {}::int8[])").format(sql.Identifier(self.column), array)


def column_list(columns: Sequence[str]) -> sql.Composed:
    """`"a", "b"`; empty for a table without columns."""
    return sql.SQL(", ").join(sql.Identifier(name) for name in columns)


# OFFSET 0 keeps the planner from folding the row's text into both sums, which would spell every row twice.
_RECORD = sql.SQL(
    "SELECT {group}count(*), coalesce(sum(hashtextextended(r, 0)), 0),"
    " coalesce(sum(hashtextextended(r, 1)), 0)"
    ' FROM (SELECT {index}ROW({columns})::text COLLATE "C" AS r FROM {table}{where} OFFSET 0) AS s{by}'
)
# Each column is spelled once, below the second OFFSET 0: half as fast again as spelling it where it is used.
_CANONICAL = sql.SQL(
    "SELECT {group}count(*), coalesce(sum(('x' || left(m, 16))::bit(64)::int8), 0),"
    " coalesce(sum(('x' || right(m, 16))::bit(64)::int8), 0)"
    " FROM (SELECT {group}md5({text}) AS m"
    " FROM (SELECT {index}{spelled} FROM {table}{where} OFFSET 0) AS t OFFSET 0) AS s{by}"
)
# Its texts are made below the OFFSET 0, for a free one is used three times.
_CHAIN = sql.SQL(
    "SELECT {group}count(*), coalesce(sum(h), 0), 0 FROM (SELECT {group}{chain} AS h"
    " FROM (SELECT {index}{spelled} FROM {table}{where} OFFSET 0) AS t) AS s{by}"
)
_JOINED = 32


def row_digest(
    spelling: Spelling,
    table: sql.Composable,
    columns: Sequence[tuple[str, Canon]],
    predicate: sql.Composable | None = None,
    groups: Groups | None = None,
    *,
    utf8: bool = True,
) -> sql.Composed:
    """The digest of rows.

    Args:
        spelling: RECORD and CHAIN hash the bytes of the database's encoding, which must be UTF8 therefore.
        table: what follows FROM, e.g. `ONLY "public"."t"`.
        columns: names in this table with their spellings, in the plan's order.
        predicate: a complete condition.
        groups: give one line per chunk, with its index first, instead of one line in all.
        utf8: False where the database's encoding is another one, so that the text is converted before MD5.
    """
    parts = {"table": table, **_clauses(predicate, groups)}
    if spelling is Spelling.RECORD:
        return _RECORD.format(columns=column_list([name for name, _ in columns]), **parts)
    parts["spelled"] = _spelled(columns)
    if spelling is Spelling.CHAIN:
        return _CHAIN.format(chain=_chain([canon for _, canon in columns]), **parts)
    text = _joined([canon for _, canon in columns])
    return _CANONICAL.format(text=text if utf8 else _in_utf8(text), **parts)


def row_hashes(
    spelling: Spelling,
    table: sql.Composable,
    columns: Sequence[tuple[str, Canon]],
    key: Sequence[tuple[str, Canon]],
    predicate: sql.Composable | None = None,
    *,
    utf8: bool = True,
) -> sql.Composed:
    """What the digests sum up: a line per row with the bytes of its hash and the canonical texts of its key.

    Args:
        key: columns that tell rows apart; the rest is as in `row_digest`.
    """
    spelled = _spelled(columns)
    if spelling is Spelling.RECORD:
        row = sql.SQL('ROW({})::text COLLATE "C"').format(column_list([name for name, _ in columns]))
        spelled = sql.SQL("{} AS r").format(row)
        hashed = sql.SQL("int8send(hashtextextended(r, 0)) || int8send(hashtextextended(r, 1))")
    elif spelling is Spelling.CHAIN:
        hashed = sql.SQL("int8send({})").format(_chain([canon for _, canon in columns]))
    else:
        row = _joined([canon for _, canon in columns])
        hashed = sql.SQL("decode(md5({}), 'hex')").format(row if utf8 else _in_utf8(row))
    keys = [sql.Identifier(f"k{number}") for number in range(len(key))]
    texts = [
        sql.SQL(", {} AS {}").format(canonical_text(name, canon), label)
        for (name, canon), label in zip(key, keys, strict=True)
    ]
    return sql.SQL("SELECT {}{} FROM (SELECT {}{} FROM {}{} OFFSET 0) AS s").format(
        hashed,
        sql.SQL("").join(sql.SQL(", {}").format(label) for label in keys),
        spelled,
        sql.SQL("").join(texts),
        table,
        sql.SQL(" WHERE {}").format(predicate) if predicate is not None else _NOTHING,
    )


def _label(number: int) -> sql.Identifier:
    return sql.Identifier(f"t{number}")


def _spelled(columns: Sequence[tuple[str, Canon]]) -> sql.Composable:
    """`… AS t0, … AS t1`: the canonical texts."""
    texts = [
        sql.SQL("{} AS {}").format(canonical_text(name, canon), _label(number))
        for number, (name, canon) in enumerate(columns)
    ]
    return sql.SQL(", ").join(texts) if texts else sql.SQL("NULL")


def _chain(canons: Sequence[Canon]) -> sql.Composable:
    """The hash of the canonical texts below. Written in one line, for psycopg follows nesting by recursion."""
    links = [
        (_FREE if canon.free else _ENCLOSED, {"t": _label(n), "long": LONG}) for n, canon in enumerate(canons)
    ]
    inner = [begin.format(**names) for (begin, _), names in reversed(links)]
    outer = [end.format(**names) for (_, end), names in links]
    return sql.Composed([*inner, sql.SQL("0::int8"), *outer])


_ENCLOSED = sql.SQL("hashtextextended(coalesce({t}, '') COLLATE \"C\", "), sql.SQL(")")
_FREE = (
    sql.SQL(
        "hashtextextended(CASE WHEN octet_length({t}) > {long} THEN md5({t}) ELSE coalesce({t}, '') END"
        ' COLLATE "C", '
    ),
    sql.SQL(" # coalesce(octet_length({t}), -1))"),
)
_COUNTED = sql.SQL("coalesce(char_length({t}) || ':' || {t}, '-')")
_CLOSED = sql.SQL("coalesce({t}, '')")


def _in_utf8(text: sql.Composable) -> sql.Composable:
    return sql.SQL("convert_to({}, 'UTF8')").format(text)


def _joined(canons: Sequence[Canon]) -> sql.Composable:
    """The row's text. `||` is the fastest, but nests too deep for 1,600 columns; concat() takes 100 arguments."""
    each = [
        (_COUNTED if canon.free else _CLOSED).format(t=_label(number)) for number, canon in enumerate(canons)
    ]
    comma = sql.SQL(" || ',' || ")
    parts = [comma.join(each[i : i + _JOINED]) for i in range(0, len(each), _JOINED)]
    if len(parts) < 2:
        return parts[0] if parts else sql.SQL("''")
    return sql.SQL("concat_ws({})").format(sql.SQL(", ").join([sql.SQL("','"), *parts]))


def canonical_text(column: str, canon: Canon) -> sql.Composed:
    """The expression that spells a column as `canon` says."""
    name = sql.Identifier(column)
    return _SPELLINGS[canon].format(name)


# Under the pinned session (ISO, UTC) PostgreSQL prints dates and times as Canon asks, fractions trimmed.
_SPELLINGS: dict[Canon, sql.SQL] = {
    Canon.TEXT: sql.SQL("{}::text"),
    Canon.INTEGER: sql.SQL("{}::text"),
    Canon.NUMERIC: sql.SQL("trim_scale({}::numeric)::text"),
    Canon.FLOAT: sql.SQL("encode(float8send({}::float8), 'hex')"),
    Canon.FLOATS: sql.SQL(
        "CASE WHEN {0} IS NOT NULL THEN '{{' || (SELECT coalesce(string_agg(coalesce(encode(float8send(e::float8), 'hex'),"
        " 'NULL'), ',' ORDER BY n), '') FROM unnest({0}) WITH ORDINALITY AS u (e, n)) || '}}' END"
    ),
    Canon.BOOLEAN: sql.SQL("{}::int4::text"),
    Canon.BYTES: sql.SQL("encode({}, 'hex')"),
    Canon.DATE: sql.SQL("{}::text"),
    Canon.TIME: sql.SQL("{}::text"),
    Canon.TIMESTAMP: sql.SQL("{}::text"),
}


def _clauses(predicate: sql.Composable | None, groups: Groups | None) -> dict[str, sql.Composable]:
    where = sql.SQL(" WHERE {}").format(predicate) if predicate is not None else _NOTHING
    if groups is None:
        return {"where": where, "group": _NOTHING, "index": _NOTHING, "by": _NOTHING}
    return {
        "where": where,
        "group": sql.SQL("chunk, "),
        "index": sql.SQL("{} AS chunk, ").format(groups.index),
        "by": sql.SQL(" GROUP BY chunk"),
    }
