-- Revision 0001 of the control schema: everything jivs_pipeline knows about its migrations.
-- Run by `jivs db upgrade` in one transaction; runnable by hand:  psql -1 -v ON_ERROR_STOP=1 -f 0001_control.sql

CREATE SCHEMA IF NOT EXISTS jivs;

-- Identifies this control database. The ledger in a target records it, so that two control databases
-- that work on one target notice each other.
CREATE TABLE jivs.control_identity (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    control_id  uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO jivs.control_identity DEFAULT VALUES;

-- The state machine, the same table as TRANSITIONS in core/states.py (a test compares them pair by pair).
CREATE TABLE jivs.migration_transitions (
    before  text NOT NULL,
    after   text NOT NULL,
    PRIMARY KEY (before, after)
);
INSERT INTO jivs.migration_transitions (before, after) VALUES
    ('queued', 'running'), ('queued', 'cancelled'), ('queued', 'failed'),
    ('running', 'running'), ('running', 'paused'), ('running', 'completed'), ('running', 'failed'),
    ('running', 'cancelled'), ('running', 'mismatch'),
    ('paused', 'running'), ('paused', 'queued'), ('paused', 'cancelled'), ('paused', 'failed'), ('paused', 'rolled_back'),
    ('failed', 'running'), ('failed', 'queued'), ('failed', 'cancelled'), ('failed', 'rolled_back'),
    ('cancelled', 'running'), ('cancelled', 'queued'), ('cancelled', 'rolled_back'),
    ('mismatch', 'running'), ('mismatch', 'queued'), ('mismatch', 'completed'), ('mismatch', 'cancelled'),
    ('mismatch', 'rolled_back'),
    ('completed', 'running'), ('completed', 'queued'), ('completed', 'mismatch'), ('completed', 'rolled_back'),
    ('rolled_back', 'running'), ('rolled_back', 'queued');

-- One row per migration key: its spec, its plan, its state. `epoch` is the fencing token: it rises with
-- every run that takes the migration, and every write of a run names the epoch it was given.
CREATE TABLE jivs.migrations (
    key                 text PRIMARY KEY CHECK (key ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    status              text NOT NULL DEFAULT 'queued' CHECK (status IN
                            ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled', 'rolled_back', 'mismatch')),
    phase               text CHECK (phase IN
                            ('plan', 'extract', 'transform', 'validate', 'load', 'verify', 'finish')),
    requested           text CHECK (requested IN ('pause', 'cancel', 'rollback')),
    source_name         text NOT NULL,
    target_name         text NOT NULL,
    source_fingerprint  text NOT NULL DEFAULT '',
    target_fingerprint  text NOT NULL DEFAULT '',
    spec                jsonb NOT NULL,
    spec_hash           text NOT NULL,
    plan                jsonb,
    plan_hash           text,
    epoch               bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    run_id              text,
    event_seq           bigint NOT NULL DEFAULT 0 CHECK (event_seq >= 0),
    rows_total          bigint NOT NULL DEFAULT 0,
    rows_done           bigint NOT NULL DEFAULT 0,
    bytes_done          bigint NOT NULL DEFAULT 0,
    retries             bigint NOT NULL DEFAULT 0,
    quarantined         bigint NOT NULL DEFAULT 0,
    error               jsonb,
    -- Plain json keeps the order of the keys for people who read it.
    result              json,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    CHECK (status <> 'running' OR phase IS NOT NULL),
    CHECK (status <> 'completed' OR phase IS NOT DISTINCT FROM 'finish')
);
CREATE INDEX migrations_by_status ON jivs.migrations (status, updated_at);

CREATE FUNCTION jivs.check_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status IS DISTINCT FROM OLD.status AND NOT EXISTS (
        SELECT FROM jivs.migration_transitions t WHERE t.before = OLD.status AND t.after = NEW.status)
    THEN
        RAISE EXCEPTION 'a % migration cannot become %', OLD.status, NEW.status USING ERRCODE = 'JV001';
    END IF;
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of a migration never falls' USING ERRCODE = 'JV002';
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER migrations_transition BEFORE UPDATE ON jivs.migrations
    FOR EACH ROW EXECUTE FUNCTION jivs.check_transition();

-- Who holds a migration now. The Redis lease makes a second starter fail fast; this row is its mirror and
-- carries the heartbeat by which a dead holder is told from a slow one.
CREATE TABLE jivs.migration_locks (
    key             text PRIMARY KEY REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    owner           uuid NOT NULL,
    epoch           bigint NOT NULL,
    run_id          text NOT NULL,
    host            text NOT NULL,
    boot_id         text NOT NULL,
    pid             integer NOT NULL,
    process_start   text NOT NULL,
    acquired_at     timestamptz NOT NULL DEFAULT now(),
    heartbeat_at    timestamptz NOT NULL DEFAULT now(),
    lease_seconds   double precision NOT NULL CHECK (lease_seconds > 0)
);

-- Requests to start a migration. SQL clients may insert here; see docs.
CREATE TABLE jivs.migration_requests (
    request_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key             text NOT NULL CHECK (key ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    spec            jsonb NOT NULL,
    body_hash       text NOT NULL,
    status          text NOT NULL DEFAULT 'queued' CHECK (status IN
                        ('queued', 'launched', 'running', 'completed', 'failed', 'cancelled')),
    priority        integer NOT NULL DEFAULT 0,
    attempt         integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    run_id          text,
    error           jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    launched_at     timestamptz,
    finished_at     timestamptz
);
CREATE INDEX migration_requests_queue ON jivs.migration_requests (priority DESC, created_at) WHERE status = 'queued';
CREATE INDEX migration_requests_by_key ON jivs.migration_requests (key);

CREATE TABLE jivs.migration_idempotency_keys (
    idempotency_key text PRIMARY KEY,
    body_hash       text NOT NULL,
    request_id      uuid NOT NULL REFERENCES jivs.migration_requests (request_id) ON DELETE CASCADE,
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- Proof that a phase of one table is done. `generation` names the extraction the rows came from: a table
-- that is read again gets a new one, and nothing of the old one is used.
CREATE TABLE jivs.migration_checkpoints (
    key             text NOT NULL REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    table_name      text NOT NULL,
    phase           text NOT NULL CHECK (phase IN ('extract', 'transform', 'validate', 'load', 'verify')),
    generation      text NOT NULL,
    epoch           bigint NOT NULL,
    state           text NOT NULL CHECK (state IN ('done', 'failed')),
    rows            bigint NOT NULL DEFAULT 0,
    bytes           bigint NOT NULL DEFAULT 0,
    chunks          integer NOT NULL DEFAULT 0,
    seconds         double precision NOT NULL DEFAULT 0,
    data            jsonb NOT NULL DEFAULT '{}',
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, table_name, phase)
);

CREATE TABLE jivs.migration_retries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    phase           text,
    table_name      text,
    chunk           integer,
    attempt         integer NOT NULL,
    error           text NOT NULL,
    delay_seconds   double precision NOT NULL,
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX migration_retries_by_key ON jivs.migration_retries (key, at);

-- The outbox: written in the transaction of the state change, numbered per migration, so that a late
-- commit cannot slip behind a reader as it does with one sequence for all.
CREATE TABLE jivs.migration_events (
    key             text NOT NULL REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    seq             bigint NOT NULL CHECK (seq > 0),
    type            text NOT NULL CHECK (type IN
                        ('migration.queued', 'migration.started', 'migration.phase', 'migration.table_loaded',
                         'migration.paused', 'migration.resumed', 'migration.retried', 'migration.failed',
                         'migration.cancelled', 'migration.rolled_back', 'migration.completed')),
    data            jsonb NOT NULL DEFAULT '{}',
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at    timestamptz,
    PRIMARY KEY (key, seq)
);
CREATE INDEX migration_events_undelivered ON jivs.migration_events (at) WHERE delivered_at IS NULL;

CREATE TABLE jivs.migration_event_failures (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL,
    seq             bigint NOT NULL,
    attempt         integer NOT NULL,
    error           text NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (key, seq) REFERENCES jivs.migration_events (key, seq) ON DELETE CASCADE
);

CREATE TABLE jivs.migration_performance_metrics (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    run_id          text NOT NULL,
    epoch           bigint NOT NULL,
    phase           text NOT NULL CHECK (phase IN
                        ('plan', 'extract', 'transform', 'validate', 'load', 'verify', 'finish')),
    seconds         double precision NOT NULL,
    rows            bigint NOT NULL DEFAULT 0,
    bytes           bigint NOT NULL DEFAULT 0,
    cpu_seconds     double precision NOT NULL DEFAULT 0,
    peak_rss_bytes  bigint NOT NULL DEFAULT 0,
    samples         jsonb NOT NULL DEFAULT '[]',
    started_at      timestamptz NOT NULL DEFAULT now(),
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX migration_performance_metrics_by_key ON jivs.migration_performance_metrics (key, at);

CREATE TABLE jivs.circuit_breaker_events (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL,
    before          text NOT NULL CHECK (before IN ('closed', 'open', 'half_open')),
    after           text NOT NULL CHECK (after IN ('closed', 'open', 'half_open')),
    reason          text NOT NULL DEFAULT '',
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX circuit_breaker_events_by_name ON jivs.circuit_breaker_events (name, at);

-- Rejected rows. The only place where a value of a user's row is kept.
CREATE TABLE jivs.migration_quarantine (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    table_name      text NOT NULL,
    chunk           integer,
    row_key         jsonb,
    column_name     text,
    reason          text NOT NULL,
    value           text,
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX migration_quarantine_by_key ON jivs.migration_quarantine (key, table_name);

-- Numbers per status and target for dashboards; refreshed concurrently, hence the unique index.
CREATE MATERIALIZED VIEW jivs.migration_statistics AS
    SELECT target_name,
           status,
           count(*)                                                        AS migrations,
           sum(rows_done)::bigint                                          AS rows,
           sum(bytes_done)::bigint                                         AS bytes,
           sum(retries)::bigint                                            AS retries,
           sum(quarantined)::bigint                                        AS quarantined,
           avg(extract(epoch FROM finished_at - started_at))               AS mean_seconds,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)) AS p95_seconds,
           max(finished_at)                                                AS last_finished_at
      FROM jivs.migrations
     GROUP BY target_name, status;
CREATE UNIQUE INDEX migration_statistics_key ON jivs.migration_statistics (target_name, status);

-- Deletes what is older than `days` and no longer needed: delivered events, retries, measurements and
-- breaker transitions of the past, and requests that ended. Migrations themselves stay.
CREATE FUNCTION jivs.apply_retention(days integer) RETURNS TABLE (table_name text, deleted bigint)
LANGUAGE plpgsql AS $$
DECLARE
    oldest timestamptz := now() - make_interval(days => days);
BEGIN
    IF days < 1 THEN
        RAISE EXCEPTION 'retention keeps at least one day';
    END IF;
    DELETE FROM jivs.migration_events e WHERE e.at < oldest AND e.delivered_at IS NOT NULL;
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_events'; RETURN NEXT;
    DELETE FROM jivs.migration_retries r WHERE r.at < oldest;
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_retries'; RETURN NEXT;
    DELETE FROM jivs.migration_performance_metrics p WHERE p.at < oldest;
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_performance_metrics'; RETURN NEXT;
    DELETE FROM jivs.circuit_breaker_events c WHERE c.at < oldest;
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'circuit_breaker_events'; RETURN NEXT;
    DELETE FROM jivs.migration_requests q
     WHERE q.finished_at < oldest AND q.status IN ('completed', 'failed', 'cancelled');
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_requests'; RETURN NEXT;
END $$;
