"""The Redis lease of a migration: what makes a second starter fail fast, and no more than that.

What belongs here: taking, renewing and releasing `migration:lock:<key>`. What does not: who may run, which the
control database decides (`control_claims.py`), and what may be written, which the target's epoch decides.

Redis may lose its data or be gone: runs go on, and it is said once. The value names the holder's process, so
that a lease whose holder is proved dead need not run out.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import redis

from jivs_pipeline.core.claims import Claim, Owner
from jivs_pipeline.infra.owner import is_dead
from jivs_pipeline.infra.redis_client import Silence, redis_client

__all__ = ["LeaseHolder", "Leases"]

_LOG = logging.getLogger("jivs_pipeline")
_ANSWER_SECONDS = 2.0
"""How long Redis is left alone after it did not answer."""

# Only who holds a lease may prolong or end it; compare and change are one step in there.
_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_REPLACE = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds a lease, as its value says."""

    owner: str
    run_id: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    since: str

    @property
    def dead(self) -> bool:
        """Whether the process is proved dead."""
        return is_dead(self.boot_id, self.pid, self.process_start)


class Leases:
    """Leases of the migrations that this process runs. Thread-safe.

    Args:
        url: of Redis or Valkey.
        seconds: of a lease; it is renewed every third of it.
    """

    def __init__(self, url: str, seconds: float) -> None:
        self._redis = redis_client(url, answer_seconds=_ANSWER_SECONDS)
        self._milliseconds = max(1, int(seconds * 1000))
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._renewed: dict[str, float] = {}
        self._silence = Silence("the run goes on, guarded by its epoch in the target")

    def close(self) -> None:
        """Close the connections; leases that are held run out by themselves."""
        self._redis.close()

    def take(self, key: str, owner: Owner, run_id: str) -> LeaseHolder | None:
        """Take the lease of a migration.

        Returns:
            None when it is ours, or when Redis does not answer; else who holds it.
        """
        name, value = _name(key), self._value(owner, run_id)
        try:
            while not self._redis.set(name, value, nx=True, px=self._milliseconds):
                found: Any = self._redis.get(name)
                if found is None:
                    continue  # it ran out between the two
                holder = _holder(found)
                if holder is not None and not holder.dead:
                    return holder
                # Nobody can read it or its process is proved dead: whoever replaces just this value has it.
                if self._redis.eval(_REPLACE, 1, name, found, value, str(self._milliseconds)):
                    break
        except redis.RedisError as error:
            self._silence.begin(error)
            return None
        with self._lock:
            self._values[key], self._renewed[key] = value, time.monotonic()
        return None

    def renew(self, claim: Claim) -> None:
        """Prolong the lease where a third of it has passed; take it again where Redis has lost it."""
        now = time.monotonic()
        with self._lock:
            value = self._values.get(claim.key) or self._value(claim.owner, claim.run_id)
            due = now >= self._renewed.get(claim.key, 0.0) + self._milliseconds / 3000
        if not due or self._silence.lasts:
            return
        try:
            ours = self._redis.eval(_RENEW, 1, _name(claim.key), value, str(self._milliseconds))
        except redis.RedisError as error:
            self._silence.begin(error)
            return
        if ours:
            with self._lock:
                self._values[claim.key], self._renewed[claim.key] = value, now

    def release(self, key: str) -> None:
        """Give the lease back; another's is left alone."""
        with self._lock:
            value = self._values.pop(key, None)
            self._renewed.pop(key, None)
        if value is None or self._silence.lasts:
            return
        try:
            self._redis.eval(_RELEASE, 1, _name(key), value)
        except redis.RedisError as error:
            self._silence.begin(error)

    def _value(self, owner: Owner, run_id: str) -> str:
        holder = LeaseHolder(
            owner.owner, run_id, owner.host, owner.boot_id, owner.pid, owner.process_start,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        return json.dumps(asdict(holder), sort_keys=True)


def _name(key: str) -> str:
    return f"migration:lock:{key}"


def _holder(value: str) -> LeaseHolder | None:
    try:
        found: Mapping[str, Any] = json.loads(value)
        return LeaseHolder(**found)
    except (ValueError, TypeError):
        return None
