"""The seven ops. Each unpacks its handle, calls one phase of the engine and reports."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from jivs_pipeline.core.errors import ConfigError, JivsError, TerminalError
from jivs_pipeline.core.spec import require_no_url
from jivs_pipeline.defs import story
from jivs_pipeline.defs.failures import ending
from jivs_pipeline.defs.partitions import MIGRATIONS
from jivs_pipeline.defs.resources import Session
from jivs_pipeline.defs.tags import (
    FROM_START,
    MAX_RETRIES,
    PARTITION,
    RETRY_NUMBER,
    RETRY_ON_FAILURE,
    SETTLED,
    Worker,
    request_of,
    run_tags,
)
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.infra.owner import this_process

__all__ = ["OPS", "PlanConfig"]

Handle = dict[str, Any]

_PLAN = "Look at both databases and decide what is carried, and how."


class PlanConfig(dg.Config):
    """Run config of `plan`; empty where the spec is in the control database, as after an earlier run."""

    spec: dict[str, Any] | None = None


@contextmanager
def _phase(
    context: dg.OpExecutionContext, session: Session, given: dict[str, Any] | None = None
) -> Iterator[Migration | None]:
    """The begun migration, or None when it was finished before this run. Errors become one sentence."""
    try:
        _introduce(context, session)
        migration = session.of(context.partition_key, context.run_id, given)
        if not migration.begin():
            context.log.info(f"Migration {context.partition_key!r} is already completed; nothing to do")
            yield None
            return
        yield migration
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        interruption = session.interruption(context.run.tags.get(PARTITION, ""))
        raise _ending(context, session, interruption) from None
    except Exception as error:
        # Also what nobody has foreseen is a failure of ours, which leads to the run's report.
        raise _ending(context, session, error) from error


def _handle(context: dg.OpExecutionContext) -> Handle:
    """What tells the next op that it is its turn; nothing is decided by it."""
    return {"key": context.partition_key, "run_id": context.run_id}


def _ending(context: dg.OpExecutionContext, session: Session, error: Exception) -> BaseException:
    """End the migration for `error`; what the op raises then."""
    known = _aborted(context, session, error)
    return ending(context, known, session.migration.report if session.migration else None)


def _aborted(context: dg.OpExecutionContext, session: Session, error: Exception) -> JivsError:
    """The error that the run ends with: the engine knows better where the run was overtaken meanwhile."""
    migration = session.migration
    if migration is not None:
        migration.abort(error)
        error = migration.error or error
    known = error if isinstance(error, JivsError) else TerminalError(type(error).__name__)
    if context.has_partition_key and (migration is None or not migration.taken):
        session.never_began(context.partition_key, known)
    return known


def _introduce(context: dg.OpExecutionContext, session: Session) -> None:
    """Before the first op of a process: say which process it is, and let an automatic retry know its place."""
    if session.introduced:
        return
    session.introduced = True
    owner = this_process()
    worker = Worker(context.run_id, owner.pid, owner.process_start, owner.boot_id)
    # A launch by GraphQL may carry no tag but the partition's; one that repeats a run carries that run's, perhaps
    # that it must not be retried.
    repeated = bool(context.run.parent_run_id)
    fresh = {RETRY_ON_FAILURE: "true", **SETTLED} if repeated else {}
    if repeated and context.run.tags.get(MAX_RETRIES) == "0":
        fresh |= FROM_START
    key = context.partition_key if context.has_partition_key else None
    named = {} if key is None else run_tags(key)
    context.instance.add_run_tags(context.run_id, {**named, **worker.tags(), **fresh})
    _require_partition(context.instance, key)
    chosen = context.run.step_keys_to_execute or context.run.resolved_op_selection
    if chosen and "finish" not in chosen:
        raise ConfigError(
            "The run would end without a verdict", hint="Choose the op finish as well, and those between"
        )
    by_itself = not repeated or RETRY_NUMBER in context.run.tags
    # Who repeats a run by hand wants it, whatever has become of the request meanwhile.
    session.request = request_of(context.run.tags) if by_itself else None
    if RETRY_NUMBER in context.run.tags:
        session.require_not_stopped(context.partition_key)


def _require_partition(instance: dg.DagsterInstance, key: str | None) -> None:
    """Dagster checks neither for a launch by GraphQL.

    Raises:
        ConfigError: nobody knows what to migrate.
    """
    if key is None:
        raise ConfigError(
            "The run has no partition, so it is not known which migration it is for",
            hint=f"Launch it with the tag {PARTITION}, whose value is the migration's key",
        )
    if not instance.has_dynamic_partition(str(MIGRATIONS.name), key):
        raise ConfigError(
            f"There is no partition {key!r} among the {MIGRATIONS.name}",
            hint="Add it with the mutation addDynamicPartition, or in the Launchpad, and launch it again",
        )


@dg.op(name="plan", out=dg.Out(io_manager_key="handles"), description=_PLAN)
def _plan(context: dg.OpExecutionContext, config: PlanConfig, session: dg.ResourceParam[Session]) -> Handle:
    with _phase(context, session, config.spec) as run:
        if run is not None:
            made = run.plan()
            context.log.info(
                f"{len(made.tables)} tables, about {made.rows:,} rows, {len(made.warnings)} warnings"
            )
            context.add_output_metadata(story.plan_metadata(made, run.expected))
    return _handle(context)


@dg.configured(_plan, config_schema=PlanConfig.to_fields_dict())
def plan(config: dict[str, Any]) -> dict[str, Any]:
    """The op as it is launched. Dagster calls this before it makes the run, whose config it keeps for good."""
    require_no_url(config.get("spec"))
    return config


def _middle(name: str, description: str) -> dg.OpDefinition:
    """An op between plan and finish: same handle in and out, one method of the engine."""

    @dg.op(name=name, description=description, out=dg.Out(io_manager_key="handles"))
    def phase(context: dg.OpExecutionContext, handle: Handle, session: dg.ResourceParam[Session]) -> Handle:
        with _phase(context, session) as run:
            if run is not None:
                getattr(run, name)()
                rows, size, seconds = run.progress.rows, run.progress.bytes, run.progress.phases[name]
                context.log.info(f"{name}: {rows:,} rows, {size:,} bytes in {seconds:.1f} s")
                context.add_output_metadata({"rows": rows, "bytes": size, "seconds": round(seconds, 3)})
        return handle or _handle(context)

    return phase


extract = _middle("extract", "Read every chunk of one consistent snapshot into the staging area.")
transform = _middle("transform", "Apply the rules of the spec to the staged rows.")


@dg.op(
    out=dg.Out(io_manager_key="handles"), description="Check the staged rows before the target is touched."
)
def validate(context: dg.OpExecutionContext, handle: Handle, session: dg.ResourceParam[Session]) -> Handle:
    with _phase(context, session) as run:
        if run is not None:
            try:
                run.validate()
            finally:
                for event in _checked(run.document()):
                    context.log_event(event)
    return handle or _handle(context)


load = _middle("load", "Create tables, COPY the chunks exactly once, build keys, indexes and references.")
verify = _middle("verify", "Compare count and digest of every table, computed by each database itself.")


@dg.op(out=dg.Out(io_manager_key="handles"), description="Give the verdict, write the report, clean up.")
def finish(context: dg.OpExecutionContext, handle: Handle, session: dg.ResourceParam[Session]) -> Handle:
    with _phase(context, session) as run:
        if run is not None:
            try:
                document = run.finish()
            finally:
                for event in _events(run.document()):
                    context.log_event(event)
            context.log.info(story.sentence(document))
            context.add_output_metadata(
                {"status": document["status"], **story.report_metadata(document["report"])}
            )
    return handle or _handle(context)


def _events(document: dict[str, Any]) -> list[Any]:
    return [*story.materializations(document), *story.checks(document), story.verdict(document)]


def _checked(document: dict[str, Any]) -> list[Any]:
    return [*story.validations(document)]


OPS = (plan, extract, transform, validate, load, verify, finish)
