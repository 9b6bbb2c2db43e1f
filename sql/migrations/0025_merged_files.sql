-- While it runs, the stream merges small files of an hour, or rejected ones, into one file (decision 30).

-- `merges`: how often the rows of a file were merged, 0 as it landed. `batches`: those that a merged file has rows of, `batch`
-- being the newest of them; null for a file of one batch. `ledger.batch` knows nothing of merging.
ALTER TABLE ledger.file
    ADD COLUMN merges smallint NOT NULL DEFAULT 0 CHECK (merges >= 0),
    ADD COLUMN batches int8multirange,
    ADD CHECK ((batches IS NULL) = (merges = 0)),
    ADD CHECK (batch = upper(batches) - 1);
ALTER TABLE ledger.expired_file ADD COLUMN batches int8multirange;
-- A batch is removed only when no file has rows of it, and the rejected files of some batches are looked up.
CREATE INDEX file_of_merged_batches ON ledger.file USING gist (batches) WHERE batches IS NOT NULL;
CREATE INDEX expired_file_of_merged_batches ON ledger.expired_file USING gist (batches) WHERE batches IS NOT NULL;

-- The batches that a file has rows of, from its columns `batch` and `batches`.
CREATE FUNCTION ledger.batches_of(batch bigint, batches int8multirange) RETURNS SETOF bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT generate_series(lower(part), upper(part) - 1)
    FROM unnest(coalesce(batches, int8multirange(int8range(batch, batch, '[]')))) AS part
$$;

-- As before: a merged file is as old as its first batch.
CREATE OR REPLACE FUNCTION ledger.rows_since(of_hour timestamptz, up_to_batch bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT committed_at FROM ledger.batch
    WHERE batch = (
        SELECT min(coalesce(lower(batches), batch)) FROM ledger.file WHERE hour = of_hour AND batch > up_to_batch
    )
$$;

-- How many merges there were: whoever has searched all files looks here whether there are others by now.
ALTER TABLE ledger.head ADD COLUMN merges bigint NOT NULL DEFAULT 0;

-- `merged`: the file gave way to a merged one, and stays for a grace period, for those who had read its name before.
ALTER TABLE ledger.replaced_file ADD COLUMN merged boolean NOT NULL DEFAULT false;

GRANT DELETE ON ledger.file TO antenna_stream;
GRANT INSERT ON ledger.replaced_file TO antenna_stream;
