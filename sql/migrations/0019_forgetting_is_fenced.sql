-- Forgetting a user beside runs and replays: what they read before it, they commit no more.

-- Rejected messages of which nobody could say whether the user is in them, and how many of them were dropped for that.
-- Null in rows from before it was counted.
ALTER TABLE ledger.forgotten ADD COLUMN unjudged bigint CHECK (unjudged >= 0), ADD COLUMN dropped bigint CHECK (dropped >= 0);

-- When the last look at a user being forgotten began. A session that is older may hold what it read before, so it
-- neither publishes nor replays.
CREATE TABLE ledger.forget_fence (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    raised_at timestamptz NOT NULL
);
INSERT INTO ledger.forget_fence (raised_at) VALUES ('-infinity');

-- Landed and rejected files that gave way to others in which the user is no more. They are still to be removed.
CREATE TABLE ledger.replaced_file (
    path text PRIMARY KEY,
    replaced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT ON ledger.forget_fence TO antenna_publisher, antenna_administrator;
GRANT UPDATE ON ledger.forget_fence TO antenna_administrator;
GRANT SELECT, INSERT, DELETE ON ledger.replaced_file TO antenna_administrator;
-- Of events that came late, while their user was being forgotten.
GRANT UPDATE (sum_user_bytes) ON bytes_agg_user_1h, users_over_quota_1h TO antenna_administrator;
-- A transformation is a text like a message, and may name somebody.
GRANT UPDATE (transform) ON ledger.replay TO antenna_administrator;
