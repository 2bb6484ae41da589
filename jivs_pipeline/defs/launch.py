"""Runs the job in this process, for `jivs run`: no daemon, no web server, the same job and the same storage."""

import os
import uuid
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from jivs_pipeline.core.errors import JivsError, TerminalError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.connections import keep_connections
from jivs_pipeline.defs.partitions import MIGRATIONS
from jivs_pipeline.defs.reaper import end_dead_runs
from jivs_pipeline.defs.resources import Session, session_resource
from jivs_pipeline.defs.tags import PARTITION, no_retries, run_tags
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.runtime import Runtime
from jivs_pipeline.starting import uncollected

__all__ = ["Outcome", "run_here"]

_LOCATION = "jivs_pipeline"
_MODULE = "jivs_pipeline.definitions"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the document of the contract, and the error that decides the exit code."""

    document: dict[str, Any] | None
    error: JivsError | None


def _origin() -> Any:
    """Where the web UI finds the job of this run, so that it can be re-executed there."""
    target = LoadableTargetOrigin(module_name=_MODULE)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=_LOCATION)
    return RemoteRepositoryOrigin(location, "__repository__").get_job_origin("migration")


def run_here(runtime: Runtime, spec: Spec, progress: Progress) -> Outcome:
    """Run or resume the migration as a run of the Dagster job, in this process and thread."""
    os.environ.update(runtime.dagster_environment())
    session = Session(runtime, spec, progress)
    job = build_defs({"session": session_resource(lambda: session)}).get_job_def("migration")
    with uncollected():  # it imports the storage
        opened = dg.DagsterInstance.get()
    with opened as instance:
        keep_connections(instance)
        # This run goes on where they stopped, so nobody else has to.
        lease = runtime.settings.lease_seconds
        end_dead_runs(runtime.control, instance, spec.key, lease_seconds=lease, retry=False)
        instance.add_dynamic_partitions(str(MIGRATIONS.name), [spec.key])
        # Its terminal owns the run: the daemon of a `jivs up` next to it must not repeat it.
        tags = {**run_tags(spec.key), PARTITION: spec.key, **no_retries()}
        run = instance.create_run_for_job(
            job,
            run_id=str(uuid.uuid4()),
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            remote_job_origin=_origin(),
        )
        result = execute_run(InMemoryJob(job), run, instance)
    migration = session.of(spec.key, run.run_id)
    error = migration.error
    if error is None and not result.success:
        error = TerminalError(
            "The run failed outside of the migration",
            hint=f"See the log of run {run.run_id} in the Dagster UI",
        )
    return Outcome(migration.document() if runtime.control.find(spec.key) else None, error)
