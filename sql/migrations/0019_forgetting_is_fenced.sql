-- Forgetting a user beside runs and replays: what they read before it, they commit no more.

-- Rejected messages of which nobody could say whether the user is in them, and how many of them were dropped for that.
-- Null in rows from before it was counted.
ALTER TABLE ledger.forgotten ADD COLUMN unjudged bigint CHECK (unjudged >= 0), ADD COLUMN dropped bigint CHECK (dropped >= 0);

-- The sessions that were open at the last look at a user being forgotten. They may hold what they read before it, so they
-- neither publish nor replay. `backend_start` tells a session from a later one with the same number; null where whoever
-- forgets may not see it.
CREATE TABLE ledger.fenced_session (
    pid integer PRIMARY KEY,
    backend_start timestamptz
);

-- Landed and rejected files that gave way to others in which the user is no more. They are still to be removed.
CREATE TABLE ledger.replaced_file (
    path text PRIMARY KEY,
    replaced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

GRANT SELECT ON ledger.fenced_session TO antenna_publisher, antenna_administrator;
GRANT INSERT, DELETE ON ledger.fenced_session TO antenna_administrator;
GRANT SELECT, INSERT, DELETE ON ledger.replaced_file TO antenna_administrator;
-- Of events that came late, while their user was being forgotten.
GRANT UPDATE (sum_user_bytes) ON bytes_agg_user_1h, users_over_quota_1h TO antenna_administrator;
-- A transformation is a text like a message, and may name somebody.
GRANT UPDATE (transform) ON ledger.replay TO antenna_administrator;
