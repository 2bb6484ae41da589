"""Resources: turn configuration into objects and stop. What does not belong here: work."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.spec import Spec, parse_spec
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
    """

    def __init__(
        self, runtime: Runtime | None = None, spec: Spec | None = None, progress: Progress | None = None
    ) -> None:
        self._runtime = runtime
        self._own: Runtime | None = None
        self._spec = spec
        self._progress = progress
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
            self.migration = self.runtime.migration(spec, run_id, self._progress)
        return self.migration

    def close(self) -> None:
        """Release what the ops opened; the runtime too, where it was opened here."""
        if self.migration is not None:
            self.migration.close()
        if self._own is not None:
            self._own.close()

    def _stored(self, key: str) -> Spec:
        return parse_spec(self.runtime.control.migration(key)["spec"])


def session_resource(make: Callable[[], Session] = Session) -> dg.ResourceDefinition:
    """A resource that lives as long as a run. Not a `ConfigurableResource`: it has no configuration, and
    Dagster would copy the object that `jivs run` hands over.
    """

    @dg.resource
    def session(_: dg.InitResourceContext) -> Iterator[Session]:
        opened = make()
        try:
            yield opened
        finally:
            opened.close()

    return session
