-- Revision 0004 of the control schema: requests are a queue, and follow the migrations that they ask for.

-- Limits that all processes share; whoever operates changes them with UPDATE.
CREATE TABLE jivs.limits (
    name    text PRIMARY KEY,
    value   integer NOT NULL CHECK (value > 0)
);
INSERT INTO jivs.limits (name, value) VALUES ('runs', 50);

ALTER TABLE jivs.migration_requests DROP CONSTRAINT migration_requests_status_check;
ALTER TABLE jivs.migration_requests ADD CONSTRAINT migration_requests_status_check CHECK (status IN
    ('queued', 'launched', 'running', 'paused', 'completed', 'failed', 'cancelled'));
ALTER TABLE jivs.migration_requests ALTER COLUMN attempt SET DEFAULT 1;

-- A migration has one open request at a time: what would two of them mean?
CREATE UNIQUE INDEX migration_requests_open ON jivs.migration_requests (key)
    WHERE status IN ('queued', 'launched', 'running');

-- Written before the request that it names, so that two who bring one key meet here.
ALTER TABLE jivs.migration_idempotency_keys DROP CONSTRAINT migration_idempotency_keys_request_id_fkey;
ALTER TABLE jivs.migration_idempotency_keys ADD CONSTRAINT migration_idempotency_keys_request_id_fkey
    FOREIGN KEY (request_id) REFERENCES jivs.migration_requests (request_id) ON DELETE CASCADE
    DEFERRABLE INITIALLY DEFERRED;

-- By what two requests are told to ask for the same. jsonb orders the keys of an object, so their order does not
-- count; `jivs submit` gives the hash of the spec with all its defaults instead.
CREATE FUNCTION jivs.body_hash(spec jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT encode(sha256(convert_to(spec::text, 'UTF8')), 'hex') $$;

-- Makes the migration's row where there is none and locks it: always the first lock of whoever takes several.
-- Only the head of a spec is looked at; the run judges the rest.
CREATE FUNCTION jivs.register_migration(spec jsonb, body_hash text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    wanted text := spec ->> 'key';
    part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['key', 'source', 'target'] LOOP
        IF jsonb_typeof(spec -> part) IS DISTINCT FROM 'string' THEN
            RAISE EXCEPTION 'the spec lacks the text %', part USING ERRCODE = 'JV004';
        END IF;
        -- Also what keeps a URL, which may hold a password, out of this database.
        IF (spec ->> part) !~ '^[a-z0-9][a-z0-9_-]{0,62}$' THEN
            RAISE EXCEPTION '% of the spec is no name: 1 to 63 of a-z, 0-9, _ and -', part USING ERRCODE = 'JV004';
        END IF;
    END LOOP;
    INSERT INTO jivs.migrations (key, source_name, target_name, spec, spec_hash)
    VALUES (wanted, spec ->> 'source', spec ->> 'target', spec, body_hash) ON CONFLICT (key) DO NOTHING;
    PERFORM FROM jivs.migrations m WHERE m.key = wanted FOR UPDATE;
    RETURN wanted;
END $$;

-- A request that is queued, by INSERT or once more: its migration is queued with it, and an event tells so. One that
-- runs or is completed stays what it is; the request then waits for its end, or finds that nothing is left to do.
CREATE FUNCTION jivs.queue_request() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    next_seq bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.key := coalesce(NEW.key, NEW.spec ->> 'key');
        NEW.body_hash := coalesce(NEW.body_hash, jivs.body_hash(NEW.spec));
        IF NEW.key IS DISTINCT FROM NEW.spec ->> 'key' THEN
            RAISE EXCEPTION 'the request is for %, and its spec for %', NEW.key, NEW.spec ->> 'key'
                USING ERRCODE = 'JV004';
        END IF;
    END IF;
    PERFORM jivs.register_migration(NEW.spec, NEW.body_hash);
    UPDATE jivs.migrations m
       SET status = 'queued', requested = NULL, error = NULL, spec = NEW.spec, spec_hash = NEW.body_hash,
           source_name = NEW.spec ->> 'source', target_name = NEW.spec ->> 'target'
     WHERE m.key = NEW.key AND m.status NOT IN ('running', 'completed');
    UPDATE jivs.migrations m SET event_seq = m.event_seq + 1 WHERE m.key = NEW.key RETURNING m.event_seq INTO next_seq;
    INSERT INTO jivs.migration_events (key, seq, type, data)
    VALUES (NEW.key, next_seq, 'migration.queued',
            jsonb_build_object('request_id', NEW.request_id, 'attempt', NEW.attempt));
    RETURN NEW;
END $$;
CREATE TRIGGER migration_requests_inserted BEFORE INSERT ON jivs.migration_requests
    FOR EACH ROW WHEN (NEW.status = 'queued') EXECUTE FUNCTION jivs.queue_request();
CREATE TRIGGER migration_requests_queued BEFORE UPDATE OF status ON jivs.migration_requests
    FOR EACH ROW WHEN (NEW.status = 'queued' AND OLD.status <> 'queued') EXECUTE FUNCTION jivs.queue_request();

-- The request whose fate is the migration's now: the open one, or that of a run that was paused or has failed.
CREATE FUNCTION jivs.current_request(migration jivs.migrations) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT r.request_id FROM jivs.migration_requests r
     WHERE r.key = migration.key AND r.status IN ('queued', 'launched', 'running', 'paused', 'failed')
       -- A run of another spec is not what was asked for. An SQL client may have left defaults out.
       AND (r.body_hash = migration.spec_hash OR migration.spec @> r.spec)
     ORDER BY r.status IN ('queued', 'launched', 'running') DESC, r.created_at DESC LIMIT 1
$$;

-- What becomes of a migration becomes of its request, in the same transaction. Not so a failure: Dagster may launch
-- another run for it, and the sensor that knows says when there will be none.
CREATE FUNCTION jivs.follow_migration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'running' THEN
        UPDATE jivs.migration_requests r
           SET status = 'running', run_id = NEW.run_id, launched_at = coalesce(r.launched_at, now()),
               finished_at = NULL, error = NULL
         WHERE r.request_id = jivs.current_request(NEW);
    ELSIF NEW.status IN ('completed', 'paused') THEN
        UPDATE jivs.migration_requests r
           SET status = NEW.status, error = NULL, finished_at = CASE WHEN NEW.status = 'completed' THEN now() END
         WHERE r.key = NEW.key AND r.status = 'running';
    ELSIF NEW.status IN ('cancelled', 'rolled_back') THEN
        UPDATE jivs.migration_requests r SET status = 'cancelled', finished_at = now()
         WHERE r.key = NEW.key AND r.status IN ('queued', 'launched', 'running', 'paused');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER migrations_followed AFTER UPDATE OF status ON jivs.migrations
    FOR EACH ROW EXECUTE FUNCTION jivs.follow_migration();

-- Asks for a migration; the one way in for `jivs submit` and for SQL clients.
--   SELECT * FROM jivs.submit_request('{"key": "sakila", "source": "legacy", "target": "warehouse"}');
-- spec              as in a spec file; names of connections, never URLs
-- idempotency_key   the same key and spec get the first request's answer; the same key with another spec is refused
-- priority          the higher, the earlier
-- What is open is not asked for twice. What failed, was paused or was cancelled is queued again as its next attempt.
CREATE FUNCTION jivs.submit_request(
    spec jsonb, idempotency_key text DEFAULT NULL, priority integer DEFAULT 0, body_hash text DEFAULT NULL,
    new_id uuid DEFAULT gen_random_uuid()
) RETURNS TABLE (request_id uuid, key text, duplicate boolean, status text, attempt integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    hash constant text := coalesce(submit_request.body_hash, jivs.body_hash(spec));
    wanted constant text := jivs.register_migration(spec, hash);
    given jivs.migration_idempotency_keys;
    known jivs.migration_requests;
    migration jivs.migrations;
    answered boolean := false;
BEGIN
    SELECT * INTO known FROM jivs.migration_requests r WHERE r.request_id = new_id;
    IF FOUND THEN
        -- Sent again: its commit was not acknowledged.
        RETURN QUERY SELECT known.request_id, known.key, false, known.status, known.attempt;
        RETURN;
    END IF;
    IF submit_request.idempotency_key IS NOT NULL THEN
        INSERT INTO jivs.migration_idempotency_keys (idempotency_key, body_hash, request_id)
        VALUES (submit_request.idempotency_key, hash, new_id) ON CONFLICT DO NOTHING;
        SELECT * INTO STRICT given FROM jivs.migration_idempotency_keys i
         WHERE i.idempotency_key = submit_request.idempotency_key;
        IF given.body_hash <> hash THEN
            RAISE EXCEPTION 'the idempotency key % was used with another spec', submit_request.idempotency_key
                USING ERRCODE = 'JV003', HINT = 'Use another key for another request';
        END IF;
        SELECT * INTO known FROM jivs.migration_requests r WHERE r.request_id = given.request_id FOR UPDATE;
    END IF;
    IF known.request_id IS NULL THEN
        SELECT * INTO known FROM jivs.migration_requests r
         WHERE r.key = wanted AND r.status IN ('queued', 'launched', 'running', 'paused')
         ORDER BY r.status = 'paused', r.created_at DESC LIMIT 1 FOR UPDATE;
        IF known.body_hash <> hash AND known.status <> 'paused' THEN
            RAISE EXCEPTION 'migration % is % already, with another spec (request %)', wanted, known.status, known.request_id
                USING ERRCODE = 'JV003', HINT = format('Wait for it, or stop it with: jivs cancel %s', wanted);
        ELSIF known.body_hash <> hash THEN
            UPDATE jivs.migration_requests r SET status = 'cancelled', finished_at = now()
             WHERE r.request_id = known.request_id;
            known := NULL;
        ELSIF known.request_id IS NOT NULL AND given.request_id = new_id THEN
            -- The key stands for the request that was there before it.
            UPDATE jivs.migration_idempotency_keys i SET request_id = known.request_id
             WHERE i.idempotency_key = submit_request.idempotency_key;
        END IF;
    END IF;
    SELECT * INTO STRICT migration FROM jivs.migrations m WHERE m.key = wanted;
    IF known.request_id IS NULL THEN
        IF migration.status = 'completed' AND submit_request.body_hash IS NOT NULL AND migration.spec_hash <> hash THEN
            RAISE EXCEPTION 'migration % is completed, and its spec was another one', wanted
                USING ERRCODE = 'JV003', HINT = format('Use another key for it, or take it back first: jivs rollback %s', wanted);
        END IF;
        INSERT INTO jivs.migration_requests (request_id, key, spec, body_hash, priority, status, finished_at)
        SELECT new_id, wanted, spec, hash, submit_request.priority,
               CASE WHEN done THEN 'completed' ELSE 'queued' END, CASE WHEN done THEN now() END
          FROM (SELECT migration.status = 'completed' AND migration.spec_hash = hash AS done) AS found
        RETURNING * INTO known;
    ELSIF known.status IN ('failed', 'paused', 'cancelled') THEN
        IF EXISTS (SELECT FROM jivs.migration_requests r
                    WHERE r.key = wanted AND r.status IN ('queued', 'launched', 'running')) THEN
            RAISE EXCEPTION 'migration % was asked for by another request, which has not ended', wanted
                USING ERRCODE = 'JV003', HINT = format('See jivs status %s', wanted);
        END IF;
        UPDATE jivs.migration_requests r
           SET status = 'queued', attempt = r.attempt + 1, priority = submit_request.priority, run_id = NULL, error = NULL,
               launched_at = NULL, finished_at = NULL
         WHERE r.request_id = known.request_id RETURNING * INTO known;
    ELSE
        answered := true;
    END IF;
    RETURN QUERY SELECT known.request_id, known.key, answered, known.status, known.attempt;
END $$;
