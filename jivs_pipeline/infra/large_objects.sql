-- Statements of infra/large_objects.py on a target database. Parameters are %(name)s.

-- name: landing
-- Values of this size are not worth compressing for the moment that they are in here.
CREATE TEMPORARY TABLE jivs_pieces (loid int8, piece int8, comment text, data bytea) ON COMMIT DROP;
ALTER TABLE pg_temp.jivs_pieces ALTER COLUMN data SET STORAGE EXTERNAL;

-- name: make
INSERT INTO jivs_ledger.large_objects (key, loid)
SELECT %(key)s, lo_create(p.loid::oid) FROM pg_temp.jivs_pieces p WHERE p.piece = 0 ORDER BY p.loid;

-- name: fill
SELECT lo_put(p.loid::oid, p.piece * %(size)s, p.data) FROM pg_temp.jivs_pieces p WHERE p.data <> '' ORDER BY p.loid, p.piece;

-- name: comments
SELECT loid, comment FROM pg_temp.jivs_pieces WHERE comment IS NOT NULL ORDER BY loid;

-- name: remove
-- One that somebody else has removed is only forgotten.
WITH gone AS (
    DELETE FROM jivs_ledger.large_objects l
     WHERE l.key = %(key)s AND l.loid IN (
           SELECT loid FROM jivs_ledger.large_objects WHERE key = %(key)s ORDER BY loid LIMIT %(most)s)
    RETURNING l.loid
)
SELECT count(*), count(lo_unlink(m.oid)) FROM gone g LEFT JOIN pg_largeobject_metadata m ON m.oid = g.loid;

-- name: others
-- Those in the database that the migration has not made.
SELECT m.oid::int8 FROM pg_largeobject_metadata m
 WHERE NOT EXISTS (SELECT FROM jivs_ledger.large_objects l WHERE l.key = %(key)s AND l.loid = m.oid) ORDER BY 1;

-- name: all
SELECT m.oid::int8 FROM pg_largeobject_metadata m ORDER BY 1;

-- name: has_list
SELECT to_regclass('jivs_ledger.large_objects') IS NOT NULL;
