"""Row 21: each mutant of our protocol is killed by the tests that are named for it.

What belongs here: the rounds, and that the harness tests what it says. What does not: the mutants (`mutants/`).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jivs_pipeline_tests.fix_cli import PROGRAM
from jivs_pipeline_tests.fix_faults import ROWS, rounds
from jivs_pipeline_tests.mutants import MUTANTS, Edit, Mutant
from jivs_pipeline_tests.mutants.running import (
    ROOT,
    Outcome,
    environment,
    grow,
    healthy,
    imports,
    judge,
    mutate,
    run,
)

_OWNER = "jivs_pipeline_tests/unit/test_owner.py"


def test_the_table_fits_the_code(tmp_path: Path) -> None:
    """Every mutant is one of its own, changes the code that is there, and leaves a program that compiles."""
    assert len({m.name for m in MUTANTS}) == len({m.edits for m in MUTANTS}) == len(MUTANTS) == ROWS[21][1]
    for mutant in MUTANTS:
        for edit in mutant.edits:
            copy = tmp_path / edit.file
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((ROOT / edit.file).read_text())
        mutate(tmp_path, mutant)
        for edit in mutant.edits:
            if edit.file.endswith(".py"):
                ast.parse((tmp_path / edit.file).read_text(), edit.file)
        for killer in mutant.killers:
            file, _, name = killer.partition("::")
            assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text(), killer


def _mutant(new: str, *killers: str, old: str = "    return start_ticks(pid) != process_start\n") -> Mutant:
    old = old.removeprefix("    ").rstrip()
    return Mutant("mine", "nothing", (Edit("jivs_pipeline/infra/owner.py", old, new),), killers)


def test_a_mutant_that_survives_or_does_not_run_is_told(tmp_path: Path) -> None:
    """What passes, what is no test, what does not import and text that is not there are no kills."""
    killed, lives = (
        f"{_OWNER}::test_this_process_lives",
        f"{_OWNER}::test_nothing_is_proved_about_another_machine_or_boot",
    )
    tree = grow(tmp_path)
    mutate(tree, dead := _mutant("return start_ticks(pid) == process_start", killed, lives))
    outcome = run(tree, dead.killers)
    assert [*outcome.failed] == [killed]
    with pytest.raises(AssertionError, match=r"survives \[.*another_machine"):
        judge(dead, outcome)
    judge(_mutant("", killed), Outcome(outcome.failed, {}, frozenset(), ""))
    with pytest.raises(AssertionError, match="stands 0 times"):
        mutate(tree, dead)
    with pytest.raises(AssertionError, match="surroundings failed"):
        judge(_mutant("", killed), Outcome({}, {killed: "fixture"}, frozenset(), ""))
    for broken in ("NameError: name 'x'", "TerminalError: syntax error at or near x [42601]"):
        with pytest.raises(AssertionError, match="no working program"):
            judge(_mutant("", killed), Outcome({killed: broken}, {}, frozenset(), ""))
    with pytest.raises(AssertionError, match="0 tests ran"):
        judge(_mutant("", killed), Outcome({}, {}, frozenset(), ""))
    with pytest.raises(AssertionError, match="not all pass"):
        healthy(outcome, dead.killers)


def test_the_copy_is_what_runs(tmp_path: Path) -> None:
    """Also in the command, in the watchdog and in the supervisor of the embedded servers."""
    tree = grow(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = str(tmp_path / "home")
    servers = "import sys; from pathlib import Path; from jivs_pipeline.infra.embedded import *; home = Path(sys.argv[1]); open_embedded(home).close(); remove_embedded(home)"
    for command in (
        [str(PROGRAM), "--version"],
        [sys.executable, "-c", servers, home],
        [sys.executable, "-m", "jivs_pipeline.infra.watchdog"],
    ):
        subprocess.run(
            command, cwd=elsewhere, env=environment(tree, {"JIVS_HOME": home}), input=b"", capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    found = imports(tree)
    assert all(line.startswith(f"{tree}{os.sep}") for line in found)
    for who in ("jivs --version", "jivs_pipeline.infra.watchdog", "jivs_pipeline.infra.embedded.supervisor"):
        assert any(who in line for line in found), f"{who} is not in {found}"


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_every_mutant_is_killed(postgresql_server: str) -> None:
    if not (left := list(rounds(21, quick=2))):
        return  # an earlier `make faults` of this commit has them all
    mutants = [MUTANTS[one.number] for one in left]
    more = {"JIVS_TEST_POSTGRESQL_URL": postgresql_server, "JIVS_TEST_SEED": os.environ["JIVS_TEST_SEED"]}
    tests = sorted({killer for mutant in mutants for killer in mutant.killers})
    with TemporaryDirectory() as directory:
        healthy(run(grow(Path(directory)), tests, more), tests)
    survivors: list[str] = []
    for one, mutant in zip(left, mutants, strict=True):
        try:
            with one, TemporaryDirectory() as directory:
                one.note(mutant.name)
                mutate(tree := grow(Path(directory)), mutant)
                judge(mutant, run(tree, mutant.killers, more))
        except AssertionError as error:
            survivors.append(str(error))
    assert not survivors, "\n\n".join(survivors)
