-- The hour's events with what is known of their user. An unknown user keeps its bytes.
SELECT
    raw_parquet.timestamp, raw_parquet.app, raw_parquet.id, raw_parquet.antenna_id, raw_parquet.bytes,
    raw_parquet.kafka_partition, raw_parquet.kafka_offset,
    user_metadata.name, user_metadata.email, user_metadata.quota
FROM raw_parquet
LEFT JOIN user_metadata ON raw_parquet.id = user_metadata.id
