-- Four roles with the least rights that do the work. Run once by a superuser; then
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

-- Reads what the exporter shows.
CREATE ROLE jivs_metrics_reader NOLOGIN;
ALTER ROLE jivs_metrics_reader SET default_transaction_read_only = on;
