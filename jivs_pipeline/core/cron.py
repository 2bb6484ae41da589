"""Five-field cron, in UTC: when a scheduled migration is due.

What belongs here: reading `minute hour day month weekday` and looking back from a moment. What does not: the clock,
and what happens when something is due (`engine/scheduling.py`).

UTC has no hour twice and none that is missing, so every time of a schedule comes exactly once. As in every cron: where
both the day and the weekday are restricted, either is enough.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["Cron"]

_MONTHS = {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
# Name, lowest, highest, names. 7 is Sunday, too.
_FIELDS = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 7, _WEEKDAYS),
)
_LONGEST_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class Cron:
    """A schedule. `either`: day and weekday are both restricted, and one of the two is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """From `minute hour day month weekday`.

        Raises:
            ValueError: one sentence that says which field is wrong.
        """
        parts = text.lower().split()
        if len(parts) != len(_FIELDS):
            raise ValueError(
                f"a schedule has five fields (minute hour day month weekday), and {text[:80]!r} has {len(parts)}"
            )
        minutes, hours, days, months, weekdays = (
            _field(part, *field) for part, field in zip(parts, _FIELDS, strict=True)
        )
        # A field that begins with * restricts nothing in the sense of `either`, also as */2.
        either = not parts[2].startswith("*") and not parts[4].startswith("*")
        made = cls(minutes, hours, days, months, frozenset(d % 7 for d in weekdays), either)
        if not either and min(days) > max(_LONGEST_MONTH[m - 1] for m in months):
            raise ValueError(f"the schedule {text!r} never comes: no such month has a day {min(days)}")
        return made

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last time that is later than `after` and not later than `until`; None where there is none."""
        after, until = after.astimezone(UTC), until.astimezone(UTC).replace(second=0, microsecond=0)
        day = until.replace(hour=0, minute=0)
        while day + timedelta(days=1) > after:
            if self._on(day):
                for hour in sorted(self.hours, reverse=True):
                    for minute in sorted(self.minutes, reverse=True):
                        moment = day.replace(hour=hour, minute=minute)
                        if moment <= until:
                            return moment if moment > after else None
            day -= timedelta(days=1)
        return None

    def _on(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either else by_day and by_weekday


def _field(text: str, name: str, lowest: int, highest: int, names: dict[str, int]) -> frozenset[int]:
    return frozenset(n for part in text.split(",") for n in _range(part, name, lowest, highest, names))


def _range(text: str, name: str, lowest: int, highest: int, names: dict[str, int]) -> range:
    """The numbers of `*`, `5`, `1-5`, and each of them with a step: `*/15`, `1-5/2`, `5/10` (from 5 on)."""

    def number(part: str) -> int:
        value = names.get(part, int(part) if part.isascii() and part.isdecimal() and len(part) < 3 else -1)
        if not lowest <= value <= highest:
            raise ValueError(f"{text!r} is no {name} of a schedule, which is {lowest} to {highest}")
        return value

    body, with_step, step = text.partition("/")
    if with_step and not (step.isascii() and step.isdecimal() and len(step) < 3 and int(step) > 0):
        raise ValueError(f"the step of {text!r} in the {name} of the schedule is no number from 1 to 99")
    if body == "*":
        first, last = lowest, highest
    else:
        begin, is_range, end = body.partition("-")
        first = number(begin)
        last = number(end) if is_range else highest if with_step else first
    if first > last:
        raise ValueError(f"the {name} {text!r} of the schedule ends before it begins")
    return range(first, last + 1, int(step or 1))
