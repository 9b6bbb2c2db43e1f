-- Bytes of the hour per user, with the user's e-mail where it is known.
SELECT id, max(email) AS email, CAST(sum(bytes) AS BIGINT) AS sum_user_bytes
FROM enriched_usage
GROUP BY id
