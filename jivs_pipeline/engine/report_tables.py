"""Sections of the report that are tables: plan and actual, what phases took, and what was met on the way.

What belongs here: those. What does not: the other sections (`report.py`) and what they are made of (`cards.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from jivs_pipeline.engine.cards import (
    MOST_ROWS,
    Column,
    again,
    card,
    clipped,
    empty,
    first_of,
    grid,
    isolated,
    moment,
    number_cell,
    pairs,
)
from jivs_pipeline.engine.chart import DASH, Markup, count, duration, el, icon, plural, size
from jivs_pipeline.engine.verdict import (
    LONGEST,
    Document,
    TableView,
    as_mapping,
    as_number,
    as_sequence,
    as_text,
    sum_of,
)

__all__ = ["changes", "incidents", "phase_table", "plan_and_actual"]

# --- plan and actual --------------------------------------------------------------------------------------

_FAR: Final = 1.5
_MUCH: Final = {"rows": 1000, "bytes": 1_000_000}
"""An estimate is marked that is wrong by more than this factor, and by more than this much."""
_PLANNED: Final = (("rows", "target_rows"), ("bytes", "bytes"), ("chunks", "chunks"))


def plan_and_actual(tables: Sequence[TableView]) -> Markup:
    """Rows, bytes and chunks as they were planned and as they were loaded; what differs comes first."""
    if not any(table.number(f"planned_{what}") is not None for table in tables for what, _ in _PLANNED):
        return card("Plan and actual", empty("The document does not tell what was planned."))
    columns: list[Column] = [("Table", None)]
    for what in ("rows", "data", "chunks"):
        columns += [(f"Planned {what}", "n"), (f"Loaded {what}", "n")]
    ordered = sorted(tables, key=lambda table: not _is_marked(table))[:MOST_ROWS]
    differ = sum(map(_is_marked, tables))
    foot = el("tr", el("th", "Total", scope="row"), *_totals(tables)) if len(tables) > 1 else None
    note = f"{plural(differ, 'table')} marked" if differ else "as planned"
    legend = "Marked is what is not as planned, and an estimate (~) that is wrong by more than half."
    shown = first_of(len(ordered), len(tables))
    return card(
        "Plan and actual",
        grid("Plan and actual", columns, map(_planned, ordered), foot),
        el("p", f"{legend} {shown}".strip(), class_="note"),
        note=note,
    )


def _planned(table: TableView) -> Markup:
    return el(
        "tr",
        el("th", isolated(table.source), scope="row"),
        *(c for pair in _PLANNED for c in _both(table, *pair)),
    )


def _both(table: TableView, what: str, done: str) -> Iterator[Markup]:
    planned, actual = table.number(f"planned_{what}"), table.number(done)
    show = size if what == "bytes" else count
    about = "~" if _estimated(table, what) else ""
    yield number_cell(DASH if planned is None else about + show(planned), title=_exact(what, planned))
    shown, title = DASH if actual is None else show(actual), _exact(what, actual)
    if _differs(table, what, done):
        # Not by colour alone.
        yield number_cell(
            "", el("span", icon("differ"), shown, class_="state warn"), marked=True, title=title
        )
    else:
        yield number_cell(shown, title=title)


def _exact(what: str, number: float | None) -> str | None:
    return plural(number, "byte") if what == "bytes" and number is not None else None


def _estimated(table: TableView, what: str) -> bool:
    """Bytes always are: what a value takes on its way is not what it takes in its table."""
    return what == "bytes" or (what == "rows" and table.entry.get("planned_rows_exact") is not True)


def _is_marked(table: TableView) -> bool:
    return any(_differs(table, *pair) for pair in _PLANNED)


def _differs(table: TableView, what: str, done: str) -> bool:
    planned, actual = table.number(f"planned_{what}"), table.number(done)
    if planned is None or actual is None or planned == actual:
        return False
    low, high = sorted((planned, actual))
    return not _estimated(table, what) or (high > _FAR * low and high - low > _MUCH[what])


def _totals(tables: Sequence[TableView]) -> Iterator[Markup]:
    for what, done in _PLANNED:
        show = size if what == "bytes" else count
        for key, about in ((f"planned_{what}", "~" if what == "bytes" else ""), (done, "")):
            total = sum_of(tables, key)
            yield number_cell(DASH if total is None else about + show(total))


# --- changes ----------------------------------------------------------------------------------------------

_CHANGES: Final = ("moved_rows", "inserted", "updated", "deleted")


def changes(tables: Sequence[TableView]) -> Iterator[Markup]:
    """What became of tables that were there before and were changed; no section where there are none."""
    changed = [t for t in tables if t.number("inserted") is not None]
    if not changed:
        return
    columns: list[Column] = [
        ("Table", None),
        *((what, "n") for what in ("Rows moved", "Inserted", "Updated", "Deleted")),
    ]
    rows = (
        el(
            "tr",
            el("th", isolated(table.source), scope="row"),
            *(number_cell(DASH if (n := table.number(what)) is None else count(n)) for what in _CHANGES),
        )
        for table in changed[:MOST_ROWS]
    )
    legend = "Rows moved are those of the ranges that differ; the others in there were the same already."
    shown = first_of(min(len(changed), MOST_ROWS), len(changed))
    yield card("Changes", grid("Changes", columns, rows), el("p", f"{legend} {shown}".strip(), class_="note"))


# --- what phases took -------------------------------------------------------------------------------------

_PHASE_COLUMNS: Final[tuple[Column, ...]] = (
    ("Phase", None), ("Time", "n"), ("CPU time", "n"), ("Cores", "n"), ("Peak memory", "n"),
)  # fmt: skip


def phase_table(document: Document, most: int) -> Markup | None:
    """Time, CPU and memory of the last `most` phases, or None where they were not measured.

    CPU and memory are of the run's own process; what the databases took is theirs to tell.
    """
    entries = [as_mapping(entry) for entry in as_sequence(document.get("timeline"))]
    if not any(as_number(entry.get("peak_rss_bytes")) for entry in entries):
        return None
    last = max((as_number(entry.get("attempt")) or 1 for entry in entries), default=1)
    expected = as_mapping(as_mapping(document.get("estimate")).get("phases"))
    columns = [*_PHASE_COLUMNS, ("Expected time", "n")] if expected else _PHASE_COLUMNS
    return grid("Phases", columns, (_phase(e, expected, last) for e in entries[-most:]))


def _phase(entry: Document, expected: Document, last: float) -> Markup:
    phase, attempt = as_text(entry.get("phase")), as_number(entry.get("attempt")) or 1
    seconds, cpu = (as_number(entry.get(key), LONGEST) for key in ("seconds", "cpu_seconds"))
    memory = as_number(entry.get("peak_rss_bytes"))
    cores = DASH if cpu is None or not seconds else f"{cpu / max(seconds, 0.001):.1f}"
    cells = [number_cell(DASH if number is None else duration(number)) for number in (seconds, cpu)]
    cells += [number_cell(cores), number_cell(DASH if memory is None else size(memory))]
    if expected:
        # The estimate is the last run's: what earlier ones had expected is not kept.
        before = as_number(expected.get(phase), LONGEST) if attempt == last else None
        cells.append(number_cell(DASH if before is None else duration(before)))
    return el("tr", el("th", isolated(phase or DASH), again(entry), scope="row"), *cells)


# --- what was met on the way ------------------------------------------------------------------------------


def incidents(document: Document) -> Iterator[Markup]:
    """How many of each kind, and a card for each kind that there was."""
    retries, breakers, rejected = (
        as_mapping(document.get(key)) for key in ("retries", "breaker_events", "quarantine")
    )
    facts = [
        ("Retries", _number_of(retries, "retry", "retries")),
        ("Circuit breakers", _number_of(breakers, "change", "changes")),
        ("Quarantine", _number_of(rejected, "row", "rows")),
    ]
    yield card("On the way", pairs(facts), note="since the migration was begun")
    yield from _told("Retries", retries, _RETRY_COLUMNS, _retry)
    yield from _told("Circuit breakers", breakers, _BREAKER_COLUMNS, _breaker)
    yield from _quarantine(rejected)


def _number_of(listed: Document, one: str, many: str) -> str:
    total = as_number(listed.get("total"))
    if total is None:
        return ""
    return "none" if not total else f"{count(total)} {one if total == 1 else many}"


_RETRY_COLUMNS: Final[tuple[Column, ...]] = (
    ("When", None), ("Phase", None), ("Table", None), ("Chunk", "n"), ("Attempt", "n"), ("Error", None),
    ("Waited", "n"),
)  # fmt: skip
_BREAKER_COLUMNS: Final[tuple[Column, ...]] = (
    ("When", None), ("Endpoint", None), ("Breaker", None), ("Became", None), ("Reason", None),
)  # fmt: skip
_BREAKER_STATES: Final = {"half_open": "half-open"}


def _told(
    title: str, listed: Document, columns: Sequence[Column], row: Callable[[Document], Markup]
) -> Iterator[Markup]:
    entries = [as_mapping(entry) for entry in as_sequence(listed.get("first"))][:MOST_ROWS]
    if entries:
        total = as_number(listed.get("total")) or 0
        note = f"the first {count(len(entries))} of {count(total)}" if total > len(entries) else ""
        yield card(title, grid(title, columns, map(row, entries), stacks=True), note=note)


def _retry(entry: Document) -> Markup:
    table, chunk, attempt = (
        as_text(entry.get("table")),
        *(as_number(entry.get(k)) for k in ("chunk", "attempt")),
    )
    delay = as_number(entry.get("delay_seconds"), LONGEST)
    return el(
        "tr",
        el("td", moment(entry.get("at")) or DASH),
        el("td", clipped(as_text(entry.get("phase"))) or DASH),
        el("td", "the whole run" if table == "*" else isolated(table or DASH), class_="where"),
        number_cell(DASH if chunk is None else count(chunk), label="chunk"),
        number_cell(DASH if attempt is None else count(attempt), label="attempt"),
        el("td", clipped(as_text(entry.get("error"))) or DASH, class_="reason"),
        number_cell(DASH if delay is None else duration(delay), label="waited"),
    )


def _breaker(entry: Document) -> Markup:
    before, after = (_BREAKER_STATES.get(text := as_text(entry.get(k)), text) for k in ("before", "after"))
    return el(
        "tr",
        el("td", moment(entry.get("at")) or DASH),
        el("td", clipped(as_text(entry.get("endpoint"))) or DASH),
        el("td", isolated(as_text(entry.get("name")) or DASH), class_="where"),
        el("td", f"{clipped(before)} → {clipped(after)}"),
        el("td", clipped(as_text(entry.get("reason"))) or DASH, class_="reason"),
    )


def _quarantine(rejected: Document) -> Iterator[Markup]:
    tables = [as_mapping(entry) for entry in as_sequence(rejected.get("tables"))]
    if tables:
        columns: tuple[Column, ...] = (
            ("Table", None),
            ("Rows", "n"),
            ("Column", None),
            ("First reasons", None),
        )
        shown = tables[:MOST_ROWS]
        yield card(
            "Quarantine",
            grid("Quarantine", columns, (row for table in shown for row in _rejected(table)), stacks=True),
            note=first_of(len(shown), len(tables)) or plural(len(tables), "table"),
        )


def _rejected(table: Document) -> Iterator[Markup]:
    rows, kinds = as_number(table.get("rows")), as_number(table.get("kinds"))
    reasons = [as_mapping(reason) for reason in as_sequence(table.get("reasons"))][:3]
    head = el("th", isolated(as_text(table.get("table")) or DASH), scope="row")
    yield el(
        "tr",
        head,
        number_cell("" if rows is None else count(rows), marked=True, label="rows"),
        el("td"),
        el("td"),
        class_="sum",
    )
    for reason in reasons:
        number = as_number(reason.get("rows"))
        yield el(
            "tr",
            el("td"),
            number_cell(DASH if number is None else count(number), label="rows"),
            el("td", isolated(as_text(reason.get("column")) or DASH)),
            el("td", clipped(as_text(reason.get("reason"))) or DASH, class_="reason"),
        )
    if kinds is not None and kinds > len(reasons):
        more = f"and {plural(kinds - len(reasons), 'other reason')}"
        yield el("tr", el("td"), el("td"), el("td"), el("td", more, class_="reason"))
