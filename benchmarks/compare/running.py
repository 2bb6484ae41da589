"""Runs the candidates of a scenario in turns, each into an empty database, and looks whether the rows are there.

What belongs here: rounds, places, reading what a command said. What does not: numbers for people (`results.py`).

Everybody has a turn in each round, and each round begins with another, so that a slow minute of the machine is shared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.compare import check
from benchmarks.compare.measure import Cost, run_measured
from benchmarks.compare.scenario import Candidate, Outcome, Place, Scenario
from benchmarks.compare.servers import PROGRAMS, Postgres

__all__ = ["Runner"]

_TIMEOUT_SECONDS = 1200.0
_TARGET = "bench_target"


class Runner:
    """Measures candidates.

    Args:
        directory: `.bench/`; outputs of failed commands stay in its `failed/`.
        stamp: a number that grows from one benchmark to the next, so that migration keys are never used twice.
    """

    def __init__(self, server: Postgres, directory: Path, stamp: int) -> None:
        self._server = server
        self._directory = directory
        self._numbers = count(stamp * 1000)
        self.environment = _environment(server.home, directory)

    def measure(self, scenario: Scenario, rounds: int) -> dict[str, list[Outcome]]:
        """Outcomes by candidate. One that fails is not tried in later rounds."""
        outcomes: dict[str, list[Outcome]] = {c.name: [] for c in scenario.candidates}
        for number in range(rounds):
            for candidate in _turned(scenario.candidates, number):
                if any(o.problem for o in outcomes[candidate.name]):
                    continue
                outcome = self._once(scenario, candidate)
                outcomes[candidate.name].append(outcome)
                print(f"{scenario.name:9} {number + 1}  {candidate.name:34} {_line(outcome)}", flush=True)
        return outcomes

    def _once(self, scenario: Scenario, candidate: Candidate) -> Outcome:
        number = next(self._numbers)
        directory = self._directory / "work" / str(number)
        directory.mkdir(parents=True)
        place = Place(self._server.create(_TARGET), directory, number)
        output = directory / "output"
        try:
            if candidate.prepare:
                candidate.prepare(place)
            with output.open("wb") as sink:
                code, cost = run_measured(
                    candidate.command(place), servers=scenario.servers, environment=self.environment,
                    directory=directory, output=sink, timeout_seconds=_TIMEOUT_SECONDS,
                )  # fmt: skip
            return self._judged(scenario, candidate, place, code, cost)
        except OSError as error:
            return Outcome(problem=str(error))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _judged(
        self, scenario: Scenario, candidate: Candidate, place: Place, code: int, cost: Cost
    ) -> Outcome:
        said = (place.directory / "output").read_text(errors="replace")
        document = _document(said) if candidate.ours else {}
        if code != 0:
            problem = f"exit code {code}: {_reason(said, document)}"
        else:
            problem = check.problem_in(place.target, scenario.expected, scenario.indexes)
        if problem is not None:
            kept = self._directory / "failed" / f"{scenario.name}-{candidate.name.replace('/', ' ')}.log"
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(said)
            return Outcome(problem=problem)
        return Outcome(cost, document.get("phases", {}))


def _turned(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    start = number % len(candidates)
    return [*candidates[start:], *candidates[:start]]


def _environment(home: Path, directory: Path) -> dict[str, str]:
    """Ours without what a developer has set for jivs or PostgreSQL; the server's own programs come first."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("JIVS_", "PG", "DAGSTER"))}
    path = f"{PROGRAMS}:{directory / 'venv' / 'bin'}:{os.environ['PATH']}"
    quiet = {"PGCOPYDB_LOG_LEVEL": "warn", "DISABLE_TELEMETRY": "true", "DLT_TELEMETRY": "false"}
    quiet |= {
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "SLING_DISABLE_TELEMETRY": "true",
        "TELEMETRY_DISABLED": "true",
    }
    return {**ours, **quiet, "PATH": path, "HOME": str(directory), "JIVS_HOME": str(home)}


def _document(said: str) -> dict[str, Any]:
    """The JSON document among log lines: it begins a line with a brace."""
    for line in re.finditer(r"^\{", said, re.MULTILINE):
        try:
            found, _ = json.JSONDecoder().raw_decode(said, line.start())
        except ValueError:
            continue
        if "status" in found or "error" in found:
            return found
    return {}


def _reason(said: str, document: dict[str, Any]) -> str:
    if error := document.get("error"):
        return str(error["message"])
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "unable" in line.lower()] or [
        line for line in lines if "error" in line.lower() or "fatal" in line.lower()
    ]
    return (told or lines or ["it said nothing"])[-1][:200]


def _line(outcome: Outcome) -> str:
    if outcome.cost is None:
        return f"FAILED {outcome.problem}"
    cost = outcome.cost
    phases = "  ".join(f"{name} {seconds:.2f}" for name, seconds in outcome.phases.items())
    return f"{cost.seconds:7.2f} s  cpu {cost.cpu:6.2f} + {cost.server_cpu:6.2f} s  {cost.peak_bytes >> 20:5} MiB  {phases}"
