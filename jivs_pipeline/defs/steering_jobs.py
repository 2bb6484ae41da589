"""The jobs `pause`, `cancel` and `rollback`, for who steers from the web UI or by GraphQL.

What belongs here: one op each over the engine's verb of that name. What does not: the verbs.

They have no partition and no migration key among their tags: the limit of one run per key would make them wait
for the run that they are to stop.
"""

import dagster as dg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.defs.failures import as_failure
from jivs_pipeline.defs.tags import no_retries
from jivs_pipeline.engine import rollback as undoing
from jivs_pipeline.engine import steering
from jivs_pipeline.engine.services import Services
from jivs_pipeline.runtime import Runtime

__all__ = ["STEERING"]


class KeyConfig(dg.Config):
    """Which migration."""

    key: str


class CancelConfig(dg.Config):
    """Which migration, and whether to take back at once what it did to its target."""

    key: str
    rollback: bool = False


def _roll_back(context: dg.OpExecutionContext, services: Services, key: str) -> None:
    undone = undoing.rollback(services, key, context.run_id)
    context.log.info(f"Migration {key!r} is rolled back: {undone} steps were undone")


@dg.op
def pause_migration(context: dg.OpExecutionContext, config: KeyConfig) -> None:
    try:
        with Runtime.from_environment() as runtime:
            limit = runtime.settings.load_timeout_seconds
            steering.pause(runtime.services(), config.key, wait_seconds=limit)
    except JivsError as error:
        raise as_failure(error) from error
    context.log.info(f"Migration {config.key!r} is paused")


@dg.op
def cancel_migration(context: dg.OpExecutionContext, config: CancelConfig) -> None:
    try:
        with Runtime.from_environment() as runtime:
            services, limit = runtime.services(), runtime.settings.load_timeout_seconds
            steering.cancel(services, config.key, wait_seconds=limit)
            context.log.info(f"Migration {config.key!r} is cancelled")
            if config.rollback:
                _roll_back(context, services, config.key)
    except JivsError as error:
        raise as_failure(error) from error


@dg.op
def rollback_migration(context: dg.OpExecutionContext, config: KeyConfig) -> None:
    try:
        with Runtime.from_environment() as runtime:
            _roll_back(context, runtime.services(), config.key)
    except JivsError as error:
        raise as_failure(error) from error


def _job(name: str, op: dg.OpDefinition, description: str) -> dg.JobDefinition:
    # A job and its op may not have one name.
    graph = dg.GraphDefinition(name=name, node_defs=[op])
    return graph.to_job(description=description, tags=no_retries(), executor_def=dg.in_process_executor)


STEERING = (
    _job("pause", pause_migration, "Stops a running migration at the end of a chunk. Launch it to go on."),
    _job(
        "cancel",
        cancel_migration,
        "Stops a migration for good. What it loaded stays, unless it is rolled back.",
    ),
    _job("rollback", rollback_migration, "Takes back everything that a migration did to its target."),
)
