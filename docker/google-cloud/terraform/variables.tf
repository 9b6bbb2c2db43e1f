variable "project" {
  description = "Id of the Google Cloud project; it exists and has a billing account."
  type        = string
}

variable "region" {
  description = "Everything is in this region, so that bytes do not cross one."
  type        = string
  default     = "europe-west1"
}

variable "lake_bucket" {
  description = "Name of the lake's bucket, unique in the world."
  type        = string
}

variable "kafka_vcpus" {
  description = "vCPUs of the Kafka cluster, 3 at least. docs/sizing.md."
  type        = number
  default     = 3
}

variable "topic_partitions" {
  description = "Partitions of the topic. More can be added later, fewer cannot."
  type        = number
  default     = 12
}

variable "topic_retention_days" {
  description = "How long Kafka keeps events: the longest outage of the stream, and the age of the oldest backup that can be restored."
  type        = number
  default     = 7
}

variable "postgres_tier" {
  description = "Machine of Cloud SQL, as db-custom-<vCPUs>-<MiB>. docs/sizing.md."
  type        = string
  default     = "db-custom-4-16384"
}

variable "administrators" {
  description = "Networks that may reach the cluster's control plane, as CIDR."
  type        = list(string)
}
