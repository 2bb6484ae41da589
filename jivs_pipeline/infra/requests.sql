-- Queries of infra/requests.py on schema jivs. Parameters are %(name)s.

-- name: submit
SELECT request_id::text, key, duplicate, status, attempt
  FROM jivs.submit_request(%(spec)s, %(idempotency_key)s, %(priority)s, %(body_hash)s, %(new_id)s);

-- name: request
SELECT request_id::text, key, status, attempt FROM jivs.migration_requests WHERE request_id = %(request_id)s;

-- name: unfinished
-- Requests that Dagster has, and as many of the queue as there are free slots: a run that found none would fail. A
-- foreground run has a slot as well. A migration that runs without its request is not launched a second time.
WITH taken AS (
    SELECT key FROM jivs.migration_requests WHERE status IN ('launched', 'running')
    UNION
    SELECT key FROM jivs.migrations WHERE status = 'running'
), next AS (
    SELECT request_id FROM jivs.migration_requests r
     WHERE r.status = 'queued' AND NOT EXISTS (SELECT FROM taken t WHERE t.key = r.key)
     ORDER BY r.priority DESC, r.created_at, r.request_id
     LIMIT (SELECT greatest(0, l.value - (SELECT count(*) FROM taken))
              FROM jivs.limits l WHERE l.name = 'runs')
)
SELECT r.request_id::text, r.attempt, r.key, r.spec, r.status, r.priority, r.run_id,
       m.status AS migration, m.error
  FROM jivs.migration_requests r JOIN jivs.migrations m USING (key)
 WHERE r.status IN ('launched', 'running') OR r.request_id IN (SELECT request_id FROM next)
 ORDER BY r.priority DESC, r.created_at, r.request_id;

-- name: launched
UPDATE jivs.migration_requests SET status = 'launched', run_id = %(run_id)s, launched_at = now()
 WHERE request_id = %(request_id)s AND attempt = %(attempt)s AND status = 'queued';

-- name: settle_request
UPDATE jivs.migration_requests
   SET status = %(status)s, run_id = coalesce(%(run_id)s, run_id), error = %(error)s,
       finished_at = CASE WHEN %(status)s <> 'paused' THEN now() END
 WHERE request_id = %(request_id)s AND attempt = %(attempt)s AND status IN ('queued', 'launched', 'running');

-- name: again
UPDATE jivs.migration_requests SET status = 'queued', attempt = attempt + 1, run_id = NULL, launched_at = NULL
 WHERE request_id = %(request_id)s AND attempt = %(attempt)s AND status IN ('launched', 'running');
