"""Whether RECORD tells apart all values that PostgreSQL prints differently, of every type, and only these.

What belongs here: `infra/value_hashes.py`, by rows' hashes of a real PostgreSQL. What does not: sums (`test_digests.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.infra.digests import Hashed, row_hashes
from jivs_pipeline.infra.postgresql import Session, connect

# By type, values that are printed in as many ways; for bigint such as the server's own hash takes for one.
_VALUES: dict[str, Sequence[str]] = {
    "smallint": ["0", "1", "-1", "32767", "-32768"],
    "integer": ["0", "1", "-1", "2147483647", "-2147483648"],
    "bigint": [
        "0", "1", "-1", "4294967295", "4294967296", "4294967297", "-4294967296", "-4294967297", "-2", "4294967294",
        "9223372036854775807", "-9223372036854775808", "1099511627776",
    ],
    "numeric": ["0", "0.0", "1", "-1", "1.0", "1.00", "10000", "NaN", "Infinity", "-Infinity", "1e-20", "-1e-20"],
    "numeric(15,2)": ["0", "1", "-1", "1.01", "NaN", "9999999999999.99", "-9999999999999.99"],
    "real": ["0", "-0", "1", "-1", "NaN", "Infinity", "-Infinity", "1e-45", "0.1"],
    "double precision": ["0", "-0", "1", "-1", "NaN", "Infinity", "-Infinity", "5e-324", "-5e-324", "0.1"],
    "boolean": ["true", "false"],
    "date": ["infinity", "-infinity", "2000-01-01", "1999-12-31", "4713-01-01 BC", "5874897-12-31", "0001-01-01"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"],
    "text": ["", " ", "a", "a ", "A", "é", "e\u0301", "\\x61"],
    "character varying(9)": ["", " ", "a", "a ", "A", "NULL"],
    "character(3)": ["", "a", "a b", "A", "abc"],
    "bpchar": ["", " ", "a", "a ", "a  "],
    '"char"': ["", "a", "t", "\\377"],
    "bytea": ["", "\\x00", "\\x0000", "\\x61", "\\xff"],
    "timestamp without time zone": [
        "infinity", "-infinity", "2000-01-01", "2000-01-01 00:00:00.000001", "1999-12-31 23:59:59.999999",
        "2000-01-01 01:11:34.967296", "294276-12-31 23:59:59.999999", "4713-01-01 BC",
    ],
    "timestamp(3) with time zone": ["2000-01-01 00:00+00", "2000-01-01 00:00+01", "infinity"],
    "time without time zone": ["00:00", "24:00", "01:11:34.967296", "00:00:00.000001"],
    "time with time zone": ["12:00+00", "13:00+01", "12:00+01"],
    "interval": ["1 day", "24 hours", "1 month", "30 days", "-1 day", "0"],
    "money": ["0", "1.01", "-1.01"],
    "json": ["{}", "{ }", "[1, 1.0]", "null"],
    "jsonb": ["{}", "[1]", "[1.0]", "[-1]", "null"],
    "bit(3)": ["000", "001"],
    "bit varying": ["", "0", "00"],
    "inet": ["10.0.0.1", "10.0.0.1/8", "::1"],
    "integer[]": ["{}", "{1}", "{{1}}", "{NULL}", "[2:2]={1}", "{1,2}"],
    "text[]": ["{}", '{""}', "{NULL}", '{"NULL"}', '{"a,b"}', "{a,b}"],
    "int4range": ["empty", "[1,2)", "(,)", "(,2)"],
    "public.pair": ["(,)", "(1,)", "(,1)", "(1,1)"],
    "public.mood": ["glad", "sad"],
    "public.shout": ["A", "B"],
    "tsvector": ["", "a", "a:1"],
    "point": ["(0,0)", "(0,1)", "(1e-20,0)"],
}  # fmt: skip


@pytest.fixture
def db(database: str) -> Iterator[Session]:
    """A session with the pinned settings, as both ends have it."""
    with connect(parse_url(database, "t"), application_name="test") as session:
        session.execute(
            "CREATE TYPE public.pair AS (a int, b int); CREATE TYPE public.mood AS ENUM ('glad', 'sad');"
            " CREATE DOMAIN public.shout AS text CHECK (VALUE = upper(VALUE))"
        )
        yield session


def _create(db: Session, type_: str, values: Sequence[str | None], collation: str = "") -> None:
    kind = sql.SQL("{}{}").format(sql.SQL(type_), sql.SQL(collation))
    db.execute("DROP TABLE IF EXISTS public.t")
    db.execute(sql.SQL("CREATE TABLE public.t (v {0}, w {0})").format(kind))
    for value in values:
        db.execute(
            sql.SQL("INSERT INTO public.t VALUES ({0}::{1}, {0}::{1})").format(
                sql.Literal(value), sql.SQL(type_)
            )
        )


def _hashes(db: Session, columns: Sequence[tuple[str, str]], *, nullable: bool = True) -> list[bytes]:
    hashed = [Hashed(name, Canon.TEXT, type_, nullable) for name, type_ in columns]
    query = row_hashes(Spelling.RECORD, sql.SQL("ONLY public.t"), hashed, [])
    return [bytes(found) for (found,) in db.execute(query).fetchall()]


def test_what_is_printed_differently_is_hashed_differently(db: Session) -> None:
    """Each value and NULL, as the only column and as two; a value alike is hashed alike."""
    for type_, values in _VALUES.items():
        _create(db, type_, [*values, None])
        query = "SELECT count(DISTINCT concat(v)) FROM public.t WHERE num_nulls(v) = 0"
        assert db.execute(query).fetchone() == (len(values),), type_
        for columns in ([("v", type_)], [("v", type_), ("w", type_)]):
            found = _hashes(db, columns)
            assert len(set(found)) == len(values) + 1, type_
            assert _hashes(db, columns) == found, type_
        db.execute("UPDATE public.t SET w = NULL")
        # Side by side, so that what two columns do to the hash does not cancel out.
        sides = [*_hashes(db, [("v", type_), ("w", type_)]), *_hashes(db, [("w", type_), ("v", type_)])]
        assert len(set(sides)) == 2 * len(values) + 1, type_


def test_a_column_without_nulls_is_hashed_for_less(db: Session) -> None:
    """It tells all apart, too; and a NULL that should not be there is no other row's hash."""
    for type_, values in _VALUES.items():
        _create(db, type_, [*values, None])
        columns = [("v", type_), ("w", type_)]
        assert len(set(_hashes(db, columns, nullable=False))) == len(values) + 1, type_


def test_text_and_length_limits_are_hashed_alike(db: Session) -> None:
    """So that both ends may be of versions that name a type differently, and a limit may be lifted."""
    _create(db, "text", ["a", "", None])
    assert _hashes(db, [("v", "text")]) == _hashes(db, [("v", "character varying(3)")])


def test_a_hash_is_the_same_for_ever(db: Session) -> None:
    """Digests are stored, and compared with those of other versions: these are what PostgreSQL 15 and 18 give."""
    columns = {
        "bigint": "-4294967297", "numeric(15,2)": "-1.5", "double precision": "-0", "date": "2024-02-29",
        "character(5)": "ab", "text": "é", "bytea": "\\xff00", "uuid": "00000000-0000-0000-0000-000000000001",
        "timestamp without time zone": "2024-02-29 01:02:03.4", "boolean": "true", "real": "0.1", "interval": "1 day",
    }  # fmt: skip
    parts = [
        sql.SQL("{}::{} AS {}").format(sql.Literal(value), sql.SQL(type_), sql.Identifier(f"c{n}"))
        for n, (type_, value) in enumerate(columns.items())
    ]
    db.execute(sql.SQL("CREATE TABLE public.t AS SELECT {}").format(sql.SQL(", ").join(parts)))
    found = _hashes(db, [(f"c{n}", type_) for n, type_ in enumerate(columns)])
    assert [h.hex() for h in found] == ["34455e84fbbd29f5"]
