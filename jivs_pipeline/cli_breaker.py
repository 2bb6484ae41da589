"""`jivs breaker`: the circuit breakers of endpoints, to look at and to close by hand.

What belongs here: the two commands. What does not: everything else of the command line (`cli.py`).
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Circuit breakers of endpoints.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("list")
def list_breakers(json_: Json = False, debug: Debug = False) -> None:
    """Show every endpoint that was called of late, and whether it is left alone for now."""
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        found = runtime.shared_breakers.listing()
    if json_:
        print(json.dumps({"breakers": found}, default=lambda at: at.isoformat(timespec="milliseconds")))
        return
    for one in found:
        line = f"{one['name']}  {one['state']}  {one['failures']} failed and {one['slow']} slow of {one['calls']}"
        if one["next_probe_at"] is not None:
            line += f", tried again at {one['next_probe_at']:%Y-%m-%d %H:%M:%S} UTC"
        print(line)


@app.command("reset")
def reset_breakers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All without it.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Close a breaker by hand, once its endpoint is well, or all of them."""
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        names = runtime.shared_breakers.reset(name)
    if json_:
        print(json.dumps({"reset": names}))
        return
    for one in names:
        print(f"{one}  closed")
