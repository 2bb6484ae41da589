"""SQLite's DDL and expressions: what is read from them, and what PostgreSQL is told."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.types import sqlite_type
from jivs_pipeline.infra.sources.sqlite_expressions import (
    UntranslatableError,
    default_expression,
    translate,
    translate_key,
)
from jivs_pipeline.infra.sources.sqlite_sql import constraints, index_parts, tokens
from jivs_pipeline.infra.sources.sqlite_values import fits_numeric, numeric_text, real_text

_COLUMNS = {
    name.lower(): (name, sqlite_type(declared), collated)
    for name, declared, collated in [
        ("Distance", "INTEGER", False),
        ("Name", "TEXT", False),
        ("Code", "VARCHAR(5)", True),
        ("Ok", "BOOLEAN", False),
        ("Day", "DATE", False),
        ("End", "DATE", False),
        ("At", "DATETIME", False),
        ("Price", "NUMERIC(10,2)", False),
        ("Ratio", "REAL", False),
        ('odd"name', "INTEGER", False),
    ]
}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Distance > 0", '("Distance" > 0)'),
        ("0<distance", '(0 < "Distance")'),
        ("[Distance] == +1", '("Distance" = 1)'),
        ("`Distance` != -1", '("Distance" <> -1)'),
        ('"odd""name" >= 1', '("odd""name" >= 1)'),
        (
            "Distance BETWEEN 1 AND 5 AND Name IN ('a','b''c')",
            "((\"Distance\" BETWEEN 1 AND 5) AND (\"Name\" IN ('a', 'b''c')))",
        ),
        ("Distance NOT BETWEEN 1 AND 5", '("Distance" NOT BETWEEN 1 AND 5)'),
        ("Name NOT IN ('a')", "(\"Name\" NOT IN ('a'))"),
        ("NOT (Distance < 0 OR Price >= 1.5)", '(NOT (("Distance" < 0) OR ("Price" >= 1.5)))'),
        ("a_or_b IS NULL", None),
        ("Name IS NOT NULL", '("Name" IS NOT NULL)'),
        ("Name NOTNULL", '("Name" IS NOT NULL)'),
        ("Name NOT NULL", '("Name" IS NOT NULL)'),
        ("Name ISNULL OR length(Name) > 0", '(("Name" IS NULL) OR (length("Name") > 0))'),
        ("(((Distance))) > 0", '("Distance" > 0)'),
        ("((Distance > 0) AND (Name IS NOT NULL)) -- why", '(("Distance" > 0) AND ("Name" IS NOT NULL))'),
        # Booleans: quoted numbers are right for boolean and for bigint.
        ("Ok IN (0, 1)", "(\"Ok\" IN ('0', '1'))"),
        ("Ok = 1", "(\"Ok\" = '1')"),
        ("Ok > 0", None),
        ("Ok IN (0, 2)", None),
        ("Ok", None),
        # Dates are compared alike; timestamps may be spelled in several ways.
        ("Day >= '2000-01-01' AND Day <= End", '(("Day" >= \'2000-01-01\') AND ("Day" <= "End"))'),
        ("Day >= '2000-02-31'", None),
        ("Day > '2000'", None),
        ("At >= '2000-01-01 00:00:00'", None),
        # The order of texts, collations, case and types differ.
        ("Name > 'a'", None),
        ("Code = 'a'", None),
        ("Name LIKE 'a%'", None),
        ("Name = 5", None),
        ("Distance <> ''", None),
        ("Ratio = Distance", None),
        ("Ratio > 0.5", '("Ratio" > 0.5)'),
        ("Price > 0.12345678901234567", None),
        # Anything else.
        ("typeof(Distance) = 'integer'", None),
        ("Distance > 0 > 1", None),
        ("Distance + 1 > 0", None),
        ("Distance = 1 = 1", None),
        ("+Distance > 0", None),
        ("Distance IN (SELECT 1)", None),
        ("Distance IN ()", None),
        ("Distance COLLATE NOCASE = 1", None),
        ("Distance > 0x10", None),
        ("Distance IS 5", None),
        ("t.Distance > 0", None),
        ("\"no such column\" = 'a'", None),
        ("1", None),
        ("1 = 1", None),
        ("", None),
    ],
)
def test_only_what_means_the_same_is_translated(written: str, expected: str | None) -> None:
    """None: refused, with a reason."""
    if expected is None:
        with pytest.raises(UntranslatableError, match=r"."):
            translate(tokens(written), _COLUMNS)
    else:
        assert translate(tokens(written), _COLUMNS) == expected


def test_keys_of_indexes_are_translated_alike() -> None:
    """lower() knows only ASCII in SQLite."""
    assert translate_key(tokens("length(name)"), _COLUMNS) == 'length("Name")'
    for written in ("lower(Name)", "Name || ''", "5", "length(Name) > 1"):
        with pytest.raises(UntranslatableError):
            translate_key(tokens(written), _COLUMNS)


@pytest.mark.parametrize(
    ("written", "declared", "expected"),
    [
        ("1", "BOOLEAN", "'1'"),
        ("TRUE", "BOOLEAN", "'1'"),
        ("2", "BOOLEAN", ...),
        ("-5", "INTEGER", "'-5'"),
        ("+5", "INT", "'5'"),
        ("(5)", "INT", "'5'"),
        ("0x1F", "INT", "'31'"),
        ("'5'", "INT", "'5'"),
        ("1.5", "INT", ...),
        ("'abc'", "INT", ...),
        ("1.50", "NUMERIC(10,2)", "'1.50'"),
        ("1.555", "NUMERIC(10,2)", ...),
        ("1e3", "REAL", "'1e3'"),
        ("'it''s'", "TEXT", "'it''s'"),
        ('"quoted"', "TEXT", "'quoted'"),
        ("word", "TEXT", "'word'"),
        ("''", "TEXT", "''"),
        ("'abcdef'", "CHAR(5)", ...),
        ("7", "TEXT", "'7'"),
        ("007", "TEXT", ...),
        ("1.0", "TEXT", ...),
        ("NULL", "TEXT", None),
        ("x'0A'", "BLOB", "'\\x0a'"),
        ("'a'", "BLOB", ...),
        ("x'0A'", "TEXT", ...),
        ("'2000-02-29'", "DATE", "'2000-02-29'"),
        ("'2001-02-29'", "DATE", ...),
        ("'2000-01-01 10:00:00'", "DATETIME", "'2000-01-01 10:00:00'"),
        ("'10:61:00'", "TIME", ...),
        ("CURRENT_TIMESTAMP", "DATETIME", "date_trunc('second', (now() AT TIME ZONE 'UTC'))"),
        ("CURRENT_TIMESTAMP", "TEXT", "date_trunc('second', (now() AT TIME ZONE 'UTC'))"),
        ("CURRENT_DATE", "DATE", "((now() AT TIME ZONE 'UTC')::date)"),
        ("CURRENT_TIMESTAMP", "INTEGER", ...),
        ("CURRENT_DATE", "DATETIME", ...),
        ("(strftime('%s','now'))", "INTEGER", ...),
        ("(1 + 1)", "INTEGER", ...),
        ("'x'", "", "'x'"),
    ],
)
def test_defaults_are_translated_or_named(written: str, declared: str, expected: object) -> None:
    """`...`: refused."""
    if expected is ...:
        with pytest.raises(UntranslatableError, match="default"):
            default_expression(written, sqlite_type(declared))
    else:
        assert default_expression(written, sqlite_type(declared)) == expected


def test_names_and_bodies_of_constraints_are_read_from_the_ddl() -> None:
    """Comments, quotes, missing commas and keywords as names do not confuse it."""
    found = constraints("""
        CREATE TABLE "t(" ( -- CHECK (a)
            id INTEGER CONSTRAINT pk PRIMARY KEY AUTOINCREMENT, x INT CHECK (x>0) CHECK(x<10) DEFAULT (1) /* , */,
            [check] TEXT CONSTRAINT "c y" CHECK ("check" IN ('a)','b')) COLLATE nocase,
            w INT CONSTRAINT nn NOT NULL CONSTRAINT uw UNIQUE ON CONFLICT IGNORE,
            q INT DEFAULT -1 CONSTRAINT fq REFERENCES p(b) ON DELETE SET NULL ON UPDATE NO ACTION NOT DEFERRABLE,
            s INT GENERATED ALWAYS AS (x + 1) STORED UNIQUE, v,
            CONSTRAINT ck CHECK (x > 0) CHECK (length(v) > 0), CONSTRAINT "fk two" FOREIGN KEY (q, s) REFERENCES p
            MATCH SIMPLE ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, CONSTRAINT u UNIQUE (x,
            [check]), PRIMARY KEY (w DESC)
        ) STRICT""")
    assert [(c.kind, c.name, c.columns) for c in found] == [
        ("PRIMARY", "pk", ("id",)),
        ("CHECK", None, ("x",)),
        ("CHECK", None, ("x",)),
        ("CHECK", "c y", ("check",)),
        ("COLLATE", None, ("check",)),
        ("UNIQUE", "uw", ("w",)),
        ("FOREIGN", "fq", ("q",)),
        ("UNIQUE", None, ("s",)),
        ("CHECK", "ck", ()),
        ("CHECK", None, ()),
        ("FOREIGN", "fk two", ("q", "s")),
        ("UNIQUE", "u", ("x", "check")),
        ("PRIMARY", None, ("w",)),
    ]
    deferrals = {c.name: (c.deferrable, c.initially_deferred) for c in found if c.kind == "FOREIGN"}
    assert deferrals == {"fq": (False, False), "fk two": (True, True)}
    assert [t.text for t in found[1].body] == ["x", ">", "0"]


def test_an_index_is_read_in_parts() -> None:
    """Keys, and the predicate after them."""
    keys, predicate = index_parts(
        "CREATE INDEX i ON [t(] (a DESC, lower(b), [c,d]) WHERE a > 0 AND b IN (1, 2)"
    )
    assert [[t.text for t in key] for key in keys] == [["a", "DESC"], ["lower", "(", "b", ")"], ["[c,d]"]]
    assert "".join(t.text for t in predicate) == "a>0ANDbIN(1,2)"
    assert index_parts("CREATE INDEX i ON t (a)")[1] == []


@pytest.mark.parametrize(
    ("value", "text", "numeric"),
    [
        (1.0, "1.0", "1"),
        (-0.5, "-0.5", "-0.5"),
        (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
        (1e14, "100000000000000.0", "100000000000000"),
        (1e15, "1.0e+15", "1000000000000000"),
        (1.5e-5, "1.5e-05", "0.000015"),
        (0.0001, "0.0001", "0.0001"),
        (-2.5e100, "-2.5e+100", "-25" + "0" * 99),
        (5e-324, "5.0e-324", "0." + "0" * 323 + "5"),
        (0.0, "0.0", "0"),
        (-0.0, "-0.0", "0"),
        (float("inf"), "Inf", "Infinity"),
        (float("-inf"), "-Inf", "-Infinity"),
    ],
)
def test_reals_are_spelled_with_their_shortest_digits(value: float, text: str, numeric: str) -> None:
    """As text like SQLite, as numeric like PostgreSQL's trim_scale()."""
    assert real_text(value) == text
    assert numeric_text(value) == numeric


def test_numerics_are_trimmed() -> None:
    """Integers and texts too."""
    assert [numeric_text(v) for v in (100, -(2**63), "1.500", "-0.00", "1E+3", "0.10")] == [
        "100", "-9223372036854775808", "1.5", "0", "1000", "0.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("digits", "fits"),
    [
        ("999.99", True),
        ("1000", False),
        ("0.001", False),
        ("1e2", True),
        ("-999.990", True),
        ("inf", False),
        ("0", True),
    ],
)
def test_a_number_fits_its_numeric_or_not(digits: str, *, fits: bool) -> None:
    """numeric(5,2)."""
    assert fits_numeric(digits, 5, 2) is fits
