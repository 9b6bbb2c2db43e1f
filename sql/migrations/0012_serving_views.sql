-- What dashboards and reports read: bytes by antenna, user and app with word of where each number comes from, quotas,
-- comparisons, and how far an hour is to be trusted. Nobody's e-mail is in them.

-- 'hourly' is an hour's truth, once it is published; until then 'live' has the sums of its windows so far. An hour comes
-- from one of the two, never from both. Live windows are looked up hour by hour: they are many, and few hours are live.

CREATE VIEW usage_by_antenna AS
SELECT date AS hour, antenna_id, sum_antenna_bytes AS bytes, 'hourly' AS source FROM bytes_agg_antenna_1h
UNION ALL
SELECT hour.hour, live.antenna_id, sum(live.sum_antenna_bytes)::bigint, 'live'
FROM ledger.hour JOIN bytes_agg_antenna AS live ON live.date >= hour.hour AND live.date < hour.hour + interval '1 hour'
WHERE hour.hour >= (SELECT date_trunc('hour', min(date), 'UTC') FROM bytes_agg_antenna)
    AND NOT EXISTS (
        SELECT FROM ledger.publication_head AS head WHERE head.asset = 'bytes_agg_antenna_1h' AND head.hour = hour.hour)
GROUP BY hour.hour, live.antenna_id;

CREATE VIEW usage_by_user AS
SELECT used.hour, used.id, users.name, used.bytes, used.source
FROM (
    SELECT date AS hour, id, sum_user_bytes AS bytes, 'hourly' AS source FROM bytes_agg_user_1h
    UNION ALL
    SELECT hour.hour, live.id, sum(live.sum_user_bytes)::bigint, 'live'
    FROM ledger.hour JOIN bytes_agg_user AS live ON live.date >= hour.hour AND live.date < hour.hour + interval '1 hour'
    WHERE hour.hour >= (SELECT date_trunc('hour', min(date), 'UTC') FROM bytes_agg_user)
        AND NOT EXISTS (
            SELECT FROM ledger.publication_head AS head WHERE head.asset = 'bytes_agg_user_1h' AND head.hour = hour.hour)
    GROUP BY hour.hour, live.id
) AS used LEFT JOIN user_metadata AS users USING (id);

CREATE VIEW usage_by_app AS
SELECT date AS hour, app, sum_app_bytes AS bytes, 'hourly' AS source FROM bytes_agg_app_1h
UNION ALL
SELECT hour.hour, live.app, sum(live.sum_app_bytes)::bigint, 'live'
FROM ledger.hour JOIN bytes_agg_app AS live ON live.date >= hour.hour AND live.date < hour.hour + interval '1 hour'
WHERE hour.hour >= (SELECT date_trunc('hour', min(date), 'UTC') FROM bytes_agg_app)
    AND NOT EXISTS (
        SELECT FROM ledger.publication_head AS head WHERE head.asset = 'bytes_agg_app_1h' AND head.hour = hour.hour)
GROUP BY hour.hour, live.app;

-- The ten with the most bytes of each hour, antennas, users and apps apart.
CREATE VIEW top_talkers AS
SELECT hour, kind, key, name, bytes, share, rank, source
FROM (
    SELECT *,
        row_number() OVER (PARTITION BY kind, hour ORDER BY bytes DESC, key) AS rank,
        bytes / nullif(sum(bytes) OVER (PARTITION BY kind, hour), 0)::float8 AS share
    FROM (
        SELECT hour, 'antenna' AS kind, antenna_id AS key, NULL AS name, bytes, source FROM usage_by_antenna
        UNION ALL
        SELECT hour, 'user', id, name, bytes, source FROM usage_by_user
        UNION ALL
        SELECT hour, 'app', app, NULL, bytes, source FROM usage_by_app
    ) AS talkers
) AS ranked
WHERE rank <= 10;

-- The hours of which both tables that `usage_against_quota` puts side by side hold the same generation.
CREATE VIEW ledger.quota_hour AS
SELECT used.hour, used.generation
FROM ledger.publication_head AS used JOIN ledger.publication_head AS over USING (hour, generation)
WHERE used.asset = 'bytes_agg_user_1h' AND over.asset = 'users_over_quota_1h';

-- Known users only. Who was over quota is as it was published, with the quota of then; the other quotas are today's.
CREATE VIEW usage_against_quota AS
SELECT side.hour, used.id, users.name, used.sum_user_bytes AS bytes, coalesce(over.quota, users.quota) AS quota,
    100 * used.sum_user_bytes / nullif(coalesce(over.quota, users.quota), 0)::float8 AS percent,
    coalesce(over.quota, users.quota) - used.sum_user_bytes AS remaining,
    over.id IS NOT NULL AS over_quota
FROM ledger.quota_hour AS side
JOIN bytes_agg_user_1h AS used ON used.date = side.hour
JOIN user_metadata AS users ON users.id = used.id
LEFT JOIN users_over_quota_1h AS over ON over.date = side.hour AND over.id = used.id;

CREATE VIEW over_quota_history AS
SELECT over.date AS hour, over.id, users.name, over.sum_user_bytes AS bytes, over.quota,
    100 * over.sum_user_bytes / nullif(over.quota, 0)::float8 AS percent, over.sum_user_bytes - over.quota AS excess
FROM users_over_quota_1h AS over LEFT JOIN user_metadata AS users USING (id);

CREATE VIEW ledger.published_bytes AS
SELECT hour, computed.bytes
FROM ledger.publication_head AS head JOIN ledger.hour_generation AS computed USING (hour, generation)
WHERE head.asset = 'bytes_agg_antenna_1h';

-- A published hour beside the same hour of the day and of the week before, of which there may be none.
CREATE VIEW usage_compared AS
SELECT this.hour, this.bytes, day.bytes AS day_before, week.bytes AS week_before,
    100 * (this.bytes - day.bytes) / nullif(day.bytes, 0)::float8 AS day_change_percent,
    100 * (this.bytes - week.bytes) / nullif(week.bytes, 0)::float8 AS week_change_percent
FROM ledger.published_bytes AS this
LEFT JOIN ledger.published_bytes AS day ON day.hour = this.hour - interval '24 hours'
LEFT JOIN ledger.published_bytes AS week ON week.hour = this.hour - interval '168 hours';

-- How far an hour is to be trusted. `generation` and `certificate` are of the newest certificate, and null before there
-- is one; `waiting_bytes` are those that landed and are not in it; `late_rows` came after the hour was first computed;
-- `quarantined` messages were rejected while the hour was, whatever hour they meant; `delay` is the time from the hour's
-- end to its first certificate, so far if there is none.
CREATE VIEW hour_trust AS
SELECT hour.hour,
    CASE
        WHEN hour.closed_at IS NULL THEN 'open'
        WHEN newest.generation IS NULL THEN 'closed'
        WHEN hour.rows > computed.rows THEN 'late rows'
        ELSE 'published'
    END AS state,
    hour.closed_at, hour.closed_by, newest.generation, newest.number AS certificate, hour.rows, hour.bytes,
    hour.bytes - coalesce(computed.bytes, 0) AS waiting_bytes,
    coalesce(hour.rows - first.rows, 0) AS late_rows,
    (SELECT coalesce(sum(quarantined), 0)::bigint FROM ledger.batch
        WHERE committed_at >= hour.hour AND committed_at < hour.hour + interval '1 hour') AS quarantined,
    greatest(coalesce((SELECT min(issued_at) FROM ledger.certificate WHERE certificate.hour = hour.hour), now())
        - hour.hour - interval '1 hour', interval '0') AS delay
FROM ledger.hour
LEFT JOIN LATERAL (
    SELECT number, generation FROM ledger.certificate WHERE certificate.hour = hour.hour ORDER BY number DESC LIMIT 1
) AS newest ON true
LEFT JOIN ledger.hour_generation AS computed ON computed.hour = hour.hour AND computed.generation = newest.generation
LEFT JOIN ledger.hour_generation AS first ON first.hour = hour.hour AND first.generation = 1;

-- Rejected messages by the hour in which they were read and by reason.
CREATE VIEW quarantine_by_hour AS
SELECT date_trunc('hour', batch.committed_at, 'UTC') AS hour, rejection.reason, sum(rejection.rows)::bigint AS messages
FROM ledger.batch JOIN ledger.rejection USING (batch)
GROUP BY 1, 2;

CREATE INDEX batch_by_time ON ledger.batch (committed_at);
