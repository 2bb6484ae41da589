"""A run in Dagster leads to its report, above all one that failed.

What belongs here: the metadata of the run's events. What does not: the report itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jivs_pipeline.core.errors import DataError, ResourceError
from jivs_pipeline.core.signature import ReportKey
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.partitions import MIGRATIONS
from jivs_pipeline.defs.resources import Session, session_resource
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.faults.here import Here

MakeHere = Callable[..., Here]
SPEC = Spec(key="one", source="legacy", target="warehouse")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        instance.add_dynamic_partitions(str(MIGRATIONS.name), ["one"])
        yield instance


@pytest.fixture
def here(make_here: MakeHere, monkeypatch: pytest.MonkeyPatch) -> Here:
    here = make_here("sqlite")
    for name, value in here.told.items():
        monkeypatch.setenv(name, value)
    return here


def execute(instance: dg.DagsterInstance, spec: Spec = SPEC) -> dg.ExecuteInProcessResult:
    with Runtime.from_environment() as runtime:
        session = Session(runtime, spec)
        job = build_defs({"session": session_resource(lambda: session)}).get_job_def("migration")
        return job.execute_in_process(instance=instance, partition_key="one", raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> tuple[str | None, dict[str, Any]]:
    """The op that failed, and the metadata that the run's page shows of that."""
    assert not result.success
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    return event.step_key, dict(event.step_failure_data.user_failure_data.metadata)


def page(metadata: dict[str, Any], here: Here) -> str:
    path = Path(metadata["report"].path)
    assert path == Path(here.told["JIVS_HOME"]) / "reports" / "one.html"
    return path.read_text()


def test_a_run_that_ends_well(here: Here, instance: dg.DagsterInstance) -> None:
    result = execute(instance)
    assert result.success
    (output,) = [
        e for e in result.all_events if e.event_type_value == "STEP_OUTPUT" and e.step_key == "finish"
    ]
    assert "Verified" in page(dict(output.step_output_data.metadata), here)


def test_a_table_that_fails(here: Here, instance: dg.DagsterInstance) -> None:
    """Its run fails in its last op, which has the verdict."""
    path = here.told["JIVS_CONNECTION_LEGACY"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as lite:
        lite.executescript("CREATE TABLE mixed (v INTEGER); INSERT INTO mixed VALUES (1), ('two');")
    op, metadata = failure(execute(instance))
    assert op == "finish"
    html = page(metadata, here)
    assert "Failed: 1 of 5 tables was not migrated" in html


@pytest.mark.parametrize("error", [DataError("no good", hint="h"), ZeroDivisionError("nobody's fault")])
def test_a_run_that_fails_in_the_middle(
    here: Here, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Also by what nobody has foreseen."""

    def fail(_: Migration) -> None:
        raise error

    monkeypatch.setattr(Migration, "transform", fail)
    op, metadata = failure(execute(instance))
    assert op == "transform"
    html = page(metadata, here)
    assert error.args[0] in html.replace("&#x27;", "'")


def test_a_run_that_never_began_has_none(
    here: Here, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the report of the run before."""
    assert execute(instance, SPEC).success
    monkeypatch.setenv("JIVS_CONNECTION_LEGACY", "sqlite:////nowhere.sqlite")
    op, metadata = failure(execute(instance, SPEC.model_copy(update={"key": "one", "parallelism": 1})))
    assert op == "plan"
    assert "report" not in metadata


def test_a_report_that_could_not_be_written_fails_nothing(
    here: Here, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_key(_: Runtime) -> ReportKey:
        raise ResourceError("no key")

    monkeypatch.setattr(Runtime, "report_key", no_key)
    assert execute(instance).success
