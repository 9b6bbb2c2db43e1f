output "kafka_bootstrap" {
  description = "ANTENNA_KAFKA_BOOTSTRAP"
  value       = "bootstrap.${google_managed_kafka_cluster.antenna.cluster_id}.${var.region}.managedkafka.${var.project}.cloud.goog:9092"
}

output "lake" {
  description = "ANTENNA_LAKE"
  value       = "gs://${google_storage_bucket.lake.name}/lake"
}

output "postgres_host" {
  description = "Private address of Cloud SQL"
  value       = google_sql_database_instance.antenna.private_ip_address
}

output "image" {
  description = "Where the image is pushed to, without its tag"
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}/antenna"
}
