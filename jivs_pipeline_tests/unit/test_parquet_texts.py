"""The fast spellings of whole Arrow arrays are those that are made value by value."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.infra.sources import parquet_types
from jivs_pipeline.infra.sources.parquet_types import spelled
from jivs_pipeline.infra.sources.sqlite_values import numeric_text


def column(carrier: str, canon: Canon) -> ColumnPlan:
    return ColumnPlan(source="a", target="a", source_type="?", target_type="?", carrier=carrier, canon=canon)


@given(st.integers(0, 8), st.lists(st.none() | st.integers(-(10**15) + 1, 10**15 - 1)))
def test_decimals(scale: int, units: list[int | None]):
    values = [None if u is None else Decimal(u).scaleb(-scale) for u in units]
    texts = spelled(pa.array(values, pa.decimal128(18, scale)), column("native", Canon.NUMERIC)).to_pylist()
    assert texts == [None if v is None else numeric_text(f"{v:f}") for v in values]


FIRST, LAST = -719_162, 2_932_896
PLAIN_DAYS = st.none() | st.integers(FIRST, LAST) | st.sampled_from([FIRST, LAST, 0, -1])


def one_by_one(monkeypatch: pytest.MonkeyPatch, array: Any, plan: ColumnPlan) -> list[str | None]:
    with monkeypatch.context() as patched:
        patched.setattr(parquet_types, "_are_plain", lambda _: False)
        return spelled(array, plan).to_pylist()


@given(st.lists(PLAIN_DAYS))
def test_days(values: list[int | None]):
    array, plan = pa.array(values, pa.date32()), column("date", Canon.DATE)
    assert spelled(array, plan).to_pylist() == one_by_one(pytest.MonkeyPatch(), array, plan)


@given(
    st.sampled_from(["timestamp", "timestamptz"]),
    st.lists(st.none() | st.builds(lambda d, u: d * 86_400_000_000 + u, st.integers(FIRST, LAST), st.integers(0, 86_399_999_999) | st.sampled_from([0, 1, 10, 500_000, 36_000_000_000]))),
)  # fmt: skip
def test_moments(carrier: str, values: list[int | None]):
    array, plan = pa.array(values, pa.timestamp("us")), column(carrier, Canon.TIMESTAMP)
    assert spelled(array, plan).to_pylist() == one_by_one(pytest.MonkeyPatch(), array, plan)


@pytest.mark.parametrize(
    ("days", "text"), [(FIRST, "0001-01-01"), (FIRST - 1, "0001-12-31 BC"), (LAST, "9999-12-31"), (LAST + 1, "10000-01-01")]
)  # fmt: skip
def test_days_at_the_edges(days: int, text: str):
    assert spelled(
        pa.array([days, None], pa.int32()).cast(pa.date32()), column("date", Canon.DATE)
    ).to_pylist() == [text, None]
