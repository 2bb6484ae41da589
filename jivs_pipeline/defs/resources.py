"""Resources: turn configuration into objects and stop. What does not belong here: work."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import dagster as dg

from jivs_pipeline.core.errors import (
    CancelledRun,
    ConflictError,
    InterruptedRun,
    JivsError,
    PausedRun,
    SpecError,
)
from jivs_pipeline.core.requests import RequestRef
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.defs.connections import keep_connections
from jivs_pipeline.defs.failures import is_terminating
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.runtime import Runtime

__all__ = ["Session", "session_resource"]


class Session:
    """The one migration of a run: opened by the first op that asks, closed with the run.

    Args:
        runtime: opened objects of this process; opened from the environment when none is given.
        spec: what to migrate; the one stored under the partition key when none is given.
        progress: counters that the process which launched the run is watching.
        terminating: whether somebody pressed Terminate.
    """

    def __init__(
        self,
        runtime: Runtime | None = None,
        spec: Spec | None = None,
        progress: Progress | None = None,
        *,
        terminating: Callable[[], bool] = lambda: False,
    ) -> None:
        self._runtime = runtime
        self._own: Runtime | None = None
        self._spec = spec
        self._progress = progress
        self.terminating = terminating
        self.introduced = False
        self.request: RequestRef | None = None
        self.migration: Migration | None = None

    @property
    def runtime(self) -> Runtime:
        """Opened objects of this process."""
        if self._runtime is None:
            self._runtime = self._own = Runtime.from_environment()
        return self._runtime

    def of(self, key: str, run_id: str, given: dict[str, Any] | None = None) -> Migration:
        """The migration of the partition `key`.

        Args:
            given: a spec from the run config, which goes before the one that is stored.
        """
        if self.migration is None:
            spec = parse_spec(given) if given else self._spec or self._stored(key)
            if spec.key != key:
                raise SpecError(
                    f"The spec's key is {spec.key!r}, and the partition is {key!r}", hint="Make them equal"
                )
            self.migration = self.runtime.migration(spec, run_id, self._progress, self.request)
        return self.migration

    def interruption(self, key: str) -> JivsError:
        """What an early end means: Terminate cancels; all else (Ctrl-C, SIGTERM, `jivs up` ending) pauses."""
        if self.terminating():
            return CancelledRun(
                f"Migration {key!r} was terminated in Dagster",
                hint=f"Take back what it loaded with: jivs rollback {key}",
            )
        return InterruptedRun("The run was interrupted", hint=f"Go on with: jivs resume {key}")

    def require_not_stopped(self, key: str) -> None:
        """An automatic retry does not go on with what somebody has stopped since, as opposed to what was interrupted.

        Raises:
            PausedRun: the migration was paused, cancelled or taken back.
        """
        row = self.runtime.control.find(key)
        stopped = {Status.PAUSED, Status.CANCELLED, Status.ROLLED_BACK}
        if row is None or (row["error"] or {}).get("code") == InterruptedRun.code:
            return
        if row["status"] in stopped:
            raise PausedRun(
                f"Migration {key!r} is {row['status']}, so it is not retried",
                hint=f"Go on with: jivs resume {key}",
            )

    def never_began(self, key: str, error: JivsError) -> None:
        """Say of a migration that is queued why its run could not even take it."""
        if isinstance(error, ConflictError | InterruptedRun | PausedRun):
            return  # somebody else has it, or the next run takes it
        after = Status.CANCELLED if isinstance(error, CancelledRun) else Status.FAILED
        # Where nothing is known of the migration, there is nothing to say.
        with suppress(JivsError):
            self.runtime.control.settle(key, Status.QUEUED, after, error.document()["error"])

    def close(self) -> None:
        """Release what the ops opened; the runtime too, where it was opened here."""
        try:
            if self.migration is not None:
                self.migration.close(self.interruption)
        finally:
            if self._own is not None:
                self._own.close()

    def _stored(self, key: str) -> Spec:
        return parse_spec(self.runtime.control.migration(key)["spec"])


def session_resource(make: Callable[..., Session] = Session) -> dg.ResourceDefinition:
    """A resource that lives as long as a run. Not a `ConfigurableResource`: it has no configuration, and
    Dagster would copy the object that `jivs run` hands over.
    """

    @dg.resource
    def session(context: dg.InitResourceContext) -> Iterator[Session]:
        opened = make()
        instance, run = context.instance, context.run
        if instance is not None and run is not None:
            keep_connections(instance)
            opened.terminating = lambda: is_terminating(instance, run.run_id)
        try:
            yield opened
        finally:
            opened.close()

    return session
