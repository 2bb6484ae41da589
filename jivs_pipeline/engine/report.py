"""The migration report: one self-contained HTML page made from the document of `jivs run --json`.

What belongs here: the page's sections. What does not: the verdict (`verdict.py`), escaping, number formats, charts
and style sheet (`chart.py`), the file and its signature (`report_file.py`), and finding anything out. The page shows
what the document holds, says so where something is missing, and never claims more than the document does.

The page has no script, no font and no address to load; its content security policy refuses them as well.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from jivs_pipeline.engine.report_rules import rules_and_validation
from jivs_pipeline.engine.report_tables import incidents, phase_table, plan_and_actual
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
        el("h1", isolated(key or "Migration")),
        el("p", f"run {run}", class_="run") if run else None,
    )
    main = el(
        "main",
        _verdict_card(result),
        _tiles(document, tables),
        _facts(document),
        _table_of_tables(tables),
        plan_and_actual(tables),
        *rules_and_validation(document),
        _throughput(document),
        _timeline(document),
        *incidents(document),
        _warnings(document),
        _provenance(document),
    )
    foot = el("footer", "Signed. Whether a byte of this file was changed: ", el("code", _CHECK))
    return "<!DOCTYPE html>\n" + el("html", head, el("body", top, main, foot), lang="en") + "\n"


def _verdict_card(result: Verdict) -> Markup:
    details = el("dl", *map(_detail, result.details)) if result.details else None
    body = el("div", el("p", result.headline, class_="headline"), details)
    return el("section", icon(result.icon), body, class_=f"verdict {result.tone}", aria_label="Result")


def _detail(detail: Detail) -> Markup:
    command = el("code", detail.command) if detail.command else None
    return join(el("dt", detail.label), el("dd", clipped(detail.text), " ", command))


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
    "parquet": "Parquet", "mssql": "SQL Server", "oracle": "Oracle", "odbc": "ODBC", "db2": "Db2", "hana": "SAP HANA",
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
        ("Started", moment(document.get("started_at"))),
        ("Finished", moment(document.get("finished_at"))),
        ("Consistency", as_text(document.get("consistency"))),
        ("Verification", _LEVELS.get(level, level)),
        ("Run", ", ".join(part for part in (resumed, tries) if part)),
    ]
    return card("Source and target", pairs(facts))


def _endpoint(value: object) -> str:
    end = as_mapping(value)
    dialect, name = as_text(end.get("dialect")), as_text(end.get("name"))
    kind = " ".join(part for part in (_DIALECTS.get(dialect, dialect), as_text(end.get("version"))) if part)
    return join(el("strong", isolated(name)) if name else None, " " if name else None, kind)


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
    ("bytes", "Data"), ("seconds", "Time"),
)  # fmt: skip


def _table_of_tables(tables: list[TableView]) -> Markup:
    if not tables:
        return card("Tables", empty("The document lists no tables."))
    titles: list[Column] = [("Table", None), ("Result", None), *((title, "n") for _, title in _NUMBERS)]
    titles += [("Rate", "n"), ("Lane", None), ("Digest", None)]
    ordered = sorted(tables, key=lambda table: _ORDER[table.state])[:MOST_ROWS]
    body = (row for table in ordered for row in _rows_of(table, len(titles)))
    foot = _total(tables) if len(tables) > 1 else None
    note = first_of(len(ordered), len(tables)) or plural(len(tables), "table")
    return card("Tables", grid("Tables", titles, body, foot), note=note)


def _rows_of(table: TableView, columns: int) -> Iterator[Markup]:
    tone, sign, word = _STATES[table.state]
    renamed = table.target and table.target != table.source
    target = el("span", "→ ", isolated(table.target), class_="to") if renamed else None
    cells = [el("th", isolated(table.source), target, scope="row")]
    cells.append(el("td", el("span", icon(sign), word, class_=f"state {tone}")))
    cells += [_cell(key, table.number(key)) for key, _ in _NUMBERS]
    cells += [
        _rate(table),
        el("td", clipped(as_text(table.entry.get("lane"))) or DASH),
        el("td", _digest(table)),
    ]
    why = clipped(table.why())
    yield el("tr", *cells, class_=f"row {tone}" + (" open" if why else ""))
    if why:
        yield el("tr", el("td", el("div", why, class_="pin"), colspan=columns), class_=f"why {tone}")


def _cell(key: str, number: float | None) -> Markup:
    if number is None:
        return number_cell(DASH)
    if key == "bytes":
        return number_cell(size(number), title=plural(number, "byte"))
    shown = duration(number) if key == "seconds" else count(number)
    return number_cell(shown, marked=key == "quarantined_rows" and number > 0)


def _rate(table: TableView) -> Markup:
    """While the table was loaded; its time also has reading and comparing in it."""
    rows, bytes_ = (table.number(f"{unit}_per_second") for unit in ("rows", "bytes"))
    below = el("span", f"{size(bytes_)}/s", class_="both") if bytes_ is not None else None
    return number_cell(DASH if rows is None else f"{count(rows)} rows/s", below)


def _total(tables: list[TableView]) -> Markup:
    good = f"{count(sum(table.state == 'verified' for table in tables))} verified"
    # Tables load side by side, so the sum of their times is nobody's time.
    numbers = [el("td") if key == "seconds" else _cell(key, sum_of(tables, key)) for key, _ in _NUMBERS]
    return el("tr", el("th", "Total", scope="row"), el("td", good), *numbers, el("td"), el("td"), el("td"))


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
            return card("Throughput", empty("No rows were loaded while samples were taken."))
        length = f"means over {duration(steps[0].end - steps[0].start)}, {size(mean.bytes)}/s on average"
        return card("Throughput", rate_chart(steps, mean.rows), note=length)
    if not samples:
        return card(
            "Throughput", empty("No samples were taken: nothing was loaded, or it was over too soon.")
        )
    known = "" if mean is None else f" The mean is {count(mean.rows)} rows/s."
    return card("Throughput", empty(f"Too few samples for a chart ({len(samples)}).{known}"))


_MOST_BARS: Final = 60


def _timeline(document: Document) -> Markup:
    bars = [_bar(as_mapping(entry)) for entry in as_sequence(document.get("timeline"))]
    note = ""
    if not bars:
        phases = as_mapping(document.get("phases")).items()
        bars = [Bar(as_text(name), 0, as_number(seconds, LONGEST)) for name, seconds in phases]
        note = "durations only; the document has no start times" if bars else ""
    if not bars:
        return card("Phases", empty("The document has no phases."))
    if len(bars) > _MOST_BARS:
        note = f"the last {_MOST_BARS} of {len(bars):,}"
    return card("Phases", bar_chart(bars[-_MOST_BARS:]), phase_table(document, _MOST_BARS), note=note)


def _bar(entry: Document) -> Bar:
    start, seconds = (as_number(entry.get(key), LONGEST) for key in ("start", "seconds"))
    return Bar(
        (as_text(entry.get("phase")) or "(unnamed)") + again(entry), start or 0, seconds, bool(again(entry))
    )


def _warnings(document: Document) -> Markup:
    if document.get("warnings") is None:
        return card("Warnings", empty("The document has no list of warnings."))
    entries = [as_mapping(entry) for entry in as_sequence(document.get("warnings"))]
    if not entries:
        return card("Warnings", empty("None: the plan found nothing lossy and refused nothing."))
    refused = sum(entry.get("kind") == "refused" for entry in entries)
    columns = [(title, None) for title in ("Object", "Column", "Kind", "Reason")]
    ordered = sorted(entries, key=lambda entry: entry.get("kind") != "refused")[:MOST_ROWS]
    shown = first_of(len(ordered), len(entries))
    note = f"{refused:,} refused, {len(entries) - refused:,} lossy" + (f"; {shown}" if shown else "")
    return card("Warnings", grid("Warnings", columns, map(_warning, ordered), stacks=True), note=note)


def _warning(entry: Document) -> Markup:
    kind = as_text(entry.get("kind"))
    tone = "bad" if kind == "refused" else "warn"
    badge = el("span", icon("cross" if kind == "refused" else "alert"), clipped(kind), class_=f"state {tone}")
    name, column = (as_text(entry.get(key)) for key in ("table", "column"))
    cells = [el("th", isolated(name or DASH), scope="row"), el("td", isolated(column or DASH))]
    return el(
        "tr",
        *cells,
        el("td", badge),
        el("td", clipped(as_text(entry.get("reason"))) or DASH, class_="reason"),
    )


def _provenance(document: Document) -> Markup:
    versions = [
        (as_text(name), as_text(value)) for name, value in as_mapping(document.get("versions")).items()
    ]
    names = (("Run", "run_id"), ("Epoch", "epoch"), ("Plan hash", "plan_hash"), ("Spec hash", "spec_hash"))
    marks = [
        (label, el("code", text) if (text := as_text(document.get(key))) else "") for label, key in names
    ]
    return card("Made with", pairs(versions + marks))
