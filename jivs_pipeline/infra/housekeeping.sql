-- Queries of infra/housekeeping.py on schema jivs. Parameters are %(name)s.

-- name: apply_retention
SELECT table_name, deleted FROM jivs.apply_retention(%(days)s, %(most)s);

-- name: unposted
-- Old events that stay because the webhook has not acknowledged them.
SELECT count(*) AS waiting FROM jivs.migration_events e
 WHERE e.at < now() - make_interval(days => %(days)s) AND e.webhook_at IS NULL
   AND e.at >= (SELECT since FROM jivs.event_receivers WHERE name = 'webhook');

-- name: only_refresh
-- Whether nobody else refreshes at this moment; two would wait for each other.
SELECT pg_try_advisory_xact_lock(hashtextextended('jivs.migration_statistics', 0)) AS mine;

-- name: refresh_statistics
REFRESH MATERIALIZED VIEW CONCURRENTLY jivs.migration_statistics;

-- name: all_keys
SELECT key FROM jivs.migrations;

-- name: lock_ended
-- A migration that needs nothing of what it has staged, its row locked: no run can take it meanwhile.
SELECT epoch FROM jivs.migrations
 WHERE key = %(key)s AND status IN ('completed', 'cancelled', 'rolled_back') FOR UPDATE;

-- name: runs_of_migrations
-- The runs that have worked on their migrations last.
SELECT run_id FROM jivs.migrations WHERE run_id = ANY (%(run_ids)s);

-- name: to_reverify
-- Completed migrations that were not compared of late, those first that were not for the longest time.
SELECT m.key FROM jivs.migrations m LEFT JOIN jivs.migration_reverifications v USING (key)
 WHERE m.status = 'completed' AND m.plan IS NOT NULL
   AND (v.at IS NULL OR v.outcome = 'skipped' OR v.at < now() - %(days)s * interval '1 day')
 ORDER BY v.at NULLS FIRST, m.key;

-- name: note_reverified
INSERT INTO jivs.migration_reverifications (key, outcome, detail)
SELECT key, %(outcome)s, %(detail)s FROM jivs.migrations WHERE key = %(key)s
ON CONFLICT (key) DO UPDATE SET outcome = excluded.outcome, detail = excluded.detail, at = clock_timestamp();
