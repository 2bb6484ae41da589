"""Clients of Redis or Valkey, all made alike.

What belongs here: how long they wait and how often they ask. What does not: what they ask for.
"""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["redis_client"]


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
