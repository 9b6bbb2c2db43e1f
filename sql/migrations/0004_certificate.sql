-- Certificates: what each hour was made of when its six assets had come to one generation, chained by their hashes.

-- What a publication put where: the Delta version and its files with their SHA-256, or the SHA-256 of a table's rows.
-- Null in publications from before there were certificates.
ALTER TABLE ledger.publication ADD COLUMN lake_version bigint, ADD COLUMN content jsonb;

-- A certificate asks for the offsets of the batches that an hour's files came with.
CREATE INDEX batch_offset_of_batch ON ledger.batch_offset (batch);

-- `text` is the canonical JSON that `sha256` is of; it holds everything that the columns before it say. Text and not
-- jsonb, so that the hash can be recomputed from exactly what was signed.
CREATE TABLE ledger.certificate (
    number bigint PRIMARY KEY CHECK (number > 0),
    hour timestamptz NOT NULL,
    generation integer NOT NULL,
    users_version bigint NOT NULL,
    issued_at timestamptz NOT NULL,
    text text NOT NULL,
    previous_sha256 text NOT NULL,
    sha256 text NOT NULL,
    FOREIGN KEY (hour, generation) REFERENCES ledger.hour_generation
);
CREATE INDEX certificate_of_hour ON ledger.certificate (hour, number);

CREATE FUNCTION ledger.certificates_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a certificate is never changed or removed; the hour''s next publication issues a new one';
END
$$;
CREATE TRIGGER certificates_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.certificate
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.certificates_stay();

-- The newest certificate. Its one row is locked by whoever issues the next, so that they chain in order of publication.
CREATE TABLE ledger.certificate_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number bigint NOT NULL,
    sha256 text NOT NULL
);
INSERT INTO ledger.certificate_head (number, sha256) VALUES (0, '');
