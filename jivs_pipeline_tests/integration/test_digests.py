"""Digests of rows in a real PostgreSQL: every single change shows, the order of rows does not.

What belongs here: `infra/digests.py` against a reference in Python written from `core/digest.py`'s words
alone. What does not: the digests of other databases (beside their sources).
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Canon, Digest, Spelling
from jivs_pipeline.infra.digests import Groups, Hashed, row_digest
from jivs_pipeline.infra.postgresql import Session, connect
from jivs_pipeline_tests.row_hashes import reference

_T = sql.SQL("ONLY public.t")
_BOTH = pytest.mark.parametrize("spelling", list(Spelling))
# ruff: noqa: DTZ001 - these are timestamps without a time zone
# name, type, how canonical spells it
_COLUMNS: tuple[tuple[str, str, Canon], ...] = (
    ("i", "bigint", Canon.INTEGER),
    ("t", "text", Canon.TEXT),
    ("u", "text", Canon.TEXT),
    ("n", "numeric", Canon.NUMERIC),
    ("f", "double precision", Canon.FLOAT),
    ("o", "boolean", Canon.BOOLEAN),
    ("y", "bytea", Canon.BYTES),
    ("d", "date", Canon.DATE),
    ("m", "time without time zone", Canon.TIME),
    ("s", "timestamp without time zone", Canon.TIMESTAMP),
    ("z", "timestamp with time zone", Canon.TEXT),
)
Row = tuple[Any, ...]


@pytest.fixture
def db(database: str) -> Iterator[Session]:
    """A session with the pinned settings, as both ends have it."""
    with connect(parse_url(database, "t"), application_name="test") as session:
        yield session


def _create(db: Session, rows: Iterable[Row], columns: Sequence[tuple[str, str, Canon]] = _COLUMNS) -> None:
    db.execute("DROP TABLE IF EXISTS public.t")
    parts = [sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t)) for n, t, _ in columns]
    db.execute(sql.SQL("CREATE TABLE public.t ({})").format(sql.SQL(", ").join(parts)))
    _insert(db, rows)


def _insert(db: Session, rows: Iterable[Row]) -> None:
    with db.cursor().copy("COPY public.t FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _query(
    spelling: Spelling, columns: Sequence[tuple[str, str, Canon]] = _COLUMNS, **more: Any
) -> sql.Composed:
    return row_digest(spelling, _T, [Hashed(n, c, t) for n, t, c in columns], **more)


def _digest(
    db: Session, spelling: Spelling, columns: Sequence[tuple[str, str, Canon]] = _COLUMNS, **more: Any
) -> Digest:
    row = db.execute(_query(spelling, columns, **more)).fetchone()
    assert row
    return Digest(*map(int, row))


_A: Row = (
    1, "a", "b", Decimal("1.50"), 1.5, True, b"\x00\xff", date(2024, 2, 29), time(12, 0, 0, 500000),
    datetime(2024, 2, 29, 12, 0), "2024-02-29 12:00:00+00",
)  # fmt: skip
_B: Row = (
    2, "", None, Decimal(-7), -0.0, False, b"", date(1, 1, 1), time(0, 0), datetime(9999, 12, 31, 23, 59, 59, 999999),
    "2024-02-29 12:00:00.1+00",
)  # fmt: skip
_C: Row = (3, *[None] * 10)
_ROWS = [_A, _B, _C, _C]


def _set(column: str, where: int, value: str) -> str:
    return f"UPDATE public.t SET {column} = {value} WHERE i = {where}"


_SWAP = "UPDATE public.t SET t = x.t FROM (SELECT 3 - i AS i, t FROM public.t WHERE i < 3) x WHERE x.i = t.i"
_CHANGES = {
    "one bit of an integer": _set("i", 1, "0"),
    "the high bit of an integer": _set("i", 1, "(-9223372036854775807)"),
    "one bit of a float": _set("f", 1, "1.5000000000000002"),
    "the sign of zero": _set("f", 2, "0"),
    "not a number": _set("f", 2, "'NaN'"),
    "one bit of bytes": _set("y", 1, r"'\x00fe'"),
    "a byte more": _set("y", 1, r"'\x00ff00'"),
    "empty bytes to NULL": _set("y", 2, "NULL"),
    "NULL to empty bytes": _set("y", 3, "''"),
    "empty text to NULL": _set("t", 2, "NULL"),
    "NULL to empty text": _set("u", 2, "''"),
    "NULL to the word": _set("u", 2, "'NULL'"),
    "NULL to its spelling": _set("u", 2, "'-'"),
    "a trailing space": _set("t", 1, "'a '"),
    "a leading space": _set("t", 1, "' a'"),
    "another case": _set("t", 1, "'A'"),
    "a combining accent": _set("t", 1, "U&'a\\0301'"),
    "text moves to the neighbour": "UPDATE public.t SET t = '', u = 'ab' WHERE i = 1",
    "neighbours swap": "UPDATE public.t SET t = u, u = t WHERE i = 1",
    "two rows swap a value": _SWAP,
    "a separator inside": _set("t", 1, "'a,b'"),
    "a spelled length inside": "UPDATE public.t SET t = 'a1:b', u = '' WHERE i = 1",
    "a digit of a numeric": _set("n", 1, "1.51"),
    "a boolean": _set("o", 1, "false"),
    "a boolean to NULL": _set("o", 2, "NULL"),
    "a day": _set("d", 1, "'2024-03-01'"),
    "a microsecond of a time": _set("m", 1, "'12:00:00.500001'"),
    "the end of the day": _set("m", 2, "'24:00'"),
    "a microsecond of a timestamp": _set("s", 2, "'9999-12-31 23:59:59.999998'"),
    "another instant": _set("z", 1, "'2024-02-29 12:00:00+01'"),
    "a row is gone": "DELETE FROM public.t WHERE i = 1",
    "one of two equal rows is gone": "DELETE FROM public.t WHERE ctid = (SELECT max(ctid) FROM public.t WHERE i = 3)",
    "a row is doubled": "INSERT INTO public.t SELECT * FROM public.t WHERE i = 1",
    "a pair of equal rows more": "INSERT INTO public.t SELECT * FROM public.t WHERE i = 3",
    "a row of NULLs more": "INSERT INTO public.t (i) VALUES (NULL)",
    "pairs are exchanged": "UPDATE public.t SET (i, t, u, n, f, o, y, d, m, s, z) ="
    " (SELECT i, t, u, n, f, o, y, d, m, s, z FROM public.t WHERE i = 2) WHERE i = 3",
}  # fmt: skip


@_BOTH
def test_every_single_change_shows(db: Session, spelling: Spelling) -> None:
    """Each changes the hash and not only the count; none of the results equals another's."""
    _create(db, _ROWS)
    untouched = _digest(db, spelling)
    seen = {untouched.hex: "nothing"}
    for name, change in _CHANGES.items():
        db.execute("BEGIN")
        assert db.execute(change.encode()).rowcount > 0
        changed = _digest(db, spelling)
        db.execute("ROLLBACK")
        assert changed.hex not in seen, f"{name} looks like {seen[changed.hex]}"
        seen[changed.hex] = name
    assert _digest(db, spelling) == untouched


def test_scale_is_part_of_a_record(db: Session) -> None:
    """1.50 and 1.5 are equal numbers; only PostgreSQL on both ends keeps them apart."""
    _create(db, _ROWS)
    before = {spelling: _digest(db, spelling) for spelling in Spelling}
    db.execute("UPDATE public.t SET n = 1.5 WHERE i = 1")
    assert _digest(db, Spelling.RECORD) != before[Spelling.RECORD]
    assert _digest(db, Spelling.CANONICAL) == before[Spelling.CANONICAL]
    assert _digest(db, Spelling.CHAIN) == before[Spelling.CHAIN]


@_BOTH
def test_an_instant_is_the_same_from_everywhere(db: Session, spelling: Spelling) -> None:
    """How a time zone is written does not matter, what it means does."""
    _create(db, _ROWS)
    before = _digest(db, spelling)
    db.execute("UPDATE public.t SET z = '2024-02-29 17:30:00+05:30' WHERE i = 1")
    assert _digest(db, spelling) == before


@_BOTH
def test_the_order_of_rows_does_not_matter(db: Session, spelling: Spelling) -> None:
    digests: set[Digest] = set()
    for order in itertools.permutations(_ROWS):
        _create(db, order)
        digests.add(_digest(db, spelling))
    assert len(digests) == 1


@_BOTH
def test_the_order_and_choice_of_columns_matters(db: Session, spelling: Spelling) -> None:
    _create(db, _ROWS)
    chosen = [_COLUMNS[:3], (_COLUMNS[0], _COLUMNS[2], _COLUMNS[1]), _COLUMNS[:2], _COLUMNS]
    assert len({_digest(db, spelling, columns).hex for columns in chosen}) == 4


@_BOTH
def test_parts_add_up(db: Session, spelling: Spelling) -> None:
    """By condition and by groups, every row in exactly one part, also at the bounds."""
    columns = (("k", "bigint", Canon.INTEGER), ("t", "text", Canon.TEXT))
    keys = [-(2**63), -5, -1, 0, 9, 10, 11, 19, 20, 2**63 - 1]
    _create(db, [(k, f"x{k}") for k in keys], columns)
    whole = _digest(db, spelling, columns)
    bounds = [-1, 10, 20]
    lines = db.execute(_query(spelling, columns, groups=Groups("k", bounds))).fetchall()
    groups = {int(index): Digest(*map(int, rest)) for index, *rest in lines}
    assert {index: d.rows for index, d in groups.items()} == {0: 2, 1: 3, 2: 3, 3: 2}
    edges = [-(2**63), *bounds, None]
    for index, (lower, upper) in enumerate(itertools.pairwise(edges)):
        condition = sql.SQL("k >= {}").format(lower) + (
            sql.SQL(" AND k < {}").format(upper) if upper is not None else sql.SQL("")
        )
        assert _digest(db, spelling, columns, predicate=condition) == groups[index]
    assert sum(groups.values(), Digest()) == whole
    assert whole.rows == len(keys)
    (only,) = db.execute(_query(spelling, columns, groups=Groups("k", []))).fetchall()
    assert Digest(*map(int, only[1:])) == whole
    assert _digest(db, spelling, columns, predicate=sql.SQL("false")) == Digest()


@_BOTH
def test_the_extremes_of_tables(db: Session, spelling: Spelling) -> None:
    """No rows, no columns, and as many columns as a table can have."""
    _create(db, [])
    assert _digest(db, spelling) == Digest()
    _create(db, [], [])
    db.execute("INSERT INTO public.t SELECT FROM generate_series(1, 3)")
    three = _digest(db, spelling, [])
    assert three.rows == 3
    wide = [(f"c{n}", "boolean", Canon.BOOLEAN) for n in range(1600)]
    _create(db, [tuple(n % 2 == 0 for n in range(1600))], wide)
    before = _digest(db, spelling, wide)
    db.execute("UPDATE public.t SET c1599 = true")
    assert _digest(db, spelling, wide) != before


@_BOTH
def test_settings_of_the_server_do_not_matter(db: Session, database: str, spelling: Spelling) -> None:
    """Both ends pin what decides about text, whatever the database prefers."""
    _create(db, _ROWS)
    before = _digest(db, spelling)
    name = db.info.dbname
    for setting in (
        "timezone = 'Asia/Kolkata'",
        "datestyle = 'German'",
        "bytea_output = 'escape'",
        "extra_float_digits = -10",
        "search_path = public",
    ):
        db.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    with connect(parse_url(database, "t"), application_name="test") as other:
        assert _digest(other, spelling) == before


# ── Canonical spellings against Python ───────────────────────────────────────────────────────────────────


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        return "NaN"
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


def _time(value: time | datetime) -> str:
    text = f"{value:%H:%M:%S}"
    return f"{text}.{value.microsecond:06d}".rstrip("0") if value.microsecond else text


_SPELL: dict[Canon, Callable[[Any], str]] = {
    Canon.TEXT: str,
    Canon.INTEGER: str,
    Canon.NUMERIC: _decimal,
    Canon.FLOAT: lambda value: struct.pack(">d", value).hex(),
    Canon.FLOATS: lambda value: (
        f"{{{','.join('NULL' if v is None else struct.pack('>d', v).hex() for v in value)}}}"
    ),
    Canon.BOOLEAN: lambda value: str(int(value)),
    Canon.BYTES: bytes.hex,
    Canon.DATE: date.isoformat,
    Canon.TIME: _time,
    Canon.TIMESTAMP: lambda value: f"{value.date().isoformat()} {_time(value)}",
}


def _reference(rows: Iterable[Row], canons: Sequence[Canon], spelling: Spelling) -> Digest:
    texts = ([None if v is None else _SPELL[c](v) for v, c in zip(row, canons, strict=True)] for row in rows)
    return reference(texts, canons, spelling)


_SPELLINGS = pytest.mark.parametrize("spelling", [Spelling.CHAIN, Spelling.CANONICAL])
_VALUES: dict[Canon, tuple[str, list[Any]]] = {
    Canon.TEXT: ("text", ["", " ", "a", "a ", "é", "e\u0301", "名前", "🦆🦆", "\n\t\\", "-", "1:a", "x" * 10000, "\x01"]),
    Canon.INTEGER: ("bigint", [0, 1, -1, 2**63 - 1, -(2**63), 10**18]),
    Canon.NUMERIC: ("numeric", [
        Decimal(t) for t in ("0", "-0", "0.00", "1", "1.0", "-1.50", "100", "1200.00", "1e30", "-1e-30", "0.1", "NaN",
                             "123456789012345678901234567890.123456789012345678901234567890")
    ]),
    Canon.FLOAT: ("double precision", [0.0, -0.0, 1.5, 0.1, -1e308, 5e-324, 2**53 + 1.0, float("inf"), float("-inf")]),
    Canon.FLOATS: ("double precision[]", [[], [0.0, -0.0, None], [None], [0.1, 5e-324, float("inf")]]),
    Canon.BOOLEAN: ("boolean", [True, False]),
    Canon.BYTES: ("bytea", [b"", b"\0", b"\xff\x00\\", bytes(range(256))]),
    Canon.DATE: ("date", [date(1, 1, 1), date(1582, 10, 10), date(1970, 1, 1), date(2024, 2, 29), date(9999, 12, 31)]),
    Canon.TIME: ("time", [time(0), time(23, 59, 59, 999999), time(1, 2, 3), time(1, 2, 3, 400000), time(0, 0, 0, 1)]),
    Canon.TIMESTAMP: ("timestamp", [
        datetime(1, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2024, 2, 29, 1, 2, 3, 120000),
        datetime(9999, 12, 31, 23, 59, 59, 999999), datetime(2000, 1, 1),
    ]),
}  # fmt: skip


def test_every_canon_has_values() -> None:
    assert set(_VALUES) == set(Canon) == set(_SPELL)


@_SPELLINGS
@pytest.mark.parametrize("canon", list(Canon))
def test_a_canon_is_what_it_says(db: Session, canon: Canon, spelling: Spelling) -> None:
    """One value at a time, so that a wrong spelling is named."""
    kind, values = _VALUES[canon]
    columns = (("v", kind, canon),)
    for value in [*values, None]:
        _create(db, [(value,)], columns)
        assert _digest(db, spelling, columns) == _reference([(value,)], [canon], spelling), repr(value)


@_SPELLINGS
def test_whole_rows_are_what_they_say(db: Session, spelling: Spelling) -> None:
    """Random rows of all kinds, hundreds of them, in one sum."""
    seed = random.randrange(2**32)
    chooser = random.Random(seed)
    canons = [canon for canon in Canon for _ in range(2)]
    columns = [(f"c{n}", _VALUES[canon][0], canon) for n, canon in enumerate(canons)]
    rows = [tuple(chooser.choice([*_VALUES[canon][1], None]) for canon in canons) for _ in range(300)]
    _create(db, rows, columns)
    assert _digest(db, spelling, columns) == _reference(rows, canons, spelling), f"seed {seed}"


def test_text_of_another_encoding_is_the_same_text(make_database: Callable[[str], str]) -> None:
    """A Latin 1 database spells é in one byte; the digest is of its UTF-8."""
    url = make_database("ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'")
    columns = (("v", "text", Canon.TEXT),)
    rows = [("é",), ("ÿ",), ("a",), (None,)]
    with connect(parse_url(url, "t"), application_name="test") as db:
        assert db.info.parameter_status("server_encoding") == "LATIN1"
        _create(db, rows, columns)
        expected = _reference(rows, [Canon.TEXT], Spelling.CANONICAL)
        assert _digest(db, Spelling.CANONICAL, columns, utf8=False) == expected
        assert _digest(db, Spelling.CANONICAL, columns) != expected


def test_a_digest_can_be_stored(db: Session) -> None:
    """The sums exceed 64 bits with enough rows, and nothing of them may be lost."""
    _create(db, _ROWS)
    big = Digest(10**12, -(2**100) - 1, 2**100 + 1)
    for digest in (_digest(db, Spelling.RECORD), Digest(), big):
        assert Digest.parse(digest.stored()) == digest
        assert len(digest.hex) == 32
