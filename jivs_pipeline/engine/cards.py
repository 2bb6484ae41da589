"""The parts that the report's sections are put together from: cards, lists of facts, tables.

What belongs here: shapes, and how much of anything fits on a page. What does not: what is shown (`report.py`,
`report_tables.py`) and escaping, numbers, charts and the style sheet (`chart.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from jivs_pipeline.engine.chart import DASH, Markup, count, el, join
from jivs_pipeline.engine.verdict import Document, as_number, as_text

__all__ = [
    "MOST_ROWS",
    "Column",
    "again",
    "card",
    "clipped",
    "empty",
    "first_of",
    "grid",
    "isolated",
    "moment",
    "number_cell",
    "pairs",
]

MOST_ROWS: Final = 500
"""Rows of one table; a page of thousands opens slowly, and nobody reads it."""
_LONGEST_TEXT: Final = 1000

Column = tuple[str, str | None]
"""A column's title and its class: `n` for numbers."""


def clipped(text: str) -> str:
    """A text that may have any length, as long as somebody reads it."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def isolated(text: str) -> Markup:
    """Isolate a name of the user's, so that a right-to-left one does not reorder what stands beside it."""
    return el("bdi", clipped(text))


def card(title: str, *children: Markup | None, note: str = "") -> Markup:
    """A section with its heading."""
    heading = el("h2", title, el("small", note) if note else None)
    return el("section", heading, *children, class_="card")


def empty(text: str) -> Markup:
    """What is said where there is nothing to show."""
    return el("p", text, class_="empty")


def pairs(facts: Iterable[tuple[str, str]]) -> Markup:
    """List labels and values; a value that is empty is shown as missing."""
    rows = (el("div", el("dt", label), el("dd", value or DASH)) for label, value in facts)
    return el("dl", *rows, class_="facts")


def grid(
    label: str,
    columns: Sequence[Column],
    rows: Iterable[Markup],
    foot: Markup | None = None,
    *,
    stacks: bool = False,
) -> Markup:
    """A table that scrolls sideways so that the page does not; reachable by keyboard.

    Args:
        stacks: on a narrow screen its cells stand below each other: sentences are not read sideways.
    """
    head = el("thead", el("tr", *(el("th", title, scope="col", class_=kind) for title, kind in columns)))
    table = el(
        "table",
        head,
        el("tbody", *rows),
        el("tfoot", foot) if foot else None,
        class_="stacks" if stacks else None,
    )
    return el("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def again(entry: Document) -> str:
    """Which attempt a phase is of, where it is not the first."""
    attempt = as_number(entry.get("attempt")) or 1
    return f" · try {count(attempt)}" if attempt > 1 else ""


def first_of(shown: int, total: float) -> str:
    """Say that not all are shown, and where they are; nothing where they are."""
    return "" if shown >= total else f"the first {count(shown)} of {count(total)}; --out F.json has more"


def number_cell(
    text: str, *more: str | None, marked: bool = False, title: str | None = None, label: str | None = None
) -> Markup:
    """A cell with a number, and perhaps something below it; `label` is said before it where the cells are stacked."""
    kind = "n warn" if marked else "n"
    return el("td", text, *more, class_=kind, title=title, data_label=label)


def moment(value: object) -> str:
    """Show a time in UTC if its zone is known, as written if it is not; text that is no time stays."""
    text = as_text(value)
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo else at
    except (ValueError, OverflowError):
        return clipped(text)
    shown = at.strftime("%Y-%m-%d %H:%M:%S") + (" UTC" if at.tzinfo else "")
    return join(el("time", shown, datetime=at.isoformat()))
