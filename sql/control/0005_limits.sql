-- Revision 0005 of the control schema: connections to sources and targets are counted over all migrations.

-- Leave to open connections to an endpoint (a connection's name and the place it means). A row is gone when its holder
-- gave it back; one whose process is proved dead, or was silent for longer than its lease, is not counted.
CREATE TABLE jivs.connection_permits (
    permit_id       uuid PRIMARY KEY,
    endpoint        text NOT NULL,
    key             text NOT NULL,
    permits         integer NOT NULL CHECK (permits > 0),
    host            text NOT NULL,
    boot_id         text NOT NULL,
    pid             integer NOT NULL,
    process_start   text NOT NULL,
    taken_at        timestamptz NOT NULL DEFAULT now(),
    heartbeat_at    timestamptz NOT NULL DEFAULT now(),
    lease_seconds   double precision NOT NULL CHECK (lease_seconds > 0)
);
CREATE INDEX connection_permits_by_endpoint ON jivs.connection_permits (endpoint);
