-- Files past their retention. Their rows move here first, in one transaction; the files go after a grace, for the
-- runs that had asked for them before. The facts about their hours and batches stay where they are.
CREATE TABLE ledger.expired_file (
    path text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('landed', 'rejected')),
    hour timestamptz,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    size bigint NOT NULL,
    batch bigint NOT NULL REFERENCES ledger.batch,
    expired_at timestamptz NOT NULL,
    removed_at timestamptz,
    CHECK ((kind = 'landed') = (hour IS NOT NULL))
);
CREATE INDEX expired_file_of_hour ON ledger.expired_file (hour);
CREATE INDEX expired_file_to_remove ON ledger.expired_file (expired_at) WHERE removed_at IS NULL;
