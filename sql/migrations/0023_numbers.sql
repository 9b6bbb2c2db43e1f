-- A user without a quota is not limited.
ALTER TABLE user_metadata ALTER COLUMN quota DROP NOT NULL;

-- A hundred times a sum goes beyond 64 bits from 92 PB on: numeric first. The columns stay as they are.
CREATE OR REPLACE VIEW usage_against_quota AS
SELECT side.hour, used.id, users.name, used.sum_user_bytes AS bytes, coalesce(over.quota, users.quota) AS quota,
    100::numeric * used.sum_user_bytes / nullif(coalesce(over.quota, users.quota), 0)::float8 AS percent,
    coalesce(over.quota, users.quota) - used.sum_user_bytes AS remaining,
    over.id IS NOT NULL AS over_quota
FROM ledger.quota_hour AS side
JOIN bytes_agg_user_1h AS used ON used.date = side.hour
JOIN user_metadata AS users ON users.id = used.id
LEFT JOIN users_over_quota_1h AS over ON over.date = side.hour AND over.id = used.id;

CREATE OR REPLACE VIEW over_quota_history AS
SELECT over.date AS hour, over.id, users.name, over.sum_user_bytes AS bytes, over.quota,
    100::numeric * over.sum_user_bytes / nullif(over.quota, 0)::float8 AS percent, over.sum_user_bytes - over.quota AS excess
FROM users_over_quota_1h AS over LEFT JOIN user_metadata AS users USING (id);

CREATE OR REPLACE VIEW usage_compared AS
SELECT this.hour, this.bytes, day.bytes AS day_before, week.bytes AS week_before,
    100::numeric * (this.bytes - day.bytes) / nullif(day.bytes, 0)::float8 AS day_change_percent,
    100::numeric * (this.bytes - week.bytes) / nullif(week.bytes, 0)::float8 AS week_change_percent
FROM ledger.published_bytes AS this
LEFT JOIN ledger.published_bytes AS day ON day.hour = this.hour - interval '24 hours'
LEFT JOIN ledger.published_bytes AS week ON week.hour = this.hour - interval '168 hours';

-- What the stream looks up before each micro-batch: hours that hold so many bytes that they take no more (2^62).
CREATE INDEX hour_full ON ledger.hour (hour) WHERE bytes >= 4611686018427387904;
