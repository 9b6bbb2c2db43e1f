-- bytes_agg_user_1h is to have a partition for each day. The rows of an existing installation stay where they are, in one
-- partition before a certain day. With this constraint PostgreSQL knows that they are, and attaches them without reading
-- them while everybody waits. New rows are checked from now on, the others by the next migration.
DO $$
DECLARE
    -- Days without rows yet: who publishes with the program of before must not meet it.
    until timestamptz := date_trunc('day', greatest(now(), (SELECT max(date) FROM bytes_agg_user_1h)), 'UTC')
        + interval '2 days';
BEGIN
    EXECUTE format('ALTER TABLE bytes_agg_user_1h ADD CONSTRAINT before_days CHECK (date < %L) NOT VALID', until);
END $$;
