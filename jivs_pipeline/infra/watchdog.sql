-- Queries of infra/watchdog.py on a target database. Parameters are %(name)s.

-- name: progress
-- Server processes of one epoch, with what their clients have sent last. `news` changes with every state and, inside
-- of a COPY, with every byte.
SELECT a.pid, a.backend_start::text, a.query ~* '^\s*COPY ' AND a.state = 'active' AS copying,
       a.xact_start IS NOT NULL
           AND (a.state LIKE 'idle in transaction%%' OR (a.state = 'active' AND a.wait_event = 'ClientRead')) AS waiting,
       concat_ws('/', a.state, a.state_change, p.bytes_processed) AS news,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS transaction_seconds
  FROM jivs_ledger.backends b
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
  LEFT JOIN pg_stat_progress_copy p ON p.pid = a.pid
 WHERE b.key = %(key)s AND b.epoch = %(epoch)s;

-- name: no_progress
-- The same before PostgreSQL 14, which does not tell how far a COPY is: there only the load's time is limited.
SELECT a.pid, a.backend_start::text, a.query ~* '^\s*COPY ' AND a.state = 'active' AS copying,
       a.state LIKE 'idle in transaction%%' AS waiting,
       concat_ws('/', a.state, a.state_change) AS news,
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8 AS transaction_seconds
  FROM jivs_ledger.backends b
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
 WHERE b.key = %(key)s AND b.epoch = %(epoch)s;

-- name: terminate
-- A process id alone proves nothing: ids are used again.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE pid = %(pid)s AND backend_start = %(start)s::timestamptz;

-- name: terminate_all
SELECT pg_terminate_backend(a.pid)
  FROM jivs_ledger.backends b
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
 WHERE b.key = %(key)s AND b.epoch = %(epoch)s;
