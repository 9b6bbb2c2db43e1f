-- As before, in two thirds of the time with five years of hours: whether an hour is to be published again is looked up for
-- the few that are to be published, where all certificates were read a second time.
CREATE OR REPLACE VIEW ledger.hour_to_publish AS
SELECT state.hour, state.rows, state.generation, state.up_to_batch, coalesce(failing.attempts, 0) AS attempts,
    failing.batch AS tried_batch, failing.ended, failing.next_attempt,
    state.dirty AND failing.hour IS NULL
        AND (SELECT certified FROM ledger.hour_state AS again WHERE again.hour = state.hour LIMIT 1) AS again
FROM ledger.hour_state AS state LEFT JOIN ledger.failing_hour AS failing USING (hour)
WHERE state.closed_at IS NOT NULL AND NOT state.published;
