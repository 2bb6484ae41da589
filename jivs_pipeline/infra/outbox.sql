-- Queries of infra/outbox.py on schema jivs. Parameters are %(name)s.

-- name: control_id
SELECT control_id::text FROM jivs.control_identity;

-- name: waiting_keys
-- Migrations with events that the stream has not acknowledged, the longest waiting first.
SELECT key FROM jivs.migration_events WHERE delivered_at IS NULL GROUP BY key ORDER BY min(at), key LIMIT 1000;

-- name: pending
-- From the first event that was not acknowledged, in order. `base`: what precedes the oldest event that may still be
-- sent; a stream that knows nothing of the migration begins behind it.
WITH bounds AS (
    SELECT (SELECT seq FROM jivs.migration_events
             WHERE key = %(key)s AND delivered_at IS NULL ORDER BY seq LIMIT 1) AS first,
           (SELECT seq - 1 FROM jivs.migration_events
             WHERE key = %(key)s AND (delivered_at IS NULL OR at >= now() - make_interval(days => %(days)s))
             ORDER BY seq LIMIT 1) AS base
)
SELECT e.key, e.seq, e.type, e.data, e.at, b.base
  FROM jivs.migration_events e, bounds b
 WHERE e.key = %(key)s AND e.seq >= b.first ORDER BY e.seq LIMIT %(limit)s;

-- name: stream_shared
SELECT server, generation FROM jivs.event_receivers WHERE name = 'stream' FOR SHARE;

-- name: stream_locked
SELECT server, generation FROM jivs.event_receivers WHERE name = 'stream' FOR UPDATE;

-- name: delivered
UPDATE jivs.migration_events SET delivered_at = clock_timestamp()
 WHERE key = %(key)s AND seq <= %(upto)s AND delivered_at IS NULL;

-- name: lost
-- The stream has this migration's events up to `after` only.
UPDATE jivs.migration_events SET delivered_at = NULL
 WHERE key = %(key)s AND seq > %(after)s AND delivered_at IS NOT NULL
   AND at >= now() - make_interval(days => %(days)s);

-- name: lost_anywhere
-- `kept`: migration -> the last number that the stream still has.
UPDATE jivs.migration_events e SET delivered_at = NULL
 WHERE e.delivered_at IS NOT NULL AND e.at >= now() - make_interval(days => %(days)s)
   AND e.seq > coalesce((%(kept)s::jsonb ->> e.key)::bigint, 0);

-- name: stream_seen
UPDATE jivs.event_receivers SET server = %(server)s, generation = %(generation)s WHERE name = 'stream';

-- name: failed
-- The next event of the migration could not be delivered.
INSERT INTO jivs.migration_event_failures (key, seq, attempt, error, receiver)
SELECT e.key, e.seq, 1 + (SELECT count(*) FROM jivs.migration_event_failures f
                           WHERE f.key = e.key AND f.seq = e.seq AND f.receiver = %(receiver)s), %(error)s, %(receiver)s
  FROM jivs.migration_events e
 WHERE e.key = %(key)s AND CASE %(receiver)s WHEN 'stream' THEN e.delivered_at ELSE e.webhook_at END IS NULL
   AND e.at >= (SELECT since FROM jivs.event_receivers WHERE name = %(receiver)s)
 ORDER BY e.seq LIMIT 1;

-- name: backlog
-- How many events wait for the stream, and since when.
SELECT count(*) AS undelivered,
       coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS oldest_seconds
  FROM jivs.migration_events WHERE delivered_at IS NULL;

-- name: webhook_begins
-- The webhook gets what happens from now on, and not the history.
INSERT INTO jivs.event_receivers (name) VALUES ('webhook') ON CONFLICT (name) DO NOTHING;

-- name: webhook_keys
SELECT e.key FROM jivs.migration_events e
 WHERE e.webhook_at IS NULL AND e.at >= (SELECT since FROM jivs.event_receivers WHERE name = 'webhook')
   AND NOT EXISTS (SELECT FROM jivs.webhook_claims c WHERE c.key = e.key AND c.until > clock_timestamp())
 GROUP BY e.key ORDER BY min(e.at), e.key LIMIT 1000;

-- name: claim_webhook
-- The right to post this migration's events for some seconds; renewed before each.
INSERT INTO jivs.webhook_claims (key, holder, until)
VALUES (%(key)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until
 WHERE webhook_claims.until < clock_timestamp() OR webhook_claims.holder = excluded.holder
RETURNING key;

-- name: next_for_webhook
SELECT key, seq, type, data, at FROM jivs.migration_events
 WHERE key = %(key)s AND webhook_at IS NULL AND at >= (SELECT since FROM jivs.event_receivers WHERE name = 'webhook')
 ORDER BY seq LIMIT 1;

-- name: posted
WITH fine AS (UPDATE jivs.webhook_claims SET failures = 0 WHERE key = %(key)s)
UPDATE jivs.migration_events SET webhook_at = clock_timestamp() WHERE key = %(key)s AND seq = %(seq)s;

-- name: release_webhook
UPDATE jivs.webhook_claims SET holder = NULL, until = clock_timestamp() WHERE key = %(key)s AND holder = %(holder)s;

-- name: postpone_webhook
-- Left alone for longer after each failure, at most ten minutes.
UPDATE jivs.webhook_claims
   SET holder = NULL, failures = failures + 1,
       until = clock_timestamp() + make_interval(secs => least(600, 5 * 2 ^ least(failures, 10)))
 WHERE key = %(key)s AND holder = %(holder)s;
