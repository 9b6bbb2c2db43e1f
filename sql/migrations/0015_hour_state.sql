-- What is published of an hour is the newest that was asked for, by generation and then by users' version, and an hour is
-- done when its newest certificate names its newest publications. What landed for a generation is a fact of the generation.

-- Each publication in the lake takes a number as it begins, so that of two of one generation and users' version the one that
-- began last wins, in the lake and in the ledger, however the versions of the Delta table count. `lake_table` is Delta's id of it.
CREATE SEQUENCE ledger.publication_attempt;
ALTER TABLE ledger.publication ADD COLUMN attempt bigint, ADD COLUMN lake_table text;

-- `users_version` is that of what is published, null where no user is looked up; `asked_users_version` the highest that was
-- published or begun. `begun` is the attempt in the lake that began last, until it or a later one is recorded.
-- `uncertified` until a certificate names what is published.
ALTER TABLE ledger.publication_head
    ADD COLUMN users_version bigint,
    ADD COLUMN asked_users_version bigint,
    ADD COLUMN begun bigint,
    ADD COLUMN uncertified boolean NOT NULL DEFAULT false;

UPDATE ledger.publication_head AS head SET users_version = newest.users_version
FROM (
    SELECT DISTINCT ON (asset, hour, generation) asset, hour, generation, users_version FROM ledger.publication
    ORDER BY asset, hour, generation, lake_version DESC NULLS LAST, number DESC
) AS newest
WHERE (newest.asset, newest.hour, newest.generation) = (head.asset, head.hour, head.generation);
UPDATE ledger.publication_head AS head SET asked_users_version = asked.users_version
FROM (SELECT asset, hour, max(users_version) AS users_version FROM ledger.publication GROUP BY asset, hour) AS asked
WHERE (asked.asset, asked.hour) = (head.asset, head.hour);
-- A publication that died half-way, and an hour whose certificate was issued when its landed files had gone already.
UPDATE ledger.publication_head AS head SET uncertified = true
FROM (
    SELECT DISTINCT ON (hour) hour, generation, users_version,
        substring(text FROM '"landed":\{[^}]*"rows":([0-9]+)\}') AS landed_rows
    FROM ledger.certificate ORDER BY hour, number DESC
) AS newest JOIN ledger.hour_generation AS sealed USING (hour, generation)
WHERE (newest.hour, newest.generation) = (head.hour, head.generation)
    AND (newest.users_version <> head.users_version OR newest.landed_rows <> sealed.rows::text);

-- What is published but not the end of the matter. Few at any time: the index has the very same condition, so that whether
-- one of an hour's is here is looked up for all hours at once.
CREATE VIEW ledger.unsettled_publication AS
SELECT hour, asset FROM ledger.publication_head
WHERE uncertified OR begun IS NOT NULL OR coalesce(users_version, 0) < coalesce(asked_users_version, 0);
CREATE INDEX publication_head_unsettled ON ledger.publication_head (hour)
WHERE uncertified OR begun IS NOT NULL OR coalesce(users_version, 0) < coalesce(asked_users_version, 0);

-- For a program from before this, which runs on: it moves the head by the generation alone, and then writes this row.
CREATE FUNCTION ledger.publication_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.publication_head AS head SET users_version = new.users_version,
        asked_users_version = greatest(asked_users_version, new.users_version)
    WHERE (head.asset, head.hour, head.generation) = (new.asset, new.hour, new.generation)
        AND head.users_version IS DISTINCT FROM new.users_version;
    RETURN NULL;
END
$$;
CREATE TRIGGER publication_recorded AFTER INSERT ON ledger.publication
    FOR EACH ROW EXECUTE FUNCTION ledger.publication_recorded();

-- What a certificate says of an hour's landing, as it was when the generation was sealed: it outlives the landed files.
CREATE TABLE ledger.generation_landing (
    hour timestamptz NOT NULL,
    generation integer NOT NULL,
    content jsonb NOT NULL,
    PRIMARY KEY (hour, generation),
    FOREIGN KEY (hour, generation) REFERENCES ledger.hour_generation
);

-- The one definition of an hour that is done. `dirty`: it has rows beyond its newest generation. `certified`: the newest
-- generation has a certificate, which names all that is published, and no other version of the users was asked for.
-- `published`: it is closed, certified and not dirty, so that nothing is left to do.
CREATE VIEW ledger.hour_state AS
SELECT *, closed_at IS NOT NULL AND NOT dirty AND certified AS published
FROM (
    SELECT hour.hour, hour.rows, hour.bytes, hour.closed_at, hour.closed_by, hour.generation, sealed.up_to_batch,
        sealed.rows IS DISTINCT FROM hour.rows AS dirty,
        EXISTS (SELECT FROM ledger.certificate
                WHERE certificate.hour = hour.hour AND certificate.generation = hour.generation)
            AND NOT EXISTS (SELECT FROM ledger.unsettled_publication AS unsettled
                            WHERE unsettled.hour = hour.hour) AS certified
    FROM ledger.hour LEFT JOIN ledger.hour_generation AS sealed USING (hour, generation)
) AS state;

-- As before, and an hour that was certified and whose newest publications are not yet is 'publishing again'.
CREATE OR REPLACE VIEW hour_trust AS
SELECT hour.hour,
    CASE
        WHEN hour.closed_at IS NULL THEN 'open'
        WHEN newest.generation IS NULL THEN 'closed'
        WHEN hour.rows > computed.rows THEN 'late rows'
        WHEN NOT hour.published THEN 'publishing again'
        ELSE 'published'
    END AS state,
    hour.closed_at, hour.closed_by, newest.generation, newest.number AS certificate, hour.rows, hour.bytes,
    hour.bytes - coalesce(computed.bytes, 0) AS waiting_bytes,
    coalesce(hour.rows - first.rows, 0) AS late_rows,
    (SELECT coalesce(sum(quarantined), 0)::bigint FROM ledger.batch
        WHERE committed_at >= hour.hour AND committed_at < hour.hour + interval '1 hour') AS quarantined,
    greatest(coalesce((SELECT min(issued_at) FROM ledger.certificate WHERE certificate.hour = hour.hour), now())
        - hour.hour - interval '1 hour', interval '0') AS delay
FROM ledger.hour_state AS hour
LEFT JOIN LATERAL (
    SELECT number, generation FROM ledger.certificate WHERE certificate.hour = hour.hour ORDER BY number DESC LIMIT 1
) AS newest ON true
LEFT JOIN ledger.hour_generation AS computed ON computed.hour = hour.hour AND computed.generation = newest.generation
LEFT JOIN ledger.hour_generation AS first ON first.hour = hour.hour AND first.generation = 1;

-- The hours of which both tables that `usage_against_quota` puts side by side hold the same generation and users' version.
CREATE OR REPLACE VIEW ledger.quota_hour AS
SELECT used.hour, used.generation
FROM ledger.publication_head AS used JOIN ledger.publication_head AS over USING (hour, generation)
WHERE used.asset = 'bytes_agg_user_1h' AND over.asset = 'users_over_quota_1h'
    AND used.users_version IS NOT DISTINCT FROM over.users_version;

GRANT SELECT ON ledger.hour_state, ledger.unsettled_publication, ledger.generation_landing
    TO antenna_stream, antenna_publisher, antenna_administrator;
-- A sweep keeps it for generations that were sealed before this, as their files go.
GRANT INSERT ON ledger.generation_landing TO antenna_publisher, antenna_administrator;
GRANT USAGE ON SEQUENCE ledger.publication_attempt TO antenna_publisher;
