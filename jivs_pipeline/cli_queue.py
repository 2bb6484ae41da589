"""`jivs submit`: asking for a migration that somebody else runs.

What belongs here: the command and what it prints. What does not: the queue (`infra/requests.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jivs_pipeline.cli_preflight import submittable
from jivs_pipeline.cli_spec import read_spec
from jivs_pipeline.core.errors import ConfigError, ConflictError
from jivs_pipeline.core.requests import RequestStatus, Submission
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Status

__all__ = ["app", "hand_over"]

app = typer.Typer(rich_markup_mode=None)

_LONGEST_KEY = 255


@app.command()
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Migration spec, YAML or JSON.")],
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Text of yours for this request; repeating it gives the same answer again."),
    ] = None,
    priority: Annotated[int, typer.Option(help="The higher, the earlier.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Queue a migration; the daemon of `jivs up` runs it. What failed or was paused is queued again."""
    if idempotency_key is not None and not 0 < len(idempotency_key) <= _LONGEST_KEY:
        raise ConfigError(
            f"--idempotency-key has {len(idempotency_key)} characters", hint=f"Use 1 to {_LONGEST_KEY}"
        )
    if not -(1 << 31) <= priority < 1 << 31:
        raise ConfigError(f"--priority {priority} is out of range", hint="Use a smaller number")
    _submit(read_spec(spec), idempotency_key, priority, as_json=json_)


def hand_over(key: str, *, as_json: bool) -> None:
    """Queue a migration that stopped, with the spec that it has."""
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        row = runtime.control.migration(key)
    if row["status"] == Status.RUNNING:
        raise ConflictError(f"Migration {key!r} is running", hint=f"See jivs status {key}")
    _submit(parse_spec(row["spec"]), None, 0, as_json=as_json)


def _submit(spec: Spec, idempotency_key: str | None, priority: int, *, as_json: bool) -> None:
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        submittable(runtime, spec)
        answer = runtime.requests.submit(spec, idempotency_key=idempotency_key, priority=priority)
    print(json.dumps(asdict(answer)) if as_json else _sentence(answer))


def _sentence(answer: Submission) -> str:
    if answer.status is RequestStatus.COMPLETED:
        return f"Migration {answer.key!r} is already completed; nothing to do (request {answer.request_id})"
    again = "was asked for before and is" if answer.duplicate else "is"
    return (
        f"Migration {answer.key!r} {again} {answer.status} (request {answer.request_id}).\n"
        f"The daemon of `jivs up` runs it; follow it with: jivs status {answer.key} --watch"
    )
