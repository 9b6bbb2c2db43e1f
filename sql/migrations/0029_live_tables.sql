-- The live tables that the stream leaves out (ANTENNA_LIVE), so that nobody takes what is left in them for the truth. One
-- that came back has whole hours from `kept_from` on; null: from the beginning.
CREATE TABLE ledger.live_table (
    name text PRIMARY KEY,
    left_out boolean NOT NULL,
    kept_from timestamptz
);

GRANT SELECT, INSERT, UPDATE ON ledger.live_table TO antenna_stream;
GRANT SELECT ON ledger.live_table TO antenna_publisher, antenna_administrator;
