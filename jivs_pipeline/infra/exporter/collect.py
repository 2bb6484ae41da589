"""The exporter as one object: looks at everything when it is asked, and tells it as metrics or as health.

What belongs here: which parts there are and what each may take. What does not: how a part is read, the names of metrics
(`families.py`) and what is healthy (`health.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.core import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from jivs_pipeline.infra.exporter.control import ControlReading, read_control
from jivs_pipeline.infra.exporter.dagster_storage import read_dagster
from jivs_pipeline.infra.exporter.families import families
from jivs_pipeline.infra.exporter.health import Health, judge
from jivs_pipeline.infra.exporter.parts import Look, Parts
from jivs_pipeline.infra.exporter.redis_server import RedisLook
from jivs_pipeline.infra.exporter.sessions import LookingSession, Row
from jivs_pipeline.infra.exporter.surroundings import TargetServers, look_at_code_location, look_at_disk

__all__ = ["Exporter", "Places"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are. URLs go nowhere but to their driver.

    Args:
        target_url: of a connection; raises JivsError for one that is not known.
        ui_port: of the web server on this machine.
        staging: directory of the staging area.
    """

    control_url: str = field(repr=False)
    dagster_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    target_url: Callable[[str], str]
    ui_port: int
    staging: Path


class Exporter:
    """Looks at everything. Thread-safe: those who ask at once wait for each other.

    Args:
        timeout_seconds: of each answer of a server; all together take no longer than twice this.
    """

    def __init__(self, places: Places, *, timeout_seconds: float = 2.0) -> None:
        self._control = LookingSession(lambda: places.control_url, "control", timeout_seconds=timeout_seconds)
        self._dagster = LookingSession(lambda: places.dagster_url, "dagster", timeout_seconds=timeout_seconds)
        self._redis = RedisLook(places.redis_url, timeout_seconds=timeout_seconds)
        self._targets = TargetServers(places.target_url, timeout_seconds=timeout_seconds)
        self._busy: tuple[str, ...] = ()
        self._parts = Parts(
            {
                "control_database": self._read_control,
                "dagster_storage": partial(read_dagster, self._dagster),
                "redis": self._redis,
                "code_location": partial(
                    look_at_code_location, places.ui_port, timeout_seconds=timeout_seconds
                ),
                "disk": partial(look_at_disk, places.staging),
                "targets": self._read_targets,
            },
            limit_seconds=2 * timeout_seconds,
        )
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self.look))

    def look(self) -> dict[str, Look]:
        """One look at each part."""
        return self._parts.look()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and their content type; `accept` is the header of who asks."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def health(self) -> Health:
        """Whether work can be taken, and what is in the way."""
        return judge(self.look())

    def close(self) -> None:
        """Close the connections."""
        self._control.close()
        self._dagster.close()
        self._redis.close()
        self._targets.close()

    def _read_control(self) -> ControlReading:
        reading = read_control(self._control)
        self._busy = tuple(m["target"] for m in reading.active)
        return reading

    def _read_targets(self) -> dict[str, Row]:
        # Those of the look before: all parts are read at once, and which targets are loaded into rarely changes.
        return self._targets.look(self._busy)


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, look: Callable[[], dict[str, Look]]) -> None:
        self._look = look

    def collect(self) -> Any:
        return families(self._look())
