-- Whether a generation has a certificate is kept with it: what is left to publish is asked of all hours that ever were, every
-- few seconds, and to look for their certificates took half of the time. Certificates stay, so it is never taken back.
ALTER TABLE ledger.hour_generation ADD COLUMN certified boolean NOT NULL DEFAULT false;
UPDATE ledger.hour_generation AS sealed SET certified = true
WHERE EXISTS (SELECT FROM ledger.certificate AS issued
    WHERE (issued.hour, issued.generation) = (sealed.hour, sealed.generation));

-- With the rights of the owner: who publishes may add generations, and change none.
CREATE FUNCTION ledger.generation_certified() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE ledger.hour_generation AS sealed SET certified = true
    WHERE (sealed.hour, sealed.generation) = (new.hour, new.generation) AND NOT sealed.certified;
    RETURN NULL;
END $$;
CREATE TRIGGER generation_certified AFTER INSERT ON ledger.certificate
    FOR EACH ROW EXECUTE FUNCTION ledger.generation_certified();
REVOKE ALL ON FUNCTION ledger.generation_certified FROM PUBLIC;

-- As before, without a look at the certificates.
CREATE OR REPLACE VIEW ledger.hour_state AS
SELECT *, closed_at IS NOT NULL AND NOT dirty AND certified AS published
FROM (
    SELECT hour.hour, hour.rows, hour.bytes, hour.closed_at, hour.closed_by, hour.generation, sealed.up_to_batch,
        sealed.rows IS DISTINCT FROM hour.rows AS dirty,
        coalesce(sealed.certified, false)
            AND NOT EXISTS (SELECT FROM ledger.unsettled_publication AS unsettled
                            WHERE unsettled.hour = hour.hour) AS certified
    FROM ledger.hour LEFT JOIN ledger.hour_generation AS sealed USING (hour, generation)
) AS state;

-- As it was before 0039, which spared a second look at all certificates.
CREATE OR REPLACE VIEW ledger.hour_to_publish AS
SELECT state.hour, state.rows, state.generation, state.up_to_batch, coalesce(failing.attempts, 0) AS attempts,
    failing.batch AS tried_batch, failing.ended, failing.next_attempt,
    state.dirty AND failing.hour IS NULL AND state.certified AS again
FROM ledger.hour_state AS state LEFT JOIN ledger.failing_hour AS failing USING (hour)
WHERE state.closed_at IS NOT NULL AND NOT state.published;
