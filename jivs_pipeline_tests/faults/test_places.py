"""Row 2: runs are killed at every place that has a name, in first runs and in those that go on after a kill.

What belongs here: which kinds of migrations come by which places, and the kills there. What does not: places that
only other commands come by; `ELSEWHERE` says where those are.

Nobody lists the places: they are read from the source, and which migration comes by which is asked of a run. A new
one that no scenario comes by fails `test_kill_at_every_place`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import jivs_pipeline
from jivs_pipeline_tests.faults.cases import Case, Cases, uncounted
from jivs_pipeline_tests.fix_engine import KILL
from jivs_pipeline_tests.fix_faults import rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

SEED = os.environ["JIVS_TEST_SEED"]

ELSEWHERE = {
    place: file
    for file, killed in {
        "faults/test_rollback.py": (
            "inside_undo", "forget_before_commit", "forget_after_commit", "take_over_after_commit",
        ),
        "faults/test_again.py": ("inside_conclude",),
        "faults/test_quarantine.py": (
            "quarantine_before_commit", "quarantine_after_commit", "inside_refusal", "refused_after_commit",
            "inside_replay", "replayed_before_commit", "replayed_after_commit",
        ),
        "acceptance/test_submit.py": ("submit_before_commit", "submit_after_commit"),
        "integration/test_due_loads.py": ("inside_due", "due_before_commit", "due_after_commit"),
        "integration/test_housekeeping.py": (
            "retention_after_batch", "delete_run_after_logs", "delete_run_after_events", "inside_set_aside",
            "before_remove_aside",
        ),
        "integration/test_maintenance.py": ("reverified_after_commit",),
    }.items()
    for place in killed
}  # fmt: skip
"""Place -> the file of the tests that kill there."""


def _nothing(case: Case) -> None:
    """A first run."""


def _lose_staging(case: Case) -> None:
    """Half of it is loaded and the rest is gone from the disk, so what is loaded is read and loaded anew."""
    case.die("after_copy_before_commit@8")
    shutil.rmtree(case.staging)
    case.round.note("staging lost")


@dataclass(frozen=True)
class Scenario:
    """A kind of run."""

    mode: str
    dialect: str
    prepare: Callable[[Case], None] = _nothing
    streamed: bool = False


SCENARIOS = (
    Scenario("create", "sqlite"),
    Scenario("create", "postgresql"),
    Scenario("replace", "postgresql"),
    Scenario("truncate", "sqlite"),
    Scenario("append", "postgresql"),
    Scenario("create", "sqlite", _lose_staging),
    Scenario("append", "sqlite", _lose_staging),
    Scenario("create", "postgresql", streamed=True),
    Scenario("truncate", "postgresql", streamed=True),
)


def places() -> set[str]:
    """The names of all failpoints in the package."""
    call = re.compile(r"""\bfailpoint\(\s*["'](\w+)["']\s*\)""")
    files = Path(jivs_pipeline.__file__).parent.rglob("*.py")
    return {name for file in files for name in call.findall(file.read_text())}


Passed = Callable[[Scenario], dict[str, int]]


@pytest.fixture(scope="module")
def passed(cases: Cases) -> Passed:
    """How often an undisturbed run of a scenario comes by each place, in the order of the first times."""
    with cases.case(uncounted(2), "create", "sqlite") as first:
        first.complete()  # only the first run of a home makes the control database

    @cache
    def ask(scenario: Scenario) -> dict[str, int]:
        with cases.case(uncounted(2), scenario.mode, scenario.dialect, streamed=scenario.streamed) as case:
            scenario.prepare(case)
            run = case.start("nowhere:sleep=0")
            assert run.wait() == 0, run
            case.judge(run)
            assert run.passed, run
            return run.passed

    return ask


def test_kill_at_every_place(cases: Cases, passed: Passed) -> None:
    """One migration dies at each place, one after the other, and ends complete; another for what it did not come by."""
    missing = places() - set(ELSEWHERE)
    for scenario in SCENARIOS:
        if chain := [p for p in passed(scenario) if p in missing] if missing else []:
            missing -= set(chain)
            while chain:
                chain = _pass_on(cases, scenario, chain)
    assert not missing, "no scenario comes by these places"
    for place, file in ELSEWHERE.items():
        assert place in (Path(__file__).parents[1] / file).read_text(), f"{file} does not kill at {place}"


def _pass_on(cases: Cases, scenario: Scenario, chain: list[str]) -> list[str]:
    """Runs of one migration die at these places. Returns those that it did not come by any more after the others."""
    with (
        (one := uncounted(2)),
        cases.case(one, scenario.mode, scenario.dialect, streamed=scenario.streamed) as case,
    ):
        scenario.prepare(case)
        case.die(chain.pop(0))
        while chain:
            run = case.start(f"{chain[0]}:kill")
            if run.wait() == 0:
                break
            assert run.wait() == -KILL, run
            one.note(chain.pop(0))
        case.complete()
    return chain


def test_kill_at_any_place(cases: Cases, passed: Passed) -> None:
    """Each place three times: in a first run, in one that goes on after a kill, and twice in a row."""
    here = sorted(places() - set(ELSEWHERE))
    random.Random(SEED).shuffle(here)
    for one in rounds(2, 3, part="each", full=3 * len(here)):
        with one:
            place, kind = here[one.number // 3 % len(here)], one.number % 3
            scenario = one.rng.choice([s for s in SCENARIOS if place in passed(s)])
            counts = passed(scenario)
            # The heartbeat comes by some places as well, and not every time as often.
            at = f"{place}@{one.rng.randint(1, 1 + int((counts[place] - 1) * 0.8))}"
            with cases.case(one, scenario.mode, scenario.dialect, streamed=scenario.streamed) as case:
                scenario.prepare(case)
                if kind == 1:
                    # Killed while it reads, it does everything again and so comes by the place.
                    reading = "after_ledger_before_copy" if scenario.streamed else "before_staging_rename"
                    case.die(f"{reading}@{one.rng.randint(1, counts[reading])}")
                case.die(at)
                if kind == 2:
                    # What it was doing may be done, and nothing else of that kind left.
                    run = case.start(f"{place}:kill")
                    assert run.wait() in {-KILL, 0}, run
                case.complete()
