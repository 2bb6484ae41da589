-- Rejected rows are found again and tried again: where each is in its source, and all its values.
--
-- generation: the extraction that took it out. position: by which the source finds it in its chunk; a chunk that is
-- read twice has each row once. row_values: the carried columns as JSON, for a row that its source has no key for.
ALTER TABLE jivs.migration_quarantine
    ADD COLUMN generation text NOT NULL DEFAULT '',
    ADD COLUMN position   text,
    ADD COLUMN row_values jsonb;
-- A position may be a key of any length, and an index entry may not.
CREATE UNIQUE INDEX migration_quarantine_once
    ON jivs.migration_quarantine (key, table_name, chunk, md5(position));
