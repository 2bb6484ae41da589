-- Five roles with the least rights that do the work. Run once by a superuser; then
--   GRANT jivs_source_reader TO somebody;  and so on. Connection URLs name the members, not these groups.

-- Reads a source. Also grant: USAGE on the schemas, SELECT on the tables to be migrated, and BYPASSRLS on the
-- member where row level security would hide rows (jivs refuses to read filtered rows silently).
CREATE ROLE jivs_source_reader NOLOGIN;
ALTER ROLE jivs_source_reader SET default_transaction_read_only = on;

-- Writes a target: also needs CREATE on the database (ledger schema, new schemas) and on the target schema.
-- pg_signal_backend lets a takeover end the stale connections of a run under another member of this role.
CREATE ROLE jivs_target_loader NOLOGIN;
GRANT pg_signal_backend TO jivs_target_loader;

-- Owns schema jivs in the control database.
CREATE ROLE jivs_control_owner NOLOGIN;

-- Reads rejected rows, values and all, in the control database; nobody else but the owner may. Also grant there:
--   GRANT USAGE ON SCHEMA jivs TO jivs_quarantine_reader;
--   GRANT SELECT ON jivs.migration_quarantine TO jivs_quarantine_reader;
CREATE ROLE jivs_quarantine_reader NOLOGIN;
ALTER ROLE jivs_quarantine_reader SET default_transaction_read_only = on;

-- Reads what the exporter shows. Also grant, in the control database, once `jivs db upgrade` has run there
-- (rejected rows stay out of its reach but for their number; pg_read_all_stats tells whose sessions are idle):
--   GRANT pg_read_all_stats TO jivs_metrics_reader;
--   GRANT USAGE ON SCHEMA jivs TO jivs_metrics_reader;
--   GRANT SELECT ON ALL TABLES IN SCHEMA jivs TO jivs_metrics_reader;
--   REVOKE SELECT ON jivs.migration_quarantine FROM jivs_metrics_reader;
--   GRANT SELECT (id, example) ON jivs.migration_quarantine TO jivs_metrics_reader;
-- and in Dagster's storage SELECT on daemon_heartbeats and runs.
CREATE ROLE jivs_metrics_reader NOLOGIN;
ALTER ROLE jivs_metrics_reader SET default_transaction_read_only = on;
