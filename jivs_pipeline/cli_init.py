"""`jivs init`: a spec to begin with, from what is in the source.

What belongs here: the command and its files. What does not: the text (`engine/draft.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from jivs_pipeline.core.connections import Connection, parse_url
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.names import key_from_names
from jivs_pipeline.core.spec import json_schema, parse_spec

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_SCHEMA = "jivs.schema.json"


@app.command("init")
def init(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a connection, or a URL.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Name of a connection, or a URL.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; beside it the schema for editors.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Migration key; derived from both names otherwise.")] = None,
    source_schema: Annotated[str | None, typer.Option(help="Schema to read.")] = None,
    target_schema: Annotated[str | None, typer.Option(help="Schema to write to.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write a commented spec from the source's catalog. Touches neither database."""
    from jivs_pipeline.engine.draft import draft
    from jivs_pipeline.engine.planning import build_plan
    from jivs_pipeline.runtime import Runtime

    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already", hint="Name another file, or move it away")
    home = Runtime.from_environment().settings.home
    given = [_given(text, home) for text in (source, target)]
    names = [c.name if isinstance(c, Connection) else c for c in given]
    chosen = {"source_schema": source_schema, "target_schema": target_schema}
    spec = parse_spec(
        {
            "key": key or key_from_names(*names), "source": names[0], "target": names[1],
            **{name: value for name, value in chosen.items() if value is not None},
        }
    )  # fmt: skip
    urls = [c for c in given if isinstance(c, Connection)]
    # Tables that are in the target already are no mistake of somebody who has not chosen yet.
    lenient = spec.model_copy(update={"on_existing": "append"})
    with (
        Runtime.from_environment(*urls) as runtime,
        runtime.opened(lenient, counted=False) as (reader, writer),
    ):
        plan = build_plan(lenient, reader, writer, runtime.rules)
    text = draft(spec, plan, _SCHEMA if out else None)
    if out is None:
        print(json.dumps({"key": spec.key, "spec": text}) if json_ else text, end="" if not json_ else "\n")
        return
    schema = out.with_name(_SCHEMA)
    try:
        out.write_text(text, encoding="utf-8")
        schema.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}", hint="Name another file") from None
    variables = [f"JIVS_CONNECTION_{c.name.upper().replace('-', '_')}" for c in urls]
    if json_:
        print(json.dumps({"key": spec.key, "spec": str(out), "schema": str(schema)}))
        return
    print(f"Wrote {out} and {schema}. Next: jivs plan {out}")
    if variables:
        print(f"URLs stay out of specs: export {' and '.join(variables)} first")


def _given(text: str, home: Path) -> Connection | str:
    return parse_url(text, home=home) if ":" in text else text
