-- Which lake the ledger belongs to, and what of the ledger's past is kept as a sum.

-- The lake has the same id in a file. Null `claimed_at`: a claim that has not come to its end.
CREATE TABLE ledger.lake (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id text NOT NULL,
    place text NOT NULL,
    claimed_at timestamptz
);
-- Whoever writes first claims.
GRANT SELECT, INSERT, UPDATE ON ledger.lake TO antenna_stream, antenna_publisher, antenna_administrator;

-- Hours whose landed files are gone: what is left of their rows in ledger.expired_file.
CREATE TABLE ledger.expired_hour (
    hour timestamptz PRIMARY KEY,
    files bigint NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    size bigint NOT NULL
);
GRANT SELECT ON ledger.expired_hour TO antenna_stream, antenna_publisher, antenna_administrator;
GRANT INSERT, UPDATE ON ledger.expired_hour TO antenna_administrator;
GRANT DELETE ON ledger.expired_file TO antenna_administrator;

-- Batches of the stream that are past the horizon are merged, an hour's into one: `merged` is how many it stands for.
ALTER TABLE ledger.batch ADD COLUMN merged bigint NOT NULL DEFAULT 1 CHECK (merged > 0);
GRANT UPDATE, DELETE ON ledger.batch, ledger.batch_offset, ledger.rejection TO antenna_administrator;

-- A batch is removed only when nothing refers to it, which PostgreSQL looks up.
CREATE INDEX expired_file_of_batch ON ledger.expired_file (batch);
CREATE INDEX file_rejected ON ledger.file (batch) WHERE kind = 'rejected';
CREATE INDEX expired_file_removed ON ledger.expired_file (removed_at) WHERE removed_at IS NOT NULL;

-- As before, and a question for some hours reads those alone: the expression can be looked up.
CREATE INDEX batch_by_hour ON ledger.batch (date_bin('1 hour', committed_at, '2000-01-01 00:00:00+00'::timestamptz));
CREATE OR REPLACE VIEW quarantine_by_hour AS
SELECT date_bin('1 hour', batch.committed_at, '2000-01-01 00:00:00+00'::timestamptz) AS hour, rejection.reason,
    sum(rejection.rows)::bigint AS messages
FROM ledger.batch JOIN ledger.rejection USING (batch)
GROUP BY 1, 2;
