"""Answers to submissions of the last day, in Redis: who repeats a request does not have to take locks for it.

What belongs here: keeping and finding an answer. What does not: whether it still holds (`requests.py`).

Losing it costs nothing but time: the idempotency key itself is in PostgreSQL.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import redis

from jivs_pipeline.infra.redis_client import redis_client

__all__ = ["Answer", "RequestCache"]

_ANSWER_SECONDS = 1.0
_KEEP_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Answer:
    """Which request an idempotency key stands for, and the hash of its spec."""

    body_hash: str
    request_id: str


class RequestCache:
    """Answers by idempotency key. Thread-safe; Redis is asked once and may be away.

    Args:
        url: of Redis or Valkey.
    """

    def __init__(self, url: str) -> None:
        self._redis = redis_client(url, answer_seconds=_ANSWER_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def find(self, idempotency_key: str) -> Answer | None:
        """The answer of the last day, or None."""
        with suppress(redis.RedisError, ValueError, TypeError):
            found: Any = self._redis.get(_name(idempotency_key))
            return Answer(**json.loads(found)) if found else None
        return None

    def keep(self, idempotency_key: str, answer: Answer) -> None:
        """Remember an answer for a day."""
        with suppress(redis.RedisError):
            self._redis.set(_name(idempotency_key), json.dumps(asdict(answer)), ex=_KEEP_SECONDS)


def _name(idempotency_key: str) -> str:
    # A client's text may be long, or hold something that is not for everybody who can read Redis.
    return f"migration:idempotency:{sha256(idempotency_key.encode()).hexdigest()}"
