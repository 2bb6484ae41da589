"""When a server process of a run is overdue. A policy: it returns a reason, and the watchdog acts.

What belongs here: the rules. What does not: looking at the server and ending a process (`infra/watchdog.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Backend", "Overdue", "WatchLimits"]


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Seconds: of silence of a client inside of its transaction, and of one chunk's load."""

    io: float
    load: float


@dataclass(frozen=True, slots=True)
class Backend:
    """One server process at one moment.

    Attributes:
        pid, start: who it is.
        copying: whether it is inside of a COPY.
        waiting: whether it waits for its client to send something, inside of a transaction.
        news: changes whenever the client has sent something.
        transaction_seconds: age of its transaction by the server's clock.
    """

    pid: int
    start: str
    copying: bool
    waiting: bool
    news: str
    transaction_seconds: float


@dataclass(slots=True)
class Overdue:
    """Remembers since when each process has heard nothing from its client.

    A single look cannot tell a client that is silent from one that is about to speak.
    """

    limits: WatchLimits
    _since: dict[tuple[int, str], tuple[str, float]] = field(
        default_factory=dict[tuple[int, str], tuple[str, float]]
    )

    def reason(self, backend: Backend, now: float) -> str | None:
        """Why the process has to end, or None. `now` is in seconds of a clock that only rises."""
        who = (backend.pid, backend.start)
        if not backend.waiting:
            self._since.pop(who, None)
        else:
            news, since = self._since.get(who, (backend.news, now))
            if news != backend.news:
                since = now
            self._since[who] = (backend.news, since)
            if now - since >= self.limits.io:
                return f"its client has sent nothing for {self.limits.io:g} s"
        if backend.copying and backend.transaction_seconds > self.limits.load:
            return f"its chunk has taken more than {self.limits.load:g} s"
        return None
