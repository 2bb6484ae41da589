-- Queries of infra/quarantine.py on jivs.migration_quarantine. Parameters are %(name)s.

-- name: drop_chunk
-- What an earlier attempt at this chunk has kept: of rows that are bad in their source, or to the rules, or of examples
-- of rows that a check does not pass, which are loaded nevertheless. Of those that the target refuses, with what was kept
-- later than that.
DELETE FROM jivs.migration_quarantine
 WHERE key = %(key)s AND table_name = %(table)s
   AND CASE %(by)s WHEN 'source' THEN chunk = %(chunk)s AND position IS NOT NULL
       WHEN 'target' THEN chunk <= %(chunk)s
       WHEN 'rules' THEN chunk = %(chunk)s AND position IS NULL AND NOT example
       ELSE chunk = %(chunk)s AND example END;

-- name: ruled
SELECT table_name AS "table", row_key FROM jivs.migration_quarantine
 WHERE key = %(key)s AND position IS NULL AND NOT example;

-- name: amend
-- The plan with the rules of a replay; what they make is loaded afterwards.
UPDATE jivs.migrations SET plan = %(plan)s, plan_hash = %(plan_hash)s WHERE key = %(key)s AND epoch = %(epoch)s;

-- name: add_row
-- Harmless when it is sent again: a chunk has each position once.
INSERT INTO jivs.migration_quarantine
       (key, table_name, chunk, generation, position, row_key, column_name, reason, value, row_values, example)
VALUES (%(key)s, %(table)s, %(chunk)s, %(generation)s, %(position)s, %(row_key)s, %(column)s, %(reason)s, %(value)s,
        %(row_values)s, %(by)s = 'example')
ON CONFLICT (key, table_name, chunk, md5(position)) DO NOTHING;

-- name: count_rows
-- The migration's number of rejected rows, under the epoch of who changed them.
UPDATE jivs.migrations
   SET quarantined = (SELECT count(*) FROM jivs.migration_quarantine q
                       WHERE q.key = %(key)s AND NOT q.example)
 WHERE key = %(key)s AND epoch = %(epoch)s;

-- name: drop_tables
-- Rows of tables that will be read again.
DELETE FROM jivs.migration_quarantine WHERE key = %(key)s AND table_name <> ALL (%(kept)s);

-- name: positions
SELECT table_name AS "table", chunk, position, row_key FROM jivs.migration_quarantine
 WHERE key = %(key)s AND position IS NOT NULL AND chunk >= 0;

-- name: listed
-- A page of rejected rows by table and chunk, as their sources have them; the next page begins after the last row.
SELECT id, coalesce(chunk, -1) AS chunk, table_name AS "table", row_key AS key, column_name AS "column", reason, value
  FROM jivs.migration_quarantine
 WHERE key = %(key)s AND (%(table)s::text IS NULL OR table_name = %(table)s OR split_part(table_name, '.', 2) = %(table)s)
   AND (table_name, coalesce(chunk, -1), id) > (%(after_table)s, %(after_chunk)s, %(after)s)
 ORDER BY 3, 2, 1 LIMIT 500;

-- name: tables
SELECT table_name AS "table", count(*) AS rows FROM jivs.migration_quarantine
 WHERE key = %(key)s AND NOT example GROUP BY 1 ORDER BY 1;

-- name: page
SELECT id, chunk, position, row_key, column_name, row_values FROM jivs.migration_quarantine
 WHERE key = %(key)s AND table_name = %(table)s AND id > %(after)s
   AND CASE %(by)s WHEN 'target' THEN chunk < 0 WHEN 'rules' THEN position IS NULL ELSE position IS NOT NULL AND chunk >= 0 END
   AND NOT example
 ORDER BY id LIMIT 5000;

-- name: waiting
SELECT FROM jivs.migration_quarantine WHERE key = %(key)s AND id = ANY (%(ids)s) LIMIT 1;

-- name: drop_rows
DELETE FROM jivs.migration_quarantine WHERE key = %(key)s AND table_name = %(table)s AND id = ANY (%(ids)s);

-- name: set_manifest
-- The digest of what should be in the target grows by what has left the quarantine.
UPDATE jivs.migration_checkpoints SET data = %(data)s, rows = rows + %(rows)s
 WHERE key = %(key)s AND table_name = %(table)s
   AND phase = %(phase)s;

-- name: set_loaded
-- What the phases behind it have told of the table.
UPDATE jivs.migration_checkpoints
   SET rows = rows + %(rows)s,
       data = CASE WHEN data ? 'target_rows'
              THEN jsonb_set(data, '{target_rows}', to_jsonb((data ->> 'target_rows')::bigint + %(rows)s)) ELSE data END
 WHERE key = %(key)s AND table_name = %(table)s AND phase = ANY (%(phases)s) AND state = 'done';

-- name: result
SELECT result FROM jivs.migrations WHERE key = %(key)s FOR UPDATE;

-- name: set_result
UPDATE jivs.migrations SET result = %(result)s WHERE key = %(key)s AND epoch = %(epoch)s;

-- name: stays
UPDATE jivs.migration_quarantine SET column_name = %(column)s, reason = %(reason)s
 WHERE key = %(key)s AND id = %(id)s AND (column_name, reason) IS DISTINCT FROM (%(column)s, %(reason)s);
