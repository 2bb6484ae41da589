-- Who may do what in a PostgreSQL schema; read by postgresql_grants.py. ASCII only, as in postgresql_catalog.sql.

-- name: grants
-- One line for each thing, role and set of privileges: kind and name as in `objects`, or 'table', 'column', 'schema'; the relation
-- that a column or an owned sequence belongs to, what that is, and the column; the role, NULL for PUBLIC; whether PUBLIC has lost
-- what it has by default; whether the role may grant it on; the privileges.
-- Not of owners, because who loads owns what was made. MAINTAIN stands alone, because servers before version 17 do not know it, and
-- those on the schema do, because it may have been there with some of them.
WITH here AS (SELECT n.oid, n.nspowner, n.nspacl FROM pg_namespace n WHERE n.nspname = %(schema)s),
relations AS (
    SELECT c.oid, c.relname::text, c.relkind, c.relowner, c.relacl,
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
                          WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END AS kind
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
),
things AS (
    SELECT 'schema' AS kind, '' AS shown, NULL::text AS relation, NULL::text AS of, NULL::text AS column, nspowner AS owner, nspacl AS acl,
           coalesce((SELECT i.initprivs FROM pg_init_privs i WHERE i.classoid = 'pg_namespace'::regclass AND i.objoid = here.oid),
                    acldefault('n', nspowner)) AS standard
    FROM here
    UNION ALL
    SELECT r.kind, r.relname, o.relname, o.kind, a.attname, r.relowner, r.relacl,
           acldefault(CASE r.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", r.relowner)
    FROM relations r
    LEFT JOIN pg_depend d ON r.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = r.oid AND d.deptype IN ('a', 'i')
        AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    LEFT JOIN relations o ON o.oid = d.refobjid
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    UNION ALL
    SELECT 'column', format('%%s.%%s', r.relname, a.attname), r.relname, r.kind, a.attname, r.relowner, a.attacl, NULL
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND NOT a.attisdropped
    UNION ALL
    SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           format('%%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)), NULL, NULL, NULL, p.proowner, p.proacl,
           acldefault('f', p.proowner)
    FROM pg_proc p JOIN here ON here.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    UNION ALL
    SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type'
                          WHEN 'r' THEN 'range type' ELSE 'type' END, t.typname, NULL, NULL, NULL, t.typowner, t.typacl,
           acldefault('T', t.typowner)
    FROM pg_type t JOIN here ON here.oid = t.typnamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
),
rights AS (
    (SELECT kind, shown, relation, of, "column", x.grantee, false AS taken, x.is_grantable, x.privilege_type
     FROM things t, aclexplode(t.acl) x WHERE x.grantee <> t.owner
     EXCEPT
     SELECT kind, shown, relation, of, "column", x.grantee, false, x.is_grantable, x.privilege_type FROM things t, aclexplode(t.standard) x)
    UNION ALL
    (SELECT kind, shown, relation, of, "column", x.grantee, true, false, x.privilege_type
     FROM things t, aclexplode(t.standard) x WHERE x.grantee = 0 AND t.acl IS NOT NULL AND t.kind <> 'schema'
     EXCEPT
     SELECT kind, shown, relation, of, "column", x.grantee, true, false, x.privilege_type FROM things t, aclexplode(t.acl) x)
)
SELECT kind, shown, relation, of, "column", CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee)::text END, taken, is_grantable,
       array_agg(privilege_type ORDER BY privilege_type)
FROM rights
GROUP BY kind, shown, relation, of, "column", grantee, taken, is_grantable, privilege_type = 'MAINTAIN',
         CASE kind WHEN 'schema' THEN privilege_type END
ORDER BY kind, shown, 6, taken, is_grantable, 9;

-- name: defaults
-- What will be granted on what is made later in the schema: whose makings, on what, privilege, role, whether it may be granted on.
SELECT pg_get_userbyid(d.defaclrole)::text,
       CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' ELSE 'types' END, a.privilege_type,
       CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END, a.is_grantable
FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
WHERE n.nspname = %(schema)s ORDER BY 1, 2, 3, 4, 5;

-- name: on_large_objects
-- The same of large objects; one line more than are carried tells that there are more.
SELECT m.oid::int8, CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee)::text END, x.is_grantable,
       array_agg(x.privilege_type ORDER BY x.privilege_type)
FROM pg_largeobject_metadata m, aclexplode(m.lomacl) x WHERE x.grantee <> m.lomowner
GROUP BY m.oid, x.grantee, x.is_grantable ORDER BY m.oid, 2, 3 LIMIT %(most)s + 1;
