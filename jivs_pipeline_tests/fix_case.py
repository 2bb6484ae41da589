"""One migration of a test, run in this process: the engine without Dagster and without the command.

What belongs here: running it, and what it left. What does not: cases.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.planning import build_plan
from jivs_pipeline.engine.replay import Outcome, replay
from jivs_pipeline.engine.reverify import reverify
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.faults.worker import migrate


class Case:
    """One migration with a budget."""

    def __init__(
        self, home: Path, control: str, target: str, source: str, directory: Path, **more: Any
    ) -> None:
        self.target = target
        self.environment = {
            "JIVS_HOME": str(home), "JIVS_CONTROL_URL": control, "JIVS_STAGING_URL": str(directory / "staging"),
            "JIVS_CONNECTION_LEGACY": source, "JIVS_CONNECTION_WAREHOUSE": target,
        }  # fmt: skip
        spec = {
            "key": f"k-{uuid4().hex[:12]}",
            "source": "legacy",
            "target": "warehouse",
            "chunk_bytes": 65536,
        }
        self.spec = Spec.model_validate({**spec, "quarantine": {"max_rows": 50}, **more})

    def run(self) -> dict[str, dict[str, Any]]:
        """A run; its tables by name."""
        return {t["target_table"]: t for t in migrate(self.environment, self.spec)["tables"]}

    def replay(self, given: Spec | None = None) -> Outcome:
        with Runtime.from_environment(environment=self.environment) as runtime:
            return replay(runtime.services(), self.spec.key, "replay", given)

    def changed(self, **changes: Any) -> Spec:
        """The spec with other keys."""
        return Spec.model_validate({**self.spec.model_dump(), **changes})

    def plan(self) -> Plan:
        """What the next run would do."""
        with (
            Runtime.from_environment(environment=self.environment) as runtime,
            runtime.opened(self.spec) as (source, target),
        ):
            return build_plan(self.spec, source, target, runtime.rules)

    def verify(self, *, narrow: bool = False) -> dict[str, Any]:
        with Runtime.from_environment(environment=self.environment) as runtime:
            row = runtime.control.migration(self.spec.key)
            return reverify(runtime.services(), row, None, narrow=narrow)

    def kept(self) -> list[tuple[Any, ...]]:
        """Key, column and reason of what is in quarantine."""
        with Runtime.from_environment(environment=self.environment) as runtime:
            rows = runtime.control.quarantine.listed(self.spec.key)
            return [(tuple(r["key"].values()), r["column"], r["reason"]) for r in rows]

    def all(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.target) as db:
            return db.execute(query.encode()).fetchall()


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path) -> MakeCase:
    """Migrations of their own control database and target."""

    def make(source: str, before: str = "", **more: Any) -> Case:
        target = make_target()
        with psycopg.connect(target) as db:
            db.execute(before.encode())
        return Case(jivs_home[0], make_target(), target, source, tmp_path, **more)

    return make
