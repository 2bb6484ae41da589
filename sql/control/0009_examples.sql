-- Examples of rows that a validation does not pass: kept beside the rejected rows, loaded all the same, and not counted.
ALTER TABLE jivs.migration_quarantine ADD COLUMN example boolean NOT NULL DEFAULT false;

-- Who may count rejected rows (sql/roles.sql) may leave examples out.
DO $$
DECLARE reader text;
BEGIN
    FOR reader IN
        SELECT DISTINCT r.rolname FROM pg_attribute a CROSS JOIN aclexplode(a.attacl) x JOIN pg_roles r ON r.oid = x.grantee
         WHERE a.attrelid = 'jivs.migration_quarantine'::regclass AND a.attname = 'id' AND x.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT (example) ON jivs.migration_quarantine TO %I', reader);
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION jivs.carry_quarantine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM jivs.carry('records_failed', '', 0, g.total)
       FROM (SELECT count(*) AS total FROM gone WHERE NOT example) g WHERE g.total > 0;
    RETURN NULL;
END $$;
