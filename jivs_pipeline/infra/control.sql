-- Queries of infra/control.py on schema jivs. Parameters are %(name)s.

-- name: control_id
-- Which control database this is; recorded in every target's ledger.
SELECT control_id::text FROM jivs.control_identity;

-- name: register
-- The migration's row, made if there is none. Does not change one that exists.
INSERT INTO jivs.migrations (key, source_name, target_name, source_fingerprint, target_fingerprint, spec, spec_hash)
VALUES (%(key)s, %(source)s, %(target)s, %(source_fingerprint)s, %(target_fingerprint)s, %(spec)s, %(spec_hash)s)
ON CONFLICT (key) DO NOTHING;

-- name: lock_migration
-- The row, locked until the transaction ends: every change of state goes through here.
SELECT * FROM jivs.migrations WHERE key = %(key)s FOR UPDATE;

-- name: fence
-- Whether a run's epoch is still the migration's.
SELECT FROM jivs.migrations WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';

-- name: read_lock
-- The holder, with its silence measured by the control database's clock: clocks of machines differ.
SELECT owner::text, epoch, run_id, host, boot_id, pid, process_start, acquired_at, lease_seconds,
       extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds
  FROM jivs.migration_locks WHERE key = %(key)s;

-- name: lock_slots
-- How many migrations may run at once; whoever counts them locks this first.
SELECT value FROM jivs.limits WHERE name = 'runs' FOR UPDATE;

-- name: other_locks
-- Holders of other migrations, as in read_lock.
SELECT owner::text, epoch, run_id, host, boot_id, pid, process_start, acquired_at, lease_seconds,
       extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_seconds
  FROM jivs.migration_locks WHERE key <> %(key)s;

-- name: request_state
SELECT status, attempt FROM jivs.migration_requests WHERE request_id = %(request_id)s;

-- name: take
-- A run takes the migration: the epoch rises, so whatever an earlier run still sends is refused.
-- `floor` is the highest epoch seen in the target's ledger, for a control database that was made anew.
UPDATE jivs.migrations
   SET status = 'running', phase = 'plan', requested = NULL, error = NULL, result = NULL,
       epoch = greatest(epoch, %(floor)s) + 1, run_id = %(run_id)s,
       spec = %(spec)s, spec_hash = %(spec_hash)s,
       plan = CASE WHEN %(fresh)s THEN NULL ELSE plan END, plan_hash = CASE WHEN %(fresh)s THEN NULL ELSE plan_hash END,
       source_name = %(source)s, target_name = %(target)s,
       source_fingerprint = %(source_fingerprint)s, target_fingerprint = %(target_fingerprint)s,
       started_at = CASE WHEN %(fresh)s THEN now() ELSE coalesce(started_at, now()) END, finished_at = NULL
 WHERE key = %(key)s
RETURNING epoch;

-- name: write_lock
INSERT INTO jivs.migration_locks (key, owner, epoch, run_id, host, boot_id, pid, process_start, lease_seconds)
VALUES (%(key)s, %(owner)s, %(epoch)s, %(run_id)s, %(host)s, %(boot_id)s, %(pid)s, %(process_start)s, %(lease_seconds)s)
ON CONFLICT (key) DO UPDATE
   SET owner = excluded.owner, epoch = excluded.epoch, run_id = excluded.run_id, host = excluded.host,
       boot_id = excluded.boot_id, pid = excluded.pid, process_start = excluded.process_start,
       acquired_at = now(), heartbeat_at = now(), lease_seconds = excluded.lease_seconds;

-- name: heartbeat
-- Renews the lock and brings back what somebody asked for meanwhile. No row: the lock is no longer ours.
WITH beat AS (
    UPDATE jivs.migration_locks SET heartbeat_at = clock_timestamp()
     WHERE key = %(key)s AND owner = %(owner)s AND epoch = %(epoch)s
    RETURNING key
)
SELECT m.requested FROM jivs.migrations m JOIN beat USING (key) WHERE m.epoch = %(epoch)s;

-- name: release
DELETE FROM jivs.migration_locks WHERE key = %(key)s AND owner = %(owner)s;

-- name: add_conflict
INSERT INTO jivs.migration_lock_conflicts AS c (key, conflicts) VALUES (%(key)s, 1)
ON CONFLICT (key) DO UPDATE SET conflicts = c.conflicts + 1, last_at = now();

-- name: set_phase
UPDATE jivs.migrations SET phase = %(phase)s
 WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';

-- name: save_plan
UPDATE jivs.migrations SET plan = %(plan)s, plan_hash = %(plan_hash)s, rows_total = %(rows_total)s
 WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';

-- name: progress
UPDATE jivs.migrations SET rows_done = %(rows)s, bytes_done = %(bytes)s
 WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';

-- name: end_run
UPDATE jivs.migrations
   SET status = %(status)s, error = %(error)s, result = %(result)s, finished_at = now(), requested = NULL
 WHERE key = %(key)s AND epoch = %(epoch)s AND status = 'running';

-- name: request
-- Ask a running migration for something; its run sees it at the next heartbeat. Of two who ask for the same, one
-- wins; a cancel goes before a pause, and nothing before a cancel.
UPDATE jivs.migrations SET requested = %(what)s
 WHERE key = %(key)s AND status = 'running' AND (requested IS NULL OR (requested = 'pause' AND %(what)s = 'cancel'));

-- name: settle
-- In place of a run that is gone, or where no run is: the epoch rises with the status, so that what an earlier run
-- still sends is refused.
UPDATE jivs.migrations
   SET status = %(status)s, epoch = epoch + 1, requested = NULL, finished_at = now(), error = %(error)s,
       result = CASE WHEN status = 'running' THEN NULL ELSE result END
 WHERE key = %(key)s AND status = %(before)s;

-- name: take_over
-- A new epoch without a run, for who undoes what runs have done.
UPDATE jivs.migrations SET epoch = greatest(epoch, %(floor)s) + 1, run_id = %(run_id)s, requested = NULL
 WHERE key = %(key)s
RETURNING epoch;

-- name: forget_migration
-- After a rollback nothing is left of the plan and of what was reached; the key can begin anew.
WITH gone AS (DELETE FROM jivs.migration_checkpoints WHERE key = %(key)s),
     emptied AS (DELETE FROM jivs.migration_quarantine WHERE key = %(key)s)
UPDATE jivs.migrations
   SET status = 'rolled_back', plan = NULL, plan_hash = NULL, result = NULL, error = NULL, requested = NULL,
       quarantined = 0, rows_total = 0, rows_done = 0, bytes_done = 0, finished_at = now()
 WHERE key = %(key)s AND epoch = %(epoch)s;

-- name: drop_lock
DELETE FROM jivs.migration_locks WHERE key = %(key)s;

-- name: add_event
-- The number comes from the migration's own row, which the caller has locked: no gaps, no late commits.
-- No row comes back when the token stands: this change was committed before, and must not be made twice.
WITH numbered AS (
    UPDATE jivs.migrations m SET event_seq = event_seq + 1
     WHERE m.key = %(key)s
       AND NOT EXISTS (SELECT FROM jivs.migration_events e WHERE e.key = m.key AND e.token = %(token)s::uuid)
    RETURNING key, event_seq
)
INSERT INTO jivs.migration_events (key, seq, type, data, token)
SELECT key, event_seq, %(type)s, %(data)s, %(token)s::uuid FROM numbered
RETURNING seq;

-- name: events
SELECT key, seq, type, data, at, delivered_at IS NOT NULL AS delivered
  FROM jivs.migration_events WHERE key = %(key)s AND seq > %(after)s ORDER BY seq;

-- name: write_checkpoint
INSERT INTO jivs.migration_checkpoints
       (key, table_name, phase, generation, epoch, state, rows, bytes, chunks, seconds, data)
SELECT m.key, %(table)s, %(phase)s, %(generation)s, m.epoch, %(state)s, %(rows)s, %(bytes)s, %(chunks)s, %(seconds)s, %(data)s
  FROM jivs.migrations m WHERE m.key = %(key)s AND m.epoch = %(epoch)s AND m.status = 'running'
ON CONFLICT (key, table_name, phase) DO UPDATE
   SET generation = excluded.generation, epoch = excluded.epoch, state = excluded.state, rows = excluded.rows,
       bytes = excluded.bytes, chunks = excluded.chunks, seconds = excluded.seconds, data = excluded.data,
       at = now();

-- name: checkpoints
SELECT table_name, phase, generation, state, rows, bytes, chunks, seconds, data
  FROM jivs.migration_checkpoints WHERE key = %(key)s ORDER BY table_name, phase;

-- name: forget_tables
-- Checkpoints of tables that will be read again.
DELETE FROM jivs.migration_checkpoints
 WHERE key = %(key)s AND table_name <> ALL (%(kept)s)
   AND EXISTS (SELECT FROM jivs.migrations m WHERE m.key = %(key)s AND m.epoch = %(epoch)s);

-- name: migration
SELECT m.*, extract(epoch FROM clock_timestamp() - m.started_at)::float8 AS running_seconds,
       r.request_id::text, r.status AS request_status, r.attempt AS request_attempt, r.priority AS request_priority
  FROM jivs.migrations m
  LEFT JOIN LATERAL (SELECT * FROM jivs.migration_requests q WHERE q.key = m.key ORDER BY q.created_at DESC LIMIT 1) r ON true
 WHERE m.key = %(key)s;

-- name: migrations
SELECT m.*, extract(epoch FROM clock_timestamp() - m.started_at)::float8 AS running_seconds,
       r.request_id::text, r.status AS request_status, r.attempt AS request_attempt, r.priority AS request_priority
  FROM jivs.migrations m
  LEFT JOIN LATERAL (SELECT * FROM jivs.migration_requests q WHERE q.key = m.key ORDER BY q.created_at DESC LIMIT 1) r ON true
 ORDER BY m.updated_at DESC LIMIT 1000;

-- name: running
-- Every few seconds by the reaper, so without plans and specs.
SELECT key, run_id, requested FROM jivs.migrations WHERE status = 'running' ORDER BY key;

-- name: interrupted
-- Migrations whose run was stopped without anybody's wish, as when its machine is shut down.
SELECT key, run_id, spec FROM jivs.migrations WHERE status = 'paused' AND error ->> 'code' = 'interrupted';

-- name: target_tables
-- Every table that a migration has loaded: the assets of the Dagster catalog.
-- Where several migrations wrote to one table, the latest stands for it.
SELECT DISTINCT ON (m.target_name, c.table_name) m.target_name, c.table_name, m.source_name, m.key
  FROM jivs.migration_checkpoints c JOIN jivs.migrations m USING (key)
 WHERE c.phase = 'load' AND c.state = 'done'
 ORDER BY m.target_name, c.table_name, c.at DESC LIMIT 5000;

-- name: add_retry
WITH counted AS (
    UPDATE jivs.migrations SET retries = retries + 1 WHERE key = %(key)s AND epoch = %(epoch)s RETURNING key
)
INSERT INTO jivs.migration_retries (key, phase, table_name, chunk, attempt, error, delay_seconds)
SELECT key, %(phase)s, %(table)s, %(chunk)s, %(attempt)s, %(error)s, %(delay)s FROM counted;

-- name: add_performance
INSERT INTO jivs.migration_performance_metrics
       (key, run_id, epoch, phase, seconds, rows, bytes, cpu_seconds, peak_rss_bytes, samples, started_at)
SELECT key, %(run_id)s, epoch, %(phase)s, %(seconds)s, %(rows)s, %(bytes)s, %(cpu_seconds)s, %(peak_rss)s, %(samples)s,
       now() - make_interval(secs => %(seconds)s)
  FROM jivs.migrations
 WHERE key = %(key)s AND epoch = %(epoch)s
   -- The same measurement sent again: its commit was not acknowledged.
   AND NOT EXISTS (SELECT FROM jivs.migration_performance_metrics p
                    WHERE p.key = %(key)s AND p.run_id = %(run_id)s AND p.phase = %(phase)s AND p.seconds = %(seconds)s);

-- name: performance
-- Phases of all runs of a migration since it was last begun anew, oldest first.
SELECT p.run_id, p.epoch, p.phase, p.seconds, p.rows, p.bytes, p.cpu_seconds, p.peak_rss_bytes, p.samples, p.started_at
  FROM jivs.migration_performance_metrics p JOIN jivs.migrations m USING (key)
 WHERE p.key = %(key)s AND p.at >= m.started_at ORDER BY p.id;

-- name: retries
-- The first retries of a migration since it was last begun anew, and how many there are.
SELECT count(*) OVER () AS total, r.at, r.phase, r.table_name AS "table", r.chunk, r.attempt, r.error, r.delay_seconds
  FROM jivs.migration_retries r JOIN jivs.migrations m USING (key)
 WHERE r.key = %(key)s AND r.at >= m.started_at ORDER BY r.id LIMIT %(most)s;

-- name: endpoint_events
-- What the circuit breakers of both endpoints did while the migration ran, as in retries.
SELECT count(*) OVER () AS total, e.at, CASE e.name WHEN %(source)s THEN 'source' ELSE 'target' END AS endpoint,
       e.name, e.before, e.after, e.reason
  FROM jivs.circuit_breaker_events e JOIN jivs.migrations m ON m.key = %(key)s
 WHERE e.name IN (%(source)s, %(target)s)
   AND e.at BETWEEN m.started_at AND coalesce(m.finished_at, 'infinity')
 ORDER BY e.at, e.id LIMIT %(most)s;

-- name: rejected
-- Rejected rows by table with the first three reasons. No value: where a reason quotes it, it is left out there, too.
WITH reasons AS (
    SELECT q.table_name, q.column_name, left(shown.reason, 500) AS reason, count(*) AS rows, min(q.id) AS first
      FROM jivs.migration_quarantine q
     CROSS JOIN LATERAL (SELECT CASE WHEN q.value <> '' THEN replace(q.reason, q.value, '…') ELSE q.reason END) shown (reason)
     WHERE q.key = %(key)s AND NOT q.example GROUP BY 1, 2, 3
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY table_name ORDER BY first) AS number FROM reasons
)
SELECT table_name AS "table", sum(rows)::bigint AS rows, count(*) AS kinds,
       json_agg(json_build_object('column', column_name, 'reason', reason, 'rows', rows) ORDER BY first)
           FILTER (WHERE number <= 3) AS reasons
  FROM numbered GROUP BY table_name ORDER BY table_name;

-- name: past_runs
-- The latest migrations that one run completed: what its plan saw, and how long each phase took.
SELECT m.key, m.source_name AS source, m.target_name AS target, m.plan ->> 'source_dialect' AS dialect,
       planned.rows, planned.bytes, took.phases
  FROM (SELECT key, source_name, target_name, started_at, finished_at, plan
          FROM jivs.migrations WHERE status = 'completed' ORDER BY finished_at DESC LIMIT 100) m
 CROSS JOIN LATERAL (
       SELECT sum((t ->> 'rows')::bigint)::bigint AS rows, sum((t ->> 'bytes')::bigint)::bigint AS bytes
         FROM jsonb_array_elements(m.plan -> 'tables') t WHERE t ->> 'refused' IS NULL) planned
 CROSS JOIN LATERAL (
       SELECT jsonb_object_agg(p.phase, p.seconds) AS phases
         FROM jivs.migration_performance_metrics p WHERE p.key = m.key AND p.at >= m.started_at
       HAVING count(DISTINCT p.run_id) = 1) took
 WHERE took.phases ?& '{extract,load,verify}' AND planned.rows IS NOT NULL
 ORDER BY m.finished_at DESC;

-- name: lock_breaker_events
-- One process at a time writes down what all have seen, so that nothing is written twice.
SELECT pg_advisory_xact_lock(hashtextextended('jivs.circuit_breaker_events', 0));

-- name: add_breaker_event
-- One change of a circuit breaker's state; harmless when it is sent again.
INSERT INTO jivs.circuit_breaker_events (name, before, after, reason, at)
SELECT %(name)s, %(before)s, %(after)s, %(reason)s, moment.at
  FROM (SELECT timestamptz 'epoch' + %(at)s * interval '1 millisecond' AS at) AS moment
 WHERE NOT EXISTS (SELECT FROM jivs.circuit_breaker_events e
                    WHERE e.name = %(name)s AND e.at = moment.at AND e.before = %(before)s AND e.after = %(after)s);
