-- Queries of infra/permits.py on schema jivs. Parameters are %(name)s.

-- name: lock_endpoint
-- One taker at a time and endpoint, until the transaction ends; two endpoints do not wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('jivs.connection_permits ' || %(endpoint)s, 0));

-- name: permits
-- Who may have connections to an endpoint. Silence is measured by the control database's clock.
SELECT permit_id::text, key, permits, host, boot_id, pid, process_start,
       extract(epoch FROM clock_timestamp() - heartbeat_at) > lease_seconds AS silent
  FROM jivs.connection_permits WHERE endpoint = %(endpoint)s ORDER BY taken_at, permit_id;

-- name: take_permit
-- Also puts back a permit whose holder was taken for dead and is not: its connections are open, so they count.
INSERT INTO jivs.connection_permits
       (permit_id, endpoint, key, permits, host, boot_id, pid, process_start, lease_seconds)
VALUES (%(permit_id)s, %(endpoint)s, %(key)s, %(permits)s, %(host)s, %(boot_id)s, %(pid)s, %(process_start)s, %(lease_seconds)s)
ON CONFLICT (permit_id) DO UPDATE SET heartbeat_at = clock_timestamp();

-- name: give_back
DELETE FROM jivs.connection_permits WHERE permit_id = ANY (%(permit_ids)s::uuid[]);
