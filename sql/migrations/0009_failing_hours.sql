-- Closed hours that the sensor asked for and whose runs did not publish them. Its ticks replace the rows.
CREATE TABLE ledger.failing_hour (
    hour timestamptz PRIMARY KEY REFERENCES ledger.hour,
    attempts integer NOT NULL CHECK (attempts > 0),
    run_id text NOT NULL,
    ended timestamptz NOT NULL,
    next_attempt timestamptz NOT NULL
);
