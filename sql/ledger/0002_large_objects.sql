-- Revision 0002 of the ledger: which large objects of the database a migration has made. They are in no schema and in no
-- table, so nothing else tells them from those of others. Entry and object commit together, like the rows of a chunk.

CREATE TABLE jivs_ledger.large_objects (
    key             text NOT NULL REFERENCES jivs_ledger.migrations (key) ON DELETE CASCADE,
    loid            oid NOT NULL,
    PRIMARY KEY (key, loid)
);
