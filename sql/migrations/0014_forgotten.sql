-- Users who are being forgotten or were. The id stays only until nothing else has it, so that a run that was killed goes on
-- with the same pseudonym; then nothing links the two.
CREATE TABLE ledger.forgotten (
    pseudonym text PRIMARY KEY,
    id text UNIQUE,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    hours bigint CHECK (hours >= 0),
    CHECK ((id IS NULL) = (done_at IS NOT NULL) AND (done_at IS NULL) = (hours IS NULL))
);

-- For whoever forgets: a login that is a member of the administrators and of the publishers, since hours are certified again.
GRANT SELECT, INSERT, UPDATE ON ledger.forgotten TO antenna_administrator;
GRANT UPDATE (path, size) ON ledger.file TO antenna_administrator;
GRANT UPDATE (id, email) ON bytes_agg_user_1h, users_over_quota_1h TO antenna_administrator;
