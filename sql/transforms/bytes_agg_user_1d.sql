-- Bytes of the day per user, in the user's own window where it has one, with its e-mail where that is known.
-- The sum may be more than 64 bits hold.
SELECT enriched_usage.id, max(coalesce(own_window.begins, billing_window.begins)) AS date,
    max(enriched_usage.email) AS email,
    CAST(sum(CAST(enriched_usage.bytes AS DECIMAL(20, 0))) AS DECIMAL(38, 0)) AS sum_user_bytes
FROM enriched_usage
CROSS JOIN billing_window
LEFT JOIN own_window ON enriched_usage.id = own_window.id
WHERE enriched_usage.timestamp >= coalesce(own_window.begins, billing_window.begins)
    AND enriched_usage.timestamp < coalesce(own_window.ends, billing_window.ends)
GROUP BY enriched_usage.id
