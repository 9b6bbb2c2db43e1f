-- Older versions showed users in Dagster. What this one shows of a publication names nobody, and it records so: a program of
-- an older version knows nothing of the column, also when it runs on this schema.
ALTER TABLE ledger.publication ADD COLUMN shown_with_users boolean NOT NULL DEFAULT true;
CREATE INDEX publication_shown_with_users ON ledger.publication (number) WHERE shown_with_users;

-- How far Dagster's events are cleaned of users. No row: Dagster has not looked yet.
CREATE TABLE ledger.old_previews (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- No event of a publication up to this number names a user.
    cleaned_to bigint NOT NULL DEFAULT 0,
    -- A cleaning in progress: up to which publication, and the last of Dagster's events that it has cleaned.
    cleaning_to bigint,
    event bigint NOT NULL DEFAULT 0,
    -- Runs of older versions that were in progress when Dagster was last started.
    unfinished_runs bigint NOT NULL DEFAULT 0
);
GRANT SELECT ON ledger.old_previews TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT, UPDATE ON ledger.old_previews TO antenna_publisher;
