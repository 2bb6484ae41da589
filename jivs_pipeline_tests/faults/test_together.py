"""Row 12: of runs of one migration that begin together one works; runs of different migrations all do.

What belongs here: beginning at the same moment. What does not: taking over from one that stands still.
"""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import constraints, ledger, next_value
from jivs_pipeline_tests.faults.cases import ROWS, Case, Cases, all_rows
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.fix_engine import KILL
from jivs_pipeline_tests.fix_faults import FULL, rounds

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

MANY = 20
LAST_EVENT = "SELECT event_seq, epoch FROM jivs.migrations WHERE key = %(key)s"


def test_twenty_resumes_at_once(cases: Cases, tmp_path: Path) -> None:
    """One winner, nineteen conflicts that leave no trace, whatever became of the run before."""
    for one in rounds(12, quick=1):
        with one, cases.case(one) as case:
            _leave(case, one.rng.choice(("killed", "failed", "paused")))
            events, epoch = case.control(LAST_EVENT)
            gate = tmp_path / f"gate-{one.number}"
            # The winner waits, so that nobody comes when there is nothing left to do.
            runs = [case.start("before_commit:sleep=60", gate=gate) for _ in range(MANY)]
            for run in runs:
                run.wait_at_gate()
            gate.touch()
            winners = [run for run in runs if run.wait_begun()]
            assert len(winners) == 1, [str(run) for run in winners]
            losers = [run for run in runs if run not in winners]
            assert [run.wait() for run in losers] == [3] * (MANY - 1), [str(run) for run in losers]
            assert {run.document["error"]["code"] for run in losers} == {"conflict"}
            winners[0].go_on()
            assert winners[0].wait() == 0, winners[0]
            assert case.control(LAST_EVENT)[1] == epoch + 1, "a loser was given an epoch"
            begun = case.control(
                "SELECT count(*) FROM jivs.migration_events WHERE key = %(key)s"
                f" AND seq > {events} AND type IN ('migration.started', 'migration.resumed')"
            )
            assert begun == (1,)
            case.judge(winners[0])


def _leave(case: Case, state: str) -> None:
    """A run that ended early, in this way."""
    if state == "killed":
        run, code = case.start(f"after_ledger_before_copy@{case.round.rng.randint(1, 20)}:kill"), -KILL
    elif state == "failed":
        run, code = case.start(JIVS_STAGING_URL="/proc/nowhere"), 1
    else:
        run, code = case.start(f"after_commit@{case.round.rng.randint(1, 15)}:sleep=30"), 130
        run.wait_asleep()
        run.signal(signal.SIGINT)
        run.go_on()
    assert run.wait() == code, run
    status = case.control("SELECT status FROM jivs.migrations WHERE key = %(key)s")
    assert status == ({"killed": "running"}.get(state, state),)
    case.round.note(state)


def test_many_migrations_at_once(cases: Cases, tmp_path: Path) -> None:
    """Into one database that knows nothing of us yet, each into a schema of its own; ten of them in `make test`."""
    for one in rounds(12, quick=1, part="keys", full=5):
        with one, cases.case(one, "create") as case:
            gate = tmp_path / f"gate-{one.number}"
            names = [f"s{n}" for n in range(MANY if FULL else MANY // 2)]
            specs = [{**case.spec, "key": f"{case.key}-{name}", "target_schema": name} for name in names]
            runs = [cases.engine.start(spec, case.environment, gate=gate) for spec in specs]
            for run in runs:
                run.wait_at_gate()
            gate.touch()
            for name, spec, run in zip(names, specs, runs, strict=True):
                assert run.wait(120) == 0, run
                check_run(run.document)
                assert all_rows(case.target, name) == case.source.rows
                rows = {t: sum(c[1] for c in there) for t, there in ledger(case.target, spec["key"]).items()}
                assert rows == {f"{name}.{t}": n for t, n in ROWS.items()}
                with psycopg.connect(case.target) as db:
                    assert len(constraints(db, "p", name)) == 3
                    assert [(t, valid) for t, _, valid, *_ in constraints(db, "f", name)] == [
                        ("children", True)
                    ]
                    assert next_value(db, "parents", "id", name) == 2701


def test_the_command_says_so(cases: Cases, jivs: Jivs) -> None:
    """`jivs run` beside a run at work: exit 3 and one document."""
    for one in rounds(12, quick=1, part="command", full=1):
        with one, cases.case(one) as case:
            run = case.start("before_commit:sleep=60")
            run.wait_asleep()
            ended = jivs("run", jivs.spec(**case.spec), "--json", env=case.environment, code=3)
            assert ended.document["error"]["code"] == "conflict", ended
            run.go_on()
            assert run.wait() == 0, run
            case.judge(run)
