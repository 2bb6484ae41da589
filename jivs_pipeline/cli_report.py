"""`jivs report`: the signed report of a migration, written or checked.

What belongs here: the command. What does not: the page (`engine/report.py`) and its signature (`core/signature.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jivs_pipeline.core.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def report(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Migration key.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write it; F.json: as JSON.")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Say whether this report is as it was signed.")
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write the signed migration report, one self-contained HTML page; or check one."""
    if (key is None) == (check is None) or (check is not None and out is not None):
        raise ConfigError(
            "Give the KEY of a migration whose report is written, or --check FILE",
            hint="See jivs report --help",
        )
    if check is not None:
        _check(check, as_json=json_)
    elif key is not None:
        _write(key, out, as_json=json_)


def _check(path: Path, *, as_json: bool) -> None:
    from jivs_pipeline.engine.report_file import check_report
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        found = check_report(path, runtime.report_key(make=False))
    sentence = (
        f"{path} is the unchanged report of migration {found['key']!r} ({found['status']}), "
        f"signed with the key {found['signed_with']}"
    )
    print(json.dumps(found, default=str) if as_json else sentence)


def _write(key: str, out: Path | None, *, as_json: bool) -> None:
    from jivs_pipeline.engine.document import build_document
    from jivs_pipeline.engine.report_file import write_report
    from jivs_pipeline.runtime import Runtime, versions

    with Runtime.from_environment() as runtime:
        control = runtime.control
        row = control.migration(key)
        document = build_document(
            row, control.checkpoints(key), control.performance(key), control.incidents(key),
            versions=versions(),
        )  # fmt: skip
        path = out or runtime.settings.home / "reports" / f"{key}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of one that runs or waits the document says what a run would, which has ended.
        now = {"status": row["status"], "report": str(path)}
        write_report({**document, **now}, path, runtime.report_key())
    print(json.dumps({"key": key, "report": str(path)}) if as_json else path)
