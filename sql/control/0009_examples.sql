-- Examples of rows that a validation does not pass: kept beside the rejected rows, loaded all the same, and not counted.
ALTER TABLE jivs.migration_quarantine ADD COLUMN example boolean NOT NULL DEFAULT false;
