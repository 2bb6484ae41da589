"""The SQL with which PostgreSQL digests rows; both ends run the same text (see `core/digest.py`).

What belongs here: the spellings of a row and the sums over them. What does not: running them, or how
other databases spell theirs.

A digest yields one line `rows, high, low`; with `Groups` there is a line per chunk, its index first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from jivs_pipeline.core.digest import LONG, Canon, Spelling
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.infra.value_hashes import link

__all__ = ["Groups", "Hashed", "canonical_text", "column_list", "row_digest", "row_hashes"]

_NOTHING = sql.SQL("")


class Hashed(NamedTuple):
    """A column as it is hashed, by its name in a table: RECORD asks for its type (`format_type`) and whether it may be
    NULL, the other spellings for its canon.
    """

    name: str
    canon: Canon
    type: str = ""
    nullable: bool = True

    @classmethod
    def of_source(cls, column: ColumnPlan) -> Hashed:
        """By its name in the source."""
        return cls(column.source, column.canon, column.target_type, column.nullable)

    @classmethod
    def of_target(cls, column: ColumnPlan) -> Hashed:
        """By its name in the target."""
        return cls(column.target, column.canon, column.target_type, column.nullable)


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


_RECORD = sql.SQL(
    "SELECT {group}count(*), coalesce(sum(h), 0), 0 FROM (SELECT {index}{record} AS h FROM {table}{where}) AS s{by}"
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
    columns: Sequence[Hashed],
    predicate: sql.Composable | None = None,
    groups: Groups | None = None,
    *,
    utf8: bool = True,
) -> sql.Composed:
    """The digest of rows.

    Args:
        spelling: RECORD and CHAIN hash the bytes of the database's encoding, which must be UTF8 therefore.
        table: what follows FROM, e.g. `ONLY "public"."t"`.
        columns: in the plan's order.
        predicate: a complete condition.
        groups: give one line per chunk, with its index first, instead of one line in all.
        utf8: False where the database's encoding is another one, so that the text is converted before MD5.
    """
    parts = {"table": table, **_clauses(predicate, groups)}
    if spelling is Spelling.RECORD:
        return _RECORD.format(record=_record(columns), **parts)
    parts["spelled"] = _spelled(columns)
    if spelling is Spelling.CHAIN:
        return _CHAIN.format(chain=_chain(columns), **parts)
    text = _joined(columns)
    return _CANONICAL.format(text=text if utf8 else _in_utf8(text), **parts)


def row_hashes(
    spelling: Spelling,
    table: sql.Composable,
    columns: Sequence[Hashed],
    key: Sequence[Hashed],
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
        spelled = sql.SQL("{} AS h").format(_record(columns))
        hashed = sql.SQL("int8send(coalesce(h, 0))")
    elif spelling is Spelling.CHAIN:
        hashed = sql.SQL("int8send({})").format(_chain(columns))
    else:
        row = _joined(columns)
        hashed = sql.SQL("decode(md5({}), 'hex')").format(row if utf8 else _in_utf8(row))
    keys = [sql.Identifier(f"k{number}") for number in range(len(key))]
    texts = [
        sql.SQL(", {} AS {}").format(canonical_text(column.name, column.canon), label)
        for column, label in zip(key, keys, strict=True)
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


def _spelled(columns: Sequence[Hashed]) -> sql.Composable:
    """`… AS t0, … AS t1`: the canonical texts."""
    texts = [
        sql.SQL("{} AS {}").format(canonical_text(column.name, column.canon), _label(number))
        for number, column in enumerate(columns)
    ]
    return sql.SQL(", ").join(texts) if texts else sql.SQL("NULL")


def _record(columns: Sequence[Hashed]) -> sql.Composable:
    """The hash of the values themselves."""
    return _linked([link(c.name, c.type, nullable=c.nullable) for c in columns])


def _chain(columns: Sequence[Hashed]) -> sql.Composable:
    """The hash of the canonical texts below."""
    links = [
        (_FREE if c.canon.free else _ENCLOSED, {"t": _label(n), "long": LONG}) for n, c in enumerate(columns)
    ]
    return _linked([(begin.format(**names), end.format(**names)) for (begin, end), names in links])


def _linked(links: Sequence[tuple[sql.Composable, sql.Composable]]) -> sql.Composable:
    """Each around the one before. Written in one line, for psycopg follows nesting by recursion."""
    inner, outer = [begin for begin, _ in reversed(links)], [end for _, end in links]
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


def _joined(columns: Sequence[Hashed]) -> sql.Composable:
    """The row's text. `||` is the fastest, but nests too deep for 1,600 columns; concat() takes 100 arguments."""
    each = [
        (_COUNTED if c.canon.free else _CLOSED).format(t=_label(number)) for number, c in enumerate(columns)
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
    # The target's table may have a timestamp where the source has dates.
    Canon.DATE: sql.SQL("CASE WHEN {0} = {0}::date THEN {0}::date::text ELSE {0}::text END"),
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
