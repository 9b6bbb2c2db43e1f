resource "google_storage_bucket" "lake" {
  name                        = var.lake_bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Removed objects can be restored this long, for a restore to an earlier time (docs/backup.md).
  soft_delete_policy {
    retention_duration_seconds = 14 * 24 * 60 * 60
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository" "images" {
  location      = var.region
  repository_id = "antenna"
  format        = "DOCKER"

  docker_config {
    immutable_tags = true
  }

  depends_on = [google_project_service.api]
}

# Mirrors of images for pods without internet access: the two small ones of Dagster's init containers.
resource "google_artifact_registry_repository" "docker_hub" {
  location      = var.region
  repository_id = "docker-hub"
  format        = "DOCKER"
  mode          = "REMOTE_REPOSITORY"

  remote_repository_config {
    docker_repository {
      public_repository = "DOCKER_HUB"
    }
  }

  depends_on = [google_project_service.api]
}
