-- Bytes of the hour per antenna.
SELECT antenna_id, CAST(sum(bytes) AS BIGINT) AS sum_antenna_bytes
FROM enriched_usage
GROUP BY antenna_id
