"""One mutant: a copy of the tree, one change in it, and the verdict of the tests that are to notice.

What belongs here: copying, changing, running and judging. What does not: which mutants there are (`of_*.py`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

__all__ = ["Edit", "Mutant", "Outcome", "environment", "grow", "mutate", "run"]

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", ".faults", ".ruff_cache", ".pytest_cache", ".hypothesis", "dist", "docs"}
SECONDS = 60
"""Of one test; one that hangs has noticed, too."""
TRACE = "imported-here.txt"
BROKEN = re.compile(
    r"^(NameError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError|UnboundLocalError"
    r"|psycopg\.errors\.(SyntaxError|UndefinedColumn|UndefinedFunction))\b|\[42(601|703|883)\]"
)
"""A mutant that says such a thing is no protocol that is wrong, but a program that does not run."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` stands exactly once in `file` (from the root of the tree) and becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """`breaks` says in one sentence what is wrong with it; each of `killers`, node ids of pytest, must fail."""

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    killers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of tests said: by node id its name in the report, and the message where it failed."""

    failed: Mapping[str, str]
    errors: Mapping[str, str]
    passed: frozenset[str]
    text: str


def grow(directory: Path) -> Path:
    """A copy of the tree that notes who imports it."""
    tree = directory / "tree"
    shutil.copytree(ROOT, tree, ignore=lambda _, names: SKIPPED & set(names), symlinks=True)
    init = tree / "jivs_pipeline" / "__init__.py"
    init.write_text(
        f"{init.read_text()}\n"
        "import sys as _sys\n"
        f"with open({str(tree / TRACE)!r}, 'a') as _file:\n"
        "    print(__file__, ' '.join(_sys.orig_argv).replace('\\n', ' '), file=_file)\n"
    )
    return tree


def mutate(tree: Path, mutant: Mutant) -> None:
    """Apply the mutant.

    Raises:
        AssertionError: the code has moved, and the table has to follow.
    """
    for edit in mutant.edits:
        path = tree / edit.file
        text = path.read_text()
        found = text.count(edit.old)
        assert found == 1, (
            f"mutant {mutant.name!r}: its text stands {found} times in {edit.file}:\n{edit.old}"
        )
        assert edit.new != edit.old, f"mutant {mutant.name!r} changes nothing"
        path.write_text(text.replace(edit.old, edit.new))


def environment(tree: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the tree before the installed package, also for whatever is started from there."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("JIVS_", "PYTEST_"))}
    return {**ours, "PYTHONPATH": str(tree), **(more or {})}


def imports(tree: Path) -> list[str]:
    """The commands that have imported the tree's package."""
    trace = tree / TRACE
    return trace.read_text().splitlines() if trace.exists() else []


def run(tree: Path, tests: Iterable[str], more: Mapping[str, str] | None = None) -> Outcome:
    """Run the tests in the tree, with `more` in their environment."""
    report = tree / "report.xml"
    command = [
        sys.executable, "-m", "pytest", "-n", "0", "-q", "--tb=short", f"--timeout={SECONDS}",
        "-o", "junit_family=xunit1", f"--junitxml={report}", f"--basetemp={tree.parent / 'temporary'}", *tests,
    ]  # fmt: skip
    ended = subprocess.run(
        command, cwd=tree, env=environment(tree, more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert report.exists(), f"pytest ended with {ended.returncode} and no report:\n{ended.stdout[-4000:]}"
    assert any(line.startswith(f"{tree}{os.sep}") for line in imports(tree)), "another tree was tested"
    failed: dict[str, str] = {}
    errors: dict[str, str] = {}
    passed: set[str] = set()
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('file')}::{case.get('name')}"
        for kind, into in (("failure", failed), ("error", errors), ("skipped", errors)):
            for element in case.iter(kind):
                into[name] = element.get("message") or element.text or kind
        if name not in failed and name not in errors:
            passed.add(name)
    return Outcome(failed, errors, frozenset(passed), ended.stdout[-6000:])


def judge(mutant: Mutant, outcome: Outcome) -> None:
    """Whether the tests have noticed.

    Raises:
        AssertionError: a test has passed that should have failed, or the mutant does not even run.
    """
    sentence = f"mutant {mutant.name!r} ({mutant.breaks})"
    ran = outcome.passed | outcome.failed.keys() | outcome.errors.keys()
    assert len(ran) == len(mutant.killers), f"{sentence}: {len(ran)} tests ran\n{outcome.text}"
    assert not outcome.passed, f"{sentence} survives {sorted(outcome.passed)}\n{outcome.text}"
    assert outcome.failed.keys() == ran, (
        f"{sentence}: not a test, but its surroundings failed\n{outcome.text}"
    )
    broken = [m for m in outcome.failed.values() if BROKEN.search(m)]
    assert not broken, f"{sentence} is no working program: {broken}\n{outcome.text}"


def healthy(outcome: Outcome, tests: Sequence[str]) -> None:
    """The tests pass where nothing is broken; else their failing proves nothing."""
    assert len(outcome.passed) == len(set(tests)), f"not all pass on the tree as it is:\n{outcome.text}"
