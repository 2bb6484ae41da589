"""The two maintenance jobs as Dagster runs them, on migrations that were really loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from typing import Any

import dagster as dg
import psycopg
import pytest

from jivs_pipeline.core.spec import Spec
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.engine.reverification import reverify_completed
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.faults.here import Here
from jivs_pipeline_tests.faults.worker import migrate
from jivs_pipeline_tests.fix_control import open_control
from jivs_pipeline_tests.killed import killed

MakeHere = Callable[..., Here]


@pytest.fixture
def here(make_here: MakeHere, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Two migrations into schemas of their own, and this process in their environment."""
    here = make_here("sqlite")
    for name, value in here.told.items():
        monkeypatch.setenv(name, value)
    for key in ("one", "two"):
        migrate(here.told, spec(key))
    return here


def spec(key: str) -> Spec:
    return Spec(key=key, source="legacy", target="warehouse", target_schema=f"s_{key}")


def execute(instance: dg.DagsterInstance, job: str, **config: Any) -> dg.ExecuteInProcessResult:
    found = build_defs().get_job_def(job)
    return found.execute_in_process(instance=instance, run_config={"ops": config}, raise_on_error=False)


def change(here: Here, statement: str) -> None:
    with psycopg.connect(here.target) as db:
        db.execute(statement.encode())


def outcomes(here: Here) -> dict[str, str]:
    with psycopg.connect(here.environment["JIVS_CONTROL_URL"]) as db:
        return dict(db.execute("SELECT key, outcome FROM jivs.migration_reverifications").fetchall())


def checked(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """What the catalog has of this run, whose step may have failed."""
    logs = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [log.get_dagster_event().asset_check_evaluation_data for log in logs]
    return {"/".join(c.asset_key.path): c.passed for c in found}


def test_a_night(here: Here, instance: dg.DagsterInstance) -> None:
    """Every step works, twice, and says what it did; what is completed stays as it is."""
    for _ in range(2):
        result = execute(instance, "nightly_housekeeping")
        assert result.success
        ended = {e.step_key for e in result.all_events if e.event_type_value == "STEP_SUCCESS"}
        assert ended == {"control_tables", "dagster_runs", "staging_area", "statistics"}
    with psycopg.connect(here.environment["JIVS_CONTROL_URL"]) as db:
        found = db.execute("SELECT status, migrations FROM jivs.migration_statistics").fetchall()
    assert found == [("completed", 2)]


def test_a_week_in_which_nothing_has_changed(here: Here, instance: dg.DagsterInstance) -> None:
    result = execute(instance, "weekly_reverification")
    assert result.success
    assert outcomes(here) == {"one": "equal", "two": "equal"}
    tables = ("parents", "children", "doubled", "blank")
    assert checked(instance, result) == {
        f"warehouse/s_{key}/{t}": True for key in ("one", "two") for t in tables
    }
    again = execute(instance, "weekly_reverification")
    assert again.success
    assert checked(instance, again) == {}, "compared twice within a week"
    assert checked(
        instance,
        execute(instance, "weekly_reverification", completed_migrations={"config": {"days": 0}}),
    )


def test_a_difference_fails_the_run_and_names_the_table(here: Here, instance: dg.DagsterInstance) -> None:
    """At the end: the other migration is compared as well. The state of the migration is that of its run."""
    change(here, "UPDATE s_one.children SET v = 'other' WHERE b = 'b7'")
    result = execute(instance, "weekly_reverification")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.user_failure_data.description
    assert said.startswith("1 of 2 migrations are not equal to their source any more. one: ")
    assert "s_one.children" in said
    assert "parents" not in said
    assert outcomes(here) == {"one": "different", "two": "equal"}
    assert checked(instance, result)["warehouse/s_one/children"] is False
    assert checked(instance, result)["warehouse/s_two/children"] is True
    with Runtime.from_environment() as runtime:
        assert {r["status"] for r in runtime.control.migrations()} == {"completed"}


def test_a_table_that_is_gone_is_a_difference(here: Here, instance: dg.DagsterInstance) -> None:
    change(here, "DROP TABLE s_two.doubled")
    assert not execute(instance, "weekly_reverification").success
    assert outcomes(here) == {"one": "equal", "two": "different"}


@pytest.mark.parametrize("url", ["", "postgresql://nobody@127.0.0.1:1/none"])
def test_an_endpoint_that_is_away_is_skipped(
    here: Here, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A name that this process does not know, or nobody there: no difference, and looked at the next time again."""
    right = os.environ["JIVS_CONNECTION_WAREHOUSE"]
    monkeypatch.setenv("JIVS_CONNECTION_WAREHOUSE", url)
    result = execute(instance, "weekly_reverification")
    assert result.success
    assert outcomes(here) == {"one": "skipped", "two": "skipped"}
    monkeypatch.setenv("JIVS_CONNECTION_WAREHOUSE", right)
    with Runtime.from_environment() as runtime:
        runtime.shared_breakers.reset()
    assert execute(instance, "weekly_reverification").success
    assert outcomes(here) == {"one": "equal", "two": "equal"}


def test_no_time_left(here: Here, instance: dg.DagsterInstance) -> None:
    """What was not begun is left to the next run."""
    assert execute(instance, "weekly_reverification", completed_migrations={"config": {"hours": 0}}).success
    assert outcomes(here) == {}


def test_killed_in_the_middle(here: Here, instance: dg.DagsterInstance) -> None:
    """The next run begins with those that were not compared."""

    def compare() -> None:
        with Runtime.from_environment() as runtime:
            list(
                reverify_completed(
                    runtime.services(), runtime.control.housekeeping, days=6, go_on=lambda: True
                )
            )

    killed("reverified_after_commit", compare)
    assert outcomes(here) == {"one": "equal"}
    result = execute(instance, "weekly_reverification")
    assert {name.split("/")[1] for name in checked(instance, result)} == {"s_two"}


def test_a_rolled_back_migration_is_not_compared(here: Here) -> None:
    with closing(open_control(here.environment["JIVS_CONTROL_URL"])) as control:
        with psycopg.connect(here.environment["JIVS_CONTROL_URL"]) as db:
            db.execute("UPDATE jivs.migrations SET status = 'rolled_back', plan = NULL WHERE key = 'one'")
        assert control.housekeeping.to_reverify(6) == ["two"]
