"""The Redis Stream `jivs:events`: appends events so that it never has one before an earlier one of its migration.

What belongs here: the stream and the hash of what it has. What does not: which events are due (`outbox.py`).

The hash beside the stream holds, per migration, the number of the last event in it, and changes in the same script:
only the number that follows is appended. So relays need no lock, a late one repeats and reorders nothing, and
whatever Redis loses (a flush, the last second of its append-only file, a fail-over) it loses from both, and then asks
for what follows the rest. Rejected: WAITAOF, which waits for a disk at every event and helps against neither a flush
nor another server.
"""

from __future__ import annotations

import uuid
from typing import Any

import redis

from jivs_pipeline.core.errors import TransientError
from jivs_pipeline.core.events import KEEP_DAYS, Appended, Pending, StreamState
from jivs_pipeline.infra.redis_client import redis_client

__all__ = ["STREAM", "EventStream"]

STREAM = "jivs:events"
_ANSWER_SECONDS = 2.0
_GENERATION = "#generation"  # no migration key has a #

# ARGV[1] is the mark's field in all scripts. Who deletes or evicts the stream alone must not leave the belief that its
# events are there, even if a consumer has made it anew, empty, meanwhile.
_FORGET = """
if redis.call('hlen', KEYS[2]) > redis.call('hexists', KEYS[2], ARGV[1]) then
    local reached = '0-0'
    if redis.call('exists', KEYS[1]) == 1 then
        local about = redis.call('xinfo', 'stream', KEYS[1])
        for i = 1, #about, 2 do
            if about[i] == 'last-generated-id' then reached = about[i + 1] end
        end
    end
    if reached == '0-0' then redis.call('del', KEYS[2]) end
end
"""
# ARGV: mark's field, days to keep, migration, base, then per event: seq, id, type, at, data.
_APPEND = (
    _FORGET
    + """
local last = tonumber(redis.call('hget', KEYS[2], ARGV[3]) or '0')
local base = tonumber(ARGV[4])
if last < base then last = base end
for i = 5, #ARGV, 5 do
    local seq = tonumber(ARGV[i])
    if seq > last + 1 then break end
    if seq == last + 1 then
        redis.call('xadd', KEYS[1], '*', 'id', ARGV[i + 1], 'key', ARGV[3], 'seq', ARGV[i], 'type',
                   ARGV[i + 2], 'at', ARGV[i + 3], 'data', ARGV[i + 4])
        redis.call('hset', KEYS[2], ARGV[3], ARGV[i])
        last = seq
    end
end
local now = redis.call('time')
redis.call('xtrim', KEYS[1], 'MINID', '~', string.format('%.0f', (now[1] - ARGV[2] * 86400) * 1000))
return {last, redis.call('hget', KEYS[2], ARGV[1]) or ''}
"""
)
# ARGV: mark's field, server and mark last seen, new mark. The mark is set before the numbers are read: what is lost
# after that takes the mark along.
_LOOK = (
    _FORGET
    + """
local server = string.match(redis.call('info', 'server'), 'run_id:(%w+)') or ''
if server == ARGV[2] and redis.call('hget', KEYS[2], ARGV[1]) == ARGV[3] then return {} end
redis.call('hset', KEYS[2], ARGV[1], ARGV[4])
return {server, redis.call('hgetall', KEYS[2])}
"""
)


class EventStream:
    """The stream of one control database's events. Thread-safe.

    Args:
        url: of Redis or Valkey.
        control_id: of the control database: two of them may share a stream.
        keep_days: older entries are trimmed.
    """

    def __init__(self, url: str, control_id: str, *, keep_days: int = KEEP_DAYS) -> None:
        self._redis = redis_client(url, answer_seconds=_ANSWER_SECONDS)
        # The braces put both keys on one node of a cluster.
        self._names = (STREAM, f"{{{STREAM}}}:sent:{control_id}")
        self._days = keep_days

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def append(self, pending: Pending) -> Appended:
        """Append what follows the last event that the stream has.

        Returns:
            The last number it has now; less than the first that was given when something before it is missing.

        Raises:
            TransientError: there was no answer, and so no acknowledgement.
        """
        key = pending.events[0].key
        arguments = [_GENERATION, str(self._days), key, str(pending.base)]
        for event in pending.events:
            arguments += [str(event.seq), event.id, event.type, event.at, event.data]
        last, generation = self._run(_APPEND, arguments)
        return Appended(int(last), generation)

    def look(self, seen: StreamState) -> tuple[StreamState, dict[str, int]] | None:
        """None when the stream is the one that was seen, with all its data; else what it is now, and what it has.

        Raises:
            TransientError: there was no answer.
        """
        mark = uuid.uuid4().hex
        found = self._run(_LOOK, [_GENERATION, seen.server, seen.generation, mark])
        if not found:
            return None
        server, pairs = found
        numbers = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return StreamState(server, mark), {k: int(n) for k, n in numbers.items() if k != _GENERATION}

    def _run(self, script: str, arguments: list[str]) -> Any:
        try:
            return self._redis.eval(script, len(self._names), *self._names, *arguments)
        except redis.RedisError as error:
            raise TransientError(
                f"The event stream does not answer ({type(error).__name__})", hint="Check JIVS_REDIS_URL"
            ) from error
