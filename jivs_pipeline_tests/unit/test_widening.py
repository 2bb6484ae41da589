"""Which types of an existing table hold every value of a planned one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.widening import widens

TYPES = [
    "smallint", "integer", "bigint", "numeric", "numeric(10,2)", "real", "double precision", "boolean", "text", "character varying",
    "character varying(10)", "character(10)", "bytea", "date", "time without time zone", "timestamp without time zone",
    "timestamp(3) without time zone", "timestamp with time zone", "interval", "uuid", "jsonb", "integer[]", "numeric(3,-2)", '"Mood"',
]  # fmt: skip


@pytest.mark.parametrize("type_", TYPES)
def test_every_type_holds_itself(type_):
    assert widens(type_, type_)


@pytest.mark.parametrize(
    ("one", "other"),
    [("int4", "integer"), ("INT8", "bigint"), ("bool", "boolean"), ("varchar(5)", "character varying(5)"), ("decimal(5,1)", "numeric(5, 1)"),
     ("timestamptz", "timestamp with time zone"), ("timestamp(3)", "timestamp(3) without time zone"), ("timestamp", "timestamp(6)"),
     ("float8", "double precision"), ("varchar", "text")],
)  # fmt: skip
def test_two_spellings_are_one_type(one, other):
    assert widens(one, other)
    assert widens(other, one)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint"), ("bigint", "numeric"), ("real", "double precision"),
        ("numeric(10,2)", "numeric"), ("numeric(10,2)", "numeric(12,2)"), ("numeric(10,2)", "numeric(12,4)"), ("numeric(5)", "numeric(6,1)"),
        ("varchar(10)", "varchar(11)"), ("varchar(10)", "text"), ("varchar(10)", "varchar"), ("date", "timestamp"),
        ("timestamp(3)", "timestamp"), ("timestamp(3)", "timestamp(6)"), ("time(0)", "time"), ("timestamptz(3)", "timestamptz"),
        ("interval(3)", "interval"), ("bit varying(3)", "bit varying(5)"), ("bit varying(3)", "bit varying"),
    ],
)  # fmt: skip
def test_a_wider_type_holds_a_narrower_one_and_not_the_reverse(narrow, wide):
    assert widens(narrow, wide)
    assert not widens(wide, narrow)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("integer", "real"), ("bigint", "double precision"), ("real", "numeric"), ("integer", "text"), ("integer", "boolean"), ("boolean", "integer"),
        ("text", "bytea"), ("text", "jsonb"), ("json", "jsonb"), ("character(10)", "text"), ("character(5)", "character(10)"), ("integer", "numeric(5,0)"),
        ("timestamp", "timestamptz"), ("timestamptz", "timestamp"), ("timestamp", "timestamp(3)"), ("time", "timestamp"), ("integer[]", "bigint[]"),
        ("varchar", "varchar(10)"), ("numeric", "numeric(1000,500)"), ("numeric(10,2)", "numeric(12,1)"), ("numeric(10,2)", "numeric(11,4)"),
        ("numeric(10,2)", "bigint"), ("numeric(3,-2)", "numeric(4,-2)"), ('"Mood"', '"mood"'), ('"Mood"', "mood"), ("bit(3)", "bit(5)"), ("date", "timestamptz"),
        ("varchar(10)[]", "varchar(5)[]"),
    ],
)  # fmt: skip
def test_types_that_round_cut_pad_or_shift_do_not_hold_each_other(one, other):
    assert not widens(one, other)


digits = st.integers(1, 12)


@given(digits, st.integers(0, 12), digits, st.integers(0, 12))
def test_numerics_hold_each_other_when_the_largest_and_the_finest_value_fit(
    precision, scale, wide_precision, wide_scale
):
    def fits(value: Decimal) -> bool:
        # What PostgreSQL does: round to the scale, then compare with 10 ^ (precision - scale).
        return round(value, wide_scale) == value and abs(value) < Decimal(10) ** (wide_precision - wide_scale)

    largest = Decimal(10**precision - 1).scaleb(-scale)
    finest = Decimal(1).scaleb(-scale)
    narrow, wide = f"numeric({precision},{scale})", f"numeric({wide_precision},{wide_scale})"
    # One digit in the narrow type may fit a wide one of smaller scale by chance; only then the rule is stricter.
    assert not widens(narrow, wide) or (fits(largest) and fits(finest))
    assert widens(narrow, wide) or scale > wide_scale or not fits(largest)
