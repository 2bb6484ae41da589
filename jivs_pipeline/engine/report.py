"""The migration report: one self-contained HTML page made from the document of `jivs run --json`.

What belongs here: the page's sections. What does not: the verdict (`verdict.py`), escaping, number formats, charts
and style sheet (`chart.py`), the file and its signature (`report_file.py`), and finding anything out. The page shows
what the document holds, says so where something is missing, and never claims more than the document does.

The page has no script, no font and no address to load; its content security policy refuses them as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from jivs_pipeline.engine.chart import (
    DASH,
    STYLE,
    Bar,
    Markup,
    average,
    bar_chart,
    count,
    duration,
    el,
    icon,
    join,
    plural,
    rate_chart,
    size,
    windows,
)
from jivs_pipeline.engine.verdict import (
    LONGEST,
    Detail,
    Document,
    TableView,
    Verdict,
    as_mapping,
    as_number,
    as_sequence,
    as_text,
    rows_moved,
    samples_of,
    sum_of,
    tables_of,
    verdict,
)

__all__ = ["render_report"]

_CHECK: Final = "jivs report --check FILE"


def render_report(document: Document) -> str:
    """Render the page for a run's document. Pure: the same document gives the same page."""
    result, tables, key = verdict(document), tables_of(document), as_text(document.get("key"))
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        el("meta", name="color-scheme", content="light dark"),
        # What `jivs report --check` says of a page is read from these two.
        el("meta", name="jivs-key", content=key),
        el("meta", name="jivs-status", content=as_text(document.get("status"))),
        el("title", f"{key or 'Migration'}: {result.headline}"),
        el("style", Markup(STYLE)),
    )
    run = as_text(document.get("run_id"))
    brow = el("p", "Migration report", class_="brow")
    top = el(
        "header",
        brow,
        el("h1", _name(key or "Migration")),
        el("p", f"run {run}", class_="run") if run else None,
    )
    main = el(
        "main",
        _verdict_card(result),
        _tiles(document, tables),
        _facts(document),
        _table_of_tables(tables),
        _throughput(document),
        _timeline(document),
        _warnings(document),
        _provenance(document),
    )
    foot = el("footer", "Signed. Whether a byte of this file was changed: ", el("code", _CHECK))
    return "<!DOCTYPE html>\n" + el("html", head, el("body", top, main, foot), lang="en") + "\n"


def _name(text: str) -> Markup:
    """Isolate a name of the user's, so that a right-to-left one does not reorder what stands beside it."""
    return el("bdi", text)


def _card(title: str, *children: Markup, note: str = "") -> Markup:
    heading = el("h2", title, el("small", note) if note else None)
    return el("section", heading, *children, class_="card")


def _empty(text: str) -> Markup:
    return el("p", text, class_="empty")


def _verdict_card(result: Verdict) -> Markup:
    details = el("dl", *map(_detail, result.details)) if result.details else None
    body = el("div", el("p", result.headline, class_="headline"), details)
    return el("section", icon(result.icon), body, class_=f"verdict {result.tone}", aria_label="Result")


def _detail(detail: Detail) -> Markup:
    command = el("code", detail.command) if detail.command else None
    return join(el("dt", detail.label), el("dd", detail.text, " ", command))


def _tiles(document: Document, tables: list[TableView]) -> Markup:
    rows, bytes_ = rows_moved(document, tables), as_number(document.get("bytes"))
    seconds = as_number(document.get("seconds"), LONGEST)
    mean, what = average(samples_of(document)), "while loading"
    rate = None if mean is None else mean.rows
    if rate is None and rows and seconds and not document.get("resumed"):
        # Only a run that did all the work itself: a resumed one counts rows that it did not move.
        rate, what = rows / max(seconds, 0.001), "over the whole run"
    return el(
        "div",
        _tile("Tables", DASH if document.get("tables") is None else count(len(tables))),
        _tile("Rows", DASH if rows is None else count(rows)),
        _tile("Data", DASH if bytes_ is None else size(bytes_), plural(bytes_, "byte") if bytes_ else ""),
        _tile("Duration", DASH if seconds is None else duration(seconds)),
        _tile("Rows per second", DASH if rate is None else count(rate), what if rate else ""),
        class_="tiles",
    )


def _tile(label: str, value: str, note: str = "") -> Markup:
    small = el("span", note, class_="note") if note else None
    return el("div", el("span", label, class_="label"), el("span", value, class_="value"), small)


_DIALECTS: Final = {
    "postgresql": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB", "sqlite": "SQLite", "csv": "CSV",
    "parquet": "Parquet", "mssql": "SQL Server", "oracle": "Oracle", "odbc": "ODBC",
}  # fmt: skip
_LEVELS: Final = {"digest": "digest of every table", "count": "row counts", "rows": "row by row"}


def _facts(document: Document) -> Markup:
    attempts, level = as_number(document.get("attempts")), as_text(document.get("verify"))
    flag = document.get("resumed")
    resumed = "resumed" if flag is True else "in one go" if flag is False else ""
    tries = "" if attempts is None else plural(attempts, "attempt")
    facts = [
        ("Source", _endpoint(document.get("source"))),
        ("Target", _endpoint(document.get("target"))),
        ("Started", _moment(document.get("started_at"))),
        ("Finished", _moment(document.get("finished_at"))),
        ("Consistency", as_text(document.get("consistency"))),
        ("Verification", _LEVELS.get(level, level)),
        ("Run", ", ".join(part for part in (resumed, tries) if part)),
    ]
    return _card("Source and target", _pairs(facts))


def _pairs(facts: Iterable[tuple[str, str]]) -> Markup:
    """List labels and values; a value that is empty is shown as missing."""
    rows = (el("div", el("dt", label), el("dd", value or DASH)) for label, value in facts)
    return el("dl", *rows, class_="facts")


def _endpoint(value: object) -> str:
    end = as_mapping(value)
    dialect, name = as_text(end.get("dialect")), as_text(end.get("name"))
    kind = " ".join(part for part in (_DIALECTS.get(dialect, dialect), as_text(end.get("version"))) if part)
    return join(el("strong", _name(name)) if name else None, " " if name else None, kind)


def _moment(value: object) -> str:
    """Show a time in UTC if its zone is known, as written if it is not; text that is no time stays."""
    text = as_text(value)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return text
    shown = moment.strftime("%Y-%m-%d %H:%M:%S") + (" UTC" if moment.tzinfo else "")
    return el("time", shown, datetime=moment.isoformat())


# --- the table of tables ----------------------------------------------------------------------------------

_ORDER: Final = {"failed": 0, "differs": 1, "unverified": 2, "verified": 3}
_STATES: Final = {
    "failed": ("bad", "cross", "failed"),
    "differs": ("bad", "differ", "differs"),
    "unverified": ("idle", "dash", "not verified"),
    "verified": ("good", "check", "verified"),
}
_NUMBERS: Final = (
    ("source_rows", "Source rows"), ("target_rows", "Target rows"), ("quarantined_rows", "Quarantined"),
    ("bytes", "Data"), ("seconds", "Time"), ("chunks", "Chunks"),
)  # fmt: skip


def _table_of_tables(tables: list[TableView]) -> Markup:
    if not tables:
        return _card("Tables", _empty("The document lists no tables."))
    titles = [("Table", None), ("Result", None), *((title, "n") for _, title in _NUMBERS)]
    titles += [("Lane", None), ("Digest", None)]
    head = el("thead", el("tr", *(el("th", title, scope="col", class_=kind) for title, kind in titles)))
    ordered = sorted(tables, key=lambda table: _ORDER[table.state])
    body = el("tbody", *(row for table in ordered for row in _rows_of(table, len(titles))))
    foot = el("tfoot", _total(tables)) if len(tables) > 1 else None
    return _card(
        "Tables", _scroll("Tables", el("table", head, body, foot)), note=plural(len(tables), "table")
    )


def _scroll(label: str, table: Markup) -> Markup:
    """Let a table scroll sideways so that the page does not; reachable by keyboard."""
    return el("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def _rows_of(table: TableView, columns: int) -> Iterator[Markup]:
    tone, sign, word = _STATES[table.state]
    renamed = table.target and table.target != table.source
    target = el("span", "→ ", _name(table.target), class_="to") if renamed else None
    cells = [el("th", _name(table.source), target, scope="row")]
    cells.append(el("td", el("span", icon(sign), word, class_=f"state {tone}")))
    cells += [_cell(key, table.number(key)) for key, _ in _NUMBERS]
    cells += [el("td", as_text(table.entry.get("lane")) or DASH), el("td", _digest(table))]
    why = table.why()
    yield el("tr", *cells, class_=f"row {tone}" + (" open" if why else ""))
    if why:
        yield el("tr", el("td", el("div", why, class_="pin"), colspan=columns), class_=f"why {tone}")


def _cell(key: str, number: float | None) -> Markup:
    if number is None:
        return el("td", DASH, class_="n")
    if key == "bytes":
        return el("td", size(number), class_="n", title=plural(number, "byte"))
    marked = key == "quarantined_rows" and number
    return el(
        "td", duration(number) if key == "seconds" else count(number), class_="n warn" if marked else "n"
    )


def _total(tables: list[TableView]) -> Markup:
    good = f"{count(sum(table.state == 'verified' for table in tables))} verified"
    # Tables load side by side, so the sum of their times is nobody's time.
    numbers = [el("td") if key == "seconds" else _cell(key, sum_of(tables, key)) for key, _ in _NUMBERS]
    return el("tr", el("th", "Total", scope="row"), el("td", good), *numbers, el("td"), el("td"))


def _digest(table: TableView) -> Markup:
    source, target = table.digests()
    if table.digests_differ():
        return join(_short(source), el("span", " ≠ ", class_="ne"), Markup("<br/>"), _short(target))
    equal = el("span", " equal", class_="both") if source and target else None
    return join(_short(source or target), equal) if source or target else Markup(DASH)


def _short(digest: str) -> Markup:
    return el("code", digest if len(digest) <= 12 else digest[:10] + "…", title=digest)


# --- charts, warnings, provenance -------------------------------------------------------------------------


def _throughput(document: Document) -> Markup:
    samples = samples_of(document)
    steps, mean = windows(samples), average(samples)
    if steps and mean is not None:
        if not mean.rows:
            return _card("Throughput", _empty("No rows were loaded while samples were taken."))
        length = f"means over {duration(steps[0].end - steps[0].start)}, {size(mean.bytes)}/s on average"
        return _card("Throughput", rate_chart(steps, mean.rows), note=length)
    if not samples:
        return _card(
            "Throughput", _empty("No samples were taken: nothing was loaded, or it was over too soon.")
        )
    known = "" if mean is None else f" The mean is {count(mean.rows)} rows/s."
    return _card("Throughput", _empty(f"Too few samples for a chart ({len(samples)}).{known}"))


_MOST_BARS: Final = 60


def _timeline(document: Document) -> Markup:
    bars = [_bar(as_mapping(entry)) for entry in as_sequence(document.get("timeline"))]
    note = ""
    if not bars:
        phases = as_mapping(document.get("phases")).items()
        bars = [Bar(as_text(name), 0, as_number(seconds, LONGEST)) for name, seconds in phases]
        note = "durations only; the document has no start times" if bars else ""
    if not bars:
        return _card("Phases", _empty("The document has no phases."))
    if len(bars) > _MOST_BARS:
        note = f"the last {_MOST_BARS} of {len(bars):,}"
    return _card("Phases", bar_chart(bars[-_MOST_BARS:]), note=note)


def _bar(entry: Document) -> Bar:
    attempt = as_number(entry.get("attempt")) or 1
    again = f" · try {count(attempt)}" if attempt > 1 else ""
    start, seconds = (as_number(entry.get(key), LONGEST) for key in ("start", "seconds"))
    return Bar((as_text(entry.get("phase")) or "(unnamed)") + again, start or 0, seconds, bool(again))


def _warnings(document: Document) -> Markup:
    if document.get("warnings") is None:
        return _card("Warnings", _empty("The document has no list of warnings."))
    entries = [as_mapping(entry) for entry in as_sequence(document.get("warnings"))]
    if not entries:
        return _card("Warnings", _empty("None: the plan found nothing lossy and refused nothing."))
    refused = sum(entry.get("kind") == "refused" for entry in entries)
    head = el("tr", *(el("th", title, scope="col") for title in ("Object", "Column", "Kind", "Reason")))
    body = (_warning(entry) for entry in sorted(entries, key=lambda entry: entry.get("kind") != "refused"))
    table = _scroll("Warnings", el("table", el("thead", head), el("tbody", *body), class_="text"))
    note = f"{refused:,} refused, {len(entries) - refused:,} lossy"
    return _card("Warnings", table, note=note)


def _warning(entry: Document) -> Markup:
    kind = as_text(entry.get("kind"))
    tone = "bad" if kind == "refused" else "warn"
    badge = el("span", icon("cross" if kind == "refused" else "alert"), kind, class_=f"state {tone}")
    name, column = (as_text(entry.get(key)) for key in ("table", "column"))
    cells = [el("th", _name(name or DASH), scope="row"), el("td", _name(column or DASH))]
    return el("tr", *cells, el("td", badge), el("td", as_text(entry.get("reason")) or DASH, class_="reason"))


def _provenance(document: Document) -> Markup:
    versions = [
        (as_text(name), as_text(value)) for name, value in as_mapping(document.get("versions")).items()
    ]
    names = (("Run", "run_id"), ("Epoch", "epoch"), ("Plan hash", "plan_hash"), ("Spec hash", "spec_hash"))
    marks = [
        (label, el("code", text) if (text := as_text(document.get(key))) else "") for label, key in names
    ]
    return _card("Made with", _pairs(versions + marks))
