-- Queries of infra/exporter/dagster_storage.py on Dagster's own storage. A test holds them against DagsterInstance.

-- name: heartbeats
-- From the body, as Dagster reads them: what the column holds depends on the time zone of who wrote it.
SELECT daemon_type AS daemon,
       greatest(0, extract(epoch FROM clock_timestamp())::float8 - (body::jsonb ->> 'timestamp')::float8) AS seconds
  FROM public.daemon_heartbeats WHERE body IS NOT NULL;

-- name: runs
SELECT status, count(*) AS runs FROM public.runs
 WHERE status IN ('QUEUED', 'NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING') GROUP BY status;
