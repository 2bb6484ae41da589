-- Revision 0006 of the control schema: migrations that are loaded again and again, and what is cleaned up at night.

-- begun_epoch     what the target's ledger has of older epochs was made by loads that are over, and stays
-- schedule_since  since when the spec has its schedule; times before that are not made up for
-- last_due        the latest time of the schedule for which a load was asked for
ALTER TABLE jivs.migrations
    ADD COLUMN begun_epoch bigint NOT NULL DEFAULT 0 CHECK (begun_epoch >= 0),
    ADD COLUMN schedule_since timestamptz,
    ADD COLUMN last_due timestamptz;

-- Whoever writes a spec may bring another schedule, or none.
CREATE FUNCTION jivs.note_schedule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.spec ->> 'schedule' IS DISTINCT FROM OLD.spec ->> 'schedule' THEN
        NEW.schedule_since := CASE WHEN NEW.spec ->> 'schedule' IS NOT NULL THEN clock_timestamp() END;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER migrations_schedule BEFORE INSERT OR UPDATE OF spec ON jivs.migrations
    FOR EACH ROW EXECUTE FUNCTION jivs.note_schedule();

-- A request for what is completed already asks for no load, but its schedule is the wanted one from now on.
CREATE FUNCTION jivs.take_schedule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jivs.migrations m
       SET spec = jsonb_set(m.spec, '{schedule}', coalesce(NEW.spec -> 'schedule', 'null'))
     WHERE m.key = NEW.key AND m.spec ->> 'schedule' IS DISTINCT FROM NEW.spec ->> 'schedule';
    RETURN NULL;
END $$;
CREATE TRIGGER migration_requests_schedule AFTER INSERT ON jivs.migration_requests
    FOR EACH ROW WHEN (NEW.status = 'completed') EXECUTE FUNCTION jivs.take_schedule();

-- What the weekly comparison found last, per migration. The migration's own status tells of its run, not of today.
CREATE TABLE jivs.migration_reverifications (
    key         text PRIMARY KEY REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    outcome     text NOT NULL CHECK (outcome IN ('equal', 'different', 'skipped')),
    detail      text NOT NULL DEFAULT '',
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The first version deleted events that the stream had and the webhook had not.
DROP FUNCTION jivs.apply_retention(integer);

-- Deletes what is older than `days` and no longer needed, at most `most` rows of each table; NULL: all of them.
--   SELECT * FROM jivs.apply_retention(90);
-- Stay: migrations; rejected rows, of which there is no other copy; measurements of a migration's latest load, which
-- its report shows; events that a receiver has not acknowledged; requests that have not ended, with their keys.
CREATE FUNCTION jivs.apply_retention(days integer, most integer DEFAULT NULL)
RETURNS TABLE (table_name text, deleted bigint) LANGUAGE plpgsql AS $$
DECLARE
    oldest timestamptz := now() - make_interval(days => days);
    webhook_since timestamptz := coalesce(
        (SELECT since FROM jivs.event_receivers r WHERE r.name = 'webhook'), 'infinity');
BEGIN
    IF days < 1 THEN
        RAISE EXCEPTION 'retention keeps at least one day';
    END IF;
    -- Rows that somebody has locked, such as another night's call, are left to whoever has them.
    DELETE FROM jivs.migration_event_failures WHERE id IN (
        SELECT f.id FROM jivs.migration_event_failures f WHERE f.at < oldest LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_event_failures'; RETURN NEXT;
    -- In order: what is kept of a migration's events has no gap.
    DELETE FROM jivs.migration_events WHERE (key, seq) IN (
        WITH unacknowledged AS (
            SELECT w.key, min(w.seq) AS seq FROM jivs.migration_events w
             WHERE w.delivered_at IS NULL OR (w.webhook_at IS NULL AND w.at >= webhook_since) GROUP BY w.key)
        SELECT e.key, e.seq FROM jivs.migration_events e
         WHERE e.at < oldest
           AND NOT EXISTS (SELECT FROM unacknowledged u WHERE u.key = e.key AND u.seq <= e.seq)
         ORDER BY e.key, e.seq LIMIT most FOR UPDATE OF e SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_events'; RETURN NEXT;
    DELETE FROM jivs.migration_retries WHERE id IN (
        SELECT r.id FROM jivs.migration_retries r WHERE r.at < oldest LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_retries'; RETURN NEXT;
    DELETE FROM jivs.migration_performance_metrics WHERE id IN (
        SELECT p.id FROM jivs.migration_performance_metrics p JOIN jivs.migrations m USING (key)
         WHERE p.at < oldest AND p.at < m.started_at LIMIT most FOR UPDATE OF p SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_performance_metrics'; RETURN NEXT;
    DELETE FROM jivs.circuit_breaker_events WHERE id IN (
        SELECT c.id FROM jivs.circuit_breaker_events c WHERE c.at < oldest LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'circuit_breaker_events'; RETURN NEXT;
    -- Their idempotency keys go with them.
    DELETE FROM jivs.migration_requests WHERE request_id IN (
        SELECT q.request_id FROM jivs.migration_requests q
         WHERE q.finished_at < oldest AND q.status IN ('completed', 'failed', 'cancelled')
         LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS deleted = ROW_COUNT; table_name := 'migration_requests'; RETURN NEXT;
END $$;
