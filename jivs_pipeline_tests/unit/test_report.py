"""The migration report: its verdicts, its safety against hostile names and its charts.

What belongs here: assertions on the parsed page. What does not: its file (`test_report_file.py`) and
what it looks like, which is for eyes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jivs_pipeline.engine.chart import Sample, average, compact, count, duration, el, plural, size, windows
from jivs_pipeline.engine.report import render_report
from jivs_pipeline.engine.verdict import Detail, Verdict, verdict

HOSTILE = """</td><script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"""
NUMERIC = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "width", "height"}


def table(name: str, rows: int = 1000, **changes: object) -> dict[str, Any]:
    digest = f"{name:0<32}"
    entry = {
        "source_table": f"old.{name}", "target_table": f"public.{name}",
        "source_rows": rows, "target_rows": rows, "quarantined_rows": 0, "chunks": 2, "lane": "copy",
        "verified": True, "bytes": rows * 100, "seconds": 1.5, "error": None,
        "rows_per_second": rows / 2, "bytes_per_second": rows * 50.0,
        "planned_rows": rows, "planned_rows_exact": True, "planned_bytes": rows * 100, "planned_chunks": 2,
        "source_digest": digest, "target_digest": digest,
    }  # fmt: skip
    return entry | changes


def document(**changes: object) -> dict[str, Any]:
    phases = {
        "plan": 0.5,
        "extract": 2.0,
        "transform": 0.5,
        "validate": 0.25,
        "load": 9.0,
        "verify": 1.0,
        "finish": 0.1,
    }
    starts = [sum(list(phases.values())[:index]) for index in range(len(phases))]
    timeline = [
        {
            "phase": phase,
            "start": start,
            "seconds": seconds,
            "attempt": 1,
            "cpu_seconds": seconds / 2,
            "peak_rss_bytes": 250_000_000,
        }
        for (phase, seconds), start in zip(phases.items(), starts, strict=True)
    ]
    base = {
        "key": "sakila-2026", "run_id": "run-77", "status": "completed", "resumed": False, "error": None,
        "source": {"name": "legacy", "dialect": "mysql", "version": "8.0.36"},
        "target": {"name": "warehouse", "dialect": "postgresql", "version": "18.1"},
        "started_at": "2026-03-14T10:26:53+01:00", "finished_at": "2026-03-14T09:27:07Z",
        "rows": 406000, "bytes": 39_382_000, "seconds": 13.35, "phases": phases, "timeline": timeline,
        "throughput": [[3.25 + i * 0.5, i * 22_000, i * 2_200_000] for i in range(19)],
        "tables": [table("actor", 200), table("film", 1800), table("rental", 404_000)],
        "estimate": {"seconds": 9.5, "phases": {"load": 8.0, "plan": 0.3}},
        "retries": {"total": 0, "first": []}, "breaker_events": {"total": 0, "first": []},
        "quarantine": {"total": 0, "tables": []},
        "warnings": [], "consistency": "one snapshot", "epoch": 4,
        "plan_hash": "a" * 64, "spec_hash": "b" * 64, "attempts": 1, "verify": "digest",
        "versions": {"jivs_pipeline": "0.1.0", "python": "3.11.7"},
    }  # fmt: skip
    return base | changes


class Page:
    """A report parsed as XML, which is stricter than any browser."""

    def __init__(self, **changes: object) -> None:
        self.html = render_report(document(**changes))
        self.root = ET.fromstring(self.html.removeprefix("<!DOCTYPE html>\n"))

    def all(self, kind: str) -> list[ET.Element]:
        """Every element of this class."""
        return [element for element in self.root.iter() if kind in element.get("class", "").split()]

    def one(self, kind: str) -> ET.Element:
        (element,) = self.all(kind)
        return element

    def card(self, title: str) -> ET.Element:
        (card,) = (card for card in self.all("card") if card[0].text == title)
        return card


def text(element: ET.Element) -> str:
    return "".join(element.itertext())


def paths(element: ET.Element, kind: str) -> list[str]:
    return [path.get("d", "") for path in element.iter("path") if path.get("class") == kind]


def samples(rows: list[float], every: float = 1.0) -> list[list[float]]:
    return [[5 + index * every, total, total * 10] for index, total in enumerate(rows)]


def details(result: Verdict) -> dict[str, Detail]:
    return {detail.label: detail for detail in result.details}


# --- the verdict ------------------------------------------------------------------------------------------

VERIFIED = "Verified: 3 tables, 406,000 rows, "
STOPPED = "Failed: the run stopped before it was done"
ONE = {"tables": [table("a", 1)], "rows": 1}
PAUSED = {"status": "paused", "rows": 150_000, "tables": [table("rental", 406_000, verified=None)]}


@pytest.mark.parametrize(
    ("changes", "tone", "headline"),
    [
        ({}, "good", VERIFIED + "every table's digest equal in source and target"),
        ({"verify": "count"}, "good", VERIFIED + "every table's row count equal in source and target"),
        ({"verify": "rows"}, "good", VERIFIED + "every row equal in source and target"),
        (ONE, "good", "Verified: 1 table, 1 row, its digest equal in source and target"),
        ({"rows": None}, "good", VERIFIED + "every table's digest equal in source and target"),
        ({"tables": []}, "idle", "Completed: there was no table to migrate"),
        ({"status": "failed"}, "bad", STOPPED),
        ({"status": "failed", "error": {"message": "disk full"}}, "bad", "Failed: disk full"),
        ({"status": "failed", "error": {"message": "x" * 500}}, "bad", STOPPED),
        ({"status": "mismatch"}, "bad", "Mismatch: source and target are not the same"),
        (PAUSED, "warn", "Paused after 150,000 of 406,000 rows"),
        (PAUSED | {"status": "cancelled"}, "idle", "Cancelled after 150,000 of 406,000 rows"),
        ({"status": "paused", "rows": None, "tables": None}, "warn", "Paused before it was done"),
        ({"status": None}, "idle", "No verdict: the document names no status"),
        ({"status": "exploded"}, "idle", "No verdict: the status is “exploded”"),
    ],
)  # fmt: skip
def test_verdict_of_every_status(changes: dict[str, Any], tone: str, headline: str) -> None:
    """The page starts with one sentence; its colour is a class and its icon differs from other tones'."""
    page = Page(**changes)
    card = page.one("verdict")
    assert card is page.root.find("body/main/*")
    assert card.get("class") == f"verdict {tone}"
    assert text(page.one("headline")) == headline
    assert paths(card, "sign") != [""]
    assert page.root.findtext("head/title") == f"sakila-2026: {headline}"


def test_every_status_has_an_icon_of_its_own() -> None:
    """Colour is never the only difference."""
    statuses = ("completed", "failed", "mismatch", "paused", "cancelled", "unknown")
    assert len({tuple(paths(Page(status=status).one("verdict"), "sign")) for status in statuses}) == len(
        statuses
    )


def test_failed_says_what_where_and_what_to_do() -> None:
    broken = table(
        "film", verified=None, error={"message": "value out of range for integer", "column": "length"}
    )
    error = {"code": "data", "message": "1 table failed: old.film", "hint": "Type the column as bigint"}
    result = verdict(document(status="failed", error=error, tables=[table("actor"), broken, table("rental")]))
    assert result.headline == "Failed: 1 of 3 tables was not migrated"
    found = details(result)
    assert found["What"].text == "1 table failed: old.film"
    assert found["Where"].text == "old.film (column length: value out of range for integer)"
    assert found["The rest"].text == "2 tables are verified"
    assert found["What to do"].text == "Type the column as bigint"


def test_failed_without_a_table_names_the_phase_and_a_way_out() -> None:
    timeline = [
        {"phase": "plan", "start": 0, "seconds": 1},
        {"phase": "extract", "start": 1, "seconds": None},
    ]
    found = details(verdict(document(status="failed", error={"message": "m"}, timeline=timeline)))
    assert found["Where"].text == "phase extract"
    assert "resumes" in found["What to do"].text


def test_many_failed_tables_are_counted_not_listed() -> None:
    tables = [table(f"t{index}", error="bad") for index in range(1234)]
    result = verdict(document(status="failed", tables=tables))
    assert result.headline == "Failed: 1,234 of 1,234 tables were not migrated"
    assert details(result)["Where"].text.endswith("old.t4 (bad); and 1,229 more")


def test_mismatch_names_the_tables_and_how_to_see_the_differences() -> None:
    tables = [
        table("actor", verified=False, target_rows=999),
        table("film", verified=False, target_digest="f" * 32),
    ]
    result = verdict(document(status="mismatch", tables=[*tables, table("rental")]))
    assert result.headline == "Mismatch: 2 of 3 tables differ from the source"
    found = details(result)
    assert (
        found["Where"].text
        == "old.actor (1,000 rows in the source, 999 in the target); old.film (the digests differ)"
    )
    assert found["What to do"].command == "jivs verify sakila-2026 --level rows"


def test_rejected_rows_are_not_counted_as_missing() -> None:
    """1,000 rows of which 3 were rejected and 997 arrived are no difference in number; the digests are."""
    entry = table("a", verified=False, target_rows=997, quarantined_rows=3, target_digest="f" * 32)
    found = details(verdict(document(status="mismatch", tables=[entry])))
    assert found["Where"].text == "old.a (the digests differ)"


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"tables": [table("a"), table("b", verified=False)]}, "Mismatch: 1 of 2 tables differs"),
        ({"tables": [table("a"), table("b", error={"message": "m"})]}, "Failed: 1 of 2 tables was"),
        ({"tables": [table("a"), table("b", verified=None)]}, "Completed, not verified: 1 of 2 tables was"),
        ({"tables": [table("a"), table("b", verified="yes")]}, "Completed, not verified: 1 of 2 tables was"),
        ({"error": {"message": "the lease was lost"}}, "Failed: the lease was lost"),
    ],
)
def test_a_completed_that_its_own_tables_contradict_is_not_called_verified(
    changes: dict[str, Any], start: str
) -> None:
    result = verdict(document(**changes))
    assert result.headline.startswith(start)
    assert result.tone in ("bad", "warn")


def test_digests_that_differ_on_the_page_are_not_called_equal() -> None:
    """A masked table can be verified although its digests are not the same; the sentence may not deny it."""
    result = verdict(document(tables=[table("a"), table("b", target_digest="0" * 32)]))
    assert (result.tone, result.headline) == (
        "good",
        "Verified: 2 tables, 406,000 rows, every table verified",
    )


def test_rejected_rows_stay_in_sight() -> None:
    result = verdict(document(tables=[table("a", quarantined_rows=3), table("b", quarantined_rows=None)]))
    assert result.headline.endswith("every table's digest equal in source and target, except 3 rejected rows")
    assert details(result)["Rejected"].command == "jivs quarantine list sakila-2026"


# --- hostile and broken documents -------------------------------------------------------------------------


def poisoned(value: object, poison: str) -> object:
    """The same document with every string replaced; the keys stay."""
    if isinstance(value, dict):
        return {key: poisoned(inner, poison) for key, inner in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [poisoned(inner, poison) for inner in cast("list[object]", value)]
    return poison if isinstance(value, str) else value


class Tags(HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


RETRY = {
    "at": "2026-03-14T09:27:00Z", "phase": "load", "table": "public.film", "chunk": 3, "attempt": 2,
    "error": "the connection was lost", "delay_seconds": 1.5,
}  # fmt: skip
CHANGE = {
    "at": "2026-03-14T09:27:01Z", "endpoint": "target", "name": "warehouse@12345678", "before": "half_open",
    "after": "closed", "reason": "3 probes succeeded",
}  # fmt: skip
REJECTED = {
    "table": "public.film", "rows": 12, "kinds": 5,
    "reasons": [
        {"column": "length", "reason": "out of range", "rows": 9}, {"column": None, "reason": "no key", "rows": 1},
    ],
}  # fmt: skip
MET: dict[str, Any] = {
    "retries": {"total": 250, "first": [RETRY, RETRY | {"table": "*", "chunk": None}]},
    "breaker_events": {"total": 1, "first": [CHANGE]},
    "quarantine": {"total": 12, "tables": [REJECTED]},
}


def hostile_document(status: str) -> dict[str, Any]:
    error = {"code": "data", "message": "m", "hint": "h"}
    tables = [table("a", error={"message": "m", "column": "c"}), table("b", verified=False), table("c")]
    tables[2]["target_digest"] = "other"
    warnings = [{"table": "t", "column": "c", "kind": "refused", "reason": "r"}]
    whole = document(error=error, tables=tables, warnings=warnings, **MET)
    full = cast("dict[str, Any]", poisoned(whole, HOSTILE))
    full["versions"], full["phases"] = {HOSTILE: HOSTILE}, {HOSTILE: 1.0}
    return full | {"status": status}


@pytest.mark.parametrize("status", ["completed", "failed", "mismatch", "paused", "cancelled", HOSTILE])
@pytest.mark.parametrize("timeline", [True, False])
def test_hostile_text_stays_text(status: str, timeline: bool) -> None:
    """Script in any string of the document reaches the page as the text that it is, and as nothing else."""
    hostile = hostile_document(status) | ({} if timeline else {"timeline": None})
    page = Page(**hostile)
    seen = Tags(page.html)
    assert not seen.tags & {"script", "img", "iframe", "object", "link", "base", "form", "a"}
    assert not [
        name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href", "style")
    ]
    assert page.root.findtext("body/header/h1/bdi") == HOSTILE
    assert HOSTILE in text(page.card("Tables"))
    assert HOSTILE in text(page.card("Warnings"))
    for title in ("Plan and actual", "Retries", "Circuit breakers", "Quarantine"):
        assert HOSTILE in text(page.card(title))
    assert HOSTILE in text(page.card("Phases"))
    assert HOSTILE in text(page.card("Made with"))
    assert HOSTILE in {element.get("title") for element in page.root.iter("code")}


def test_the_page_needs_nothing_from_outside() -> None:
    page = Page()
    seen = Tags(page.html)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", page.html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in seen.attributes
    assert ("charset", "utf-8") in seen.attributes


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x00b\x1b[31m", "a[U+0000]b[U+001B][31m"),
        ("lone \ud800 surrogate", "lone [U+D800] surrogate"),
        ("evil\u202egnp.exe", "evil[U+202E]gnp.exe"),
        ("end \uffff\U0010fffe", "end [U+FFFF][U+10FFFE]"),
        ("שלום · می‌خواهم · 👩‍🚀 · ñandú", "שלום · می‌خواهم · 👩‍🚀 · ñandú"),
    ],
)
def test_names_that_cannot_be_shown_are_shown_by_number(name: str, shown: str) -> None:
    """A page with a surrogate could not be written at all; a bidirectional override forges another name."""
    page = Page(tables=[table("x", source_table=name)])
    assert text(next(page.card("Tables").iter("bdi"))) == shown
    page.html.encode()


def test_an_empty_document_and_one_of_nulls_give_a_page() -> None:
    empty = render_report({})
    assert render_report(dict.fromkeys(document())) == empty
    assert "No verdict: the document names no status" in empty
    assert "The document lists no tables." in empty
    assert "The document has no phases." in empty
    assert "The document has no list of warnings." in empty


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBER = st.integers(-5, 10**20) | st.floats() | st.none() | st.booleans()
LISTED = st.fixed_dictionaries(
    {},
    optional={
        "total": NUMBER,
        "first": st.lists(st.dictionaries(st.sampled_from([*RETRY, *CHANGE]), JSON, max_size=9), max_size=3)
        | JSON,
        "tables": st.lists(st.dictionaries(st.sampled_from([*REJECTED]), JSON, max_size=4), max_size=3)
        | JSON,
    },
)
ENTRY = st.fixed_dictionaries({}, optional=dict.fromkeys(table("x"), JSON))
SPAN = st.fixed_dictionaries(
    {
        "phase": st.text(max_size=5),
        "start": NUMBER,
        "seconds": NUMBER,
        "attempt": NUMBER,
        "cpu_seconds": NUMBER,
        "peak_rss_bytes": NUMBER,
    }
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(document(), JSON)
    | {
        "status": st.sampled_from(["completed", "failed", "paused", "cancelled", "mismatch"]) | JSON,
        "tables": st.lists(ENTRY, max_size=4) | JSON,
        "timeline": st.lists(SPAN, max_size=4) | JSON,
        "retries": LISTED | JSON,
        "breaker_events": LISTED | JSON,
        "quarantine": LISTED | JSON,
        "throughput": st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=12) | JSON,
    },
)


@settings(deadline=None, max_examples=150)
@given(DOCUMENT)
@example({"phases": {"": 5e-324}})
def test_any_document_gives_a_well_formed_page_without_nan(broken: dict[str, Any]) -> None:
    """Whatever the values are, the page parses, encodes, is reproducible and draws only real numbers."""
    page = render_report(broken)
    root = ET.fromstring(page.encode().decode().removeprefix("<!DOCTYPE html>\n"))
    assert page == render_report(broken)
    for number in coordinates(root):
        assert math.isfinite(number)


def coordinates(root: ET.Element) -> Iterator[float]:
    for element in root.iter():
        yield from (float(value) for name, value in element.attrib.items() if name in NUMERIC)
        if element.tag == "path":
            yield from map(
                float, re.findall(r"[^\sA-Za-z]+|nan|inf", element.get("d", "").replace("-", " -"))
            )


# --- the table of tables ----------------------------------------------------------------------------------


def body_rows(page: Page) -> list[list[str]]:
    rows = page.card("Tables").findall("div/table/tbody/tr")
    return [[text(cell) for cell in row] for row in rows]


def test_numbers_are_grouped_right_aligned_and_exact_on_demand() -> None:
    page = Page(tables=[table("big", 1_234_567_890_123, quarantined_rows=7, chunks=20_576, seconds=7264)])
    row = page.card("Tables").find("div/table/tbody/tr")
    assert row is not None
    cells = [(text(cell), cell.get("class")) for cell in row][2:8]
    assert cells == [
        ("1,234,567,890,123", "n"),
        ("1,234,567,890,123", "n"),
        ("7", "n warn"),
        ("123.5 TB", "n"),
        ("2 h 01 min", "n"),
        ("617,283,945,062 rows/s61.7 TB/s", "n"),
    ]
    assert row[5].get("title") == "123,456,789,012,300 bytes"
    assert re.search(r"th\.n,td\.n\{text-align:right\}", page.html)


def test_bad_rows_come_first_and_say_why() -> None:
    failed = table("failed", verified=None, error={"message": "no such type", "column": "geo"})
    rows = body_rows(
        Page(tables=[table("ok"), table("open", verified=None), table("off", verified=False), failed])
    )
    assert [row[0].split("→")[0] for row in rows] == [
        "old.failed", "column geo: no such type", "old.off", "source and target differ", "old.open", "old.ok",
    ]  # fmt: skip
    assert [row[1] for row in rows if len(row) > 1] == ["failed", "differs", "not verified", "verified"]


def test_digests_are_short_with_the_whole_one_in_the_title() -> None:
    page = Page(
        tables=[table("a", source_digest="0123456789abcdef" * 2, target_digest="fedcba9876543210" * 2)]
    )
    codes = list(page.card("Tables").iter("code"))
    assert [code.text for code in codes] == ["0123456789…", "fedcba9876…"]
    assert [code.get("title") for code in codes] == ["0123456789abcdef" * 2, "fedcba9876543210" * 2]
    assert "≠" in text(page.card("Tables"))


def test_totals_are_shown_only_where_every_part_is_known() -> None:
    page = Page(tables=[table("a", 1500), table("b", 2500, target_rows=None)])
    foot = page.card("Tables").find("div/table/tfoot/tr")
    assert foot is not None
    assert [text(cell) for cell in foot][:5] == ["Total", "2 verified", "4,000", "–", "0"]


def test_only_tables_scroll_and_the_page_adapts() -> None:
    """Every table stands in a container that scrolls by itself, reachable by keyboard."""
    page = Page(warnings=[{"table": "t", "column": None, "kind": "lossy", "reason": "r"}], **MET)
    boxes = page.all("scroll")
    assert len(boxes) == len(list(page.root.iter("table"))) == 7
    assert {(box[0].tag, box.get("tabindex"), box.get("role")) for box in boxes} == {("table", "0", "region")}
    assert "prefers-color-scheme:dark" in page.html
    assert "@media print" in page.html
    for svg in page.root.iter("svg"):
        assert svg.get("aria-hidden") == "true" or svg.get("aria-label")


# --- facts, warnings, provenance --------------------------------------------------------------------------


def facts(card: ET.Element) -> dict[str, str]:
    return {div.findtext("dt", ""): text(div[1]) for div in card.findall("dl/div")}


def test_facts_name_both_ends_the_time_and_the_consistency() -> None:
    assert facts(Page(attempts=2, resumed=True).card("Source and target")) == {
        "Source": "legacy MySQL 8.0.36",
        "Target": "warehouse PostgreSQL 18.1",
        "Started": "2026-03-14 09:26:53 UTC",
        "Finished": "2026-03-14 09:27:07 UTC",
        "Consistency": "one snapshot",
        "Verification": "digest of every table",
        "Run": "resumed, 2 attempts",
    }


EARLY = "0001-01-01T00:00:00+14:00"  # before the first year in UTC


@pytest.mark.parametrize(
    ("written", "shown"),
    [("2026-03-14T10:26:53", "2026-03-14 10:26:53"), ("soon", "soon"), (EARLY, EARLY)],
)
def test_a_time_that_is_not_one_is_shown_as_written(written: str, shown: str) -> None:
    assert facts(Page(started_at=written).card("Source and target"))["Started"] == shown


def tiles(page: Page) -> dict[str, list[str]]:
    return {text(tile[0]): [text(part) for part in tile[1:]] for tile in page.one("tiles")}


def test_tiles_show_the_amounts_and_where_the_rate_comes_from() -> None:
    found = tiles(Page())
    assert found == {
        "Tables": ["3"],
        "Rows": ["406,000"],
        "Data": ["39.4 MB", "39,382,000 bytes"],
        "Duration": ["13.3 s"],
        "Rows per second": ["44,000", "while loading"],
    }
    assert tiles(Page(throughput=[], seconds=10))["Rows per second"] == ["40,600", "over the whole run"]


def test_a_resumed_run_without_samples_claims_no_rate() -> None:
    """A no-op run lists all rows and takes no time; dividing them would be a lie of millions per second."""
    assert tiles(Page(throughput=[], seconds=0.2, resumed=True))["Rows per second"] == ["–"]


def test_warnings_list_what_was_refused_first() -> None:
    lossy = {"table": "old.film", "column": "price", "kind": "lossy", "reason": "ZEROFILL is dropped"}
    refused = {"table": "old.v_film", "column": None, "kind": "refused", "reason": "a view"}
    card = Page(warnings=[lossy, refused]).card("Warnings")
    rows = [[text(cell) for cell in row] for row in card.findall("div/table/tbody/tr")]
    assert rows == [
        ["old.v_film", "–", "refused", "a view"],
        ["old.film", "price", "lossy", "ZEROFILL is dropped"],
    ]
    assert text(card[0]) == "Warnings1 refused, 1 lossy"
    assert "None: the plan found nothing lossy" in text(Page(warnings=[]).card("Warnings"))


def test_the_page_ends_with_versions_and_whole_hashes() -> None:
    page = Page()
    card = page.card("Made with")
    assert card is page.all("card")[-1]
    expected = {"jivs_pipeline": "0.1.0", "python": "3.11.7", "Run": "run-77", "Epoch": "4"}
    assert facts(card) == expected | {"Plan hash": "a" * 64, "Spec hash": "b" * 64}


# --- plan and actual, incidents ---------------------------------------------------------------------------


def rows_of(card: ET.Element) -> list[list[str]]:
    return [[text(cell) for cell in row] for row in card.findall("div/table/tbody/tr")]


def marked(card: ET.Element) -> list[str]:
    return [text(cell) for cell in card.iter("td") if cell.get("class") == "n warn"]


def test_what_differs_from_the_plan_comes_first_and_is_marked() -> None:
    """Numbers that were counted by any difference, estimates by half and more than a little."""
    tables = [
        table("same"),
        table("near", bytes=120_000),
        table("small", 10, bytes=5000),
        table("guessed", 50_000, planned_rows=49_000, planned_rows_exact=False),
        table("far", 50_000, planned_rows=9_000, planned_rows_exact=False, bytes=20_000_000),
        table("fewer", planned_rows=1001, planned_chunks=3),
    ]
    card = Page(tables=tables).card("Plan and actual")
    assert [row[0] for row in rows_of(card)] == [
        "old.far", "old.fewer", "old.same", "old.near", "old.small", "old.guessed",
    ]  # fmt: skip
    assert rows_of(card)[0][1:] == ["~9,000", "50,000", "~5.0 MB", "20.0 MB", "2", "2"]
    assert marked(card) == ["50,000", "20.0 MB", "1,000", "2"]
    assert len(paths(card, "sign")) == 4
    assert text(card[0]) == "Plan and actual2 tables marked"


def test_a_document_without_a_plan_says_so() -> None:
    old = {k: v for k, v in table("t").items() if not k.startswith("planned_")}
    assert "does not tell what was planned" in text(Page(tables=[old]).card("Plan and actual"))


def test_phases_tell_time_cpu_memory_and_what_was_expected() -> None:
    card = Page().card("Phases")
    found = {row[0]: row[1:] for row in rows_of(card)}
    assert found["load"] == ["9.0 s", "4.5 s", "0.5", "250.0 MB", "8.0 s"]
    assert found["extract"] == ["2.0 s", "1.0 s", "0.5", "250.0 MB", "–"]
    assert "Expected" not in text(Page(estimate=None).card("Phases"))


def test_nothing_met_is_three_words_and_no_table() -> None:
    page = Page()
    assert facts(page.card("On the way")) == {
        "Retries": "none",
        "Circuit breakers": "none",
        "Quarantine": "none",
    }
    titles = {card[0].text for card in page.all("card")}
    assert not titles & {"Retries", "Circuit breakers", "Quarantine"}
    old = Page(retries=None, breaker_events=None, quarantine=None)
    assert set(facts(old.card("On the way")).values()) == {"–"}


def test_what_was_met_is_told() -> None:
    page = Page(**MET)
    assert facts(page.card("On the way")) == {
        "Retries": "250 retries", "Circuit breakers": "1 change", "Quarantine": "12 rows",
    }  # fmt: skip
    retries = page.card("Retries")
    assert text(retries[0]) == "Retriesthe first 2 of 250"
    assert rows_of(retries) == [
        ["2026-03-14 09:27:00 UTC", "load", "public.film", "3", "2", "the connection was lost", "1.5 s"],
        ["2026-03-14 09:27:00 UTC", "load", "the whole run", "–", "2", "the connection was lost", "1.5 s"],
    ]
    assert rows_of(page.card("Circuit breakers")) == [
        [
            "2026-03-14 09:27:01 UTC",
            "target",
            "warehouse@12345678",
            "half-open → closed",
            "3 probes succeeded",
        ],
    ]
    assert rows_of(page.card("Quarantine")) == [
        ["public.film", "12", "", ""],
        ["", "9", "length", "out of range"],
        ["", "1", "–", "no key"],
        ["", "", "", "and 3 other reasons"],
    ]


def test_a_page_of_thousands_stays_small_and_shows_the_worst() -> None:
    tables = [table(f"t{n}", planned_rows=1000 + n % 2) for n in range(5000)]
    tables[4321] = table("broken", error={"message": "m" * 100_000, "column": "c"})
    page = Page(
        tables=tables,
        error={"message": "e" * 100_000},
        warnings=[
            {"table": f"t{n}", "column": "c", "kind": "lossy", "reason": "r" * 100_000} for n in range(600)
        ],
        retries={"total": 10**6, "first": [RETRY] * 5000},
        breaker_events={"total": 5000, "first": [CHANGE] * 5000},
        quarantine={"total": 5000, "tables": [REJECTED | {"reasons": [*REJECTED["reasons"]] * 100}] * 5000},
    )
    assert len(page.html) < 4_000_000
    assert rows_of(page.card("Tables"))[0][0] == "old.broken→ public.broken"
    assert text(page.card("Tables")[0]) == "Tablesthe first 500 of 5,000; --out F.json has more"
    foot = page.card("Tables").find("div/table/tfoot/tr")
    assert foot is not None
    assert text(foot[2]) == "5,000,000"


# --- throughput -------------------------------------------------------------------------------------------


BROKEN = [[1, math.nan, 1], [math.inf, 1, 1], [2, -4, 1], ["3", 1, 1], [True, 1, 1], [4], None]


@pytest.mark.parametrize(
    ("throughput", "says"),
    [
        (None, "No samples were taken"),
        ([], "No samples were taken"),
        (samples([0]), "Too few samples for a chart (1)."),
        (samples([0, 5000]), "Too few samples for a chart (2). The mean is 5,000 rows/s."),
        (samples([0, 1, 2]), "Too few samples for a chart (3). The mean is 1 rows/s."),
        ([[7, 100, 1]] * 50, "Too few samples for a chart (50)."),
        (samples([10] * 20), "No rows were loaded while samples were taken."),
        (BROKEN, "No samples were taken"),
    ],
)  # fmt: skip
def test_too_few_samples_are_said_and_not_drawn(throughput: object, says: str) -> None:
    card = Page(throughput=throughput).card("Throughput")
    assert list(card.iter("svg")) == []
    assert says in text(card)


def test_throughput_is_drawn_for_wide_and_narrow_screens() -> None:
    card = Page(throughput=samples([0, 1000, 3000, 3500, 6000, 9000])).card("Throughput")
    boxes = [svg.get("viewBox", "") for svg in card.iter("svg")]
    assert boxes == ["0 0 1040 274", "0 0 400 274"]
    for svg, width in zip(card.iter("svg"), (1040, 400), strict=True):
        labels = [label.text or "" for label in svg.iter("text")]
        assert "rows/s" in labels
        assert "– – mean 1,800 rows/s" in labels
        assert "time since the run's start (s)" in labels
        assert {"0", "1k", "2k", "3k", "6", "8", "10"} <= set(labels)
        assert len(paths(svg, "area")) == len(paths(svg, "curve")) == 1
        assert next(svg.iter("title")).text == "5–6 s: 1,000 rows/s, 10.0 kB/s"
        assert all(0 <= x <= width for x in (float(e.get("x", 0)) for e in svg.iter()))


@pytest.mark.parametrize(
    ("totals", "heights"),
    [
        ([0, 1000, 2000, 5000, 8000], [0.33, 0.33, 1.0, 1.0, 0.0]),  # the scale ends at the highest, 3000
        ([0, 1000, 2000, 5500, 9000], [0.25, 0.25, 0.88, 0.88, 0.0]),  # 3500 is no tick: it ends at 4000
    ],
)
def test_the_curve_is_as_high_as_the_rates(totals: list[float], heights: list[float]) -> None:
    """A rate's height is its share of the scale, whose last tick is never below the highest rate."""
    card = Page(throughput=samples(totals)).card("Throughput")
    top, bottom = 34.0, 230.0
    drawn = [float(y) for y in re.findall(r"V([\d.]+)", paths(card, "area")[0])]
    assert [(bottom - y) / (bottom - top) for y in drawn] == pytest.approx(heights, abs=0.01)


def test_windows_lose_no_row_and_stay_few() -> None:
    """The area under the steps is the number of rows moved, however uneven the samples are."""
    uneven = [
        Sample(100 + index**1.3 / 7, index * 977.0 + (index % 7) * 50, index * 10.0) for index in range(5000)
    ]
    steps = windows(uneven)
    assert 20 <= len(steps) <= 61
    moved = sum((step.end - step.start) * step.rows for step in steps)
    assert moved == pytest.approx(uneven[-1].rows - uneven[0].rows)
    assert all(one.end == two.start for one, two in pairwise(steps))


def test_two_commits_in_one_microsecond_make_no_spike() -> None:
    steps = windows([Sample(t, r, 0) for t, r in ((0, 0), (1, 1000), (1.000001, 2000), (2, 3000), (3, 4000))])
    assert max(step.rows for step in steps) < 2500


def test_a_counter_that_starts_again_after_a_retry_is_no_negative_rate() -> None:
    totals = [0, 1000, 2000, 0, 1000, 2000]
    taken = [Sample(float(index), float(total), 0) for index, total in enumerate(totals)]
    mean = average(taken)
    assert min(step.rows for step in windows(taken)) == 0
    assert mean is not None
    assert mean.rows == 800


def test_samples_out_of_order_are_put_in_order() -> None:
    ordered = [Sample(float(index), index * 100.0, 0) for index in range(10)]
    assert windows(reversed(ordered)) == windows(ordered)


@pytest.mark.parametrize(("span", "unit"), [(100, "s"), (3000, "min"), (40_000, "h")])
def test_the_time_axis_has_a_unit_that_fits(span: float, unit: str) -> None:
    throughput = [[index * span / 50, index * 10_000, 0] for index in range(51)]
    labels = [label.text or "" for label in Page(throughput=throughput).card("Throughput").iter("text")]
    assert labels.count(f"time since the run's start ({unit})") == 2
    assert len(labels) < 60


# --- phases -----------------------------------------------------------------------------------------------


def bars(card: ET.Element) -> list[tuple[str, float, float]]:
    """The wide chart's bars: what the tooltip says, left edge and width."""
    svg = next(card.iter("svg"))
    groups = [(group.findtext("title", ""), group.find("rect")) for group in svg.iter("g")]
    return [(tip, float(r.get("x", "")), float(r.get("width", ""))) for tip, r in groups if r is not None]


def test_phases_are_bars_on_one_time_axis() -> None:
    timeline = [
        {"phase": "extract", "start": 0, "seconds": 10, "attempt": 1},
        {"phase": "load", "start": 10, "seconds": 5, "attempt": 1},
        {"phase": "load", "start": 15, "seconds": 5, "attempt": 2},
    ]
    card = Page(timeline=timeline).card("Phases")
    drawn = bars(card)
    assert [tip for tip, _, _ in drawn] == [
        "extract: from 0 ms, 10.0 s", "load: from 10.0 s, 5.0 s", "load · try 2: from 15.0 s, 5.0 s",
    ]  # fmt: skip
    (_, x1, w1), (_, x2, w2), (_, x3, w3) = drawn
    assert (x1 + w1, x2 + w2) == (pytest.approx(x2), pytest.approx(x3))
    assert w1 == pytest.approx(2 * w2, abs=0.2)
    assert w2 == pytest.approx(w3, abs=0.2)
    assert {"10.0 s", "5.0 s", "extract", "load · try 2"} <= {label.text for label in card.iter("text")}


def test_without_a_timeline_the_durations_are_drawn_and_it_is_said() -> None:
    card = Page(timeline=None, phases={"plan": 1.0, "load": 2.0, "verify": None}).card("Phases")
    assert "the document has no start times" in text(card[0])
    assert [tip for tip, _, _ in bars(card)] == [
        "plan: from 0 ms, 1.0 s", "load: from 0 ms, 2.0 s", "verify: from 0 ms, –",
    ]  # fmt: skip


def test_phases_that_took_no_time_can_be_drawn() -> None:
    card = Page(timeline=[{"phase": "plan", "start": 0, "seconds": 0}]).card("Phases")
    assert bars(card)[0][2] == 2


def test_hundreds_of_attempts_show_the_last_ones() -> None:
    timeline = [{"phase": "load", "start": index, "seconds": 1, "attempt": index} for index in range(500)]
    card = Page(timeline=timeline).card("Phases")
    drawn = bars(card)
    assert len(drawn) == 60
    assert drawn[-1][0].startswith("load · try 499:")
    assert "the last 60 of 500" in text(card[0])


# --- numbers and markup -----------------------------------------------------------------------------------


def test_numbers_for_people() -> None:
    assert [count(n) for n in (0, 999, 1000, 1e18)] == ["0", "999", "1,000", "1,000,000,000,000,000,000"]
    assert [plural(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [size(n) for n in (0, 999, 1000, 999_949, 999_950, 1.5e9, 1e18)] == [
        "0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 GB", "1,000.0 PB",
    ]  # fmt: skip
    assert [duration(s) for s in (0, 0.0421, 0.9996, 59.94, 59.96, 3599.6, 86399.9, 98_000)] == [
        "0 ms", "42 ms", "1.0 s", "59.9 s", "1 min 00 s", "1 h 00 min", "1 d 0 h", "1 d 3 h",
    ]  # fmt: skip
    assert [compact(n) for n in (0, 0.5, 950, 1500, 250_000, 2e6, 3e9, 4e12)] == [
        "0", "0.5", "950", "1.5k", "250k", "2M", "3G", "4T",
    ]  # fmt: skip


def test_markup_escapes_whatever_is_not_markup() -> None:
    inner = el("b", "<&>")
    assert el("p", inner, '"x"', None, class_="a\"'<", aria_label=None, stroke_width=1.0) == (
        '<p class="a&quot;&#x27;&lt;" stroke-width="1"><b>&lt;&amp;&gt;</b>&quot;x&quot;</p>'
    )
    assert "<b>" not in el("p", str(inner) + "")


def test_rules_and_validations_are_told():
    page = render_report(
        {
            **document(),
            "tables": [{**t, "rules": {"email: mask": 1234, "rows: dedupe": 7}} for t in document()["tables"][:1]],
            "validation": {
                "score": 97.5,
                "passed": False,
                "checks": [
                    {"table": "public.t", "name": "no <debts>", "kind": "business", "severity": "critical", "rows": 5000,
                     "failed": 17, "quarantined": 4, "at_least": 1.0, "broken": None, "passed": False},
                ],
            },
        }
    )  # fmt: skip
    for said in (
        "1,234",
        "dedupe",
        "score 97.5 of 100",
        "1 check failed",
        "no &lt;debts&gt;",
        "critical",
        "5,000",
    ):
        assert said in page, said
