"""Estimates: a guess before anything was measured, and what was measured of the runs that are most alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.estimates import PastRun, estimate
from jivs_pipeline.core.plan import Lane, Plan, Spelling, TablePlan, Wire
from jivs_pipeline.core.states import Phase

MB = 1_000_000
PHASES = {
    "plan": 0.3,
    "extract": 10.2,
    "transform": 0.0,
    "validate": 0.0,
    "load": 5.5,
    "verify": 2.2,
    "finish": 0.3,
}
PAST = PastRun("other", "legacy", "warehouse", "sqlite", 1_000_000, 900 * MB, PHASES)
"""A billion bytes of work: 10 s, 5 s and 2 s beside the bases."""


def plan(rows: int, size: int, key: str = "shop") -> Plan:
    table = TablePlan(
        source_schema="main", source_table="t", target_schema="public", target_table="t", columns=(), lane=Lane.ARROW,
        wire=Wire.BINARY, spelling=Spelling.RECORD, rows=rows, bytes=size,
    )  # fmt: skip
    return Plan(
        key=key, spec_hash="h", source="legacy", target="warehouse", source_dialect="sqlite", source_version="3",
        target_version="18", tables=(table,),
    )  # fmt: skip


def test_a_run_that_is_twice_as_large_takes_twice_as_long() -> None:
    found = estimate(plan(2_000_000, 1800 * MB), [PAST])
    assert found.phases == pytest.approx({**PHASES, "extract": 20.2, "load": 10.5, "verify": 4.2})
    assert found.seconds == pytest.approx(20.2 + 10.5 + 4.2 + 0.6)
    assert found.staging_bytes == 1800 * MB
    assert found.basis == "as 1 earlier run from 'legacy' to 'warehouse' took"


def test_an_empty_plan_takes_the_bases() -> None:
    assert estimate(plan(0, 0), [PAST]).seconds == pytest.approx(1.5)


def test_large_runs_count_for_more_than_small_ones() -> None:
    small = replace(PAST, rows=10_000, bytes=9 * MB)
    """As long as the large one: something else was going on."""
    found = estimate(plan(1_000_000, 900 * MB), [small, PAST])
    assert found.phases["extract"] == pytest.approx(0.2 + 20 / 1.01, rel=0.01)


@pytest.mark.parametrize(
    ("alike", "which"),
    [
        (replace(PAST, key="shop", source="x", target="y", dialect="z"), "of this very migration"),
        (PAST, "from 'legacy' to 'warehouse'"),
        (replace(PAST, target="elsewhere"), "from 'legacy'"),
        (replace(PAST, source="another", target="elsewhere"), "from sqlite"),
    ],
)
def test_the_most_similar_are_learned_from(alike: PastRun, which: str) -> None:
    """Whatever less similar ones say."""
    slow = {phase: 1000 * seconds for phase, seconds in PHASES.items()}
    less = [replace(PAST, source="pg", target="pg", dialect="postgresql", phases=slow)]
    if which != "from sqlite":
        less.append(replace(PAST, source="another", target="elsewhere", phases=slow))
    found = estimate(plan(1_000_000, 900 * MB), [*less, alike, alike])
    assert found.phases == pytest.approx(PHASES)
    assert found.basis == f"as 2 earlier runs {which} took"


def test_nothing_is_learned_from_next_to_nothing_or_another_dialect() -> None:
    tiny = replace(PAST, rows=2, bytes=100)
    foreign = replace(PAST, source="pg", target="pg", dialect="postgresql")
    found = estimate(plan(1_000_000, 900 * MB), [tiny, foreign])
    assert found == estimate(plan(1_000_000, 900 * MB), [])
    assert found.basis == "a guess: nothing was measured here yet"
    assert 5 < found.seconds < 100


@given(
    st.lists(
        st.builds(
            PastRun,
            st.sampled_from(["shop", "b"]), st.just("legacy"), st.just("warehouse"), st.just("sqlite"),
            st.integers(0, 10**12), st.integers(0, 10**15),
            st.dictionaries(st.sampled_from([p.value for p in Phase]), st.floats(0, 1e7)),
        ),
        max_size=5,
    ),
    st.integers(0, 10**10),
)  # fmt: skip
def test_more_work_never_takes_less(past: list[PastRun], rows: int) -> None:
    some, more = estimate(plan(rows, 0), past), estimate(plan(rows * 2 + 1, 0), past)
    assert 0 < some.seconds <= more.seconds < float("inf")
