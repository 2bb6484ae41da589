"""Row 24: `type: incremental` between random changes of the source, and killed in the middle.

What belongs here: that the target converges, and what is moved for it. What does not: the changes (`changing.py`).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import fingerprints
from jivs_pipeline_tests.faults.changing import SCRIPTS, Changing
from jivs_pipeline_tests.fix_engine import KILL, Engine, Forked
from jivs_pipeline_tests.fix_faults import rounds
from jivs_pipeline_tests.sqlite_files import make_file

pytestmark = pytest.mark.faults
Start = Callable[..., Forked]


@pytest.fixture
def make_changing(
    tmp_path: Path, make_target: Callable[[], str], request: pytest.FixtureRequest
) -> Callable[[str, int], Changing]:
    def make(dialect: str, size: int) -> Changing:
        script = SCRIPTS[dialect]
        if dialect == "sqlite":
            url = f"sqlite:///{make_file(tmp_path / 'source.sqlite', script)}"
        elif dialect == "postgresql":
            url = make_target()
            with psycopg.connect(url) as db:
                db.execute(script)  # pyright: ignore[reportArgumentType, reportCallIssue]
        else:
            url = request.getfixturevalue("make_mysql")(script)
        changing = Changing(dialect, url, random.Random(0), size)
        changing.fill()
        return changing

    return make


@pytest.fixture
def start(engine: Engine, tmp_path: Path, target: str) -> Start:
    """Begins a run of the migration `changing`."""

    def start(source: Changing, failpoint: str = "", verb: str = "run", **spec: Any) -> Forked:
        values = {
            "key": "changing-" + target[-12:],
            "source": "legacy",
            "target": "warehouse",
            "type": "incremental",
            **spec,
        }
        environment = {
            "JIVS_CONNECTION_LEGACY": source.url, "JIVS_CONNECTION_WAREHOUSE": target,
            "JIVS_STAGING_URL": str(tmp_path / "staging"), "JIVS_LOCK_WAIT_SECONDS": "0",
            **({"JIVS_FAILPOINT": failpoint} if failpoint else {}),
        }  # fmt: skip
        return engine.start(values, environment, verb=verb)

    return start


def ended(run: Forked, code: int = 0) -> dict[str, Any]:
    assert run.wait(120) == code, run
    return run.document


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_the_target_converges(
    make_changing: Callable[[str, int], Changing], start: Start, target: str, dialect: str
) -> None:
    source = make_changing(dialect, 1500)
    check_run(ended(start(source, type="full")))
    source.check(target)
    for one in rounds(24, quick=4, part=dialect, full=200):
        with one:
            source.rng = one.rng
            changed = source.change(one.rng.choice([0, 1, 3, 30, 300]))
            document = ended(start(source))
            one.note(f"{changed}, {document['bytes']} bytes")
            check_run(document)
            source.check(target)
            for table in document["tables"]:
                name = table["target_table"].removeprefix("public.")
                counted = table["inserted"] + table["updated"] + table["deleted"]
                assert (counted > 0) == (changed[name] > 0), table
                if name in {"people", "orders", "items"}:
                    assert counted == changed[name], table
                    assert table["moved_rows"] <= 257 * changed[name], table


_PLACES = (
    "after_claim", "after_fence", "after_ledger_before_copy", "after_copy_before_commit", "before_commit", "after_commit",
    "inside_step", "inside_conclude", "claim_before_commit", "claim_after_commit",
)  # fmt: skip


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_killed_anywhere(
    make_changing: Callable[[str, int], Changing], start: Start, target: str, dialect: str, tmp_path: Path
) -> None:
    """Killed at a commit boundary and run again, also with other changes in between, it ends where the source is."""
    source = make_changing(dialect, 300)
    ended(start(source, type="full"))
    ended(start(source))
    for one in rounds(24, quick=3, part=f"killed {dialect}", full=100):
        with one:
            source.rng = one.rng
            source.change(40)
            place = f"{one.rng.choice(_PLACES)}@{one.rng.choice([1, 1, 2, 5, 12])}:kill"
            code = start(source, place).wait(120)
            one.note(f"{place} → {code}")
            assert code in {0, -KILL}
            again = one.rng.random() < 0.5
            if again:
                source.change(20)
                if one.rng.random() < 0.5:
                    one.note("staging lost")
                    shutil.rmtree(tmp_path / "staging", ignore_errors=True)
            check_run(ended(start(source)))
            if again:
                # What was staged before the kill may have been what was loaded.
                check_run(ended(start(source)))
            source.check(target)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_rollback_gives_back_what_was_there(
    make_changing: Callable[[str, int], Changing], start: Start, target: str, dialect: str
) -> None:
    """Of the last load, also when it is killed in the middle."""
    source = make_changing(dialect, 300)
    ended(start(source, type="full"))
    for one in rounds(24, quick=1, part=f"rollback {dialect}", full=30):
        with one:
            source.rng = one.rng
            before = fingerprints(target)
            source.change(60)
            if one.rng.random() < 0.5:
                ended(start(source))
                source.check(target)
                assert fingerprints(target) != before
            else:
                start(source, "before_commit@9:kill").wait(120)
            start(source, "inside_undo:kill", verb="rollback").wait(120)
            assert start(source, verb="rollback").wait(120) == 0
            assert fingerprints(target) == before
            ended(start(source))
            source.check(target)
