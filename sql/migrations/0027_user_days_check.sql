-- Reads the whole table, and keeps nobody from reading or publishing meanwhile.
ALTER TABLE bytes_agg_user_1h VALIDATE CONSTRAINT before_days;
