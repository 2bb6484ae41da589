"""One run of the engine, in whatever process this is; as a program, in one of its own whose memory is capped.

What belongs here: the calls of `defs/ops.py` in their order. What does not: pytest, whose memory is not a worker's.

    python -m jivs_pipeline_tests.faults.worker < {"environment": {…}, "spec": {…}, "tasks": "/sys/fs/cgroup/…/tasks"}
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.runtime import Runtime


def migrate(environment: Mapping[str, str], spec: Spec) -> dict[str, Any]:
    """One run. Returns the document."""
    with Runtime.from_environment(environment=environment) as runtime:
        return walk(runtime.migration(spec, uuid4().hex))


def walk(migration: Migration) -> dict[str, Any]:
    """Every step of a run that is about to begin. Returns the document."""
    try:
        if not migration.begin():
            return migration.document()
        for phase in list(Phase)[:-1]:
            getattr(migration, phase.value)()
        return migration.finish()
    except BaseException as error:
        migration.abort(error)
        raise
    finally:
        migration.close()


def main() -> None:
    """Join the group whose memory is capped, run, and tell the end and the peak in KiB on stdout."""
    order = json.load(sys.stdin)
    if order["tasks"]:
        Path(order["tasks"]).write_text("0")
    error = None
    try:
        migrate(order["environment"], Spec.model_validate(order["spec"]))
    except JivsError as ended:
        error = repr(ended)
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"error": error, "peak_kib": int(peak[1]) if peak else 0}))


if __name__ == "__main__":
    main()
