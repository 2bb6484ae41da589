"""The migration report: one self-contained HTML page made from the document of `jivs run --json`.

What belongs here: the verdict in words, the page's sections, and writing the page to a file. What does not:
escaping, number formats, charts and style sheet (`chart.py`), and finding anything out. The page shows what
the document holds, says so where something is missing, and never claims more than the document does.

The page has no script, no font and no address to load; its content security policy refuses them as well.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

from jivs_pipeline.core.errors import ResourceError
from jivs_pipeline.engine.chart import (
    DASH,
    STYLE,
    Bar,
    Markup,
    Sample,
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

__all__ = ["Detail", "Verdict", "render_report", "verdict", "write_report"]

Document: TypeAlias = Mapping[str, Any]

# --- reading the document: every key may be missing, null or of a strange type -----------------------------

_LARGEST: Final = 1e18  # a count beyond it is a broken number
_LONGEST: Final = 1e9  # seconds; thirty years


def _number(value: object, largest: float = _LARGEST) -> float | None:
    """Return a count or a duration; None for all else, NaN, infinities and negative numbers included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= largest else None


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _mapping(value: object) -> Document:
    return cast("Document", value) if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()


@dataclass(frozen=True, slots=True)
class _Table:
    """One entry of `tables`; `state` is the first that holds of failed, differs, unverified and verified."""

    entry: Document
    source: str
    target: str
    state: Literal["failed", "differs", "unverified", "verified"]
    error: str
    column: str

    @classmethod
    def of(cls, entry: Document) -> _Table:
        raw, verified = entry.get("error"), entry.get("verified")
        error = _mapping(raw)
        message = _text(error.get("message") if error else raw).strip()
        message = message or ("no reason is given" if error else "")
        state = "failed" if message else "verified" if verified is True else "unverified"
        state = "differs" if verified is False and not message else state
        source = _text(entry.get("source_table")) or _text(entry.get("target_table")) or "(unnamed)"
        return cls(
            entry, source, _text(entry.get("target_table")), state, message, _text(error.get("column"))
        )

    def number(self, key: str) -> float | None:
        return _number(self.entry.get(key))

    def digests(self) -> tuple[str, str]:
        return _text(self.entry.get("source_digest")), _text(self.entry.get("target_digest"))

    def digests_differ(self) -> bool:
        source, target = self.digests()
        return bool(source and target and source != target)

    def why(self) -> str:
        """Say the reason for a bad result; empty for a good one."""
        if self.state == "failed":
            return f"column {self.column}: {self.error}" if self.column else self.error
        if self.state != "differs":
            return ""
        source, target, kept = (
            self.number(key) for key in ("source_rows", "target_rows", "quarantined_rows")
        )
        if source is not None and target is not None and source != target + (kept or 0):
            return f"{plural(source, 'row')} in the source, {count(target)} in the target"
        return "the digests differ" if self.digests_differ() else "source and target differ"


def _tables(document: Document) -> list[_Table]:
    return [_Table.of(_mapping(entry)) for entry in _sequence(document.get("tables"))]


def _sum(tables: Iterable[_Table], key: str) -> float | None:
    """Add up, or None where one table's number is unknown: a partial sum would be read as the whole."""
    numbers = [table.number(key) for table in tables]
    known = [number for number in numbers if number is not None]
    return sum(known) if numbers and len(known) == len(numbers) else None


def _samples(document: Document) -> list[Sample]:
    entries = [_sequence(entry) for entry in _sequence(document.get("throughput"))]
    triples = [(_number(e[0], _LONGEST), _number(e[1]), _number(e[2])) for e in entries if len(e) >= 3]
    return [
        Sample(at, rows, size_ or 0) for at, rows, size_ in triples if at is not None and rows is not None
    ]


# --- the verdict ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Detail:
    """A line under the verdict: what, where, what to do. `command` is something to type, or empty."""

    label: str
    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run's result for people: a sentence without a final stop, and what explains it."""

    tone: Literal["good", "warn", "bad", "idle"]
    icon: str
    headline: str
    details: tuple[Detail, ...] = ()


def verdict(document: Document) -> Verdict:
    """Judge what became of the migration; a `completed` that its own tables contradict is not verified."""
    status, tables = _text(document.get("status")), _tables(document)
    states = {table.state for table in tables}
    if status == "failed" or (status == "completed" and ("failed" in states or document.get("error"))):
        return _failed(document, tables)
    if status == "mismatch" or (status == "completed" and "differs" in states):
        return _mismatch(document, tables)
    if status == "completed":
        return _completed(document, tables)
    if status in ("paused", "cancelled"):
        return _stopped(document, tables, status)
    what = f"the status is “{status}”" if status else "the document names no status"
    return Verdict("idle", "dash", f"No verdict: {what}")


def _completed(document: Document, tables: list[_Table]) -> Verdict:
    open_ = [table for table in tables if table.state != "verified"]
    if not tables:
        return Verdict("idle", "dash", "Completed: there was no table to migrate")
    if open_:
        headline = f"Completed, not verified: {_share(open_, tables)} not compared with the source"
        return Verdict("warn", "alert", headline, (_where(open_), *_rejected(document, tables)))
    rejected = _quarantined(tables)
    parts = [plural(len(tables), "table"), _moved(document, tables), _proof(document, tables)]
    except_ = f", except {plural(rejected, 'rejected row')}" if rejected else ""
    headline = "Verified: " + ", ".join(part for part in parts if part) + except_
    return Verdict("good", "check", headline, _rejected(document, tables))


def _proof(document: Document, tables: list[_Table]) -> str:
    level, whose = document.get("verify"), "its" if len(tables) == 1 else "every table's"
    if level == "digest" and not any(table.digests_differ() for table in tables):
        return f"{whose} digest equal in source and target"
    if level == "count":
        return f"{whose} row count equal in source and target"
    return "every row equal in source and target" if level == "rows" else "every table verified"


def _failed(document: Document, tables: list[_Table]) -> Verdict:
    error = _mapping(document.get("error"))
    message, failed = _text(error.get("message")), [table for table in tables if table.state == "failed"]
    headline, details = "Failed: the run stopped before it was done", list[Detail]()
    if failed:
        headline = f"Failed: {_share(failed, tables)} not migrated"
    elif message and len(message) <= 160:
        headline, message = f"Failed: {message}", ""
    if message:
        details.append(Detail("What", message))
    if failed:
        details.append(_where(failed))
        good = sum(table.state == "verified" for table in tables)
        details += [Detail("The rest", f"{_are(good, 'table')} verified")] if good else []
    elif phase := _last_phase(document):
        details.append(Detail("Where", f"phase {phase}"))
    fallback = "Remove the cause and run the migration again; it resumes with what is missing."
    details.append(Detail("What to do", _text(error.get("hint")) or fallback))
    return Verdict("bad", "cross", headline, (*details, *_rejected(document, tables)))


def _mismatch(document: Document, tables: list[_Table]) -> Verdict:
    error, differ = _mapping(document.get("error")), [table for table in tables if table.state == "differs"]
    message, hint = _text(error.get("message")), _text(error.get("hint"))
    headline = "Mismatch: source and target are not the same"
    if differ:
        verb = "differs" if len(differ) == 1 else "differ"
        headline = f"Mismatch: {len(differ):,} of {plural(len(tables), 'table')} {verb} from the source"
    details = [Detail("What", message)] if message else []
    details += [_where(differ)] if differ else []
    fallback = "Do not cut over before the differences are explained; this lists them:"
    command = f"jivs verify {_key(document)} --level rows"
    details.append(Detail("What to do", hint) if hint else Detail("What to do", fallback, command))
    return Verdict("bad", "differ", headline, (*details, *_rejected(document, tables)))


def _stopped(document: Document, tables: list[_Table], status: str) -> Verdict:
    error, key = _mapping(document.get("error")), _key(document)
    loaded, total = _rows(document, tables), _sum(tables, "source_rows")
    of = f" of {count(total)}" if total is not None and loaded is not None and total >= loaded else ""
    progress = "before it was done" if loaded is None else f"after {count(loaded)}{of} rows"
    message, hint = _text(error.get("message")), _text(error.get("hint"))
    details = [Detail("What", message)] if message else []
    if hint:
        details.append(Detail("What to do", hint))
    elif status == "paused":
        details.append(Detail("What to do", "Continue where it stopped:", f"jivs resume {key}"))
    else:
        undo = Detail("To undo", "Remove from the target what was loaded:", f"jivs rollback {key}")
        details += [Detail("To continue", "Run the migration again; it resumes where it stopped."), undo]
    tone, sign = ("warn", "pause") if status == "paused" else ("idle", "stop")
    return Verdict(tone, sign, f"{status.capitalize()} {progress}", (*details, *_rejected(document, tables)))


def _rejected(document: Document, tables: list[_Table]) -> tuple[Detail, ...]:
    rows = _quarantined(tables)
    text = f"{_are(rows, 'row')} in quarantine, with column and reason:"
    return (Detail("Rejected", text, f"jivs quarantine list {_key(document)}"),) if rows else ()


def _quarantined(tables: list[_Table]) -> float:
    return sum(table.number("quarantined_rows") or 0 for table in tables)


def _where(tables: list[_Table], most: int = 5) -> Detail:
    reasons = [f"{table.source} ({why})" if (why := table.why()) else table.source for table in tables[:most]]
    more = f"; and {len(tables) - most:,} more" if len(tables) > most else ""
    return Detail("Where", "; ".join(reasons) + more)


def _are(number: float, noun: str) -> str:
    return f"{plural(number, noun)} {'is' if number == 1 else 'are'}"


def _share(some: list[_Table], tables: list[_Table]) -> str:
    return f"{len(some):,} of {plural(len(tables), 'table')} {'was' if len(some) == 1 else 'were'}"


def _rows(document: Document, tables: list[_Table]) -> float | None:
    rows = _number(document.get("rows"))
    return _sum(tables, "target_rows") if rows is None else rows


def _moved(document: Document, tables: list[_Table]) -> str:
    rows = _rows(document, tables)
    return "" if rows is None else plural(rows, "row")


def _last_phase(document: Document) -> str:
    timeline = _sequence(document.get("timeline"))
    return _text(_mapping(timeline[-1]).get("phase")) if timeline else ""


def _key(document: Document) -> str:
    return _text(document.get("key")) or "KEY"


# --- the page ---------------------------------------------------------------------------------------------


def render_report(document: Document) -> str:
    """Render the page for a run's document. Pure: the same document gives the same page."""
    result, tables, key = verdict(document), _tables(document), _text(document.get("key"))
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
        el("title", f"{key or 'Migration'}: {result.headline}"),
        el("style", Markup(STYLE)),
    )
    run = _text(document.get("run_id"))
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
    return "<!DOCTYPE html>\n" + el("html", head, el("body", top, main), lang="en") + "\n"


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


def _tiles(document: Document, tables: list[_Table]) -> Markup:
    rows, bytes_ = _rows(document, tables), _number(document.get("bytes"))
    seconds = _number(document.get("seconds"), _LONGEST)
    mean, what = average(_samples(document)), "while loading"
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
    attempts, level = _number(document.get("attempts")), _text(document.get("verify"))
    flag = document.get("resumed")
    resumed = "resumed" if flag is True else "in one go" if flag is False else ""
    tries = "" if attempts is None else plural(attempts, "attempt")
    facts = [
        ("Source", _endpoint(document.get("source"))),
        ("Target", _endpoint(document.get("target"))),
        ("Started", _moment(document.get("started_at"))),
        ("Finished", _moment(document.get("finished_at"))),
        ("Consistency", _text(document.get("consistency"))),
        ("Verification", _LEVELS.get(level, level)),
        ("Run", ", ".join(part for part in (resumed, tries) if part)),
    ]
    return _card("Source and target", _pairs(facts))


def _pairs(facts: Iterable[tuple[str, str]]) -> Markup:
    """List labels and values; a value that is empty is shown as missing."""
    rows = (el("div", el("dt", label), el("dd", value or DASH)) for label, value in facts)
    return el("dl", *rows, class_="facts")


def _endpoint(value: object) -> str:
    end = _mapping(value)
    dialect, name = _text(end.get("dialect")), _text(end.get("name"))
    kind = " ".join(part for part in (_DIALECTS.get(dialect, dialect), _text(end.get("version"))) if part)
    return join(el("strong", _name(name)) if name else None, " " if name else None, kind)


def _moment(value: object) -> str:
    """Show a time in UTC if its zone is known, as written if it is not; text that is no time stays."""
    text = _text(value)
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


def _table_of_tables(tables: list[_Table]) -> Markup:
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


def _rows_of(table: _Table, columns: int) -> Iterator[Markup]:
    tone, sign, word = _STATES[table.state]
    renamed = table.target and table.target != table.source
    target = el("span", "→ ", _name(table.target), class_="to") if renamed else None
    cells = [el("th", _name(table.source), target, scope="row")]
    cells.append(el("td", el("span", icon(sign), word, class_=f"state {tone}")))
    cells += [_cell(key, table.number(key)) for key, _ in _NUMBERS]
    cells += [el("td", _text(table.entry.get("lane")) or DASH), el("td", _digest(table))]
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


def _total(tables: list[_Table]) -> Markup:
    good = f"{count(sum(table.state == 'verified' for table in tables))} verified"
    # Tables load side by side, so the sum of their times is nobody's time.
    numbers = [el("td") if key == "seconds" else _cell(key, _sum(tables, key)) for key, _ in _NUMBERS]
    return el("tr", el("th", "Total", scope="row"), el("td", good), *numbers, el("td"), el("td"))


def _digest(table: _Table) -> Markup:
    source, target = table.digests()
    if table.digests_differ():
        return join(_short(source), el("span", " ≠ ", class_="ne"), Markup("<br/>"), _short(target))
    equal = el("span", " equal", class_="both") if source and target else None
    return join(_short(source or target), equal) if source or target else Markup(DASH)


def _short(digest: str) -> Markup:
    return el("code", digest if len(digest) <= 12 else digest[:10] + "…", title=digest)


# --- charts, warnings, provenance -------------------------------------------------------------------------


def _throughput(document: Document) -> Markup:
    samples = _samples(document)
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
    bars = [_bar(_mapping(entry)) for entry in _sequence(document.get("timeline"))]
    note = ""
    if not bars:
        phases = _mapping(document.get("phases")).items()
        bars = [Bar(_text(name), 0, _number(seconds, _LONGEST)) for name, seconds in phases]
        note = "durations only; the document has no start times" if bars else ""
    if not bars:
        return _card("Phases", _empty("The document has no phases."))
    if len(bars) > _MOST_BARS:
        note = f"the last {_MOST_BARS} of {len(bars):,}"
    return _card("Phases", bar_chart(bars[-_MOST_BARS:]), note=note)


def _bar(entry: Document) -> Bar:
    attempt = _number(entry.get("attempt")) or 1
    again = f" · try {count(attempt)}" if attempt > 1 else ""
    start, seconds = (_number(entry.get(key), _LONGEST) for key in ("start", "seconds"))
    return Bar((_text(entry.get("phase")) or "(unnamed)") + again, start or 0, seconds, bool(again))


def _warnings(document: Document) -> Markup:
    if document.get("warnings") is None:
        return _card("Warnings", _empty("The document has no list of warnings."))
    entries = [_mapping(entry) for entry in _sequence(document.get("warnings"))]
    if not entries:
        return _card("Warnings", _empty("None: the plan found nothing lossy and refused nothing."))
    refused = sum(entry.get("kind") == "refused" for entry in entries)
    head = el("tr", *(el("th", title, scope="col") for title in ("Object", "Column", "Kind", "Reason")))
    body = (_warning(entry) for entry in sorted(entries, key=lambda entry: entry.get("kind") != "refused"))
    table = _scroll("Warnings", el("table", el("thead", head), el("tbody", *body), class_="text"))
    note = f"{refused:,} refused, {len(entries) - refused:,} lossy"
    return _card("Warnings", table, note=note)


def _warning(entry: Document) -> Markup:
    kind = _text(entry.get("kind"))
    tone = "bad" if kind == "refused" else "warn"
    badge = el("span", icon("cross" if kind == "refused" else "alert"), kind, class_=f"state {tone}")
    name, column = (_text(entry.get(key)) for key in ("table", "column"))
    cells = [el("th", _name(name or DASH), scope="row"), el("td", _name(column or DASH))]
    return el("tr", *cells, el("td", badge), el("td", _text(entry.get("reason")) or DASH, class_="reason"))


def _provenance(document: Document) -> Markup:
    versions = [(_text(name), _text(value)) for name, value in _mapping(document.get("versions")).items()]
    names = (("Run", "run_id"), ("Epoch", "epoch"), ("Plan hash", "plan_hash"), ("Spec hash", "spec_hash"))
    marks = [(label, el("code", text) if (text := _text(document.get(key))) else "") for label, key in names]
    return _card("Made with", _pairs(versions + marks))


# --- the file ---------------------------------------------------------------------------------------------


def write_report(document: Document, path: Path) -> None:
    """Write the page to `path`, readable by its owner only; a crash leaves the old file or the new one.

    Raises:
        ResourceError: the directory is missing, full or not ours to write, or `path` is no ordinary file.
    """
    page = render_report(document).encode()
    if path.exists() and not path.is_file():
        # A rename would replace the device or pipe itself: `--out /dev/stdout` as root.
        raise _unwritable(path, "it is not an ordinary file")
    try:
        _replace(path, page)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


def _unwritable(path: Path, reason: str) -> ResourceError:
    return ResourceError(
        f"The report cannot be written to {path}: {reason}", hint="Give another place for it"
    )


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".report-", suffix=".tmp", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)
