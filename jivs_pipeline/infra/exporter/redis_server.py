"""What Redis tells: that it is there, what it does, and the circuit breakers that are kept in it.

What belongs here: the reading. What does not: what breakers do (`infra/breakers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from jivs_pipeline.core.breaker import BreakerState, Policy
from jivs_pipeline.infra.breaker_store import RedisStore
from jivs_pipeline.infra.redis_client import redis_client

__all__ = ["RedisLook", "RedisReading"]


@dataclass(frozen=True, slots=True)
class RedisReading:
    """One moment of Redis. `breakers`: state by endpoint."""

    breakers: dict[str, BreakerState]
    commands: int
    errors: int
    rejected: int
    memory_bytes: int
    clients: int


class RedisLook:
    """Looks at one Redis or Valkey.

    Args:
        url: of it.
        timeout_seconds: of each answer.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._clients: tuple[redis.Redis, RedisStore] | None = None

    def __call__(self) -> RedisReading:
        """One look.

        Raises:
            redis.RedisError: it does not answer.
        """
        if self._clients is None:
            client = redis_client(self._url, answer_seconds=self._timeout, again=0)
            self._clients = client, RedisStore(self._url, Policy(), answer_seconds=self._timeout)
        client, store = self._clients
        info: Any = client.info()
        return RedisReading(
            breakers={name: breaker.state for name, breaker in store.breakers().items()},
            commands=info.get("total_commands_processed", 0),
            errors=info.get("total_error_replies", 0),
            rejected=info.get("rejected_connections", 0),
            memory_bytes=info.get("used_memory", 0),
            clients=info.get("connected_clients", 0),
        )

    def close(self) -> None:
        """Close the connections."""
        clients, self._clients = self._clients, None
        for client in clients or ():
            client.close()
