-- Revision 0001 of the ledger: made in every target database, in the target's own transactions.
-- It is what makes a chunk count exactly once: chunk row, COPY and epoch check commit together.

CREATE SCHEMA IF NOT EXISTS jivs_ledger;

-- One row per migration key: the highest epoch that may write, and which control database gave it.
-- A writer's transaction locks this row FOR SHARE after checking its own epoch; a takeover updates it.
CREATE TABLE jivs_ledger.migrations (
    key             text PRIMARY KEY,
    control_id      uuid NOT NULL,
    epoch           bigint NOT NULL CHECK (epoch > 0),
    owner           text NOT NULL,
    claimed_at      timestamptz NOT NULL DEFAULT now()
);

-- The server processes that write for an epoch. A takeover terminates those of older epochs, and only
-- where process id, start time and application name all still match: process ids are used again.
CREATE TABLE jivs_ledger.backends (
    key              text NOT NULL REFERENCES jivs_ledger.migrations (key) ON DELETE CASCADE,
    epoch            bigint NOT NULL,
    pid              integer NOT NULL,
    backend_start    timestamptz NOT NULL,
    application_name text NOT NULL,
    PRIMARY KEY (key, pid, backend_start)
);

-- One row per committed chunk.
CREATE TABLE jivs_ledger.chunks (
    key             text NOT NULL REFERENCES jivs_ledger.migrations (key) ON DELETE CASCADE,
    "table"         text NOT NULL,
    chunk           integer NOT NULL CHECK (chunk >= 0),
    generation      text NOT NULL,
    epoch           bigint NOT NULL,
    rows            bigint NOT NULL CHECK (rows >= 0),
    bytes           bigint NOT NULL CHECK (bytes >= 0),
    digest          text,
    loaded_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (key, "table", chunk)
);

-- One row per change of the catalog that this migration made (a table created, a key added …), in the
-- transaction that made it. `undo` says what a rollback has to do about it.
CREATE TABLE jivs_ledger.steps (
    key             text NOT NULL REFERENCES jivs_ledger.migrations (key) ON DELETE CASCADE,
    "table"         text NOT NULL,
    step            text NOT NULL,
    generation      text NOT NULL,
    epoch           bigint NOT NULL,
    number          bigint GENERATED ALWAYS AS IDENTITY,
    undo            jsonb NOT NULL DEFAULT '{}',
    done_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (key, "table", step)
);
