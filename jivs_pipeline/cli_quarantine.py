"""`jivs quarantine`: rejected rows, to look at and to try again.

What belongs here: the commands. What does not: what they do (`infra/quarantine.py`, `engine/replay.py`) and everything
else of the command line (`cli.py`).
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Annotated

import typer

from jivs_pipeline.cli_spec import read_spec
from jivs_pipeline.cli_steering import FOREGROUND
from jivs_pipeline.core.errors import ExitCode

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


@app.command()
def replay(
    key: Key,
    source: Annotated[
        str | None, typer.Option("--source", help="URL of the source, if it was given by URL.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="URL of the target, if it was given by URL.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option("--spec", metavar="SPEC", help="Other rules, for rows that those before it reject."),
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> int:
    """Read the rejected rows anew and load those that are good by now. Exit 4 when some stay."""
    from jivs_pipeline.core.connections import parse_url
    from jivs_pipeline.engine.replay import replay as again
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment(defaults=FOREGROUND) as runtime:
        row = runtime.control.migration(key)
        given = [
            parse_url(url, row[f"{end}_name"], home=runtime.settings.home)
            for end, url in (("source", source), ("target", target))
            if url
        ]
        runtime.connections = runtime.connections.with_given(*given)
        other = read_spec(spec) if spec is not None else None
        outcome = again(runtime.services(), key, f"replay-{uuid.uuid4().hex[:12]}", other)
    document = outcome.document(key)
    if json_:
        print(json.dumps(document))
    else:
        print(f"{document['replayed']:,} rows went in, {document['stayed']:,} stay in quarantine.")
        for one in document["reasons"]:
            column = f", column {one['column']}" if one["column"] else ""
            print(f"  {one['table']}{column}: {one['rows']:,}: {one['reason']}")
    return ExitCode.MISMATCH if outcome.stay else ExitCode.DONE
