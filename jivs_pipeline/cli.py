"""The command line `jivs`: parse, call, print, exit code.

What belongs here: commands and their options. What does not: SQL, Dagster (imported only by the commands
that run a migration) and drawing (`console.py`).
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from jivs_pipeline import (
    __version__,
    cli_breaker,
    cli_init,
    cli_metrics,
    cli_quarantine,
    cli_queue,
    cli_report,
    cli_steering,
    cli_types,
)
from jivs_pipeline.cli_preflight import before_anything, preflight
from jivs_pipeline.cli_spec import read_spec
from jivs_pipeline.core.connections import Connection, parse_url, redact
from jivs_pipeline.core.errors import (
    ConfigError,
    ConflictError,
    ExitCode,
    InterruptedRun,
    JivsError,
    MismatchError,
)
from jivs_pipeline.core.names import key_from_names
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.starting import uncollected

__all__ = ["main"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Moves whole databases into PostgreSQL, exactly once.",
    pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip
db = typer.Typer(no_args_is_help=True, help="Revisions of the control schema.", rich_markup_mode=None)
app.add_typer(db, name="db")
app.add_typer(cli_breaker.app, name="breaker")
app.add_typer(cli_quarantine.app, name="quarantine")
app.add_typer(cli_queue.app)
app.add_typer(cli_steering.app)
app.add_typer(cli_metrics.app)
app.add_typer(cli_report.app)
app.add_typer(cli_types.app)
app.add_typer(cli_init.app)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Migration key.")]

_FOLLOW_SECONDS = 0.5


def main() -> None:
    """Entry point: runs a command and turns every error into one sentence and the contract's exit code."""
    arguments = sys.argv[1:]
    as_json, debug = "--json" in arguments, "--debug" in arguments
    sys.exit(
        _guarded(
            lambda: app(args=arguments, prog_name="jivs", standalone_mode=False), as_json=as_json, debug=debug
        )
    )


def _guarded(call: Callable[[], object], *, as_json: bool, debug: bool) -> int:
    try:
        result = call()
    except typer.Exit as exit_:
        return exit_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _report(InterruptedRun("Interrupted", hint="Run it again to go on"), as_json=as_json)
    except JivsError as error:
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        return _report(error, as_json=as_json)
    except BrokenPipeError:
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: a user never sees a traceback unasked
        if (usage := getattr(error, "format_message", None)) is not None:
            # Typer's own error of usage, a class that it does not export.
            return _report(ConfigError(usage().rstrip("."), hint="See jivs --help"), as_json=as_json)
        if debug:
            print(redact(traceback.format_exc()), file=sys.stderr)
        text = redact(str(error).splitlines()[0] if str(error) else "no message")
        return _report(
            JivsError(f"Unexpected {type(error).__name__}: {text}", hint="Run again with --debug"),
            as_json=as_json,
        )
    return result if isinstance(result, int) else ExitCode.DONE


def _report(error: JivsError, *, as_json: bool) -> int:
    if as_json:
        document = error.document()["error"]
        print(json.dumps({"error": {name: redact(text) for name, text in document.items()}}))
    else:
        print(redact(f"jivs: {error}"), file=sys.stderr)
    return error.exit_code


def _print(document: Any) -> None:
    print(json.dumps(document, default=str))


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        print(f"jivs {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:  # pyright: ignore[reportUnusedFunction]
    """Moves whole databases into PostgreSQL, exactly once."""


# Migrating


def _from_urls(
    source: str | None, target: str | None, key: str | None, **options: Any
) -> tuple[Spec, list[Connection]]:
    from jivs_pipeline.runtime import Runtime

    if not source or not target:
        raise ConfigError("Give a spec, or both --source and --target", hint="See jivs run --help")
    home = Runtime.from_environment().settings.home
    given = [parse_url(source, home=home), parse_url(target, home=home)]
    if given[0].name == given[1].name:
        given = [
            parse_url(source, f"{given[0].name[:56]}-source"),
            parse_url(target, f"{given[1].name[:56]}-target"),
        ]
    names = {"source": given[0].name, "target": given[1].name}
    chosen = {k: v for k, v in options.items() if v is not None}
    return parse_spec({"key": key or key_from_names(**names), **names, **chosen}), given


def _run(spec: Spec, given: list[Connection], *, as_json: bool) -> int:
    with uncollected():
        from jivs_pipeline.console import print_result, say, showing
        from jivs_pipeline.engine.progress import Progress
        from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment(*given, defaults=cli_steering.FOREGROUND) as runtime:
        progress = Progress()
        if (done := _nothing_to_do(runtime, spec)) is not None:
            if not as_json:
                say(f"Migration {spec.key!r} is already completed; nothing to do")
            document, error = done, None
        else:
            preflight(runtime, spec)
            with uncollected():
                from jivs_pipeline.defs.launch import run_here

            with showing(progress):
                outcome = run_here(runtime, spec, progress)
            document, error = outcome.document, outcome.error
    if error is not None and (document is None or isinstance(error, ConfigError | ConflictError)):
        raise error
    if as_json:
        _print(document)
    elif document is not None:
        print_result(document)
        if error is not None:
            print(redact(f"jivs: {error}"), file=sys.stderr)
    return error.exit_code if error else ExitCode.DONE


def _nothing_to_do(runtime: Any, spec: Spec) -> dict[str, Any] | None:
    runtime.ends(spec)
    migration = runtime.migration(spec, "")
    return {**migration.document(), "resumed": False} if migration.nothing_to_do() else None


SpecPath = Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="Migration spec, YAML or JSON.")]
SourceUrl = Annotated[str | None, typer.Option("--source", help="URL of the source, instead of a spec.")]
TargetUrl = Annotated[str | None, typer.Option("--target", help="URL of the target, instead of a spec.")]


@app.command()
def run(
    spec: SpecPath = None,
    source: SourceUrl = None,
    target: TargetUrl = None,
    key: Annotated[str | None, typer.Option(help="Migration key; derived from both names otherwise.")] = None,
    source_schema: Annotated[str | None, typer.Option(help="Schema to read.")] = None,
    target_schema: Annotated[str | None, typer.Option(help="Schema to write to.")] = None,
    on_existing: Annotated[str | None, typer.Option(help="fail, replace, truncate or append.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> int:
    """Run or resume a migration here and now, through the Dagster job."""
    if spec is not None:
        if source or target:
            raise ConfigError("Give a spec or URLs, not both", hint="See jivs run --help")
        return _run(read_spec(spec), [], as_json=json_)
    made, given = _from_urls(
        source, target, key, source_schema=source_schema, target_schema=target_schema, on_existing=on_existing
    )
    return _run(made, given, as_json=json_)


@app.command()
def plan(
    spec: SpecPath = None,
    source: SourceUrl = None,
    target: TargetUrl = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what changed since the plan of the last run.")
    ] = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="Show what rules make of the first rows of each table.")
    ] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a migration would do, and what it would lose. Touches nothing."""
    from jivs_pipeline.console import print_changes, print_plan, print_samples
    from jivs_pipeline.core.estimates import estimate
    from jivs_pipeline.engine.document import plan_document
    from jivs_pipeline.engine.planning import build_plan
    from jivs_pipeline.engine.sampling import samples
    from jivs_pipeline.runtime import Runtime

    made, given = (read_spec(spec), []) if spec is not None else _from_urls(source, target, None)
    with (
        before_anything(),
        Runtime.from_environment(*given) as runtime,
        runtime.opened(made, counted=False) as (reader, writer),
    ):
        planned = build_plan(made, reader, writer, runtime.rules, runtime.since(made))
        document = plan_document(planned, estimate(planned, runtime.past_runs()))
        if diff:
            document["changes"] = runtime.changes_since(planned)
        if sample:
            document["samples"] = samples(planned, reader, runtime.rules)
    if json_:
        _print(document)
    elif diff:
        print_changes(document)
    else:
        print_plan(document)
    if sample and not json_:
        print_samples(document)


@app.command()
def demo(json_: Json = False, debug: Debug = False) -> int:
    """Migrate the bundled sample (real flights, legacy SQLite) into the embedded PostgreSQL."""
    from jivs_pipeline.console import say
    from jivs_pipeline.infra.sample import build_sample
    from jivs_pipeline.runtime import DEMO_SOURCE, DEMO_TARGET, Runtime

    with Runtime.from_environment() as runtime:
        path = runtime.sample_path
        if not path.exists():
            say("Making the sample: real flights of the year 2013, as a legacy SQLite database")
        path.parent.mkdir(parents=True, exist_ok=True)
        build_sample(path)
        names = {
            "key": "demo",
            "source": DEMO_SOURCE,
            "target": DEMO_TARGET,
            "target_schema": "flights",
            "chunk_bytes": 4 << 20,
        }
        code = _run(parse_spec(names), [], as_json=json_)
        if not json_:
            say("Look around: `jivs up` starts the Dagster UI; `jivs status`, `jivs report demo`")
        return code


@app.command()
def up(debug: Debug = False) -> None:
    """Start the whole local stack in the foreground: UI, daemon, code server, embedded servers."""
    from jivs_pipeline.infra.stack import run_stack
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        run_stack(runtime.settings, runtime.dagster_environment(), runtime.control.target_tables)


@app.command()
def resume(
    key: Key,
    source: SourceUrl = None,
    target: TargetUrl = None,
    detach: Annotated[bool, typer.Option("--detach", help="Hand it to the daemon of `jivs up`.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> int:
    """Go on with a migration that stopped, in the foreground. One that was begun by URLs needs them again."""
    from jivs_pipeline.runtime import Runtime

    if detach:
        if source or target:
            raise ConfigError(
                "The daemon cannot be given URLs", hint="Name the connections, or resume without --detach"
            )
        cli_queue.hand_over(key, as_json=json_)
        return ExitCode.DONE
    with Runtime.from_environment() as runtime:
        row = runtime.control.migration(key)
        home = runtime.settings.home
    urls = ((source, row["source_name"]), (target, row["target_name"]))
    given = [parse_url(url, name, home=home) for url, name in urls if url]
    return _run(parse_spec(row["spec"]), given, as_json=json_)


# Looking


@app.command()
def status(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Repeat every two seconds; of one KEY, until it has ended.")
    ] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Phase, rows, rate, ETA, retries and quarantine of one migration or of all."""
    from jivs_pipeline.console import print_statuses
    from jivs_pipeline.engine.document import status_document
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        while True:
            rows = [runtime.control.migration(key)] if key else runtime.control.migrations()
            documents = [status_document(r) for r in rows]
            if json_:
                _print(documents[0] if key else {"migrations": documents})
            else:
                print_statuses(documents)
            waits = key is None or rows[0]["status"] in {Status.QUEUED, Status.RUNNING}
            if not (watch and waits):
                return
            time.sleep(2)


@app.command()
def verify(
    key: Key,
    level: Annotated[str | None, typer.Option(help="count, digest or rows; the spec's otherwise.")] = None,
    source: SourceUrl = None,
    target: TargetUrl = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Compare source and target again, now."""
    from jivs_pipeline.console import print_comparison
    from jivs_pipeline.engine.reverify import reverify
    from jivs_pipeline.runtime import Runtime

    if level not in {None, "count", "digest", "rows"}:
        raise ConfigError(f"There is no level {level!r}", hint="Use count, digest or rows")
    with Runtime.from_environment() as runtime:
        row = runtime.control.migration(key)
        given = [
            parse_url(u, n) for u, n in ((source, row["source_name"]), (target, row["target_name"])) if u
        ]
        runtime.connections = runtime.connections.with_given(*given)
        document = reverify(runtime.services(), row, level, narrow=True)
    _print(document) if json_ else print_comparison(document)
    if different := [t["target_table"] for t in document["tables"] if not t["equal"]]:
        error = MismatchError(
            f"{len(different)} tables differ: {', '.join(different)}",
            hint="Rows are listed where a key tells them apart",
        )
        if not json_:
            print(f"jivs: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code)


@app.command()
def events(
    key: Key,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on with new ones until Ctrl-C; with --json, one document a line."),
    ] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """The migration's events, in order."""
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime:
        runtime.control.migration(key)
        found = runtime.control.events(key)
        if json_ and not follow:
            _print({"events": found})
            return
        # Ctrl-C is how following ends, and no failure.
        with suppress(KeyboardInterrupt):
            last = 0
            while True:
                for event in found:
                    last = event["seq"]
                    _print(event) if json_ else print(_line(event))
                if not follow:
                    return
                sys.stdout.flush()
                time.sleep(_FOLLOW_SECONDS)
                found = runtime.control.events(key, last)


def _line(event: dict[str, Any]) -> str:
    when, data = f"{event['at']:%Y-%m-%d %H:%M:%S}", json.dumps(event["data"])
    return f"{when}  {event['seq']:>5}  {event['type']}  {data}"


# The control schema


@db.command("upgrade")
def db_upgrade(json_: Json = False, debug: Debug = False) -> None:
    """Apply missing revisions of the control schema."""
    _revisions(as_json=json_, upgrade=True)


@db.command("status")
def db_status(json_: Json = False, debug: Debug = False) -> None:
    """Show which revisions the control database has."""
    _revisions(as_json=json_, upgrade=False)


def _revisions(*, as_json: bool, upgrade: bool) -> None:
    from jivs_pipeline.infra import revisions
    from jivs_pipeline.runtime import Runtime

    with Runtime.from_environment() as runtime, runtime.control_connection() as connection:
        applied = revisions.upgrade(connection, "control") if upgrade else ()
        states = revisions.state(connection, "control")
    if as_json:
        listed = [
            {"number": s.number, "name": s.name, "applied": s.applied, "changed": s.changed} for s in states
        ]
        _print({"revisions": listed, "applied_now": [r.number for r in applied]})
        return
    for s in states:
        mark = "CHANGED" if s.changed else "applied" if s.applied else "missing"
        print(f"{s.number:04d}  {s.name}  {mark}{' now' if s.number in {r.number for r in applied} else ''}")


if __name__ == "__main__":
    main()
