"""The outcome of a migration in words, from its document: what a report and a terminal say first.

What belongs here: reading a document whose keys may all be missing, and the verdict, which never claims
more than the document does. What does not: drawing (`report.py`, `chart.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from jivs_pipeline.engine.chart import Sample, count, plural

__all__ = [
    "LONGEST",
    "Detail",
    "Document",
    "TableView",
    "Verdict",
    "as_mapping",
    "as_number",
    "as_sequence",
    "as_text",
    "rows_moved",
    "samples_of",
    "sum_of",
    "tables_of",
    "verdict",
]

Document: TypeAlias = Mapping[str, Any]
"""The document of `jivs run --json`."""

# --- reading the document: every key may be missing, null or of a strange type -----------------------------

_LARGEST: Final = 1e18  # a count beyond it is a broken number
LONGEST: Final = 1e9  # seconds; thirty years


def as_number(value: object, largest: float = _LARGEST) -> float | None:
    """Return a count or a duration; None for all else, NaN, infinities and negative numbers included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= largest else None


def as_text(value: object) -> str:
    """The value as text; nothing for null."""
    return "" if value is None else str(value)


def as_mapping(value: object) -> Document:
    """The value if it is an object, else an empty one."""
    return cast("Document", value) if isinstance(value, Mapping) else {}


def as_sequence(value: object) -> Sequence[object]:
    """The value if it is a list, else an empty one."""
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()


@dataclass(frozen=True, slots=True)
class TableView:
    """One entry of `tables`; `state` is the first that holds of failed, differs, unverified and verified."""

    entry: Document
    source: str
    target: str
    state: Literal["failed", "differs", "unverified", "verified"]
    error: str
    column: str

    @classmethod
    def of(cls, entry: Document) -> TableView:
        """One entry of the document's `tables`."""
        raw, verified = entry.get("error"), entry.get("verified")
        error = as_mapping(raw)
        message = as_text(error.get("message") if error else raw).strip()
        message = message or ("no reason is given" if error else "")
        state = "failed" if message else "verified" if verified is True else "unverified"
        state = "differs" if verified is False and not message else state
        source = as_text(entry.get("source_table")) or as_text(entry.get("target_table")) or "(unnamed)"
        return cls(
            entry, source, as_text(entry.get("target_table")), state, message, as_text(error.get("column"))
        )

    def number(self, key: str) -> float | None:
        """A number of the entry, where it is one."""
        return as_number(self.entry.get(key))

    def digests(self) -> tuple[str, str]:
        """Those of source and target, empty where not computed."""
        return as_text(self.entry.get("source_digest")), as_text(self.entry.get("target_digest"))

    def digests_differ(self) -> bool:
        """Whether both are there and not the same."""
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


def tables_of(document: Document) -> list[TableView]:
    """The document's tables."""
    return [TableView.of(as_mapping(entry)) for entry in as_sequence(document.get("tables"))]


def sum_of(tables: Iterable[TableView], key: str) -> float | None:
    """Add up, or None where one table's number is unknown: a partial sum would be read as the whole."""
    numbers = [table.number(key) for table in tables]
    known = [number for number in numbers if number is not None]
    return sum(known) if numbers and len(known) == len(numbers) else None


def samples_of(document: Document) -> list[Sample]:
    """The document's throughput, without broken entries."""
    entries = [as_sequence(entry) for entry in as_sequence(document.get("throughput"))]
    triples = [(as_number(e[0], LONGEST), as_number(e[1]), as_number(e[2])) for e in entries if len(e) >= 3]
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
    status, tables = as_text(document.get("status")), tables_of(document)
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


def _completed(document: Document, tables: list[TableView]) -> Verdict:
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


def _proof(document: Document, tables: list[TableView]) -> str:
    level, whose = document.get("verify"), "its" if len(tables) == 1 else "every table's"
    if level == "digest" and not any(table.digests_differ() for table in tables):
        return f"{whose} digest equal in source and target"
    if level == "count":
        return f"{whose} row count equal in source and target"
    return "every row equal in source and target" if level == "rows" else "every table verified"


def _failed(document: Document, tables: list[TableView]) -> Verdict:
    error = as_mapping(document.get("error"))
    message, failed = as_text(error.get("message")), [table for table in tables if table.state == "failed"]
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
    details.append(Detail("What to do", as_text(error.get("hint")) or fallback))
    return Verdict("bad", "cross", headline, (*details, *_rejected(document, tables)))


def _mismatch(document: Document, tables: list[TableView]) -> Verdict:
    error, differ = as_mapping(document.get("error")), [table for table in tables if table.state == "differs"]
    message, hint = as_text(error.get("message")), as_text(error.get("hint"))
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


def _stopped(document: Document, tables: list[TableView], status: str) -> Verdict:
    error, key = as_mapping(document.get("error")), _key(document)
    loaded, total = rows_moved(document, tables), sum_of(tables, "source_rows")
    of = f" of {count(total)}" if total is not None and loaded is not None and total >= loaded else ""
    progress = "before it was done" if loaded is None else f"after {count(loaded)}{of} rows"
    message, hint = as_text(error.get("message")), as_text(error.get("hint"))
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


def _rejected(document: Document, tables: list[TableView]) -> tuple[Detail, ...]:
    rows = _quarantined(tables)
    text = f"{_are(rows, 'row')} in quarantine, with column and reason:"
    return (Detail("Rejected", text, f"jivs quarantine list {_key(document)}"),) if rows else ()


def _quarantined(tables: list[TableView]) -> float:
    return sum(table.number("quarantined_rows") or 0 for table in tables)


def _where(tables: list[TableView], most: int = 5) -> Detail:
    reasons = [f"{table.source} ({why})" if (why := table.why()) else table.source for table in tables[:most]]
    more = f"; and {len(tables) - most:,} more" if len(tables) > most else ""
    return Detail("Where", "; ".join(reasons) + more)


def _are(number: float, noun: str) -> str:
    return f"{plural(number, noun)} {'is' if number == 1 else 'are'}"


def _share(some: list[TableView], tables: list[TableView]) -> str:
    return f"{len(some):,} of {plural(len(tables), 'table')} {'was' if len(some) == 1 else 'were'}"


def rows_moved(document: Document, tables: list[TableView]) -> float | None:
    """Rows that have reached the target."""
    rows = as_number(document.get("rows"))
    return sum_of(tables, "target_rows") if rows is None else rows


def _moved(document: Document, tables: list[TableView]) -> str:
    rows = rows_moved(document, tables)
    return "" if rows is None else plural(rows, "row")


def _last_phase(document: Document) -> str:
    timeline = as_sequence(document.get("timeline"))
    return as_text(as_mapping(timeline[-1]).get("phase")) if timeline else ""


def _key(document: Document) -> str:
    return as_text(document.get("key")) or "KEY"
