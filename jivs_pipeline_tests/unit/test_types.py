"""The type table of SQLite, and the rules that pick a line of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pyarrow as pa
import pytest

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.types import (
    SQLITE_TYPES,
    TABLES,
    Affinity,
    Family,
    StoredValues,
    arrow_type,
    choose_sqlite,
    likely_sqlite,
    sqlite_type,
)

_INTEGERS = StoredValues(integers=5)
_REALS = StoredValues(reals=5)
_NUMBERS = StoredValues(integers=5, reals=5)
_TEXTS = StoredValues(texts=5, longest=4)
_BLOBS = StoredValues(blobs=5)
_NOTHING = StoredValues()


@pytest.mark.parametrize(
    ("declared", "affinity", "family"),
    [
        ("INTEGER", Affinity.INTEGER, Family.INTEGER),
        ("UNSIGNED BIG INT", Affinity.INTEGER, Family.INTEGER),
        ("FLOATING POINT", Affinity.INTEGER, Family.INTEGER),
        ("CHARINT", Affinity.INTEGER, Family.INTEGER),
        ("nvarchar(160)", Affinity.TEXT, Family.VARCHAR),
        ("CHARACTER VARYING ( 20 )", Affinity.TEXT, Family.VARCHAR),
        ("VARCHAR", Affinity.TEXT, Family.TEXT),
        ("VARCHAR(0)", Affinity.TEXT, Family.TEXT),
        ("VARCHAR(99999999)", Affinity.TEXT, Family.TEXT),
        ("CLOB", Affinity.TEXT, Family.TEXT),
        ("TEXT(10)", Affinity.TEXT, Family.TEXT),
        ("BLOB", Affinity.BLOB, Family.BLOB),
        ("LONGBLOB", Affinity.BLOB, Family.BLOB),
        ("", Affinity.BLOB, Family.NONE),
        ("DOUBLE PRECISION", Affinity.REAL, Family.REAL),
        ("FLOAT(10,2)", Affinity.REAL, Family.REAL),
        ("BOOLEAN", Affinity.NUMERIC, Family.BOOLEAN),
        ("bool", Affinity.NUMERIC, Family.BOOLEAN),
        ("DATE", Affinity.NUMERIC, Family.DATE),
        ("DATETIME", Affinity.NUMERIC, Family.TIMESTAMP),
        ("TIMESTAMP(6)", Affinity.NUMERIC, Family.TIMESTAMP),
        ("TIME", Affinity.NUMERIC, Family.TIME),
        ("DECIMAL", Affinity.NUMERIC, Family.NUMERIC),
        ("NUMERIC(10, 2)", Affinity.NUMERIC, Family.NUMERIC),
        ("STRING", Affinity.NUMERIC, Family.NONE),
        ("JSON", Affinity.NUMERIC, Family.NONE),
    ],
)
def test_declared_types_are_read_as_sqlite_reads_them(
    declared: str, affinity: Affinity, family: Family
) -> None:
    """Affinity decides what SQLite stores, the family what was meant."""
    found = sqlite_type(declared)
    assert (found.affinity, found.family) == (affinity, family)
    # What SQLite itself makes of a text that looks like a number.
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE TABLE t (c {declared})")
        database.execute("INSERT INTO t VALUES ('1.0')")
        stored = database.execute("SELECT typeof(c) FROM t").fetchone()[0]
    kept = {Affinity.TEXT: "text", Affinity.BLOB: "text", Affinity.REAL: "real"}
    assert stored == kept.get(affinity, "integer")


def test_any_promises_nothing() -> None:
    """ANY converts nothing in STRICT tables and is NUMERIC elsewhere: the values decide."""
    assert sqlite_type("ANY").family is Family.NONE
    assert sqlite_type("ANY").affinity is Affinity.BLOB


@pytest.mark.parametrize(
    ("declared", "precision", "scale"),
    [
        ("NUMERIC(10,2)", 10, 2),
        ("DECIMAL( 5 )", 5, 0),
        ("NUMBER(1000,1000)", 1000, 1000),
        ("NUMERIC(0,0)", None, None),
        ("NUMERIC(2,5)", None, None),
        ("NUMERIC(1001,2)", None, None),
        ("NUMERIC(5,-2)", None, None),
        ("NUMERIC", None, None),
    ],
)
def test_precision_and_scale_are_kept_only_if_postgresql_takes_them(
    declared: str, precision: int | None, scale: int | None
) -> None:
    """Others become numeric without limits."""
    found = sqlite_type(declared)
    assert (found.precision, found.scale) == (precision, scale)


@pytest.mark.parametrize(
    ("declared", "values", "target", "arrow"),
    [
        # As declared.
        ("BOOLEAN", _INTEGERS, "boolean", "bool"),
        ("INT", _INTEGERS, "bigint", "int64"),
        ("REAL", _REALS, "double precision", "double"),
        ("NUMERIC(10,2)", _NUMBERS, "numeric(10,2)", "decimal128(10,2)"),
        ("NUMERIC(10,2)", _INTEGERS, "numeric(10,2)", "decimal128(10,2)"),
        ("NUMERIC(39,2)", _NUMBERS, "numeric(39,2)", "string"),
        ("NUMERIC", _INTEGERS, "numeric", "string"),
        ("DATE", _TEXTS, "date", "date32"),
        ("TIME", _TEXTS, "time", "time64[us]"),
        ("DATETIME", _TEXTS, "timestamp", "timestamp[us]"),
        ("CHAR(4)", _TEXTS, "varchar(4)", "string"),
        ("TEXT", _TEXTS, "text", "string"),
        ("BLOB", _BLOBS, "bytea", "binary"),
        # Nothing stored: as declared.
        ("DATE", _NOTHING, "date", "date32"),
        ("NUMERIC(10,2)", _NOTHING, "numeric(10,2)", "decimal128(10,2)"),
        ("CHAR(4)", _NOTHING, "varchar(4)", "string"),
        ("BLOB", _NOTHING, "bytea", "binary"),
        ("", _NOTHING, "text", "string"),
        ("UUID", _NOTHING, "text", "string"),
        # What is stored is not what was declared.
        ("BOOLEAN", StoredValues(integers=5, conforming=False), "bigint", "int64"),
        ("BOOLEAN", _TEXTS, "text", "string"),
        ("DATE", StoredValues(texts=5, longest=4, conforming=False), "text", "string"),
        ("DATETIME", _INTEGERS, "bigint", "int64"),
        ("DATETIME", _REALS, "double precision", "double"),
        ("DATETIME", _NUMBERS, "numeric", "string"),
        ("INTEGER", _REALS, "double precision", "double"),
        ("INTEGER", _NUMBERS, "numeric", "string"),
        ("INTEGER", _TEXTS, "text", "string"),
        ("TEXT", _BLOBS, "bytea", "binary"),
        ("BLOB", _TEXTS, "text", "string"),
        ("NUMERIC(10,2)", _TEXTS, "text", "string"),
        ("NUMERIC(10,2)", StoredValues(reals=5, conforming=False), "numeric", "string"),
        ("VARCHAR(3)", _TEXTS, "text", "string"),
        # No promise: the values decide.
        ("", _INTEGERS, "bigint", "int64"),
        ("", _NUMBERS, "numeric", "string"),
        ("JSON", _TEXTS, "text", "string"),
        ("UUID", _BLOBS, "bytea", "binary"),
    ],
)
def test_the_values_decide_where_the_declaration_does_not_hold(
    declared: str, values: StoredValues, target: str, arrow: str
) -> None:
    """A declared type is a hope; nothing is ever coerced into it."""
    choice = choose_sqlite(sqlite_type(declared), values)
    assert choice.refused is None
    assert (choice.target, choice.arrow) == (target, arrow)


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("BOOLEAN", StoredValues(integers=5, conforming=False)),
        ("DATE", _INTEGERS),
        ("DATE", StoredValues(texts=5, longest=4, conforming=False)),
        ("NUMERIC(10,2)", StoredValues(reals=5, conforming=False)),
        ("VARCHAR(3)", _TEXTS),
        ("INTEGER", _TEXTS),
        ("", _INTEGERS),
    ],
)
def test_every_departure_has_a_note(declared: str, values: StoredValues) -> None:
    """The plan tells why a type is not the declared one, and says nothing otherwise."""
    note = choose_sqlite(sqlite_type(declared), values).note
    assert note
    assert "{" not in note
    assert choose_sqlite(sqlite_type("TEXT"), _TEXTS).note == ""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (StoredValues(integers=1200, texts=3), "1,200 integers and 3 texts"),
        (StoredValues(reals=1, texts=1), "1 real and 1 text"),
        (StoredValues(blobs=2, texts=1), "1 text and 2 blobs"),
        (StoredValues(texts=9, nul=2), "2 texts hold a NUL"),
        (StoredValues(integers=1, reals=3, minus_zeros=2), "2 reals are -0.0"),
    ],
)
def test_mixtures_are_refused_with_their_counts(values: StoredValues, says: str) -> None:
    """No PostgreSQL type tells 1 from '1', and text there has no NUL."""
    refused = choose_sqlite(sqlite_type(""), values).refused
    assert refused is not None
    assert says in refused


def test_only_a_mixture_without_blobs_can_become_text() -> None:
    """The hint must be one that works."""
    with_text = choose_sqlite(sqlite_type(""), StoredValues(integers=1, texts=1)).refused or ""
    with_blob = choose_sqlite(sqlite_type(""), StoredValues(integers=1, blobs=1)).refused or ""
    assert "type: text" in with_text
    assert "type: text" not in with_blob


def test_minus_zero_is_kept_where_the_column_holds_only_reals() -> None:
    """A double tells -0.0 from 0.0."""
    choice = choose_sqlite(sqlite_type(""), StoredValues(reals=3, minus_zeros=2))
    assert (choice.target, choice.refused) == ("double precision", None)


def test_the_table_is_consistent() -> None:
    """No line twice, and every Arrow type exists."""
    assert TABLES["sqlite"] is SQLITE_TYPES
    keys = [(m.declared, m.stored) for m in SQLITE_TYPES]
    assert len(keys) == len(set(keys))
    for mapping in SQLITE_TYPES:
        assert isinstance(arrow_type(mapping.arrow.replace("(p,s)", "(10,2)")), pa.DataType)
        assert mapping.canon in Canon
    assert {f.value for f in Family} - {"none"} <= {m.declared for m in SQLITE_TYPES}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int64", pa.int64()),
        ("double", pa.float64()),
        ("bool", pa.bool_()),
        ("string", pa.string()),
        ("binary", pa.binary()),
        ("date32", pa.date32()),
        ("time64[us]", pa.time64("us")),
        ("timestamp[us]", pa.timestamp("us")),
        ("decimal128(38,10)", pa.decimal128(38, 10)),
        ("decimal128(5, 0)", pa.decimal128(5, 0)),
    ],
)
def test_arrow_types_have_names(text: str, expected: pa.DataType) -> None:
    """What a plan says becomes pyarrow's type."""
    assert arrow_type(text) == expected


def test_an_unknown_arrow_type_is_an_error() -> None:
    """A plan of another version must not be misread."""
    with pytest.raises(ValueError, match="vector"):
        arrow_type("vector")


@pytest.mark.parametrize(
    ("declared", "held", "family"),
    [
        ("DATETIME", "text", Family.TIMESTAMP),
        ("DATETIME", None, Family.TIMESTAMP),
        ("DATETIME", "integer", Family.INTEGER),
        ("NUMERIC(9,2)", "real", Family.NUMERIC),
        ("INTEGER", "real", Family.REAL),
        ("INTEGER", "text", Family.TEXT),
        ("TEXT", "blob", Family.BLOB),
        ("", None, Family.TEXT),
        ("", "blob", Family.BLOB),
        ("JSON", "text", Family.TEXT),
    ],
)
def test_one_value_tells_what_to_expect(declared: str, held: str | None, family: Family) -> None:
    """Mixtures are refused, so that the first value speaks for all."""
    likely = likely_sqlite(sqlite_type(declared), held)
    assert likely.family is family
    assert (likely.precision is not None) == (family is Family.NUMERIC)
