"""Cron: what is refused, and the latest time, against Dagster's own croniter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from dagster._vendored.croniter import croniter
from hypothesis import assume, given
from hypothesis import strategies as st

from jivs_pipeline.core.cron import Cron

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def field(lowest: int, highest: int) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    # croniter takes 0-0 for every weekday.
    pairs = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    spans = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, 9)).map(lambda s: f"{s[0]}/{s[1]}")
    one = st.one_of(number.map(str), spans, steps)
    return st.one_of(st.just("*"), st.lists(one, min_size=1, max_size=3).map(",".join))


CRONS = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(" ".join)


@given(CRONS, st.integers(0, 2 * 366 * 24 * 60), st.integers(1, 40 * 24 * 60))
def test_as_croniter_has_it(text: str, minutes: int, back: int) -> None:
    """The latest time within a window, where any is in there."""
    day, weekday = text.split()[2], text.split()[4]
    # Whether */2 and 1,*/3 restrict the day is where crons differ; ours is Vixie's.
    assume(all(f == "*" or "*" not in f for f in (day, weekday)))
    try:
        cron = Cron.parse(text)
    except ValueError:
        assert "2" in text.split()[3] or day != "*"
        return
    until = EPOCH + timedelta(minutes=minutes)
    after = until - timedelta(minutes=back)
    try:
        # croniter looks back exclusively.
        expected = croniter(text, until + timedelta(minutes=1)).get_prev(datetime)
    except Exception:  # noqa: BLE001 - none within its years
        return
    assert cron.latest(after, until) == (expected if expected > after else None)


@pytest.mark.parametrize(
    ("text", "until", "wanted"),
    [
        ("0 2 * * *", "2026-11-25 01:59", "2026-11-24 02:00"),
        ("0 2 * * *", "2026-11-25 02:00", "2026-11-25 02:00"),
        ("0 2 * * *", "2026-11-25 02:00:59", "2026-11-25 02:00"),
        ("*/15 9-17 * * mon-fri", "2026-11-28 12:00", "2026-11-27 17:45"),
        ("0 0 29 2 *", "2026-11-25 00:00", "2024-02-29 00:00"),
        ("0 0 13 * fri", "2026-11-25 00:00", "2026-11-20 00:00"),
        ("0 0 * * 7", "2026-11-25 00:00", "2026-11-22 00:00"),
        ("5/20 * * JAN *", "2026-11-25 00:00", "2026-01-31 23:45"),
    ],
)
def test_the_latest_time(text: str, until: str, wanted: str) -> None:
    assert Cron.parse(text).latest(EPOCH, at(until)) == at(wanted)


def test_a_time_is_later_than_the_last() -> None:
    """What was asked for is not due again, in no zone."""
    cron, due = Cron.parse("0 2 * * *"), at("2026-11-25 02:00")
    assert cron.latest(due, at("2026-11-26 01:59")) is None
    assert cron.latest(due - timedelta(microseconds=1), due) == due
    east = datetime.fromisoformat("2026-11-25T03:30:00+02:00")
    assert cron.latest(EPOCH, east) == at("2026-11-24 02:00")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "five fields"),
        ("0 2 * *", "five fields"),
        ("0 2 * * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "'60' is no minute of a schedule, which is 0 to 59"),
        ("* 24 * * *", "no hour"),
        ("* * 0 * *", "no day"),
        ("* * * 13 *", "no month"),
        ("* * * * 8", "no weekday"),
        ("* * * * funday", "no weekday"),
        ("-1 * * * *", "no minute"),
        ("1- * * * *", "no minute"),
        ("1,, * * * *", "no minute"),
        ("*/0 * * * *", "step"),
        ("*/x * * * *", "step"),
        ("٣ * * * *", "no minute"),
        ("30-10 * * * *", "ends before it begins"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_is_no_schedule(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Cron.parse(text)


def test_a_day_that_only_a_weekday_saves() -> None:
    assert Cron.parse("0 0 30 2 mon").latest(EPOCH, at("2026-03-01 00:00")) == at("2026-02-23 00:00")
