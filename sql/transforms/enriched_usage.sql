-- The hour's events with what is known of their user. An unknown user keeps its bytes. The quota is the one that was in
-- force at the hour's end: `quota_of_then` has those for whom it was another than `user_metadata` says.
SELECT
    raw_parquet.timestamp, raw_parquet.app, raw_parquet.id, raw_parquet.antenna_id, raw_parquet.bytes,
    raw_parquet.kafka_partition, raw_parquet.kafka_offset,
    user_metadata.name, user_metadata.email,
    CASE WHEN quota_of_then.id IS NULL THEN user_metadata.quota ELSE quota_of_then.quota END AS quota
FROM raw_parquet
LEFT JOIN user_metadata ON raw_parquet.id = user_metadata.id
LEFT JOIN quota_of_then ON user_metadata.id = quota_of_then.id
