-- Queries of infra/exporter/control.py on schema jivs. All are run in one snapshot.

-- name: runs
-- What all runs that there ever were have come to, by target.
SELECT target_name AS target,
       count(*) FILTER (WHERE started_at IS NOT NULL AND NOT resumed)               AS started,
       count(*) FILTER (WHERE started_at IS NOT NULL AND resumed)                   AS resumed,
       count(*) FILTER (WHERE outcome = 'completed')                                AS completed,
       count(*) FILTER (WHERE outcome IN ('failed', 'mismatch', 'lost'))            AS failed,
       count(*) FILTER (WHERE outcome = 'paused')                                   AS paused,
       count(*) FILTER (WHERE outcome = 'cancelled')                                AS cancelled,
       sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes, sum(retries)::bigint AS retries
  FROM jivs.migration_runs GROUP BY target_name ORDER BY target_name;

-- name: durations
-- Runs that reached a verdict, by bucket of jivs.duration_bounds().
SELECT jivs.duration_bucket(seconds) AS bucket, count(*) AS total, sum(seconds)::float8 AS seconds
  FROM (SELECT extract(epoch FROM ended_at - started_at)::float8 AS seconds FROM jivs.migration_runs
         WHERE outcome IN ('completed', 'mismatch') AND started_at IS NOT NULL) r
 GROUP BY 1;

-- name: phases
SELECT phase, bucket, sum(total)::bigint AS total, sum(seconds)::float8 AS seconds
  FROM (SELECT phase, jivs.duration_bucket(seconds) AS bucket, count(*) AS total, sum(seconds) AS seconds
          FROM jivs.migration_performance_metrics GROUP BY 1, 2
        UNION ALL
        SELECT label, bucket, total, seconds FROM jivs.metric_carry WHERE metric = 'phase_seconds') p
 GROUP BY 1, 2;

-- name: bounds
SELECT jivs.duration_bounds() AS bounds;

-- name: numbers
-- Everything that is one number.
SELECT (SELECT count(*) FROM jivs.migrations WHERE status = 'running')  AS active,
       (SELECT count(*) FROM jivs.migrations WHERE status = 'queued')   AS queued,
       (SELECT count(*) FROM jivs.migration_locks)                      AS slots_used,
       (SELECT coalesce(sum(conflicts), 0)::bigint FROM jivs.migration_lock_conflicts) AS conflicts,
       (SELECT count(*) FROM jivs.migration_quarantine WHERE NOT example) + c.records_failed AS records_failed,
       (SELECT count(*) FROM jivs.circuit_breaker_events WHERE after = 'open') + c.breaker_opened AS breaker_opened,
       (SELECT coalesce(sum(event_seq), 0)::bigint FROM jivs.migrations) - e.waiting + c.events_published AS events_published,
       e.waiting AS events_waiting, e.seconds AS events_waiting_seconds,
       r.waiting AS requests_waiting, r.seconds AS requests_waiting_seconds
  FROM (SELECT coalesce(sum(total) FILTER (WHERE metric = 'records_failed'), 0)::bigint   AS records_failed,
               coalesce(sum(total) FILTER (WHERE metric = 'breaker_opened'), 0)::bigint   AS breaker_opened,
               coalesce(sum(total) FILTER (WHERE metric = 'events_published'), 0)::bigint AS events_published
          FROM jivs.metric_carry) c,
       (SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 AS seconds
          FROM jivs.migration_events WHERE delivered_at IS NULL) e,
       (SELECT count(*) AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS seconds
          FROM jivs.migration_requests WHERE status = 'queued') r;

-- name: active
-- Migrations that run, or whose run is gone and nobody has noticed. At most as many as there are slots.
SELECT m.key, m.source_name AS source, m.target_name AS target, m.phase, coalesce(m.run_id, '') AS run_id,
       m.rows_done, m.rows_total,
       extract(epoch FROM clock_timestamp() - m.progressed_at)::float8 AS progress_seconds,
       extract(epoch FROM clock_timestamp() - l.heartbeat_at)::float8 AS silent_seconds,
       l.lease_seconds
  FROM jivs.migrations m LEFT JOIN jivs.migration_locks l USING (key)
 WHERE m.status = 'running' ORDER BY m.key LIMIT 200;

-- name: connections
-- Sessions of this server, by whose they are. `free` is what ordinary users can still open.
-- Without the right to read all statistics other users' sessions have no state; they still count.
WITH sessions AS (
    SELECT application_name LIKE 'jivs%' AS ours, state
      FROM pg_stat_activity
     WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
)
SELECT count(*) FILTER (WHERE ours AND state IS DISTINCT FROM 'idle') AS active,
       count(*) FILTER (WHERE ours AND state = 'idle') AS idle,
       count(*) FILTER (WHERE NOT ours) AS other,
       greatest(0, current_setting('max_connections')::integer
                   - current_setting('superuser_reserved_connections')::integer - count(*)) AS free
  FROM sessions;

-- name: slots
-- How many migrations may run at once.
SELECT value FROM jivs.limits WHERE name = 'runs';
