"""What a person sees in a terminal: live progress on stderr, results on stdout.

What belongs here: drawing. What does not: deciding what happened (`core`, `engine`) and exit codes (`cli.py`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from jivs_pipeline.engine.progress import Progress

__all__ = [
    "human_bytes",
    "print_comparison",
    "print_plan",
    "print_quarantine",
    "print_result",
    "print_statuses",
    "say",
    "showing",
]

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 10.0
_MOST_BARS = 20
_SHOWN_CHARACTERS = 60


def _console() -> Console:
    # Where stdout is no terminal, rich believes in 80 columns and shortens names that somebody may grep for.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 400)


def say(text: str) -> None:
    """One line for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def human_bytes(size: float) -> str:
    """Such as 12.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    raise AssertionError


@contextmanager
def showing(progress: Progress) -> Iterator[None]:
    """Show the progress while the block runs: bars on a terminal, a line per phase and every 10 s elsewhere."""
    over = threading.Event()
    draw = _bars if sys.stderr.isatty() else _lines
    # A copy of stderr: while an op runs, Dagster points the descriptor itself at the op's log file.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace") as stream:
        thread = threading.Thread(
            target=draw, args=(progress, over, stream), name="jivs-progress", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=5)


def _lines(progress: Progress, over: threading.Event, stream: TextIO) -> None:
    def say(text: str) -> None:
        print(text, file=stream, flush=True)

    phase, told = "", time.monotonic()
    while not over.wait(_REFRESH_SECONDS):
        if progress.phase != phase:
            phase, told = progress.phase, time.monotonic()
            say(f"{progress.seconds:7.1f} s  {phase}")
        elif time.monotonic() - told >= _LINE_SECONDS:
            told = time.monotonic()
            say(f"{progress.seconds:7.1f} s  {phase}: {progress.rows:,} rows, {human_bytes(progress.bytes)}")


def _bars(progress: Progress, over: threading.Event, stream: TextIO) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=Console(file=stream), transient=True, refresh_per_second=5) as bars:
        phase, tasks = "", dict[str, Any]()
        while not over.wait(_REFRESH_SECONDS):
            if not progress.phase:
                continue
            if progress.phase != phase:
                for task in tasks.values():
                    bars.remove_task(task)
                phase, tasks = progress.phase, {"": bars.add_task(progress.phase, total=None, counts="")}
            tables = progress.tables()
            rows, total = sum(t.rows for t in tables), sum(t.total for t in tables)
            rate = rows / max(progress.seconds - progress.samples()[0][0], 0.001) if tables else 0.0
            counts = f"{rows:,} of {total:,} rows  {rate:,.0f} rows/s  {human_bytes(progress.bytes)}"
            bars.update(tasks[""], completed=rows, total=total or None, counts=counts)
            for table in [t for t in tables if t.rows > 0][-_MOST_BARS:]:
                if table.table not in tasks:
                    tasks[table.table] = bars.add_task(f"  {table.table}", total=table.total, counts="")
                bars.update(tasks[table.table], completed=table.rows, counts=f"{table.rows:,}")


def print_result(document: Mapping[str, Any]) -> None:
    """The outcome of a run, for a person."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("table", "left"),
        ("rows", "right"),
        ("chunks", "right"),
        ("lane", "left"),
        ("verified", "left"),
    ):
        table.add_column(name, justify=justify)  # pyright: ignore[reportArgumentType]
    for t in document["tables"]:
        table.add_row(
            Text(t["target_table"]), f"{t['target_rows']:,}", str(t["chunks"]), t["lane"], _verdict_of(t)
        )
    console.print(table)
    seconds = document["seconds"]
    rate = f", {document['rows'] / seconds:,.0f} rows/s" if seconds else ""
    console.print(f"\n{document['rows']:,} rows, {human_bytes(document['bytes'])} in {seconds:.1f} s{rate}")
    if validation := document["validation"]:
        console.print(Text(f"Validation: score {validation['score']:g} of 100"))
        for check in (c for c in validation["checks"] if not c["passed"]):
            left = check["failed"] - check["quarantined"]
            said = check["broken"] or f"{left:,} of {check['rows']:,} rows do not pass"
            console.print(Text(f"{check['severity']}: {check['table']}: {check['name']}: {said}"))
    for warning in document["warnings"][:20]:
        column = f".{warning['column']}" if warning["column"] else ""
        console.print(Text(f"{warning['kind']}: {warning['table']}{column}: {warning['reason']}"))
    if len(document["warnings"]) > 20:
        console.print(f"… and {len(document['warnings']) - 20} more warnings in the report")
    if document["status"] == "completed":
        how = "count" if document["verify"] == "count" else "digest"
        console.print(
            f"[bold green]Verified[/]: every table is equal to its source by {how}. ",
            Text(document["consistency"]),
        )
    if document["report"]:
        console.print(Text(f"Report: {document['report']}"))


def _verdict_of(table: Mapping[str, Any]) -> Text:
    if table["error"]:
        return Text(f"failed: {table['error']['message']}", style="red")
    if table["verified"] is None:
        return Text("not yet")
    if not table["verified"]:
        return Text(f"DIFFERS from the source's {table['source_rows']:,} rows", style="bold red")
    return Text(f"equal  {(table['target_digest'] or 'by count')[:16]}", style="green")


def print_plan(document: Mapping[str, Any]) -> None:
    """The plan, for a person."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("source", "target", "rows", "size", "chunks", "lane", "mode"):
        table.add_column(name, justify="right" if name in {"rows", "size", "chunks"} else "left")
    for t in document["tables"]:
        about = "" if t["rows_exact"] else "~"
        row = (
            t["source_table"],
            t["target_table"],
            f"{about}{t['rows']:,}",
            human_bytes(t["bytes"]),
            str(t["chunks"]),
            t["lane"],
            t["mode"],
        )
        table.add_row(*map(Text, row), style="red" if t["refused"] else None)
    console.print(table)
    for t in document["tables"]:
        for c in (c for c in t["columns"] if c["note"]):
            console.print(
                Text(f"note: {t['source_table']}.{c['source']} becomes {c['target_type']}: {c['note']}")
            )
        if t["rules"] and (dedupe := t["rules"]["dedupe"]):
            console.print(
                Text(f"rule: {t['source_table']}: of rows alike in {', '.join(dedupe['key'])} one stays")
            )
        if t["rules"] and t["rules"]["python"]:
            console.print(Text(f"rule: {t['source_table']}: goes through {t['rules']['python']}"))
        for check in t["checks"]:
            console.print(Text(f"validation: {t['target_table']}: {check['name']} ({check['severity']})"))
    if kinds := Counter(o["kind"] for o in document["objects"]):
        listed = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
        console.print(Text(f"with them, read from the source's catalog: {listed}"))
    for warning in document["warnings"]:
        column = f".{warning['column']}" if warning["column"] else ""
        console.print(Text(f"{warning['kind']}: {warning['table']}{column}: {warning['reason']}"))
    estimate = document["estimate"]
    console.print(
        f"\nAbout {estimate['seconds']:.0f} s ({estimate['basis']}),"
        f" {human_bytes(estimate['staging_bytes'])} of staging. Nothing was touched."
    )


def print_changes(document: Mapping[str, Any]) -> None:
    """What changed since the plan of the last run, for a person."""
    console = _console()
    if document["changes"] is None:
        console.print(
            Text(f"{document['key']} has no earlier plan to compare with; see jivs plan without --diff")
        )
    elif not document["changes"]:
        console.print("Nothing has changed since the plan of the last run.")
    for change in document["changes"] or ():
        sign = "+" if change["before"] is None else "-" if change["after"] is None else "~"
        values = [str(v) for v in (change["before"], change["after"]) if v is not None]
        console.print(
            Text(f"{sign} {change['table']}: {change['what']}: {' → '.join(values)}"), soft_wrap=True
        )


def print_samples(document: Mapping[str, Any]) -> None:
    """What rules make of the first rows, for a person; what is long is cut off."""
    console = _console()
    if not document["samples"]:
        console.print("No rule of the spec changes a row.")
    for name, rows in document["samples"].items():
        console.print(Text(f"\n{name}, the first rows as they would arrive:", style="bold"))
        for row in rows:
            shown = ", ".join(f"{column}={'NULL' if v is None else _cut(v)}" for column, v in row.items())
            console.print(Text(f"  {shown}"), soft_wrap=True)


def print_statuses(documents: Sequence[Mapping[str, Any]]) -> None:
    """States of migrations, for a person."""
    console = _console()
    if not documents:
        console.print("No migrations yet. Start one with: jivs run SPEC")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "status", "phase", "rows", "of", "rows/s", "ETA", "retries", "quarantined"):
        table.add_column(name)
    for d in documents:
        eta = f"{d['eta_seconds']:,.0f} s" if d["eta_seconds"] is not None else ""
        rate = f"{d['rate']:,.0f}" if d["rate"] else ""
        table.add_row(
            d["key"], d["status"], d["phase"] or "", f"{d['rows']:,}", f"{d['total_rows']:,}", rate, eta,
            str(d["retries"]), str(d["quarantined"]),
        )  # fmt: skip
    console.print(table)
    for d in documents:
        if d["error"]:
            console.print(Text(f"{d['key']}: {d['error']['message']}. {d['error']['hint']}"))


def print_comparison(document: Mapping[str, Any]) -> None:
    """What `jivs verify` found, for a person."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("table", "source rows", "target rows", "result"):
        table.add_column(name, justify="right" if "rows" in name else "left")
    for t in document["tables"]:
        digest = (t["target_digest"] or "by count")[:16]
        result = Text(f"equal  {digest}", style="green") if t["equal"] else Text("DIFFERS", style="bold red")
        table.add_row(Text(t["target_table"]), f"{t['source_rows']:,}", f"{t['target_rows']:,}", result)
    console.print(table)
    for t in document["tables"]:
        for one in t["differences"]:
            console.print(Text(f"{t['target_table']}: {_difference(one)}"), soft_wrap=True)
    for name in document["not_compared"]:
        said = f"{name}: not compared, for its rows were appended to others; the run that did so has compared them"
        console.print(Text(said, style="yellow"), soft_wrap=True)


def _difference(one: Mapping[str, Any]) -> str:
    """One of the differences of a table."""
    if (kind := one.get("kind")) is not None:
        key = ", ".join(f"{name} = {value}" for name, value in one["key"].items())
        what = f"differs in {', '.join(one['columns'])}" if kind == "changed" else f"is {kind} in the target"
        return f"the row with {key} {what}"
    place = f"chunk {one['chunk']}" if one.get("key") else "the whole table"
    if one.get("key"):
        place += f" ({one['from'] or 'the first'} <= {one['key']} < {one['below'] or 'the end'})"
    return f"{place} has {one['source_rows']:,} rows in the source and {one['target_rows']:,} in the target"


def print_quarantine(key: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rejected rows by table, for a person; what is long is cut off."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    total = 0
    for name, group in groupby(rows, key=lambda row: row["table"]):
        table = Table(box=None, pad_edge=False, header_style="bold", title=Text(name), title_justify="left")
        for column in ("key", "column", "reason", "value"):
            table.add_column(column, overflow="fold")
        for row in group:
            total += 1
            place = ", ".join(f"{n}={_cut(v)}" for n, v in row["key"].items()) if row["key"] else ""
            value = "NULL" if row["value"] is None and row["column"] else _cut(row["value"] or "")
            table.add_row(*map(Text, (place, row["column"] or "", row["reason"], value)))
        console.print(table)
    if total:
        console.print(f"{total:,} rows of {key} are in quarantine. After a fix: jivs quarantine replay")
    else:
        console.print(f"No row of {key} is in quarantine.")


def _cut(value: object) -> str:
    """On one line, without control characters."""
    text = str(next(iter(value.values()))) if isinstance(value, dict) else str(value)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: _SHOWN_CHARACTERS + 1])
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 1]}…"
