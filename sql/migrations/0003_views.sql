-- The other table layout in use for this system: long rows of (timestamp, id, value, type).

CREATE VIEW bytes AS
SELECT date AS timestamp, antenna_id AS id, sum_antenna_bytes AS value, 'antenna_total_bytes' AS type FROM bytes_agg_antenna
UNION ALL
SELECT date, id, sum_user_bytes, 'user_total_bytes' FROM bytes_agg_user
UNION ALL
SELECT date, app, sum_app_bytes, 'app_total_bytes' FROM bytes_agg_app;

CREATE VIEW bytes_hourly AS
SELECT date AS timestamp, antenna_id AS id, sum_antenna_bytes AS value, 'antenna_total_bytes' AS type FROM bytes_agg_antenna_1h
UNION ALL
SELECT date, id, sum_user_bytes, 'user_total_bytes' FROM bytes_agg_user_1h
UNION ALL
SELECT date, app, sum_app_bytes, 'app_total_bytes' FROM bytes_agg_app_1h;

CREATE VIEW user_quota_limit AS
SELECT email, sum_user_bytes AS usage, quota, date AS timestamp FROM users_over_quota_1h;
