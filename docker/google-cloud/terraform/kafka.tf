resource "google_managed_kafka_cluster" "antenna" {
  cluster_id = "antenna"
  location   = var.region

  capacity_config {
    vcpu_count   = var.kafka_vcpus
    memory_bytes = var.kafka_vcpus * 4 * 1024 * 1024 * 1024
  }

  gcp_config {
    access_config {
      network_configs {
        subnet = google_compute_subnetwork.antenna.id
      }
    }
  }

  rebalance_config {
    mode = "AUTO_REBALANCE_ON_SCALE_UP"
  }

  depends_on = [google_project_service.api]
}

resource "google_managed_kafka_topic" "devices" {
  cluster            = google_managed_kafka_cluster.antenna.cluster_id
  location           = var.region
  topic_id           = "devices"
  partition_count    = var.topic_partitions
  replication_factor = 3

  configs = {
    # The stream refuses a compacted topic.
    "cleanup.policy" = "delete"
    # Retention by the time of arrival, not by a sender's timestamp.
    "message.timestamp.type" = "LogAppendTime"
    "retention.ms"           = tostring(var.topic_retention_days * 24 * 60 * 60 * 1000)
    "min.insync.replicas"    = "2"
  }

  lifecycle {
    # A recreated topic has another id, with which the stream stops.
    prevent_destroy = true
  }
}
