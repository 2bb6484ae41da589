"""`jivs quarantine`: rejected rows, to look at and to try again.

What belongs here: the commands. What does not: what they do (`infra/quarantine.py`, `engine/replay.py`) and everything
else of the command line (`cli.py`).
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Rejected rows: look at them, try them again.", rich_markup_mode=None
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="Migration key.")]
Table = Annotated[str | None, typer.Option("--table", help="Only of this target table.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("list")
def list_rows(key: Key, table: Table = None, json_: Json = False, debug: Debug = False) -> None:
    """Show the rejected rows of a migration: table, key, column, reason and value."""
    from jivs_pipeline.console import print_quarantine
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        rows = runtime.control.quarantine.listed(key, table)
        if json_:
            print(json.dumps({"key": key, "rows": list(rows)}))
        else:
            print_quarantine(key, rows)
