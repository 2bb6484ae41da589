-- Queries of infra/due_loads.py on schema jivs. Parameters are %(name)s.

-- name: scheduled
-- Migrations with a schedule that may be loaded again. What a person has stopped waits for a person, and what is under
-- way or asked for is not asked for twice. Only a machine rolls back where the spec says on_failure: rollback.
SELECT m.key, m.status, m.spec, greatest(m.last_due, m.schedule_since) AS after, clock_timestamp() AS now,
       m.updated_at AS changed
  FROM jivs.migrations m
 WHERE m.spec ->> 'schedule' IS NOT NULL
   AND (m.status IN ('completed', 'failed', 'mismatch')
        OR m.status = 'rolled_back' AND m.spec ->> 'on_failure' = 'rollback')
   AND NOT EXISTS (SELECT FROM jivs.migration_requests r
                    WHERE r.key = m.key AND r.status IN ('queued', 'launched', 'running'))
 ORDER BY m.key;

-- name: lock_due
-- Whether it is still as it was seen, and nobody has asked for this time's load meanwhile.
SELECT m.spec FROM jivs.migrations m
 WHERE m.key = %(key)s AND m.status = %(status)s AND m.updated_at = %(changed)s
   AND (m.last_due IS NULL OR m.last_due < %(due)s)
   AND NOT EXISTS (SELECT FROM jivs.migration_requests r
                    WHERE r.key = m.key AND r.status IN ('queued', 'launched', 'running'))
   FOR UPDATE OF m;

-- name: begin_anew
-- Without plan and checkpoints the next run reads everything from a new snapshot. What a completed load has made stays
-- in the target as if it had always been there; what one that failed has made is its successor's to replace.
WITH gone AS (DELETE FROM jivs.migration_checkpoints WHERE key = %(key)s)
UPDATE jivs.migrations
   SET status = 'queued', phase = NULL, last_due = %(due)s,
       begun_epoch = CASE WHEN status = 'completed' OR status = 'mismatch' AND spec ->> 'type' = 'incremental' THEN epoch + 1 ELSE begun_epoch END,
       plan = NULL, plan_hash = NULL, result = NULL, error = NULL, requested = NULL, started_at = NULL, finished_at = NULL,
       rows_total = 0, rows_done = 0, bytes_done = 0
 WHERE key = %(key)s;

-- name: submit
SELECT request_id::text FROM jivs.submit_request(%(spec)s, %(idempotency_key)s, 0, %(body_hash)s, %(new_id)s);

-- name: reschedule
-- Another schedule, or none, for a migration whose spec is the same otherwise.
UPDATE jivs.migrations SET spec = %(spec)s
 WHERE key = %(key)s AND spec_hash = %(spec_hash)s AND spec ->> 'schedule' IS DISTINCT FROM %(schedule)s;
