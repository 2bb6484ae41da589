"""`jivs pause`, `cancel` and `rollback`: steering a migration from outside of its run.

What belongs here: the commands. What does not: what they do (`engine/steering.py`, `engine/rollback.py`) and
everything else of the command line (`cli.py`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConfigError

if TYPE_CHECKING:
    from jivs_pipeline.engine.services import Services

__all__ = ["FOREGROUND", "app"]

# Whoever sits at a terminal learns of a conflict at once.
FOREGROUND = {"JIVS_LOCK_WAIT_SECONDS": "0"}

app = typer.Typer(rich_markup_mode=None)

Key = Annotated[str, typer.Argument(metavar="KEY", help="Migration key.")]
TargetUrl = Annotated[str | None, typer.Option("--target", help="URL of the target, if it was given by URL.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return when it is requested.")]


@app.command()
def pause(key: Key, no_wait: NoWait = False, json_: Json = False, debug: Debug = False) -> None:
    """Stop a running migration at the end of a chunk; it can be resumed. Returns when it has stopped."""
    from jivs_pipeline.engine.steering import pause

    with _steering(key) as (services, limit):
        pause(services, key, wait_seconds=0 if no_wait else limit)
        _print_status(services, key, as_json=json_)


@app.command()
def cancel(
    key: Key,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Also take back what it did to the target.")
    ] = False,
    no_wait: NoWait = False,
    target: TargetUrl = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Stop a migration for good and remove what it staged. What it loaded stays, unless it is rolled back."""
    from jivs_pipeline.engine.rollback import rollback as undo
    from jivs_pipeline.engine.steering import cancel

    if rollback and no_wait:
        raise ConfigError("A rollback waits for the run to end", hint="Give --rollback without --no-wait")
    with _steering(key, target) as (services, limit):
        cancel(services, key, wait_seconds=0 if no_wait else limit)
        if rollback:
            undo(services, key, _run_id())
        _print_status(services, key, as_json=json_)


@app.command()
def rollback(key: Key, target: TargetUrl = None, json_: Json = False, debug: Debug = False) -> None:
    """Take back everything a migration did to its target; its key can then be used again."""
    from jivs_pipeline.engine.rollback import rollback

    with _steering(key, target) as (services, _):
        rollback(services, key, _run_id())
        _print_status(services, key, as_json=json_)


@contextmanager
def _steering(key: str, target: str | None = None) -> Iterator[tuple[Services, float]]:
    """The services, with the target's URL where one is given, and how long a run may take to obey."""
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment(defaults=FOREGROUND) as runtime:
        row = runtime.control.migration(key)
        given = [parse_url(target, row["target_name"], home=runtime.settings.home)] if target else []
        runtime.connections = runtime.connections.with_given(*given)
        yield runtime.services(), runtime.settings.load_timeout_seconds


def _run_id() -> str:
    """Marks a rollback in the events and for whoever meets it as the holder."""
    return f"rollback-{uuid.uuid4().hex[:12]}"


def _print_status(services: Services, key: str, *, as_json: bool) -> None:
    from jivs_pipeline.console import print_statuses
    from jivs_pipeline.engine.document import status_document

    document = status_document(services.control.migration(key))
    print(json.dumps(document, default=str)) if as_json else print_statuses([document])
