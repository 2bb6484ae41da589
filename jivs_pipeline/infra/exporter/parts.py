"""Parts of the system that are looked at together, each within its time and each allowed to fail alone.

What belongs here: running the looks and bounding them. What does not: what is looked at.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from jivs_pipeline.core.errors import JivsError

__all__ = ["Look", "PartDown", "Parts"]

_LOG = logging.getLogger("jivs_pipeline")


class PartDown(JivsError):
    """A part does not work; the message is for everybody who may see the health page."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a part has found.

    `value` is None where it failed; `problem` then says why, in words that hold neither addresses nor passwords.
    """

    value: Any
    problem: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the part works."""
        return not self.problem


class Parts:
    """Looks at all parts at once, each in a thread of its own.

    A part that does not come back in time is down, and is not asked again before it has: no pile of threads grows
    in front of something that hangs.

    Args:
        looks: by the part's name.
        limit_seconds: longest time for all together.
    """

    def __init__(self, looks: Mapping[str, Callable[[], Any]], *, limit_seconds: float) -> None:
        self._looks = dict(looks)
        self._limit = limit_seconds
        self._running: dict[str, Future[Look]] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, Look]:
        """One look at each part, none older than this call unless the part hangs."""
        with self._lock:
            for name, work in self._looks.items():
                if name not in self._running:
                    self._running[name] = _start(name, work)
            done, _ = wait(self._running.values(), self._limit)
            found = {
                name: future.result()
                if future in done
                else Look(None, f"no answer within {self._limit:g} s", self._limit)
                for name, future in self._running.items()
            }
            self._running = {name: f for name, f in self._running.items() if f not in done}
            return found


def _start(name: str, work: Callable[[], Any]) -> Future[Look]:
    future: Future[Look] = Future()

    def run() -> None:
        began = time.monotonic()
        value, problem = None, ""
        try:
            value = work()
        except PartDown as error:
            problem = error.message
        except Exception as error:  # noqa: BLE001 - one part's trouble, whatever it is, is not the others'
            # Drivers quote addresses and users; those who may read the log may read them.
            _LOG.debug("The exporter cannot look at %s: %s", name, error)
            problem = "does not answer"
        future.set_result(Look(value, problem, time.monotonic() - began))

    # Daemons: a part that hangs must not keep the process from ending.
    threading.Thread(target=run, name=f"jivs-look-{name}", daemon=True).start()
    return future
