-- Bytes of the hour per app.
SELECT app, CAST(sum(bytes) AS BIGINT) AS sum_app_bytes
FROM enriched_usage
GROUP BY app
