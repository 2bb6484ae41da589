-- What stands beside the tables of a schema, and what uses what; read by postgresql_objects.py.
-- ASCII only, as in postgresql_catalog.sql. All but the last run with an empty search_path.

-- name: objects
-- Everything that one statement can make again: class, oid, kind, name as `others` shows it, bare name, the relation that it hangs on,
-- comment, and a reason against it.
WITH here AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
whole AS (
    -- Schemas of publications, whose catalog servers before version 15 do not have.
    SELECT p.refobjid AS publication, s.refobjid AS schema FROM pg_depend p JOIN pg_depend s USING (classid, objid)
    WHERE p.classid = to_regclass('pg_catalog.pg_publication_namespace') AND p.refclassid = 'pg_publication'::regclass
      AND s.refclassid = 'pg_namespace'::regclass
),
found AS (
    SELECT 'pg_class'::regclass::oid AS class, c.oid,
           CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END AS kind,
           c.relname::text AS shown, c.relname::text AS name, NULL::text AS relation, NULL AS problem
    FROM pg_class c JOIN here ON here.oid = c.relnamespace WHERE c.relkind IN ('v', 'm')
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid,
           CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type' ELSE 'range type' END,
           t.typname, t.typname, NULL,
           CASE WHEN r.rngcanonical::oid <> 0 THEN 'its canonical function is written in another language' END
    FROM pg_type t JOIN here ON here.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    LEFT JOIN pg_range r ON r.rngtypid = t.oid
    WHERE t.typtype IN ('e', 'd', 'c', 'r') AND coalesce(c.relkind, 'c') = 'c'
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid,
           CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
           format('%%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)), p.proname, NULL,
           CASE WHEN p.prokind = 'a' THEN CASE WHEN 'internal'::regtype IN (a.aggtranstype, a.aggmtranstype)
                                               THEN 'its state is of type internal, and only superusers make such a one' END
                WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN format('it is written in %%s', l.lanname) END
    FROM pg_proc p JOIN here ON here.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
    LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
    UNION ALL
    SELECT 'pg_statistic_ext'::regclass, s.oid, 'statistics object', s.stxname, s.stxname, NULL, NULL
    FROM pg_statistic_ext s JOIN here ON here.oid = s.stxnamespace
    UNION ALL
    SELECT 'pg_trigger'::regclass, g.oid, 'trigger', format('%%s.%%s', c.relname, g.tgname), g.tgname, c.relname, NULL
    FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN here ON here.oid = c.relnamespace
    WHERE NOT g.tgisinternal AND coalesce((to_jsonb(g) ->> 'tgparentid')::oid, 0) = 0
    UNION ALL
    SELECT 'pg_rewrite'::regclass, w.oid, 'rule', format('%%s.%%s', c.relname, w.rulename), w.rulename, c.relname, NULL
    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN here ON here.oid = c.relnamespace
    WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT 'pg_cast'::regclass, k.oid, 'cast', format('%%s as %%s', CASE WHEN a.typnamespace = here.oid THEN a.typname ELSE format_type(a.oid, NULL) END,
                  CASE WHEN b.typnamespace = here.oid THEN b.typname ELSE format_type(b.oid, NULL) END),
           '', NULL, CASE WHEN k.castmethod = 'b' THEN 'it has no function, and only superusers make such a one'
                          WHEN here.oid NOT IN (a.typnamespace, b.typnamespace) THEN 'neither of its types is of the schema' END
    FROM pg_cast k JOIN pg_type a ON a.oid = k.castsource JOIN pg_type b ON b.oid = k.casttarget
    LEFT JOIN pg_proc p ON p.oid = k.castfunc JOIN here ON here.oid IN (a.typnamespace, b.typnamespace, p.pronamespace)
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'i')
    UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, 'operator',
           format('%%s(%%s, %%s)', o.oprname, CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE format_type(o.oprleft, NULL) END,
                  CASE WHEN o.oprright = 0 THEN 'NONE' ELSE format_type(o.oprright, NULL) END), o.oprname, NULL,
           CASE WHEN o.oprcode::oid = 0 THEN 'it has no function yet' END
    FROM pg_operator o JOIN here ON here.oid = o.oprnamespace
    UNION ALL
    -- In place of a relation, the access method that they belong to.
    SELECT 'pg_opfamily'::regclass, o.oid, 'operator family', format('%%s using %%s', o.opfname, m.amname), o.opfname, m.amname, NULL
    FROM pg_opfamily o JOIN here ON here.oid = o.opfnamespace JOIN pg_am m ON m.oid = o.opfmethod
    UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid, 'operator class', format('%%s using %%s', o.opcname, m.amname), o.opcname, m.amname, NULL
    FROM pg_opclass o JOIN here ON here.oid = o.opcnamespace JOIN pg_am m ON m.oid = o.opcmethod
    UNION ALL
    -- Only those that need such a class: who may not make it has the table without this index.
    SELECT 'pg_class'::regclass, x.oid, 'index', x.relname, x.relname, c.relname, NULL
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid JOIN here ON here.oid = c.relnamespace
    WHERE c.relkind = 'r' AND i.indisvalid AND EXISTS (
          SELECT FROM pg_opclass o WHERE o.oid = ANY (i.indclass) AND o.opcnamespace = here.oid AND NOT EXISTS (
              SELECT FROM pg_depend d WHERE d.classid = 'pg_opclass'::regclass AND d.objid = o.oid AND d.deptype = 'e'))
      AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = x.oid)
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 'foreign table', c.relname, c.relname, NULL,
           CASE WHEN EXISTS (SELECT FROM pg_inherits h WHERE c.oid IN (h.inhrelid, h.inhparent))
                THEN 'it is tied to another table by inheritance; make it again' END
    FROM pg_class c JOIN here ON here.oid = c.relnamespace WHERE c.relkind = 'f'
    UNION ALL
    SELECT 'pg_publication'::regclass, p.oid, 'publication', p.pubname, p.pubname, NULL,
           CASE WHEN p.puballtables THEN 'it publishes the whole database; make it again when the target is to publish'
                WHEN EXISTS (SELECT FROM whole w WHERE w.publication = p.oid AND w.schema NOT IN (SELECT oid FROM here))
                THEN 'it publishes other schemas, too; make it again when the target is to publish'
                WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND to_jsonb(r) ->> 'prqual' IS NOT NULL)
                THEN 'it publishes some rows of a table only; make it again when the target is to publish' END
    FROM pg_publication p
    WHERE p.puballtables OR EXISTS (SELECT FROM whole w JOIN here ON here.oid = w.schema WHERE w.publication = p.oid)
       OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN here ON here.oid = c.relnamespace
                  WHERE r.prpubid = p.oid)
    UNION ALL
    SELECT 'pg_conversion'::regclass, v.oid, 'conversion', v.conname, v.conname, NULL, NULL
    FROM pg_conversion v JOIN here ON here.oid = v.connamespace
    UNION ALL
    SELECT 'pg_collation'::regclass, l.oid, 'collation', l.collname, l.collname, NULL, NULL
    FROM pg_collation l JOIN here ON here.oid = l.collnamespace
    WHERE l.collencoding IN (-1, (SELECT d.encoding FROM pg_database d WHERE d.datname = current_database()))
    UNION ALL
    SELECT 'pg_ts_dict'::regclass, t.oid, 'text search dictionary', t.dictname, t.dictname, NULL,
           -- Stop words that come with every server are no obstacle.
           CASE WHEN regexp_replace(t.dictinitoption, 'stopwords = ''(danish|dutch|english|finnish|french|german|hungarian|italian|nepali'
                                                      '|norwegian|portuguese|russian|spanish|swedish|turkish)''', '')
                     ~* '(stopwords|file|synonyms|rules) *=' THEN 'it reads files of its server' END
    FROM pg_ts_dict t JOIN here ON here.oid = t.dictnamespace
    UNION ALL
    SELECT 'pg_ts_config'::regclass, t.oid, 'text search configuration', t.cfgname, t.cfgname, NULL, NULL
    FROM pg_ts_config t JOIN here ON here.oid = t.cfgnamespace
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 'policy', format('%%s.%%s', c.relname, p.polname), p.polname, c.relname, NULL
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN here ON here.oid = c.relnamespace
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, 'exclusion constraint', format('%%s.%%s', c.relname, k.conname), k.conname,
           c.relname, NULL
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN here ON here.oid = c.relnamespace
    WHERE k.contype = 'x' AND c.relkind IN ('r', 'p') AND k.conparentid = 0
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, 'foreign key', format('%%s.%%s', c.relname, k.conname), k.conname, c.relname, NULL
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN here ON here.oid = c.relnamespace
    JOIN pg_class f ON f.oid = k.confrelid
    WHERE k.contype = 'f' AND k.conparentid = 0 AND 'p' IN (c.relkind, f.relkind)
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 'sequence', c.relname, c.relname, NULL,
           CASE WHEN NOT has_sequence_privilege(c.oid, 'SELECT') THEN 'the source does not let us read it' END
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE c.relkind = 'S' AND c.relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i')
    UNION ALL
    SELECT 'pg_sequence'::regclass, c.oid, 'owner of sequence', c.relname, c.relname, t.relname, NULL
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'a'
        AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    JOIN pg_class t ON t.oid = d.refobjid
    WHERE c.relkind = 'S' AND c.relpersistence <> 't'
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 'partitioned table', c.relname, c.relname, NULL,
           CASE WHEN EXISTS (SELECT FROM pg_inherits h JOIN pg_class p ON p.oid IN (h.inhrelid, h.inhparent)
                             WHERE c.oid IN (h.inhrelid, h.inhparent) AND p.relnamespace <> c.relnamespace)
                THEN 'it has a partition in another schema, or is one of a table there'
                WHEN EXISTS (SELECT FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhrelid
                             WHERE h.inhparent = c.oid AND p.relkind = 'f') THEN 'one of its partitions is a foreign table' END
    FROM pg_class c JOIN here ON here.oid = c.relnamespace WHERE c.relkind = 'p'
    UNION ALL
    SELECT 'pg_inherits'::regclass, c.oid, 'partition', format('%%s.%%s', p.relname, c.relname), c.relname, p.relname, NULL
    FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid JOIN pg_class p ON p.oid = h.inhparent
    JOIN here ON here.oid = p.relnamespace
    WHERE c.relispartition AND c.relkind IN ('r', 'p')
    UNION ALL
    SELECT 'pg_inherits'::regclass, c.oid, 'inheritance', c.relname, c.relname, NULL, NULL
    FROM pg_class c JOIN here ON here.oid = c.relnamespace
    WHERE NOT c.relispartition AND c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = c.oid)
)
SELECT f.class::int8, f.oid::int8, f.kind, f.shown, f.name, f.relation,
       obj_description(f.oid, (SELECT c.relname FROM pg_class c WHERE c.oid = f.class)), f.problem,
       ARRAY(SELECT c.relname::text FROM pg_class c
             WHERE f.kind IN ('partition', 'partitioned table') AND c.oid IN (f.oid, pg_partition_root(f.oid)) ORDER BY 1)
FROM found f
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = f.class AND d.objid = f.oid AND d.deptype = 'e')
ORDER BY f.kind, f.shown;

-- name: members
-- What is part of an object or a table and bears an oid of its own: class and oid of the part, then those of the whole.
WITH nodes AS MATERIALIZED (SELECT * FROM unnest(%(classes)s::oid[], %(oids)s::oid[]) n (class, oid)),
types AS MATERIALIZED (
    SELECT n.oid AS type, n.class, n.oid FROM nodes n WHERE n.class = 'pg_type'::regclass
    UNION SELECT c.reltype, n.class, n.oid FROM nodes n JOIN pg_class c ON c.oid = n.oid
    WHERE n.class = 'pg_class'::regclass AND c.reltype <> 0
    UNION SELECT (to_jsonb(r) ->> 'rngmultitypid')::oid, n.class, n.oid FROM nodes n JOIN pg_range r ON r.rngtypid = n.oid
    WHERE n.class = 'pg_type'::regclass AND (to_jsonb(r) -> 'rngmultitypid') IS NOT NULL
),
parts AS (
    SELECT class AS part_class, oid AS part, class, oid FROM nodes
    UNION SELECT 'pg_type'::regclass, type, class, oid FROM types
    UNION SELECT 'pg_type'::regclass, t.typarray, x.class, x.oid FROM types x JOIN pg_type t ON t.oid = x.type WHERE t.typarray <> 0
    UNION SELECT 'pg_class'::regclass, t.typrelid, x.class, x.oid FROM types x JOIN pg_type t ON t.oid = x.type WHERE t.typrelid <> 0
    UNION SELECT d.classid, d.objid, x.class, x.oid FROM types x JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass
        AND d.refobjid = x.type AND d.deptype = 'i' AND d.classid = 'pg_proc'::regclass
    UNION SELECT 'pg_constraint'::regclass, k.oid, x.class, x.oid FROM types x JOIN pg_constraint k ON k.contypid = x.type
    UNION SELECT 'pg_rewrite'::regclass, w.oid, n.class, n.oid FROM nodes n JOIN pg_rewrite w ON w.ev_class = n.oid
    WHERE n.class = 'pg_class'::regclass AND w.rulename = '_RETURN'
    UNION SELECT 'pg_attrdef'::regclass, a.oid, n.class, n.oid FROM nodes n JOIN pg_attrdef a ON a.adrelid = n.oid
    WHERE n.class = 'pg_class'::regclass
    UNION SELECT 'pg_constraint'::regclass, k.oid, n.class, n.oid FROM nodes n JOIN pg_constraint k ON k.conrelid = n.oid
    WHERE n.class = 'pg_class'::regclass AND k.contype IN ('c', 'p', 'u')
    UNION SELECT 'pg_class'::regclass, i.indexrelid, n.class, n.oid FROM nodes n JOIN pg_index i ON i.indrelid = n.oid
    WHERE n.class = 'pg_class'::regclass
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype = 'x')
      AND NOT EXISTS (SELECT FROM nodes q WHERE q.class = 'pg_class'::regclass AND q.oid = i.indexrelid)
    UNION SELECT d.classid, d.objid, n.class, n.oid FROM nodes n JOIN pg_depend d ON d.refclassid = n.class AND d.refobjid = n.oid
    WHERE n.class IN ('pg_opclass'::regclass, 'pg_opfamily'::regclass) AND d.classid IN ('pg_amop'::regclass, 'pg_amproc'::regclass)
    UNION SELECT 'pg_publication_rel'::regclass, r.oid, n.class, n.oid FROM nodes n JOIN pg_publication_rel r ON r.prpubid = n.oid
    WHERE n.class = 'pg_publication'::regclass
    UNION SELECT 'pg_class'::regclass, k.conindid, n.class, n.oid FROM nodes n JOIN pg_constraint k ON k.oid = n.oid
    WHERE n.class = 'pg_constraint'::regclass
    UNION SELECT 'pg_class'::regclass, d.objid, n.class, n.oid FROM nodes n JOIN pg_depend d ON d.refclassid = n.class
        AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE n.class = 'pg_class'::regclass
      AND NOT EXISTS (SELECT FROM nodes q WHERE q.class = 'pg_class'::regclass AND q.oid = s.oid)
)
SELECT part_class::int8, part::int8, class::int8, oid::int8 FROM parts;

-- name: edges
-- What uses what: class and oid of the user, of the used (NULL where it is none of the nodes), its column, its description then,
-- and the extension that it belongs to.
-- A partition stands without its parent, and a sequence without its owner: what ties them is an object of its own.
WITH members AS MATERIALIZED (
    SELECT * FROM unnest(%(part_classes)s::oid[], %(parts)s::oid[], %(classes)s::oid[], %(oids)s::oid[])
        m (part_class, part, class, oid)
)
SELECT DISTINCT m.class::int8, m.oid::int8, r.class::int8, r.oid::int8, a.attname::text,
       CASE WHEN r.oid IS NULL THEN pg_describe_object(d.refclassid, d.refobjid, 0) END, format('%%s.%%s', xn.nspname, x.extname)
FROM members m
JOIN pg_depend d ON d.classid = m.part_class AND d.objid = m.part
LEFT JOIN pg_type t ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
LEFT JOIN pg_depend e ON e.classid = d.refclassid AND e.objid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE d.refobjid END
    AND e.deptype = 'e'
LEFT JOIN pg_extension x ON x.oid = e.refobjid LEFT JOIN pg_namespace xn ON xn.oid = x.extnamespace
LEFT JOIN members r ON r.part_class = d.refclassid AND r.part = d.refobjid
LEFT JOIN pg_attribute a ON d.refclassid = 'pg_class'::regclass AND a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    AND d.refobjsubid > 0 AND r.class = 'pg_class'::regclass
WHERE d.refobjid >= 16384 AND d.refclassid NOT IN ('pg_namespace'::regclass, 'pg_foreign_server'::regclass)
  AND (d.refclassid <> 'pg_constraint'::regclass OR r.oid IS NOT NULL)
  AND (r.class, r.oid) IS DISTINCT FROM (m.class, m.oid) AND d.deptype NOT IN ('P', 'S')
  AND NOT (d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND (
        EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = d.objid AND h.inhparent = d.refobjid)
        OR d.deptype = 'a' AND EXISTS (SELECT FROM pg_class s WHERE s.oid = d.objid AND s.relkind = 'S')))
UNION
SELECT m.class::int8, m.oid::int8, r.class::int8, r.oid::int8, tied.name::text,
       CASE WHEN r.oid IS NULL THEN pg_describe_object('pg_class'::regclass, tied.oid, 0) END, '.'
FROM members m
CROSS JOIN LATERAL (
    SELECT h.inhparent AS oid, NULL::name AS name FROM pg_inherits h
    WHERE m.class = 'pg_inherits'::regclass AND h.inhrelid = m.oid
    UNION ALL SELECT m.oid, NULL WHERE m.class IN ('pg_inherits'::regclass, 'pg_sequence'::regclass)
    UNION ALL SELECT m.oid, a.attname FROM pg_attribute a
    WHERE m.class = 'pg_inherits'::regclass AND a.attrelid = m.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT d.refobjid, a.attname FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE m.class = 'pg_sequence'::regclass AND d.classid = 'pg_class'::regclass AND d.objid = m.oid AND d.deptype = 'a'
      AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
) tied
LEFT JOIN members r ON r.part_class = 'pg_class'::regclass AND r.part = tied.oid
WHERE m.part_class = m.class AND m.part = m.oid;

-- name: enums
SELECT enumtypid::int8, enumlabel::text FROM pg_enum WHERE enumtypid = ANY (%(oids)s::oid[]) ORDER BY enumtypid, enumsortorder;

-- name: domains
SELECT t.oid::int8, t.typbasetype::int8, t.typtypmod, t.typnotnull, t.typdefaultbin IS NOT NULL,
       CASE WHEN t.typcollation <> b.typcollation THEN format('%%I.%%I', n.nspname, c.collname) END
FROM pg_type t JOIN pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_collation c ON c.oid = t.typcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE t.oid = ANY (%(oids)s::oid[]);

-- name: domain_checks
SELECT contypid::int8, oid::int8, conname::text, convalidated FROM pg_constraint
WHERE contypid = ANY (%(oids)s::oid[]) AND contype = 'c' ORDER BY contypid, conname;

-- name: composites
SELECT t.oid::int8, a.attname::text, a.atttypid::int8, a.atttypmod,
       CASE WHEN a.attcollation <> b.typcollation THEN format('%%I.%%I', n.nspname, c.collname) END
FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type b ON b.oid = a.atttypid
LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE t.oid = ANY (%(oids)s::oid[]) ORDER BY t.oid, a.attnum;

-- name: ranges
SELECT r.rngtypid::int8, r.rngsubtype::int8,
       CASE WHEN NOT o.opcdefault THEN format('%%I.%%I', n.nspname, o.opcname) END,
       CASE WHEN r.rngcollation <> 0 AND r.rngcollation <> s.typcollation THEN format('%%I.%%I', cn.nspname, c.collname) END,
       CASE WHEN r.rngsubdiff::oid <> 0 THEN r.rngsubdiff::oid::int8 END,
       (SELECT m.typname::text FROM pg_type m WHERE m.oid = (to_jsonb(r) ->> 'rngmultitypid')::oid)
FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc JOIN pg_namespace n ON n.oid = o.opcnamespace
JOIN pg_type s ON s.oid = r.rngsubtype
LEFT JOIN pg_collation c ON c.oid = r.rngcollation LEFT JOIN pg_namespace cn ON cn.oid = c.collnamespace
WHERE r.rngtypid = ANY (%(oids)s::oid[]);

-- name: aggregates
-- Functions, types and the operator are NULL where there is none; a moving aggregate's own come after those of the plain one.
SELECT aggfnoid::oid::int8, aggkind::text, aggtransfn::oid::int8, aggtranstype::int8, nullif(aggfinalfn::oid, 0)::int8,
       nullif(aggcombinefn::oid, 0)::int8, agginitval, aggtransspace, aggfinalextra, aggfinalmodify::text,
       nullif(aggmtransfn::oid, 0)::int8, nullif(aggminvtransfn::oid, 0)::int8, nullif(aggmtranstype, 0)::int8,
       nullif(aggmfinalfn::oid, 0)::int8, aggminitval, aggmtransspace, aggmfinalextra, aggmfinalmodify::text,
       (SELECT format('OPERATOR(%%s%%s)', CASE WHEN o.oprnamespace <> p.pronamespace THEN quote_ident(n.nspname) || '.' END, o.oprname)
        FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = aggsortop), p.proparallel::text
FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid WHERE aggfnoid::oid = ANY (%(oids)s::oid[]);

-- name: views
-- Options, and whether there are rows.
SELECT c.oid::int8, ARRAY(SELECT format('%%I=%%L', o.option_name, o.option_value) FROM pg_options_to_table(c.reloptions) o),
       c.relispopulated
FROM pg_class c WHERE c.oid = ANY (%(oids)s::oid[]);

-- name: view_indexes
SELECT i.indrelid::int8, i.indexrelid::int8 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY (%(oids)s::oid[]) AND i.indisvalid ORDER BY c.relname;

-- name: sequences
SELECT s.seqrelid::int8, s.seqtypid::int8, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
FROM pg_sequence s WHERE s.seqrelid = ANY (%(oids)s::oid[]);

-- name: sequence_owners
SELECT d.objid::int8, a.attname::text FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.objid = ANY (%(oids)s::oid[]) AND d.deptype = 'a'
  AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0;

-- name: partitioned_columns
-- Columns of partitioned tables, with the sequence of an identity.
SELECT a.attrelid::int8, a.attname::text, a.atttypid::int8, a.atttypmod, a.attnotnull,
       CASE WHEN a.attcollation <> t.typcollation THEN format('%%I.%%I', n.nspname, c.collname) END,
       d.oid::int8, a.attgenerated::text, a.attidentity::text, q.objid::int8, col_description(a.attrelid, a.attnum),
       CASE WHEN a.attstattarget >= 0 THEN a.attstattarget::int4 END
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation c ON c.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_depend q ON q.classid = 'pg_class'::regclass AND q.refclassid = 'pg_class'::regclass AND q.refobjid = a.attrelid
    AND q.refobjsubid = a.attnum AND q.deptype = 'i' AND a.attidentity <> ''
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum;

-- name: partitioned_constraints
SELECT k.conrelid::int8, k.oid::int8, k.conname::text, obj_description(k.oid, 'pg_constraint') FROM pg_constraint k
WHERE k.conrelid = ANY (%(oids)s::oid[]) AND k.contype IN ('p', 'u', 'c') ORDER BY k.conrelid, k.contype, k.conname;

-- name: partitioned_indexes
SELECT i.indrelid::int8, i.indexrelid::int8, c.relname::text, obj_description(c.oid, 'pg_class')
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY (%(oids)s::oid[]) AND i.indisvalid AND NOT EXISTS (
    SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY c.relname;

-- name: parents
SELECT h.inhrelid::int8, p.relname::text FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent
WHERE h.inhrelid = ANY (%(oids)s::oid[]) ORDER BY h.inhrelid, h.inhseqno;

-- name: view_defaults
SELECT d.adrelid::int8, a.attname::text, d.oid::int8 FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = ANY (%(oids)s::oid[]) ORDER BY d.adrelid, d.adnum;

-- name: comments_inside
-- On columns of views and composite types, indexes of views, and constraints of domains: the object, what it is on, the comment.
SELECT c.oid::int8, format('COLUMN %%I.%%I', c.relname, a.attname), col_description(c.oid, a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.oid = ANY (%(oids)s::oid[]) AND c.relkind IN ('v', 'm') AND col_description(c.oid, a.attnum) IS NOT NULL
UNION ALL
SELECT t.oid::int8, format('COLUMN %%I.%%I', c.relname, a.attname), col_description(c.oid, a.attnum)
FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid JOIN pg_attribute a ON a.attrelid = c.oid
WHERE t.oid = ANY (%(oids)s::oid[]) AND c.relkind = 'c' AND col_description(c.oid, a.attnum) IS NOT NULL
UNION ALL
SELECT i.indrelid::int8, format('INDEX %%I', x.relname), obj_description(x.oid, 'pg_class')
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
WHERE i.indrelid = ANY (%(oids)s::oid[]) AND c.relkind = 'm' AND i.indisvalid AND obj_description(x.oid, 'pg_class') IS NOT NULL
UNION ALL
SELECT k.contypid::int8, format('CONSTRAINT %%I ON DOMAIN %%I', k.conname, t.typname), obj_description(k.oid, 'pg_constraint')
FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid
WHERE k.contypid = ANY (%(oids)s::oid[]) AND k.contype = 'c' AND obj_description(k.oid, 'pg_constraint') IS NOT NULL
ORDER BY 1, 2;

-- name: statistics_targets
SELECT s.oid::int8, (to_jsonb(s) ->> 'stxstattarget')::int4 FROM pg_statistic_ext s
WHERE s.oid = ANY (%(oids)s::oid[]) AND (to_jsonb(s) ->> 'stxstattarget')::int4 >= 0;

-- name: trigger_states
SELECT oid::int8, tgenabled::text FROM pg_trigger WHERE oid = ANY (%(oids)s::oid[]);

-- name: trigger_clones
-- Those of a partitioned table's trigger in its partitions, each of which can be switched by itself.
WITH RECURSIVE clones AS (
    SELECT g.oid AS root, g.tgenabled AS state, g.oid FROM pg_trigger g WHERE g.oid = ANY (%(oids)s::oid[])
    UNION ALL
    SELECT c.root, c.state, g.oid FROM clones c JOIN pg_trigger g ON (to_jsonb(g) ->> 'tgparentid')::oid = c.oid
)
SELECT c.root::int8, r.relname::text, g.tgenabled::text FROM clones c
JOIN pg_trigger g ON g.oid = c.oid JOIN pg_class r ON r.oid = g.tgrelid
WHERE c.oid <> c.root AND (g.tgenabled <> c.state OR c.state <> 'O') ORDER BY r.relname;

-- name: rule_states
SELECT oid::int8, ev_enabled::text FROM pg_rewrite WHERE oid = ANY (%(oids)s::oid[]);

-- name: casts
SELECT oid::int8, castsource::int8, casttarget::int8, nullif(castfunc, 0)::int8, castcontext::text
FROM pg_cast WHERE oid = ANY (%(oids)s::oid[]);

-- name: operators
-- Left and right type, function, commutator and negator (of the same schema only), estimators, and what it is good for.
SELECT o.oid::int8, nullif(o.oprleft, 0)::int8, nullif(o.oprright, 0)::int8, o.oprcode::oid::int8,
       (SELECT c.oprname::text FROM pg_operator c WHERE c.oid = o.oprcom AND c.oprnamespace = o.oprnamespace),
       (SELECT g.oprname::text FROM pg_operator g WHERE g.oid = o.oprnegate AND g.oprnamespace = o.oprnamespace),
       nullif(o.oprrest::oid, 0)::int8, nullif(o.oprjoin::oid, 0)::int8, o.oprcanhash, o.oprcanmerge
FROM pg_operator o WHERE o.oid = ANY (%(oids)s::oid[]);

-- name: operator_classes
-- Access method, whether it is the type's default, the type, the type that is stored, the family.
SELECT o.oid::int8, m.amname::text, o.opcdefault, o.opcintype::int8, nullif(o.opckeytype, 0)::int8,
       CASE WHEN f.opfnamespace <> o.opcnamespace THEN quote_ident(n.nspname) || '.' ELSE '' END || quote_ident(f.opfname)
FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod JOIN pg_opfamily f ON f.oid = o.opcfamily
JOIN pg_namespace n ON n.oid = f.opfnamespace WHERE o.oid = ANY (%(oids)s::oid[]);

-- name: class_operators
-- Of operator classes and, where they are in none, of families: number, operator, types, the family that orders by it.
SELECT d.refobjid::int8, p.amopstrategy::int4,
       CASE WHEN n.nspname <> %(schema)s THEN quote_ident(n.nspname) || '.' ELSE '' END || o.oprname, p.amoplefttype::int8, p.amoprighttype::int8,
       (SELECT CASE WHEN s.nspname <> %(schema)s THEN quote_ident(s.nspname) || '.' ELSE '' END || quote_ident(f.opfname)
        FROM pg_opfamily f JOIN pg_namespace s ON s.oid = f.opfnamespace WHERE f.oid = p.amopsortfamily)
FROM pg_depend d JOIN pg_amop p ON p.oid = d.objid JOIN pg_operator o ON o.oid = p.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE d.classid = 'pg_amop'::regclass AND d.refclassid IN ('pg_opclass'::regclass, 'pg_opfamily'::regclass)
  AND d.refobjid = ANY (%(oids)s::oid[]) ORDER BY d.refobjid, p.amoplefttype, p.amoprighttype, p.amopstrategy;

-- name: class_functions
SELECT d.refobjid::int8, p.amprocnum::int4, p.amproc::oid::int8, p.amproclefttype::int8, p.amprocrighttype::int8
FROM pg_depend d JOIN pg_amproc p ON p.oid = d.objid
WHERE d.classid = 'pg_amproc'::regclass AND d.refclassid IN ('pg_opclass'::regclass, 'pg_opfamily'::regclass)
  AND d.refobjid = ANY (%(oids)s::oid[]) ORDER BY d.refobjid, p.amproclefttype, p.amprocrighttype, p.amprocnum;

-- name: foreign_tables
SELECT f.ftrelid::int8, s.srvname::text, ARRAY(SELECT format('%%I %%L', o.option_name, o.option_value) FROM pg_options_to_table(f.ftoptions) o)
FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = ANY (%(oids)s::oid[]);

-- name: foreign_columns
-- Columns with options.
SELECT a.attrelid::int8, a.attname::text, ARRAY(SELECT format('%%I %%L', o.option_name, o.option_value) FROM pg_options_to_table(a.attfdwoptions) o)
FROM pg_attribute a WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attfdwoptions IS NOT NULL AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum;

-- name: publications
-- Whether it is of a schema, and its options.
SELECT p.oid::int8, EXISTS (SELECT FROM pg_depend d WHERE d.classid = to_regclass('pg_catalog.pg_publication_namespace')
                                AND d.refclassid = 'pg_publication'::regclass AND d.refobjid = p.oid),
       concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
                 CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
       coalesce((to_jsonb(p) ->> 'pubviaroot')::boolean, false), coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's'
FROM pg_publication p WHERE p.oid = ANY (%(oids)s::oid[]);

-- name: publication_tables
-- With the columns that are chosen, where some are.
SELECT r.prpubid::int8, c.relname::text,
       ARRAY(SELECT a.attname::text FROM jsonb_array_elements_text(coalesce(nullif(to_jsonb(r) -> 'prattrs', 'null'), '[]')) n
             JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = n::int2 ORDER BY a.attnum)
FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid WHERE r.prpubid = ANY (%(oids)s::oid[]) ORDER BY r.prpubid, c.relname;

-- name: conversions
SELECT v.oid::int8, v.condefault, pg_encoding_to_char(v.conforencoding)::text, pg_encoding_to_char(v.contoencoding)::text,
       v.conproc::oid::int8 FROM pg_conversion v WHERE v.oid = ANY (%(oids)s::oid[]);

-- name: collations
-- Where the locale stands has changed from version to version.
SELECT l.oid::int8, l.collprovider::text, l.collisdeterministic, l.collcollate::text, l.collctype::text,
       coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale', l.collcollate::text), to_jsonb(l) ->> 'collicurules'
FROM pg_collation l WHERE l.oid = ANY (%(oids)s::oid[]);

-- name: dictionaries
SELECT d.oid::int8, format('%%I.%%I', n.nspname, t.tmplname), d.dictinitoption
FROM pg_ts_dict d JOIN pg_ts_template t ON t.oid = d.dicttemplate JOIN pg_namespace n ON n.oid = t.tmplnamespace
WHERE d.oid = ANY (%(oids)s::oid[]);

-- name: parsers
SELECT c.oid::int8, format('%%I.%%I', n.nspname, p.prsname)
FROM pg_ts_config c JOIN pg_ts_parser p ON p.oid = c.cfgparser JOIN pg_namespace n ON n.oid = p.prsnamespace
WHERE c.oid = ANY (%(oids)s::oid[]);

-- name: mappings
-- Which dictionaries a configuration asks for each kind of token, in their order.
SELECT c.oid::int8, t.alias, string_agg(CASE WHEN d.dictnamespace <> c.cfgnamespace THEN quote_ident(n.nspname) || '.' ELSE '' END
                                        || quote_ident(d.dictname), ', ' ORDER BY m.mapseqno)
FROM pg_ts_config c JOIN pg_ts_config_map m ON m.mapcfg = c.oid
JOIN LATERAL ts_token_type(c.cfgparser) t ON t.tokid = m.maptokentype
JOIN pg_ts_dict d ON d.oid = m.mapdict JOIN pg_namespace n ON n.oid = d.dictnamespace
WHERE c.oid = ANY (%(oids)s::oid[]) GROUP BY c.oid, m.maptokentype, t.alias ORDER BY c.oid, m.maptokentype;

-- name: policies
-- What is not in its expressions; PUBLIC is no role.
SELECT p.oid::int8, p.polpermissive, p.polcmd::text, 0 = ANY (p.polroles),
       ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.oid = ANY (p.polroles) ORDER BY 1)
FROM pg_policy p WHERE p.oid = ANY (%(oids)s::oid[]);

-- name: settings
-- What ALTER TABLE switches on when there are rows and indexes: kind, relation, what it is, a word of SQL, and the index or
-- type that it names; a type of another schema with that.
WITH relations AS (
    SELECT c.*, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' ELSE 'materialized view' END AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
),
found AS (
    SELECT 1 AS turn, 'typed table' AS setting, r.relname::text, r.kind, NULL AS word, NULL AS index,
           CASE WHEN t.typnamespace <> r.relnamespace THEN n.nspname || '.' ELSE '' END || t.typname AS type
    FROM relations r JOIN pg_type t ON t.oid = r.reloftype JOIN pg_namespace n ON n.oid = t.typnamespace
    UNION ALL
    SELECT 2, 'replica identity', r.relname, r.kind, CASE r.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'USING INDEX' END,
           x.relname::text, NULL
    FROM relations r LEFT JOIN pg_index i ON i.indrelid = r.oid AND i.indisreplident AND r.relreplident = 'i'
    LEFT JOIN pg_class x ON x.oid = i.indexrelid
    WHERE r.relkind IN ('r', 'p') AND (r.relreplident IN ('f', 'n') OR x.oid IS NOT NULL)
    UNION ALL
    SELECT 3, 'clustering', r.relname, r.kind, NULL, x.relname, NULL
    FROM relations r JOIN pg_index i ON i.indrelid = r.oid AND i.indisclustered JOIN pg_class x ON x.oid = i.indexrelid
    UNION ALL SELECT 4, 'row-level security', relname, kind, NULL, NULL, NULL FROM relations WHERE relrowsecurity
    UNION ALL SELECT 5, 'forced row-level security', relname, kind, NULL, NULL, NULL FROM relations WHERE relforcerowsecurity
)
SELECT setting, relname, kind, word, index, type FROM found ORDER BY turn, relname;

-- name: spelled
-- Texts in which the names of the schema stand bare, so that they mean the target's: this one runs with the schema in the search_path.
-- Nothing in here may be taken for an object of that schema: functions are qualified, and so are operators.
SELECT 'type' AS what, u.oid::pg_catalog.int8, u.num::pg_catalog.int4, pg_catalog.format_type(u.oid, u.num) AS text
FROM unnest(%(type_oids)s::pg_catalog.oid[], %(type_mods)s::pg_catalog.int4[]) u (oid, num)
UNION ALL SELECT 'view', o::pg_catalog.int8, 0, pg_catalog.pg_get_viewdef(o) FROM pg_catalog.unnest(%(view)s::pg_catalog.oid[]) o
UNION ALL SELECT 'function', o::pg_catalog.int8, 0, pg_catalog.pg_get_functiondef(o) FROM pg_catalog.unnest(%(function)s::pg_catalog.oid[]) o
UNION ALL SELECT 'arguments', o::pg_catalog.int8, 0, pg_catalog.pg_get_function_identity_arguments(o)
FROM pg_catalog.unnest(%(arguments)s::pg_catalog.oid[]) o
UNION ALL SELECT 'procedure', p.oid::pg_catalog.int8, 0,
       -- Bare even where several of the schema's functions have that name, unless one of the server's own would be meant then.
       CASE WHEN n.nspname OPERATOR(pg_catalog.=) %(schema)s::pg_catalog.name AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_proc q WHERE q.pronamespace OPERATOR(pg_catalog.=) 11::pg_catalog.oid
                AND q.proname OPERATOR(pg_catalog.=) p.proname AND q.proargtypes OPERATOR(pg_catalog.=) p.proargtypes)
            THEN pg_catalog.quote_ident(p.proname) ELSE pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.proname) END
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
WHERE p.oid OPERATOR(pg_catalog.=) ANY (%(procedure)s::pg_catalog.oid[])
UNION ALL SELECT 'constraint', o::pg_catalog.int8, 0, pg_catalog.pg_get_constraintdef(o) FROM pg_catalog.unnest(%(constraint)s::pg_catalog.oid[]) o
UNION ALL SELECT 'trigger', o::pg_catalog.int8, 0, pg_catalog.pg_get_triggerdef(o, true) FROM pg_catalog.unnest(%(trigger)s::pg_catalog.oid[]) o
UNION ALL SELECT 'rule', o::pg_catalog.int8, 0, pg_catalog.pg_get_ruledef(o, true) FROM pg_catalog.unnest(%(rule)s::pg_catalog.oid[]) o
UNION ALL SELECT 'statistics', o::pg_catalog.int8, 0, pg_catalog.pg_get_statisticsobjdef(o) FROM pg_catalog.unnest(%(statistics)s::pg_catalog.oid[]) o
UNION ALL SELECT 'index', o::pg_catalog.int8, 0, pg_catalog.pg_get_indexdef(o, 0, true) FROM pg_catalog.unnest(%(index)s::pg_catalog.oid[]) o
UNION ALL SELECT 'part', u.oid::pg_catalog.int8, u.num::pg_catalog.int4, pg_catalog.pg_get_indexdef(u.oid, u.num, false)
FROM unnest(%(part_oids)s::pg_catalog.oid[], %(part_nums)s::pg_catalog.int4[]) u (oid, num)
UNION ALL SELECT 'default', d.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
WHERE d.oid OPERATOR(pg_catalog.=) ANY (%(default)s::pg_catalog.oid[])
UNION ALL SELECT 'check', k.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(k.conbin, k.conrelid) FROM pg_catalog.pg_constraint k
WHERE k.oid OPERATOR(pg_catalog.=) ANY (%(check)s::pg_catalog.oid[])
UNION ALL SELECT 'partition key', o::pg_catalog.int8, 0, pg_catalog.pg_get_partkeydef(o) FROM pg_catalog.unnest(%(partition_key)s::pg_catalog.oid[]) o
UNION ALL SELECT 'bound', c.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(c.relpartbound, c.oid) FROM pg_catalog.pg_class c
WHERE c.oid OPERATOR(pg_catalog.=) ANY (%(bound)s::pg_catalog.oid[])
UNION ALL SELECT 'predicate', i.indexrelid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(i.indpred, i.indrelid) FROM pg_catalog.pg_index i
WHERE i.indexrelid OPERATOR(pg_catalog.=) ANY (%(predicate)s::pg_catalog.oid[])
UNION ALL SELECT 'policy using', p.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p
WHERE p.oid OPERATOR(pg_catalog.=) ANY (%(policy_using)s::pg_catalog.oid[])
UNION ALL SELECT 'policy check', p.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) FROM pg_catalog.pg_policy p
WHERE p.oid OPERATOR(pg_catalog.=) ANY (%(policy_check)s::pg_catalog.oid[])
UNION ALL SELECT 'domain default', t.oid::pg_catalog.int8, 0, pg_catalog.pg_get_expr(t.typdefaultbin, 0) FROM pg_catalog.pg_type t
WHERE t.oid OPERATOR(pg_catalog.=) ANY (%(domain_default)s::pg_catalog.oid[]);
