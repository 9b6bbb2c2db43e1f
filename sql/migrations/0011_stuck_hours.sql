-- An hour stays stuck when its attempts are long ago, until rows come that they were not for. Ticks replace the rows.
DELETE FROM ledger.failing_hour;
ALTER TABLE ledger.failing_hour ADD COLUMN batch bigint NOT NULL;
