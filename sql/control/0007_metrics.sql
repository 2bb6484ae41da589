-- Revision 0007 of the control schema: what counters count, so that none of them ever falls.

-- One row for each run of a migration, and one for each change of state that no run made (`started_at` is null:
-- a paused migration that is cancelled). Never deleted, also not with its migration: the exporter's counters are
-- sums over it, and begin with this revision.
CREATE TABLE jivs.migration_runs (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key             text NOT NULL,
    target_name     text NOT NULL,
    run_id          text,
    resumed         boolean NOT NULL DEFAULT false,
    started_at      timestamptz,
    ended_at        timestamptz,
    -- `lost`: it ended without a word, and the next run has taken its place.
    outcome         text CHECK (outcome IN ('completed', 'mismatch', 'failed', 'lost', 'paused', 'cancelled')),
    rows            bigint NOT NULL DEFAULT 0,
    bytes           bigint NOT NULL DEFAULT 0,
    retries         bigint NOT NULL DEFAULT 0,
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX migration_runs_open ON jivs.migration_runs (key) WHERE ended_at IS NULL;

-- Whoever writes an event has locked its migration, so the triggers below never meet each other.
CREATE FUNCTION jivs.count_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ended text := NEW.data ->> 'status';
BEGIN
    IF NEW.type = 'migration.retried' THEN
        UPDATE jivs.migration_runs r SET retries = r.retries + 1 WHERE r.key = NEW.key AND r.ended_at IS NULL;
    ELSIF NEW.type IN ('migration.started', 'migration.resumed') THEN
        UPDATE jivs.migration_runs r SET outcome = 'lost', ended_at = NEW.at
         WHERE r.key = NEW.key AND r.ended_at IS NULL;
        INSERT INTO jivs.migration_runs (key, target_name, run_id, resumed, started_at)
        SELECT m.key, m.target_name, NEW.data ->> 'run_id', NEW.type = 'migration.resumed', NEW.at
          FROM jivs.migrations m WHERE m.key = NEW.key;
    ELSE
        UPDATE jivs.migration_runs r SET outcome = ended, ended_at = NEW.at
         WHERE r.key = NEW.key AND r.ended_at IS NULL;
        IF NOT FOUND THEN
            INSERT INTO jivs.migration_runs (key, target_name, ended_at, outcome)
            SELECT m.key, m.target_name, NEW.at, ended FROM jivs.migrations m WHERE m.key = NEW.key;
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER migration_events_counted AFTER INSERT ON jivs.migration_events
    FOR EACH ROW WHEN (NEW.type IN ('migration.started', 'migration.resumed', 'migration.retried')
                       OR NEW.data ->> 'status' IN ('completed', 'mismatch', 'failed', 'paused', 'cancelled'))
    EXECUTE FUNCTION jivs.count_event();

-- Rows of the load. `rows_done` begins again with each run, with what earlier runs have loaded; `rows_counted` is
-- the highest that it was since the migration was begun anew, so that no row is counted twice.
ALTER TABLE jivs.migrations
    ADD COLUMN rows_counted bigint NOT NULL DEFAULT 0,
    ADD COLUMN bytes_counted bigint NOT NULL DEFAULT 0,
    ADD COLUMN progressed_at timestamptz NOT NULL DEFAULT now();

CREATE FUNCTION jivs.count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.plan IS NULL THEN
        NEW.rows_counted := 0;
        NEW.bytes_counted := 0;
    ELSIF NEW.status = 'running' AND NEW.phase = 'load'
          AND (NEW.rows_done > NEW.rows_counted OR NEW.bytes_done > NEW.bytes_counted) THEN
        UPDATE jivs.migration_runs r
           SET rows = r.rows + greatest(0, NEW.rows_done - NEW.rows_counted),
               bytes = r.bytes + greatest(0, NEW.bytes_done - NEW.bytes_counted)
         WHERE r.key = NEW.key AND r.ended_at IS NULL;
        NEW.rows_counted := greatest(NEW.rows_counted, NEW.rows_done);
        NEW.bytes_counted := greatest(NEW.bytes_counted, NEW.bytes_done);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER migrations_counted BEFORE UPDATE OF rows_done, plan ON jivs.migrations
    FOR EACH ROW EXECUTE FUNCTION jivs.count_rows();

-- A load that takes less than a heartbeat has told nothing of its rows until it is measured.
CREATE FUNCTION jivs.count_load() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jivs.migrations m SET rows_done = NEW.rows, bytes_done = NEW.bytes
     WHERE m.key = NEW.key AND m.epoch = NEW.epoch AND m.status = 'running';
    RETURN NULL;
END $$;
CREATE TRIGGER migration_performance_counted AFTER INSERT ON jivs.migration_performance_metrics
    FOR EACH ROW WHEN (NEW.phase = 'load') EXECUTE FUNCTION jivs.count_load();

-- When a migration was last seen to come on, which a heartbeat alone does not say.
CREATE FUNCTION jivs.note_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.progressed_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER migrations_progressed BEFORE UPDATE ON jivs.migrations
    FOR EACH ROW WHEN (NEW.rows_done IS DISTINCT FROM OLD.rows_done OR NEW.bytes_done IS DISTINCT FROM OLD.bytes_done
                       OR NEW.phase IS DISTINCT FROM OLD.phase OR NEW.epoch IS DISTINCT FROM OLD.epoch)
    EXECUTE FUNCTION jivs.note_progress();

CREATE FUNCTION jivs.note_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jivs.migrations m SET progressed_at = clock_timestamp() WHERE m.key = NEW.key;
    RETURN NULL;
END $$;
CREATE TRIGGER migration_checkpoints_progress AFTER INSERT OR UPDATE ON jivs.migration_checkpoints
    FOR EACH ROW EXECUTE FUNCTION jivs.note_checkpoint();

-- Starters that were refused because another run holds the migration. A table of its own, so that those who are
-- refused never stand in the holder's way.
CREATE TABLE jivs.migration_lock_conflicts (
    key             text PRIMARY KEY,
    conflicts       bigint NOT NULL DEFAULT 0,
    last_at         timestamptz NOT NULL DEFAULT now()
);

-- What rows counted for that are gone: deleted by retention, or published and then lost by the stream.
CREATE TABLE jivs.metric_carry (
    metric          text NOT NULL,
    label           text NOT NULL DEFAULT '',
    bucket          integer NOT NULL DEFAULT 0,
    total           bigint NOT NULL,
    seconds         double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (metric, label, bucket)
);

-- Upper bounds of the histograms of seconds; what is longer is in bucket cardinality + 1.
CREATE FUNCTION jivs.duration_bounds() RETURNS double precision[] LANGUAGE sql IMMUTABLE AS
    $$ SELECT '{0.1,0.5,1,2.5,5,10,30,60,120,300,600,1800,3600,7200,14400,43200,86400}'::double precision[] $$;

CREATE FUNCTION jivs.duration_bucket(seconds double precision) RETURNS integer LANGUAGE sql IMMUTABLE AS
    $$ SELECT width_bucket(seconds, jivs.duration_bounds()) + 1 $$;

CREATE FUNCTION jivs.carry(name text, label text, bucket integer, total bigint, seconds double precision DEFAULT 0)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO jivs.metric_carry AS c VALUES (name, label, bucket, total, seconds)
    ON CONFLICT ON CONSTRAINT metric_carry_pkey
    DO UPDATE SET total = c.total + excluded.total, seconds = c.seconds + excluded.seconds
$$;

CREATE FUNCTION jivs.carry_phases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('phase_seconds', g.phase, g.bucket, g.total, g.seconds)
       FROM (SELECT phase, jivs.duration_bucket(seconds) AS bucket, count(*) AS total, sum(seconds) AS seconds
               FROM gone GROUP BY 1, 2 ORDER BY 1, 2) g;
    RETURN NULL;
END $$;
CREATE TRIGGER migration_performance_carried AFTER DELETE ON jivs.migration_performance_metrics
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jivs.carry_phases();

CREATE FUNCTION jivs.carry_breakers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('breaker_opened', '', 0, g.total)
       FROM (SELECT count(*) AS total FROM gone WHERE after = 'open') g WHERE g.total > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER circuit_breaker_events_carried AFTER DELETE ON jivs.circuit_breaker_events
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jivs.carry_breakers();

CREATE FUNCTION jivs.carry_quarantine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('records_failed', '', 0, g.total) FROM (SELECT count(*) AS total FROM gone) g WHERE g.total > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER migration_quarantine_carried AFTER DELETE ON jivs.migration_quarantine
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jivs.carry_quarantine();

-- Published events are those written without those that wait. What the stream has lost waits again, and was published.
CREATE FUNCTION jivs.carry_lost_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('events_published', '', 0, g.total)
       FROM (SELECT (SELECT count(*) FROM was WHERE delivered_at IS NOT NULL)
                  - (SELECT count(*) FROM becomes WHERE delivered_at IS NOT NULL) AS total) g WHERE g.total > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER migration_events_lost AFTER UPDATE ON jivs.migration_events
    REFERENCING OLD TABLE AS was NEW TABLE AS becomes FOR EACH STATEMENT EXECUTE FUNCTION jivs.carry_lost_events();

CREATE FUNCTION jivs.carry_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('events_published', '', 0, g.total)
       FROM (SELECT sum(event_seq)::bigint AS total FROM gone) g WHERE g.total > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER migrations_carried AFTER DELETE ON jivs.migrations
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jivs.carry_events();
