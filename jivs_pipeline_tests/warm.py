"""The zygote whose children each are one command `jivs`, all imports of a run done.

What belongs here: which modules those are. What does not: forking (`zygote.py`). That a command imports what it needs, and
no more than that, is tested by those that begin as new processes (`Jivs.start`).
"""

from __future__ import annotations

import os
import sys

from jivs_pipeline.starting import uncollected

with uncollected():
    import alembic.ddl
    import dagster_postgres.storage
    from dagster._core.execution import api
    from dagster._core.storage.event_log import base

    from jivs_pipeline import cli, console, runtime
    from jivs_pipeline.defs import launch
    from jivs_pipeline.infra.sources import csv_open, files_open, mysql_open, postgresql, sqlite_open
    from jivs_pipeline_tests.fix_cli import PROGRAM
    from jivs_pipeline_tests.zygote import serve

__all__ = [
    "alembic", "api", "base", "console", "csv_open", "dagster_postgres", "files_open", "launch", "mysql_open", "postgresql",
    "runtime", "sqlite_open",
]  # fmt: skip  # imported so that no child has to

if __name__ == "__main__":
    child = serve()
    os.chdir(child["directory"])
    sys.argv = [str(PROGRAM), *child["argv"]]
    sys.exit(cli.main())
