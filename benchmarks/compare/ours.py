"""The commands of jivs_pipeline.

What belongs here: specs and argv. What does not: reading the document that comes out (`running.py`).
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.scenario import Candidate, Place

__all__ = ["JIVS", "jivs"]

JIVS = str(Path(sysconfig.get_path("scripts")) / "jivs")


def jivs(name: str, source: str, **spec: Any) -> Candidate:
    """`jivs run` of a spec, on the defaults where the spec says nothing."""
    return Candidate(name, _command(source, spec), ours=True)


def _command(source: str, spec: Mapping[str, Any]) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        connections = place.directory / "connections.json"
        connections.write_text(
            json.dumps({"bench-source": {"url": source}, "bench-target": {"url": place.target}})
        )
        file = place.directory / "spec.json"
        key = f"bench-{place.number}"
        file.write_text(json.dumps({"key": key, "source": "bench-source", "target": "bench-target", **spec}))
        return ["env", f"JIVS_CONNECTIONS={connections}", JIVS, "run", str(file), "--json"]

    return command
