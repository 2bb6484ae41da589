"""Resources: turn configuration into objects and stop. What does not belong here: work."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.runtime import Runtime

__all__ = ["MigrationResource", "local_resource"]


class MigrationResource(dg.ConfigurableResource):
    """The migration of this run, begun by the first op that asks and closed with the run."""

    _runtime: Runtime | None = PrivateAttr(default=None)
    _spec: Spec | None = PrivateAttr(default=None)
    _progress: Progress | None = PrivateAttr(default=None)
    _migration: Migration | None = PrivateAttr(default=None)
    _own_runtime: bool = PrivateAttr(default=False)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["MigrationResource"]:
        """Close what the ops opened, whatever happened to them."""
        try:
            yield self
        finally:
            if self._migration is not None:
                self._migration.close()
            if self._own_runtime and self._runtime is not None:
                self._runtime.close()

    @property
    def runtime(self) -> Runtime:
        """Opened objects of this process."""
        if self._runtime is None:
            self._runtime, self._own_runtime = Runtime.from_environment(), True
        return self._runtime

    def of(self, key: str, run_id: str, given: dict[str, Any] | None = None) -> Migration:
        """The migration of the partition, begun.

        Args:
            given: a spec from the run config, which goes before the one that is stored.
        """
        if self._migration is None:
            spec = parse_spec(given) if given else self._spec or self._stored(key)
            if spec.key != key:
                raise SpecError(f"The spec's key is {spec.key!r}, and the partition is {key!r}", hint="Make them equal")
            self._migration = self.runtime.migration(spec, run_id, self._progress)
        return self._migration

    def _stored(self, key: str) -> Spec:
        return parse_spec(self.runtime.control.migration(key)["spec"])


def local_resource(runtime: Runtime, spec: Spec, progress: Progress) -> MigrationResource:
    """The resource of a run in the process that launched it (`jivs run`)."""
    resource = MigrationResource()
    resource._runtime, resource._spec, resource._progress = runtime, spec, progress  # noqa: SLF001 - our own class
    return resource
