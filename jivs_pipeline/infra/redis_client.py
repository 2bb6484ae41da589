"""Clients of Redis or Valkey, all made alike.

What belongs here: how long they wait, how often they ask, and what they do when there is no answer. What does not: what
they ask for.
"""

from __future__ import annotations

import logging
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["Silence", "redis_client"]

_LOG = logging.getLogger(__name__)


def redis_client(url: str, *, answer_seconds: float, again: int = 1) -> redis.Redis:
    """A client that connects when it is first used, and answers with text.

    Args:
        url: of the server.
        answer_seconds: longest wait for a connection, and for each answer; `redis.RedisError` after it.
        again: so often is a call repeated at once on a new connection, as a server that was restarted needs it.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
        retry=Retry(NoBackoff(), again),
        decode_responses=True,
    )


class Silence:
    """A server that has not answered: it is left alone for a while, and spoken of once.

    Args:
        consequence: what goes on without it, for a person; a clause.
        seconds: how long it is left alone.
    """

    def __init__(self, consequence: str, seconds: float = 5.0) -> None:
        self._consequence = consequence
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self._told = False

    @property
    def lasts(self) -> bool:
        """Whether it should not be asked yet."""
        return time.monotonic() < self._until

    def begin(self, error: redis.RedisError) -> None:
        """It did not answer just now."""
        with self._lock:
            self._until = time.monotonic() + self._seconds
            told, self._told = self._told, True
        if not told:
            name = type(error).__name__
            _LOG.warning("Redis does not answer (%s); %s. Check JIVS_REDIS_URL", name, self._consequence)
