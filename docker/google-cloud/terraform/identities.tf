# Permissions. Pods are identified by their Kubernetes service accounts, without keys of Google service accounts.
locals {
  pods = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project}.svc.id.goog/subject/ns/antenna/sa"
}

# The machines: pull images, write logs and metrics.
resource "google_service_account" "nodes" {
  account_id   = "antenna-nodes"
  display_name = "Machines of the antenna cluster"
}

resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  for_each = toset([
    google_artifact_registry_repository.images.repository_id,
    google_artifact_registry_repository.docker_hub.repository_id,
  ])

  location   = var.region
  repository = each.value
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}

# The stream, Dagster's runs and the sweep create, read and remove objects of the lake, and nothing else.
resource "google_storage_bucket_iam_member" "lake" {
  for_each = toset(["antenna-stream", "antenna-publisher", "antenna-administrator"])

  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.objectUser"
  member = "${local.pods}/${each.value}"
}

# The watch over alerts reads which users are in the files that landed, and changes nothing.
resource "google_storage_bucket_iam_member" "watch" {
  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.objectViewer"
  member = "${local.pods}/antenna-watch"
}

# Kafka's clients log in with a separate account, which has no other permission.
resource "google_service_account" "kafka" {
  account_id   = "antenna-kafka"
  display_name = "The stream's account in Kafka"
}

resource "google_project_iam_member" "kafka" {
  project = var.project
  role    = "roles/managedkafka.client"
  member  = google_service_account.kafka.member
}
