"""The time of sources, given out once to all processes as long as Redis answers.

What belongs here: reservations in Redis, and doing without it. What does not: the arithmetic (`core/pace.py`, which the
script below repeats) and waiting (`engine/pace.py`).

Redis may lose its data or be gone: each process then keeps the limit by itself, and says so once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis

from jivs_pipeline.core.pace import BURST_US, LONGEST_DEBT_US, reserve
from jivs_pipeline.infra.redis_client import Silence, redis_client

__all__ = ["Rates"]

_LOG = logging.getLogger("jivs_pipeline")
_ANSWER_SECONDS = 0.5
"""How long Redis is left alone after it did not answer."""

# Per key: when it is free. ARGV: burst, longest debt, keep, now or '' for the server's own clock; then per key the cost,
# and what the client was told last, which stands in for data that Redis has lost. Returns now, then per key when it is
# free. Numbers stay below 2^53 until the year 2255.
_RESERVE = """
local burst, longest, keep, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local answer = {string.format('%.0f', now)}
for i, key in ipairs(KEYS) do
    local cost, known = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
    local free_at = tonumber(redis.call('GET', key)) or math.max(now, known or now)
    free_at = math.min(math.max(free_at, now - burst), now + longest) + cost
    redis.call('SET', key, string.format('%.0f', free_at), 'PX', math.ceil((free_at - now + keep) / 1000))
    answer[i + 1] = string.format('%.0f', free_at)
end
return answer
"""
_KEEP_US = 10_000_000
"""How long a time that has passed is remembered; after the burst it says no more than that there is none."""


class Rates:
    """Reservations on sources. Thread-safe.

    Args:
        url: of Redis or Valkey.
        clock: of Redis in microseconds, for tests; its own otherwise.
    """

    def __init__(
        self, url: str, *, answer_seconds: float = _ANSWER_SECONDS, clock: Callable[[], int] | None = None
    ) -> None:
        self._redis = redis_client(url, answer_seconds=answer_seconds)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}
        self._local: dict[str, int] = {}
        self._silence = Silence("this process keeps the limits of its sources alone")

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def reserve(self, endpoint: str, seconds: Mapping[str, float]) -> float:
        """Take time of an endpoint.

        Args:
            endpoint: see `breakers.endpoint_name`.
            seconds: what is taken of each kind of its time (`rows`, `bytes`), which go by side by side.

        Returns:
            How many seconds to wait from now on.
        """
        costs = {f"jivs:rate:{kind}:{endpoint}": max(0, round(s * 1e6)) for kind, s in seconds.items()}
        if not costs:
            return 0.0
        if not self._silence.lasts:
            try:
                return self._shared(costs)
            except redis.RedisError as error:
                self._silence.begin(error)
        return self._alone(costs)

    def _shared(self, costs: Mapping[str, int]) -> float:
        with self._lock:
            known = dict(self._known)
        given: list[Any] = [BURST_US, LONGEST_DEBT_US, _KEEP_US, self._clock() if self._clock else ""]
        for key, cost in costs.items():
            given += [cost, known.get(key, "")]
        answer: Any = self._redis.eval(_RESERVE, len(costs), *costs, *map(str, given))
        now, *free = (int(moment) for moment in answer)
        with self._lock:
            self._known.update(zip(costs, free, strict=True))
        return max(0, max(free) - now) / 1e6

    def _alone(self, costs: Mapping[str, int]) -> float:
        now = time.monotonic_ns() // 1000
        with self._lock:
            for key, cost in costs.items():
                self._local[key] = reserve(self._local.get(key), now, cost)
            return max(0, max(self._local[key] for key in costs) - now) / 1e6
