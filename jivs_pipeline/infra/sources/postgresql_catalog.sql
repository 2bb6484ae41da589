-- What a PostgreSQL source's catalog says of one schema; read by postgresql_catalog.py.
-- ASCII only: the comments travel to servers of every encoding. Runnable in psql: `SET search_path = ''`, then replace %(schema)s by a quoted name, %(tables)s by an array
-- of table OIDs and %% by %. Columns that only newer servers have are read through to_jsonb(row)->>'name'.

-- name: schemas
-- Schemas that a user may mean.
SELECT nspname::text FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname;

-- name: other_schemas
-- Schemas of this database that have relations or routines of somebody's own, besides the one that is read.
SELECT n.nspname::text FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname !~ '^jivs(_|$)' AND n.nspname NOT IN ('information_schema', %(schema)s) AND EXISTS (
    SELECT FROM (SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE relnamespace = n.oid AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                 UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace = n.oid) o
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e'))
ORDER BY n.nspname;

-- name: tables
-- Tables of the schema that hold rows of their own; the partitioned table that one belongs to in the end; its storage
-- parameters, with those of its TOAST table; and what keeps it from being carried, or NULL.
SELECT c.oid::int8, c.relname::text, c.relpersistence = 'u', obj_description(c.oid, 'pg_class'),
       CASE WHEN c.relispartition THEN (SELECT r.relname::text FROM pg_class r WHERE r.oid = pg_partition_root(c.oid)) END,
       (SELECT 'SET (' || string_agg(format('%%s%%I=%%L', o.prefix, o.option_name, o.option_value), ', ') || ')' FROM (
            SELECT '' AS prefix, x.* FROM pg_options_to_table(c.reloptions) x UNION ALL
            SELECT 'toast.', x.* FROM pg_class t, pg_options_to_table(t.reloptions) x WHERE t.oid = c.reltoastrelid) o),
       CASE WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                                 AND d.deptype = 'e') THEN 'extension table' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND c.relpersistence <> 't'
ORDER BY c.relname;

-- name: columns
-- One line per column, in order.
SELECT a.attrelid::int8, a.attname::text, format_type(a.atttypid, a.atttypmod),
       NOT a.attnotnull OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                                   AND k.conkey[1] = a.attnum AND NOT k.convalidated),
       d.oid::int8, pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text, a.attidentity::text,
       col_description(a.attrelid, a.attnum),
       CASE WHEN a.attcollation <> t.typcollation THEN format('%%I.%%I', cn.nspname, cl.collname) END,
       a.atttypid::int8, a.atttypmod,
       (SELECT min(format('%%s.%%s', xn.nspname, x.extname)) FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid
        JOIN pg_namespace xn ON xn.oid = x.extnamespace
        WHERE e.classid = 'pg_type'::regclass AND e.deptype = 'e' AND e.objid IN (t.oid, t.typelem, t.typbasetype, b.typelem)),
       (SELECT k.conname::text FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid WHERE k.conrelid = a.attrelid
        AND k.contype = 'n' AND k.conkey[1] = a.attnum AND k.conname <> format('%%s_%%s_not_null', r.relname, a.attname)),
       ARRAY(SELECT s FROM (VALUES
           (1, 'SET STORAGE ' || CASE WHEN a.attstorage <> t.typstorage THEN CASE a.attstorage
               WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
           (2, CASE to_jsonb(a) ->> 'attcompression' WHEN 'p' THEN 'SET COMPRESSION pglz' END),
           (3, CASE WHEN a.attstattarget >= 0 THEN format('SET STATISTICS %%s', a.attstattarget) END),
           (4, 'SET (' || (SELECT string_agg(format('%%I=%%L', o.option_name, o.option_value), ', ')
                           FROM pg_options_to_table(a.attoptions) o WHERE o.option_name IN ('n_distinct', 'n_distinct_inherited'))
               || ')')) v (n, s) WHERE s IS NOT NULL ORDER BY n)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation cl ON cl.oid = a.attcollation
LEFT JOIN pg_namespace cn ON cn.oid = cl.collnamespace
WHERE a.attrelid = ANY (%(tables)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum;

-- name: numbered
-- Columns that number themselves and their sequences: by identity ('i'), or because the column's default is
-- nextval() of a sequence that it owns ('a'), that nobody owns ('n') or that another column owns ('o').
WITH uses AS MATERIALIZED (
    -- OFFSET 0: from the default to what it uses, never the other way round through all of pg_depend.
    SELECT d.adrelid, d.adnum, d.adbin, u.refobjid
    FROM pg_attrdef d
    CROSS JOIN LATERAL (SELECT x.refobjid FROM pg_depend x WHERE x.classid = 'pg_attrdef'::regclass
        AND x.objid = d.oid AND x.refclassid = 'pg_class'::regclass AND x.deptype = 'n' OFFSET 0) u
    WHERE d.adrelid = ANY (%(tables)s::oid[])
),
found AS (
    SELECT u.refobjid AS relation, u.refobjsubid::int2 AS num, u.objid AS sequence, 'i' AS how
    FROM pg_depend u
    WHERE u.classid = 'pg_class'::regclass AND u.refclassid = 'pg_class'::regclass AND u.deptype = 'i'
      AND u.refobjid = ANY (%(tables)s::oid[]) AND u.refobjsubid > 0
    UNION ALL
    SELECT d.adrelid, d.adnum, q.oid,
           CASE WHEN owner.refobjid IS NULL THEN 'n'
                WHEN (owner.refobjid, owner.refobjsubid) = (d.adrelid, d.adnum) THEN owner.deptype::text ELSE 'o' END
    FROM uses d
    JOIN pg_class q ON q.oid = d.refobjid AND q.relkind = 'S'
    LEFT JOIN pg_depend owner ON owner.classid = 'pg_class'::regclass AND owner.objid = q.oid
        AND owner.refclassid = 'pg_class'::regclass AND owner.deptype IN ('a', 'i')
    WHERE pg_get_expr(d.adbin, d.adrelid) = format('nextval(%%L::regclass)', q.oid::regclass)
)
SELECT f.relation::int8, a.attname::text, n.nspname::text, q.relname::text, f.how,
       p.seqstart, p.seqincrement, p.seqmin, p.seqmax, p.seqcache, p.seqcycle, f.sequence::int8,
       has_sequence_privilege(f.sequence, 'SELECT')
FROM found f
JOIN pg_attribute a ON a.attrelid = f.relation AND a.attnum = f.num
JOIN pg_class q ON q.oid = f.sequence AND q.relkind = 'S'
JOIN pg_sequence p ON p.seqrelid = q.oid
JOIN pg_namespace n ON n.oid = q.relnamespace;

-- name: shared_sequences
-- Sequences that several defaults take their numbers from.
SELECT u.refobjid::int8
FROM pg_depend u JOIN pg_class q ON q.oid = u.refobjid AND q.relkind = 'S'
WHERE u.classid = 'pg_attrdef'::regclass AND u.refclassid = 'pg_class'::regclass AND u.deptype = 'n'
GROUP BY u.refobjid HAVING count(*) > 1;

-- name: constraints
-- Keys, checks and foreign keys. Those of and to partitioned tables, with their clones for each partition, are objects of
-- their own; but each partition has its own keys.
SELECT k.conrelid::int8, k.oid::int8, k.conname::text, k.contype::text, k.condeferrable, k.condeferred,
       k.convalidated, k.connoinherit, obj_description(k.oid, 'pg_constraint'),
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (num, pos)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.pos),
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY u (num, pos)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num
             WHERE k.contype IN ('p', 'u') AND u.pos > i.indnkeyatts ORDER BY u.pos),
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
       fn.nspname::text, f.relname::text,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (num, pos)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.pos),
       k.confdeltype::text, k.confupdtype::text, k.confmatchtype::text,
       ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(
                 CASE jsonb_typeof(to_jsonb(k) -> 'confdelsetcols')
                      WHEN 'array' THEN to_jsonb(k) -> 'confdelsetcols' ELSE '[]' END) u (num)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num::int2),
       CASE WHEN k.contype = 'c' THEN pg_get_expr(k.conbin, k.conrelid) END,
       coalesce((to_jsonb(k) ->> 'conenforced')::bool, true),
       coalesce((to_jsonb(k) ->> 'conperiod')::bool, false)
FROM pg_constraint k
LEFT JOIN pg_index i ON i.indexrelid = k.conindid
LEFT JOIN pg_class f ON f.oid = k.confrelid
LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
WHERE k.conrelid = ANY (%(tables)s::oid[]) AND k.contype IN ('p', 'u', 'f', 'c', 'x', 'n')
  AND (k.conparentid = 0 OR k.contype IN ('p', 'u')) AND NOT (k.contype = 'f' AND f.relkind = 'p')
ORDER BY k.conrelid, k.conname;

-- name: indexes
-- Indexes that are not a key's.
SELECT i.indrelid::int8, i.indexrelid::int8, c.relname::text, i.indisunique, am.amname::text, am.oid < 16384,
       i.indisvalid AND i.indisready, pg_get_expr(i.indpred, i.indrelid),
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
       ARRAY(SELECT format('%%I=%%L', o.option_name, o.option_value) FROM pg_options_to_table(c.reloptions) o),
       obj_description(c.oid, 'pg_class')
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am am ON am.oid = c.relam
WHERE i.indrelid = ANY (%(tables)s::oid[])
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                                                AND k.contype IN ('p', 'u', 'x'))
ORDER BY i.indrelid, c.relname;

-- name: index_parts
-- One line per part; bit 1 of indoption is DESC, bit 2 NULLS FIRST. Collation and operator class only where
-- they are not what the column and its type would get anyway.
SELECT i.indexrelid::int8, u.pos > i.indnkeyatts, a.attname::text,
       CASE WHEN u.num = 0 THEN pg_get_indexdef(i.indexrelid, u.pos::int4, false) END,
       coalesce(u.opt, 0) & 1 <> 0, coalesce(u.opt, 0) & 2 <> 0,
       CASE WHEN u.coll <> 0 AND u.coll <> coalesce(a.attcollation, 100) THEN format('%%I.%%I', cn.nspname, cl.collname) END,
       CASE WHEN NOT oc.opcdefault OR own.attoptions IS NOT NULL
            THEN format('%%I.%%I', oo.nspname, oc.opcname) || coalesce(
                     (SELECT ' (' || string_agg(format('%%I=%%L', o.option_name, o.option_value), ', ') || ')'
                      FROM pg_options_to_table(own.attoptions) o), '') END
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indoption::int2[], i.indclass::oid[], i.indcollation::oid[])
    WITH ORDINALITY u (num, opt, opc, coll, pos)
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num AND u.num <> 0
LEFT JOIN pg_attribute own ON own.attrelid = i.indexrelid AND own.attnum = u.pos
LEFT JOIN pg_opclass oc ON oc.oid = u.opc
LEFT JOIN pg_namespace oo ON oo.oid = oc.opcnamespace
LEFT JOIN pg_collation cl ON cl.oid = u.coll
LEFT JOIN pg_namespace cn ON cn.oid = cl.collnamespace
WHERE i.indrelid = ANY (%(tables)s::oid[])
ORDER BY i.indexrelid, u.pos;

-- name: needs
-- What defaults, checks and indexes use that only this database has, and that is not made again in the target.
-- Object identifiers below 16384 are the server's own. Materialized, because the statistics of catalogs are
-- often stale and a nested loop over thousands of tables takes seconds. Of what belongs to extensions, those instead.
WITH o AS MATERIALIZED (
    SELECT 'pg_attrdef'::regclass::oid AS class, oid, adrelid AS relation FROM pg_attrdef
    UNION ALL SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint WHERE contype = 'c'
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, indrelid FROM pg_index
)
SELECT d.objid::int8, min(pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)) FILTER (WHERE x.oid IS NULL),
       coalesce(array_agg(DISTINCT format('%%s.%%s', n.nspname, x.extname)) FILTER (WHERE x.oid IS NOT NULL), '{}')
FROM pg_depend d JOIN o ON o.class = d.classid AND o.oid = d.objid
LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
LEFT JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE d.refobjid END
    AND e.deptype = 'e'
LEFT JOIN pg_extension x ON x.oid = e.refobjid LEFT JOIN pg_namespace n ON n.oid = x.extnamespace
WHERE o.relation = ANY (%(tables)s::oid[]) AND d.deptype = 'n' AND d.refobjid >= 16384
  AND NOT EXISTS (SELECT FROM unnest(%(made_classes)s::oid[], %(made)s::oid[]) m (class, oid)
                  WHERE m.class = d.refclassid AND m.oid = d.refobjid)
  AND NOT (d.refclassid = 'pg_class'::regclass AND d.refobjid = o.relation)
  AND d.refclassid <> 'pg_constraint'::regclass
GROUP BY d.objid;

-- name: extensions
-- With the schema of each.
SELECT n.nspname || '.' || x.extname FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
WHERE x.extname <> 'plpgsql' ORDER BY 1;

-- name: others
-- Objects and settings that may not be carried: kind, name, table it hangs on.
WITH here AS (SELECT oid, nspname::text FROM pg_namespace WHERE nspname = %(schema)s),
relations AS (
    SELECT c.oid, c.relname::text, c.relkind::text, c.reloptions, c.relacl, c.relrowsecurity
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                               AND d.deptype = 'e')
)
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
       relname, NULL
FROM relations WHERE relkind IN ('v', 'm', 'f')
UNION ALL
SELECT 'partitioned table', relname, NULL FROM relations WHERE relkind = 'p'
UNION ALL
SELECT 'sequence', relname, NULL FROM relations r WHERE relkind = 'S' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype = 'i')
UNION ALL
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
       format('%%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)), NULL
FROM pg_proc p JOIN here ON here.oid = p.pronamespace
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                                           AND d.deptype IN ('e', 'i'))
UNION ALL
SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type'
                      WHEN 'r' THEN 'range type' ELSE 'type' END, t.typname::text, NULL
FROM pg_type t JOIN here ON here.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typtype IN ('e', 'd', 'c', 'r', 'b') AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid
                                           AND d.deptype = 'e')
UNION ALL
SELECT 'collation', l.collname::text, NULL FROM pg_collation l JOIN here ON here.oid = l.collnamespace
UNION ALL
SELECT 'operator', format('%%s(%%s, %%s)', o.oprname, CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END,
                          CASE WHEN o.oprright = 0 THEN 'NONE' ELSE format_type(o.oprright, NULL) END), NULL
FROM pg_operator o JOIN here ON here.oid = o.oprnamespace
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_operator'::regclass AND d.objid = o.oid
                                           AND d.deptype = 'e')
UNION ALL
SELECT 'statistics object', s.stxname::text, NULL FROM pg_statistic_ext s JOIN here ON here.oid = s.stxnamespace
UNION ALL
SELECT 'trigger', format('%%s.%%s', r.relname, g.tgname), CASE WHEN r.relkind = 'r' THEN r.relname END
FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid
WHERE NOT g.tgisinternal AND coalesce((to_jsonb(g) ->> 'tgparentid')::oid, 0) = 0
UNION ALL
SELECT 'rule', format('%%s.%%s', r.relname, w.rulename), CASE WHEN r.relkind = 'r' THEN r.relname END
FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', format('%%s.%%s', r.relname, p.polname), CASE WHEN r.relkind = 'r' THEN r.relname END
FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
UNION ALL
SELECT 'default privileges', format('of %%s', pg_get_userbyid(p.defaclrole)), NULL FROM pg_default_acl p
WHERE p.defaclnamespace = 0 GROUP BY 2
UNION ALL
SELECT 'comment', nspname, NULL FROM here WHERE obj_description(oid, 'pg_namespace') <> 'standard public schema'
UNION ALL
SELECT 'compression', format('%%s.%%s', r.relname, a.attname), r.relname FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid
WHERE r.relkind = 'r' AND to_jsonb(a) ->> 'attcompression' = 'l' AND NOT a.attisdropped
UNION ALL
-- Some builds mark every column with one of their own, which no other server takes: one line for all of them.
SELECT 'column option', o.option_name, NULL FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid
CROSS JOIN LATERAL pg_options_to_table(a.attoptions) o
WHERE r.relkind = 'r' AND o.option_name NOT IN ('n_distinct', 'n_distinct_inherited') GROUP BY o.option_name
UNION ALL
SELECT 'statistics target', format('%%s.%%s', r.relname, x.relname), r.relname FROM relations r JOIN pg_index i ON i.indrelid = r.oid
JOIN pg_class x ON x.oid = i.indexrelid
WHERE r.relkind = 'r' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = x.oid AND a.attstattarget >= 0)
UNION ALL
SELECT 'inherited columns', r.relname, r.relname FROM relations r
WHERE r.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = r.oid AND c.relispartition)
  AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attislocal AND NOT a.attisdropped)
UNION ALL
-- Of a partitioned table; those of tables are looked at one by one.
SELECT 'index', format('%%s.%%s', r.relname, x.relname), NULL FROM relations r JOIN pg_index i ON i.indrelid = r.oid
JOIN pg_class x ON x.oid = i.indexrelid WHERE r.relkind = 'p' AND NOT i.indisvalid
UNION ALL
SELECT 'access method', r.relname, r.relname FROM relations r JOIN pg_class c ON c.oid = r.oid JOIN pg_am m ON m.oid = c.relam
WHERE r.relkind = 'r' AND m.amname <> 'heap'
UNION ALL
SELECT 'tablespace', r.relname, CASE WHEN r.relkind = 'r' THEN r.relname END FROM relations r JOIN pg_class c ON c.oid = r.oid
WHERE r.relkind IN ('r', 'p', 'm') AND (c.reltablespace <> 0 OR EXISTS (
    SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = r.oid AND x.reltablespace <> 0))
UNION ALL
SELECT 'disabled foreign keys', r.relname, r.relname FROM relations r
WHERE r.relkind = 'r' AND EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = r.oid AND g.tgisinternal AND g.tgenabled <> 'O')
UNION ALL
SELECT 'security label', r.relname, CASE WHEN r.relkind = 'r' THEN r.relname END FROM relations r
WHERE EXISTS (SELECT FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = r.oid)
UNION ALL
SELECT 'unlogged sequence', r.relname, NULL FROM relations r JOIN pg_class c ON c.oid = r.oid
WHERE r.relkind = 'S' AND c.relpersistence = 'u' AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i'))
UNION ALL
SELECT 'shell type', t.typname::text, NULL FROM pg_type t JOIN here ON here.oid = t.typnamespace WHERE NOT t.typisdefined
UNION ALL
SELECT o.kind, o.name, NULL FROM here CROSS JOIN LATERAL (
    SELECT 'text search template' AS kind, tmplname::text AS name, 'pg_ts_template'::regclass AS class, oid FROM pg_ts_template WHERE tmplnamespace = here.oid
    UNION ALL SELECT 'text search parser', prsname, 'pg_ts_parser'::regclass, oid FROM pg_ts_parser WHERE prsnamespace = here.oid
    UNION ALL SELECT 'operator class', format('%%s using %%s', opcname, amname), 'pg_opclass'::regclass, o.oid
    FROM pg_opclass o JOIN pg_am m ON m.oid = opcmethod WHERE opcnamespace = here.oid
    UNION ALL SELECT 'operator family', format('%%s using %%s', opfname, amname), 'pg_opfamily'::regclass, o.oid
    FROM pg_opfamily o JOIN pg_am m ON m.oid = opfmethod WHERE opfnamespace = here.oid
    UNION ALL SELECT 'conversion', conname, 'pg_conversion'::regclass, oid FROM pg_conversion WHERE connamespace = here.oid
) o WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')
UNION ALL
SELECT 'event trigger', e.evtname::text, NULL FROM pg_event_trigger e
UNION ALL
SELECT 'publication', p.pubname::text, NULL FROM pg_publication p
WHERE EXISTS (SELECT FROM pg_publication_tables t JOIN here ON here.nspname = t.schemaname WHERE t.pubname = p.pubname)
UNION ALL
SELECT 'subscription', s.subname::text, NULL FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()
UNION ALL
SELECT 'large objects', format('%%s large objects', count(*)), NULL FROM pg_largeobject_metadata HAVING count(*) > 0
ORDER BY 1, 2;

-- name: table
-- The table of that name.
SELECT c.oid::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'r';

-- name: types
-- How each column's values can be sent: the type is the server's own, its name, kind and binary form, and
-- whether the source computes the column. For an array it is the element's type that counts.
SELECT a.attname::text, n.nspname = 'pg_catalog' AND e.oid < 16384, e.typname::text, e.typtype::text,
       e.typsend <> 0 AND e.typreceive <> 0, a.attgenerated <> ''
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid = coalesce((SELECT x.oid FROM pg_type x WHERE x.oid = t.typelem AND x.typarray = t.oid), t.oid)
JOIN pg_namespace n ON n.oid = e.typnamespace
WHERE a.attrelid = %(table)s::oid AND a.attnum > 0 AND NOT a.attisdropped;

-- name: size
-- Bytes of the heap and of its TOAST table, without what vacuum adds beside them, and bytes of a block.
SELECT pg_relation_size(c.oid), coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0),
       current_setting('block_size')::int8
FROM pg_class c WHERE c.oid = %(table)s::oid;

-- name: untouched
-- Whether a table still is the file that the snapshot knows. TRUNCATE and a rewriting ALTER TABLE are not MVCC:
-- an older snapshot sees the new file, empty. pg_class is read as of the snapshot, the function looks now.
SELECT c.relfilenode = pg_relation_filenode(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind = 'r';

-- name: at_work
-- Whether a session computes or waits for a lock or the disk. One that waits for its client, or has nothing to
-- do, will never say a word again.
SELECT state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
FROM pg_stat_activity WHERE pid = %(pid)s;
