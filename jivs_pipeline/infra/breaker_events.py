"""Transitions of breakers in the control database.

What belongs here: writing them down, exactly once each. What does not: when (`breakers.py`) and the breakers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.breaker_store import Waiting
from jivs_pipeline.infra.control_claims import SQL
from jivs_pipeline.infra.postgresql import connect, mapped

__all__ = ["BreakerEvents"]


class BreakerEvents:
    """Writes to `jivs.circuit_breaker_events`.

    A session of its own for each time: there are few, and the pool of the verbs waits for a lost server.

    Args:
        url: gives the control database's URL when it is needed.
    """

    def __init__(self, url: Callable[[], str], *, io_timeout_seconds: float) -> None:
        self._url = url
        self._io_timeout = io_timeout_seconds

    def write(self, waiting: Sequence[Waiting]) -> None:
        """Write them down; harmless when it is done twice.

        Raises:
            JivsError: the control database does not take them now.
        """
        session = connect(
            parse_url(self._url(), "control"),
            application_name="jivs breakers",
            io_timeout_seconds=self._io_timeout,
            reconnect=True,
        )
        try:
            with mapped("the control database"), session.transaction():
                session.execute(SQL["lock_breaker_events"])
                for one in waiting:
                    change = one.transition
                    session.execute(
                        SQL["add_breaker_event"],
                        {
                            "name": one.name,
                            "before": change.before,
                            "after": change.after,
                            "reason": change.reason,
                            "at": change.at,
                        },
                    )
        finally:
            session.drop()
