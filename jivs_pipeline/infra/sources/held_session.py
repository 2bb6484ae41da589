"""The one session that a source keeps between its questions, with the permit for it.

What belongs here: opening it when it is needed, again when it was lost, and giving it up. What does not: opening.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from jivs_pipeline.core.permits import Permit, Permits

__all__ = ["HeldSession"]


class _Session(Protocol):
    @property
    def lost(self) -> bool: ...


_S = TypeVar("_S", bound=_Session)


class HeldSession(Generic[_S]):
    """Not for several threads at once: whoever asks has the source's lock.

    Args:
        permits: leave for a session.
        open_: opens one.
        part: closes one, and waits until its place is free.
    """

    def __init__(self, permits: Permits, open_: Callable[[], _S], part: Callable[[_S], None]) -> None:
        self._permits = permits
        self._open = open_
        self._part = part
        self._permit: Permit | None = None
        self._session: _S | None = None

    def get(self) -> _S:
        """The session.

        Raises:
            Crowded: as many are open as may be.
        """
        if self._session is not None and self._session.lost:
            self.release()
        if self._session is None:
            self._permit = self._permits.take(1)
            try:
                self._session = self._open()
            except BaseException:
                self.release()
                raise
        return self._session

    def release(self) -> None:
        """Close the session and give its permit back."""
        if self._session is not None:
            self._part(self._session)
            self._session = None
        if self._permit is not None:
            self._permit.give_back()
            self._permit = None
