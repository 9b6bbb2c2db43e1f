-- One row per event of the hour, from the files that landed for it.
SELECT timestamp, app, id, antenna_id, bytes, kafka_partition, kafka_offset
FROM landed
