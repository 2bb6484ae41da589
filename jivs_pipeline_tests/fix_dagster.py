"""An instance of Dagster for tests that need no daemon and no web server (those do: `fix_stack.py`).

What belongs here: making it. What does not: runs, which are each test's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import dagster as dg


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """In a directory of its own; failed runs are retried, as by `dagster.yaml`."""
    # Every test's process has this module, and Dagster takes a second to import.
    from dagster import DagsterInstance

    root = tmp_path / "dagster"
    root.mkdir()
    overrides = {"run_retries": {"enabled": True, "max_retries": 3}, "telemetry": {"enabled": False}}
    with DagsterInstance.local_temp(str(root), overrides=overrides) as instance:
        yield instance
