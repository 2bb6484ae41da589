"""The numbers for people: medians, ratios, goals, as Markdown and as JSON for the plot.

What belongs here: arithmetic over outcomes, and the text of RESULTS.md. What does not: measuring.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.compare.scenario import Goal, Outcome, Scenario

__all__ = ["Medians", "judged", "medians", "page", "plotted"]


@dataclass(frozen=True, slots=True)
class Medians:
    """Of one candidate's runs."""

    runs: int
    seconds: float
    cpu: float
    server_cpu: float
    peak_bytes: int
    phases: Mapping[str, float]


def medians(outcomes: Sequence[Outcome]) -> Medians | None:
    """None where there is no run that counts."""
    costs = [o.cost for o in outcomes if o.cost is not None]
    if not costs or any(o.problem for o in outcomes):
        return None
    phases = {
        name: statistics.median(o.phases.get(name, 0.0) for o in outcomes) for name in outcomes[0].phases
    }
    return Medians(
        runs=len(costs),
        seconds=statistics.median(c.seconds for c in costs),
        cpu=statistics.median(c.cpu for c in costs),
        server_cpu=statistics.median(c.server_cpu for c in costs),
        peak_bytes=max(c.peak_bytes for c in costs),
        phases=phases,
    )


def judged(goal: Goal, found: Mapping[str, Medians | None]) -> float | None:
    """The goal's ratio; None where one side is missing."""
    ours = found.get(goal.ours)
    rivals = [m.seconds for name in goal.theirs if (m := found.get(name)) is not None]
    if ours is None or not rivals:
        return None
    seconds = sum(ours.phases.get(p, 0.0) for p in goal.phases) if goal.phases else ours.seconds
    return seconds / min(rivals)


def page(
    scale: float,
    rounds: int,
    versions: Mapping[str, str],
    measured: Sequence[tuple[Scenario, Mapping[str, Sequence[Outcome]]]],
    notes: Sequence[str],
) -> str:
    """RESULTS.md."""
    lines = [
        "# Results", "",
        f"Written by `make bench SF={scale:g} ROUNDS={rounds}` on {datetime.now(UTC):%Y-%m-%d}; see [README.md](README.md).",
        "Medians, and the largest peak. Ratios are of seconds within the same rounds; what else the machine did is in the",
        "seconds and hardly in the CPU.", "",
        _machine(), "",
        "; ".join(f"{name}: {version}" for name, version in versions.items()) + ".", "",
        "## Goals", "", "| scenario | ratio | goal | measured |", "|---|---|---|---|",
    ]  # fmt: skip
    for scenario, outcomes in measured:
        found = {name: medians(runs) for name, runs in outcomes.items()}
        for goal in scenario.goals:
            ratio = judged(goal, found)
            said = (
                "not measured"
                if ratio is None
                else f"**{ratio:.2f}**{'' if ratio <= goal.most else ' (missed)'}"
            )
            lines.append(f"| {scenario.title} | {goal.what} | ≤ {goal.most:g} | {said} |")
    lines += ["", *(f"- {note}" for note in notes)]
    for scenario, outcomes in measured:
        lines += ["", *_table(scenario, outcomes)]
    return "\n".join(lines) + "\n"


def _table(scenario: Scenario, outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    found = {name: medians(runs) for name, runs in outcomes.items()}
    base = found.get(scenario.base)
    lines = [
        f"## {scenario.title}", "",
        f"| | runs | seconds | ratio to {scenario.base} | CPU s | servers' CPU s | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, one in found.items():
        if one is None:
            problem = next((o.problem for o in outcomes[name] if o.problem), "not run")
            lines.append(f"| {name} | – | {problem.replace('|', '/')} | | | | |")
            continue
        lines.append(
            f"| {name} | {one.runs} | {one.seconds:.2f} | {_ratio(one.seconds, base)} | {one.cpu:.2f} |"
            f" {one.server_cpu:.2f} | {one.peak_bytes >> 20} |"
        )
        if one.phases:
            moved = one.phases.get("extract", 0) + one.phases.get("load", 0)
            shown = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in one.phases.items())
            lines.append(f"| · its extract + load | | {moved:.2f} | {_ratio(moved, base)} | | | |")
            lines.append(f"| · its phases | | {shown} | | | | |")
    return lines


def _ratio(seconds: float, base: Medians | None) -> str:
    return f"{seconds / base.seconds:.2f}" if base else "–"


def _machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {system}."


def plotted(measured: Sequence[tuple[Scenario, Mapping[str, Sequence[Outcome]]]], file: Path) -> None:
    """What `plot.py` draws, as JSON."""
    data: list[dict[str, Any]] = []
    for scenario, outcomes in measured:
        found = {name: medians(runs) for name, runs in outcomes.items()}
        bars = {name: one.seconds for name, one in found.items() if one is not None}
        data.append({"title": scenario.title, "bars": bars})
    file.write_text(json.dumps(data))
