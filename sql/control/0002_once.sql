-- Revision 0002 of the control schema: a change whose commit was not acknowledged can be sent again.

-- Made by the client for one change. An event whose token stands was committed, and with it the change that it
-- tells of; sending the change again does nothing.
ALTER TABLE jivs.migration_events ADD COLUMN token uuid;
CREATE UNIQUE INDEX migration_events_token ON jivs.migration_events (key, token);
