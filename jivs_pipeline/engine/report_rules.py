"""The report's cards on rules and validations: what was changed on the way, and what was asked of the rows.

What belongs here: these two tables. What does not: the page (`report.py`) and its parts (`cards.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from jivs_pipeline.engine.cards import MOST_ROWS, Column, card, clipped, first_of, grid, isolated, number_cell
from jivs_pipeline.engine.chart import DASH, Markup, count, el, plural
from jivs_pipeline.engine.verdict import Document, as_mapping, as_number, as_sequence, as_text

__all__ = ["rules_and_validation"]

_RULES: Final[tuple[Column, ...]] = (("Table", None), ("Column", None), ("Rule", None), ("Changed", "n"))
_CHECKS: Final[tuple[Column, ...]] = (
    ("Table", None), ("Validation", None), ("Severity", None), ("Rows", "n"), ("Do not pass", "n"),
    ("Quarantined", "n"), ("Result", None),
)  # fmt: skip


def rules_and_validation(document: Document) -> Iterator[Markup]:
    """A card each, where there is something to tell."""
    tables = [as_mapping(table) for table in as_sequence(document.get("tables"))]
    changed = [
        (as_text(table.get("target_table")), name, as_number(number))
        for table in tables
        for name, number in as_mapping(table.get("rules")).items()
    ]
    if changed:
        rows = (_rule(*entry) for entry in changed[:MOST_ROWS])
        note = first_of(min(len(changed), MOST_ROWS), len(changed)) or "values and rows that became others"
        yield card("Rules", grid("Rules", _RULES, rows, stacks=True), note=note)
    yield from _validation(as_mapping(document.get("validation")))


def _rule(table: str, name: str, number: float | None) -> Markup:
    column, _, kind = name.partition(": ")
    return el(
        "tr",
        el("th", isolated(table or DASH), scope="row"),
        el("td", isolated(column)),
        el("td", clipped(kind)),
        number_cell(DASH if number is None else count(number), label="changed"),
    )


def _validation(found: Document) -> Iterator[Markup]:
    checks: Sequence[Document] = [as_mapping(check) for check in as_sequence(found.get("checks"))]
    if not checks:
        return
    score = as_number(found.get("score"))
    failed = sum(not check.get("passed") for check in checks)
    note = f"score {DASH if score is None else f'{score:g}'} of 100; " + (
        f"{plural(failed, 'check')} failed" if failed else "all passed"
    )
    yield card(
        "Validation", grid("Validation", _CHECKS, map(_check, checks[:MOST_ROWS]), stacks=True), note=note
    )


def _check(check: Document) -> Markup:
    rows, failed, taken = (as_number(check.get(name)) for name in ("rows", "failed", "quarantined"))
    passed = bool(check.get("passed"))
    return el(
        "tr",
        el("th", isolated(as_text(check.get("table")) or DASH), scope="row"),
        el("td", clipped(as_text(check.get("name")))),
        el("td", as_text(check.get("severity"))),
        number_cell(DASH if rows is None else count(rows), label="rows"),
        number_cell(DASH if failed is None else count(failed), marked=not passed, label="do not pass"),
        number_cell(DASH if taken is None else count(taken), label="quarantined"),
        el(
            "td",
            "passed" if passed else clipped(as_text(check.get("broken")) or "failed"),
            class_=None if passed else "reason",
        ),
    )
