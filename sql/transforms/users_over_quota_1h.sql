-- Users whose bytes of the hour are above their quota. An unknown user has none, nor has one without a limit.
SELECT id, max(email) AS email, max(quota) AS quota, CAST(sum(bytes) AS BIGINT) AS sum_user_bytes
FROM enriched_usage
WHERE quota IS NOT NULL
GROUP BY id
HAVING sum(bytes) > max(quota)
