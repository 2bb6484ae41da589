-- Revision 0003 of the control schema: events are relayed to the Redis Stream and to a webhook.

-- Where events go, and what was last seen there. `since`: older events are none of its business.
-- `server` and `generation` tell that the stream's server is another, was started again or has lost its data.
CREATE TABLE jivs.event_receivers (
    name        text PRIMARY KEY CHECK (name IN ('stream', 'webhook')),
    since       timestamptz NOT NULL DEFAULT now(),
    server      text,
    generation  text
);
INSERT INTO jivs.event_receivers (name, since) VALUES ('stream', '-infinity');

-- The webhook's own mark; `delivered_at` is the stream's.
ALTER TABLE jivs.migration_events ADD COLUMN webhook_at timestamptz;
CREATE INDEX migration_events_next ON jivs.migration_events (key, seq) WHERE delivered_at IS NULL;
CREATE INDEX migration_events_next_webhook ON jivs.migration_events (key, seq) WHERE webhook_at IS NULL;

-- Who posts the events of a migration now, so that two do not; after failures, until when nobody does.
CREATE TABLE jivs.webhook_claims (
    key         text PRIMARY KEY REFERENCES jivs.migrations (key) ON DELETE CASCADE,
    holder      uuid,
    until       timestamptz NOT NULL,
    failures    integer NOT NULL DEFAULT 0
);

ALTER TABLE jivs.migration_event_failures
    ADD COLUMN receiver text NOT NULL DEFAULT 'stream' CHECK (receiver IN ('stream', 'webhook'));
CREATE INDEX migration_event_failures_by_event ON jivs.migration_event_failures (key, seq);
