"""Leave to open connections to an endpoint, of which all migrations together have so many.

What belongs here: what those who open connections see of it, and how many a target gives. What does not: keeping count
(`infra/permits.py`), and waiting (`engine/pool.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["FREE", "Permit", "Permits", "share"]

_LEFT_TO_OTHERS = 3


class Permit(Protocol):
    """Leave for `count` connections, until it is given back."""

    @property
    def count(self) -> int: ...  # noqa: D102

    def give_back(self) -> None:
        """The connections are closed. Harmless when it is done twice."""
        ...


class Permits(Protocol):
    """Gives permits for one endpoint."""

    def take(self, wanted: int, *, least: int = 1, of: int | None = None) -> Permit:
        """Leave for `wanted` connections, or for fewer when no more are free.

        Who holds a permit and wants another gives the first back before it asks: two that wait for each other never end.

        Args:
            least: with fewer it cannot work.
            of: how many connections all may have together, where the caller is who knows.

        Raises:
            Crowded: not so many are free.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Granted:
    count: int

    def give_back(self) -> None: ...


class _Free:
    """For endpoints that nobody counts."""

    def take(self, wanted: int, *, least: int = 1, of: int | None = None) -> Permit:  # noqa: ARG002 - the port's names
        return _Granted(wanted)


FREE: Permits = _Free()


def share(usable: int) -> int:
    """Of the connections that a target's server gives to ordinary users, how many all runs may have together."""
    return max(_LEFT_TO_OTHERS, usable - max(_LEFT_TO_OTHERS, usable // 4))
