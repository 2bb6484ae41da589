-- Queries of infra/refusals.py: what a table that is there asks of its rows. Parameters are %(name)s.

-- name: columns
-- In their order: name, type, whether NULL is refused, the expression of a generated one and the columns in it, whether
-- something else fills it, and a collation that is not its type's.
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
       ARRAY(SELECT u.attname::text FROM pg_depend p JOIN pg_attribute u ON u.attrelid = p.refobjid AND u.attnum = p.refobjsubid
              WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refobjid = a.attrelid
                AND u.attnum <> a.attnum),
       a.attgenerated = '' AND (a.attidentity <> '' OR d.oid IS NOT NULL),
       CASE WHEN a.attcollation <> t.typcollation THEN format('%%I.%%I', n.nspname, c.collname) END
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
 WHERE a.attrelid = %(relation)s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum;

-- name: checks
-- Those that are enforced (PostgreSQL 18 has others): name, expression, columns.
SELECT k.conname::text, pg_get_expr(k.conbin, k.conrelid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY 1)
  FROM pg_constraint k
 WHERE k.conrelid = %(relation)s::regclass AND k.contype = 'c'
   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
 ORDER BY 1;

-- name: unique
-- Unique indexes: name, keys, predicate, whether NULLs are alike, columns that they look at. A key has its collation, by
-- which texts are equal; the index of an exclusion constraint is another thing.
SELECT c.relname::text,
       ARRAY(SELECT format('(%%s)', pg_get_indexdef(i.indexrelid, n, true))
                    || coalesce((SELECT format(' COLLATE %%I.%%I', s.nspname, l.collname) FROM pg_collation l
                                   JOIN pg_namespace s ON s.oid = l.collnamespace WHERE l.oid = i.indcollation[n - 1]), '')
               FROM generate_series(1, i.indnkeyatts::int) AS n ORDER BY n),
       pg_get_expr(i.indpred, i.indrelid), coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0
                AND (a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) OR EXISTS (
                     SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                        AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum AND a.attnum <> ALL (i.indkey)))
              ORDER BY array_position(i.indkey::int2[], a.attnum), 1)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %(relation)s::regclass AND i.indisunique AND i.indisready AND NOT i.indisexclusion
 ORDER BY i.indisprimary DESC, 1;

-- name: references
-- Foreign keys: name, the parent's schema and name, columns, the parent's columns.
SELECT k.conname::text, n.nspname::text, c.relname::text,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(n, i)
               JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.i),
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(n, i)
               JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.i)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.conrelid = %(relation)s::regclass AND k.contype = 'f'
   AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
   AND NOT coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false)
 ORDER BY 1;
