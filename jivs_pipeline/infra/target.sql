-- Queries of infra/target.py on a target database. Parameters are %(name)s.

-- name: usable_connections
-- How many connections this role could open to this database, if nobody else had any. Before PostgreSQL 16 nothing is
-- reserved but for superusers.
SELECT least(current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - coalesce(current_setting('reserved_connections', true), '0')::int,
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()));

-- name: relations
-- Everything that already bears one of the names: a table, view, sequence or index would be in the way; of which table
-- it is a partition; and whether its policies hide rows from us.
SELECT c.relname, c.relkind::text, CASE WHEN c.relispartition THEN
           (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = c.oid) END,
       CASE WHEN c.relkind IN ('r', 'p') THEN row_security_active(c.oid) ELSE false END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s);

-- name: surroundings
-- Tables of the schema; what the database and its server have for them, and what this role may.
SELECT 'table', c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relkind = 'r'
UNION ALL
SELECT 'extension', format('%%s.%%s', n.nspname, x.extname) FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
UNION ALL
SELECT 'role', rolname::text FROM pg_roles
UNION ALL
-- Collations of the server's own, what makes them, and the locales of its system.
SELECT o.kind, o.name
  FROM pg_collation c CROSS JOIN LATERAL (VALUES
       ('collation', format('pg_catalog.%%I', c.collname)),
       ('collation provider', CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END),
       ('collation provider', CASE WHEN c.collprovider = 'i' AND to_jsonb(c) ? 'collicurules' THEN 'icu with rules' END),
       ('locale', CASE WHEN c.collprovider = 'c' THEN c.collcollate::text END)) o (kind, name)
 WHERE c.collnamespace = 'pg_catalog'::regnamespace AND o.name IS NOT NULL
   AND c.collencoding IN (-1, (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database()))
UNION ALL
SELECT 'right', 'SUPERUSER' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT 'foreign server', srvname::text FROM pg_foreign_server WHERE has_server_privilege(oid, 'USAGE')
UNION ALL
-- Also those of other schemas: a publication is in none, and so is its name.
SELECT 'publication', pubname::text FROM pg_publication
UNION ALL
SELECT 'right', 'BYPASSRLS' FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolbypassrls)
UNION ALL
SELECT 'privilege', 'MAINTAIN' WHERE current_setting('server_version_num')::int >= 170000
UNION ALL
-- As the source's are called: without and with the right to grant it on.
SELECT 'grant', format('(%%s to %%s%%s)', a.privilege_type,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, o.shown)
  FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a, (VALUES ('', false), (', grantable', true)) o (shown, needed)
 WHERE n.nspname = %(schema)s AND (a.is_grantable OR NOT o.needed)
UNION ALL
SELECT 'grant', format('(default of %%s: %%s on %%s to %%s%%s)', pg_get_userbyid(d.defaclrole), a.privilege_type,
                       CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' ELSE 'types' END,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, o.shown)
  FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a,
       (VALUES ('', false), (', grantable', true)) o (shown, needed)
 WHERE n.nspname = %(schema)s AND (a.is_grantable OR NOT o.needed);

-- name: columns
-- Columns of the existing tables, as the server spells their types.
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated <> '' AS generated,
       a.atthasdef OR a.attidentity <> '' AS filled
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY c.relname, a.attnum;

-- name: dependents
-- What would go with or hold on to a table that is replaced or emptied: views on it and foreign keys to it,
-- with the schema and table that they are on.
SELECT t.relname, d.kind, d.name, o.nspname, c.relname
  FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN LATERAL (
       SELECT 'foreign key' AS kind, k.conname::text AS name, k.conrelid AS relation
         FROM pg_constraint k WHERE k.confrelid = t.oid AND k.contype = 'f' AND k.conrelid <> t.oid
       UNION
       SELECT 'view', v.relname::text, v.oid AS relation
         FROM pg_depend p JOIN pg_rewrite r ON r.oid = p.objid AND p.classid = 'pg_rewrite'::regclass
         JOIN pg_class v ON v.oid = r.ev_class
        WHERE p.refobjid = t.oid AND p.refclassid = 'pg_class'::regclass AND v.oid <> t.oid
  ) d ON true
  JOIN pg_class c ON c.oid = d.relation JOIN pg_namespace o ON o.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND t.relname = ANY (%(names)s);

-- name: keys
-- For each table the columns of a key that tells its rows apart: the primary key, else a unique index without NULLs.
SELECT DISTINCT ON (t.relname) t.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns
  FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
 WHERE n.nspname = %(schema)s AND t.relname = ANY (%(names)s) AND i.indisunique AND i.indisvalid
   AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attgenerated = ''
 GROUP BY t.relname, i.indexrelid, i.indisprimary
HAVING bool_and(a.attnotnull)
 ORDER BY t.relname, i.indisprimary DESC, i.indexrelid;

-- name: latest_step
SELECT "table", step, undo FROM jivs_ledger.steps WHERE key = %(key)s ORDER BY number DESC LIMIT 1;

-- name: objects_made
-- What was made beside the tables of a schema, the latest first.
SELECT step, undo FROM jivs_ledger.steps
 WHERE key = %(key)s AND "table" = %(table)s AND undo ? 'object' ORDER BY number DESC;

-- name: oldest_step
-- Of a load that is over.
SELECT "table", step, undo FROM jivs_ledger.steps WHERE key = %(key)s AND epoch < %(since)s ORDER BY number LIMIT 1;

-- name: references_kept
-- Foreign keys of other tables to a table that is kept for a rollback, as far as those are kept, too.
SELECT n.nspname, c.relname, k.conname
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND k.confrelid = to_regclass(%(kept)s) AND k.conrelid <> k.confrelid
   AND n.nspname ~ '^jivs_kept_';

-- name: forget_older_chunks
DELETE FROM jivs_ledger.chunks WHERE key = %(key)s AND epoch < %(since)s;

-- name: forget_step
DELETE FROM jivs_ledger.steps WHERE key = %(key)s AND "table" = %(table)s AND step = %(step)s;

-- name: forget_chunks
DELETE FROM jivs_ledger.chunks WHERE key = %(key)s AND "table" = %(table)s;

-- name: forget_all
-- What is left when every step is undone; the epoch stays, so that whatever an earlier run still sends is refused.
WITH c AS (DELETE FROM jivs_ledger.chunks WHERE key = %(key)s)
DELETE FROM jivs_ledger.backends b
 WHERE b.key = %(key)s
   AND b.epoch < (SELECT m.epoch FROM jivs_ledger.migrations m WHERE m.key = %(key)s);

-- name: plain_columns
-- Columns that a statement can fill, in order.
SELECT attname::text FROM pg_attribute
 WHERE attrelid = to_regclass(%(relation)s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
 ORDER BY attnum;

-- name: has_ledger
SELECT to_regclass('jivs_ledger.steps') IS NOT NULL AND to_regclass('jivs_ledger.revisions') IS NOT NULL;

-- name: ledger_epoch
SELECT epoch FROM jivs_ledger.migrations WHERE key = %(key)s;

-- name: ledger_steps
SELECT "table", step, generation, undo FROM jivs_ledger.steps
 WHERE key = %(key)s AND epoch >= %(since)s ORDER BY number;

-- name: ledger_chunks
SELECT "table", chunk, generation, rows, bytes FROM jivs_ledger.chunks WHERE key = %(key)s AND epoch >= %(since)s;

-- name: terminate_older
-- Ends the server processes of overtaken epochs. All three marks must match: process ids are used again.
SELECT a.pid, pg_terminate_backend(a.pid)
  FROM jivs_ledger.backends b
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
 WHERE b.key = %(key)s AND b.epoch < %(epoch)s AND a.pid <> pg_backend_pid();

-- name: live_others
-- Server processes of a holder that another control database knows.
SELECT count(*)
  FROM jivs_ledger.backends b
  JOIN pg_stat_activity a ON a.pid = b.pid AND a.backend_start = b.backend_start
                         AND a.application_name = b.application_name
  JOIN jivs_ledger.migrations m ON m.key = b.key
 WHERE b.key = %(key)s AND m.control_id <> %(control_id)s::uuid;

-- name: claim
-- Raises the epoch; it never falls, and an equal one is only its own owner's.
INSERT INTO jivs_ledger.migrations AS m (key, control_id, epoch, owner)
VALUES (%(key)s, %(control_id)s, %(epoch)s, %(owner)s)
ON CONFLICT (key) DO UPDATE
   SET epoch = excluded.epoch, control_id = excluded.control_id, owner = excluded.owner, claimed_at = now()
 WHERE m.epoch < excluded.epoch OR (m.epoch = excluded.epoch AND m.owner = excluded.owner)
RETURNING epoch;

-- name: more_memory
-- For building indexes: 256 MB, or as much as the server has for its shared buffers, which says how large its machine is.
SELECT set_config('maintenance_work_mem', wanted::text || 'kB', false)
  FROM (SELECT least(pg_size_bytes('256MB'), pg_size_bytes(current_setting('shared_buffers'))) / 1024 AS wanted) AS w
 WHERE wanted > pg_size_bytes(current_setting('maintenance_work_mem')) / 1024
       -- What somebody has chosen for this database or role stays.
   AND (SELECT source FROM pg_settings WHERE name = 'maintenance_work_mem') NOT LIKE '%database%'
   AND (SELECT source FROM pg_settings WHERE name = 'maintenance_work_mem') NOT LIKE '%user%';

-- name: register_backend
-- Announces this connection to whoever may have to end it. Refused once the epoch has moved on.
INSERT INTO jivs_ledger.backends (key, epoch, pid, backend_start, application_name)
SELECT m.key, m.epoch, a.pid, a.backend_start, a.application_name
  FROM jivs_ledger.migrations m, pg_stat_activity a
 WHERE m.key = %(key)s AND m.epoch = %(epoch)s AND a.pid = pg_backend_pid()
ON CONFLICT DO NOTHING
RETURNING pid;

-- name: forget_backends
DELETE FROM jivs_ledger.backends WHERE key = %(key)s AND epoch <= %(epoch)s;

-- name: fence
-- The check that every writing transaction begins with. The lock keeps a takeover waiting until we are done.
SELECT FROM jivs_ledger.migrations WHERE key = %(key)s AND epoch = %(epoch)s FOR SHARE;

-- name: add_chunk
INSERT INTO jivs_ledger.chunks (key, "table", chunk, generation, epoch, rows, bytes, digest)
VALUES (%(key)s, %(table)s, %(chunk)s, %(generation)s, %(epoch)s, %(rows)s, %(bytes)s, %(digest)s)
ON CONFLICT (key, "table", chunk) DO NOTHING;

-- name: note_bytes
-- Of a chunk that was streamed, which only its end tells.
UPDATE jivs_ledger.chunks SET bytes = %(bytes)s WHERE key = %(key)s AND "table" = %(table)s AND chunk = %(chunk)s;

-- name: chunk_generation
SELECT generation FROM jivs_ledger.chunks WHERE key = %(key)s AND "table" = %(table)s AND chunk = %(chunk)s;

-- name: limit_statement
-- For the rest of the transaction.
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: add_step
INSERT INTO jivs_ledger.steps (key, "table", step, generation, epoch, undo)
VALUES (%(key)s, %(table)s, %(step)s, %(generation)s, %(epoch)s, %(undo)s)
ON CONFLICT (key, "table", step) DO NOTHING;

-- name: step_undo
SELECT undo FROM jivs_ledger.steps WHERE key = %(key)s AND "table" = %(table)s AND step = %(step)s;

-- name: made
-- Whether this migration made the table that its chunks land in. Another's is never dropped.
SELECT FROM jivs_ledger.steps
 WHERE key = %(key)s AND "table" = %(table)s AND step = CASE WHEN %(beside)s THEN 'side' ELSE 'create' END;

-- name: references_made
-- Foreign keys of other tables to a table, as far as this migration made them.
SELECT n.nspname, c.relname, k.conname
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
  JOIN jivs_ledger.steps s ON s."table" = n.nspname || '.' || c.relname AND s.step = 'foreign key ' || k.conname
 WHERE s.key = %(key)s AND k.contype = 'f' AND k.conrelid <> k.confrelid
   AND pn.nspname = %(schema)s AND p.relname = %(name)s AND NOT %(beside)s;

-- name: forget_reference
-- A foreign key that went with its parent is made again, and checked again.
DELETE FROM jivs_ledger.steps
 WHERE key = %(key)s AND "table" = %(table)s AND step IN ('foreign key ' || %(name)s, 'checking foreign key ' || %(name)s);

-- name: forget_table
-- A table that was set aside stays aside: its step is kept.
WITH s AS (DELETE FROM jivs_ledger.steps WHERE key = %(key)s AND "table" = %(table)s AND step <> 'set aside')
DELETE FROM jivs_ledger.chunks WHERE key = %(key)s AND "table" = %(table)s;

-- name: at_work
-- Whether a session computes or waits for a lock or the disk: silence alone does not mean that it is dead. One
-- that waits for its client, or has nothing to do, will never say a word again.
SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client' FROM pg_stat_activity WHERE pid = %(pid)s;

-- name: mark
-- What tells this server process from one that has its number later.
SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid();

-- name: terminate_lost
-- Ends a server process whose connection we have given up: it may not know, and hold its locks for hours.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %(pid)s AND backend_start = %(since)s::timestamptz;
