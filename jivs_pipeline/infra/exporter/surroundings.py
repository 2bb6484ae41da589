"""What else has to work: the web server with the code location, the disk of the staging area, servers of targets.

What belongs here: one look at each. What does not: the databases of our own.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.infra.exporter.control import connections_of
from jivs_pipeline.infra.exporter.parts import PartDown
from jivs_pipeline.infra.exporter.sessions import LookingSession, Row

__all__ = ["Disk", "TargetServers", "look_at_code_location", "look_at_disk"]

_QUIET_SECONDS = 30.0
_MOST_TARGETS = 20
_QUERY = json.dumps(
    {
        "query": "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"
    }
).encode()


def look_at_code_location(port: int, *, timeout_seconds: float) -> None:
    """Ask the web server whether the code location is loaded.

    Raises:
        PartDown: it is not.
        OSError, ValueError: the web server does not answer.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", data=_QUERY, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310 - our own address
        found: Any = json.load(answer)
    entries = found["data"]["workspaceOrError"].get("locationEntries") or []
    loaded = {e["name"]: (e["locationOrLoadError"] or {}).get("__typename") for e in entries}
    if loaded.get("jivs_pipeline") != "RepositoryLocation":
        raise PartDown("the code location is not loaded; see code-server.log in DAGSTER_HOME")


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system that the staging area is on."""

    free: int
    size: int


def look_at_disk(directory: Path) -> Disk:
    """The disk of a directory that may not be made yet."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    usage = shutil.disk_usage(there)
    return Disk(usage.free, usage.total)


class TargetServers:
    """Sessions of the servers that migrations are loading into now, as far as we have their connections.

    Nothing else is asked of a target, because its ledger is in the control database as well. A server that does not
    answer is left alone for a while: the run has a circuit breaker for that.

    Args:
        url: of a connection; raises JivsError for one that is not known here, as one given by URL.
    """

    def __init__(self, url: Callable[[str], str], *, timeout_seconds: float) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._sessions: dict[str, LookingSession] = {}
        self._quiet_until: dict[str, float] = {}

    def look(self, names: Iterable[str]) -> dict[str, Row]:
        """Connections by the target's name; those of targets that are no longer loaded into are closed."""
        wanted = sorted(set(names))[:_MOST_TARGETS]
        for name in set(self._sessions) - set(wanted):
            self._sessions.pop(name).close()
        found: dict[str, Row] = {}
        until = time.monotonic() + self._timeout
        for name in wanted:
            if self._quiet_until.get(name, 0.0) <= time.monotonic() < until:
                try:
                    found[name] = connections_of(self._session(name))
                except (JivsError, psycopg.Error):
                    self._quiet_until[name] = time.monotonic() + _QUIET_SECONDS
        return found

    def close(self) -> None:
        """Close all sessions."""
        self.look(())

    def _session(self, name: str) -> LookingSession:
        if name not in self._sessions:
            self._sessions[name] = LookingSession(
                lambda: self._url(name), name, timeout_seconds=self._timeout
            )
        return self._sessions[name]
