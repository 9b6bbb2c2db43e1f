resource "google_container_cluster" "antenna" {
  name                = "antenna"
  location            = var.region
  enable_autopilot    = true
  deletion_protection = true
  network             = google_compute_network.antenna.id
  subnetwork          = google_compute_subnetwork.antenna.id

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  private_cluster_config {
    enable_private_nodes = true
  }

  master_authorized_networks_config {
    dynamic "cidr_blocks" {
      for_each = var.administrators
      content {
        cidr_block = cidr_blocks.value
      }
    }
  }

  # Not the project's default account, which may do far more.
  cluster_autoscaling {
    auto_provisioning_defaults {
      service_account = google_service_account.nodes.email
      oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    }
  }

  release_channel {
    channel = "REGULAR"
  }

  depends_on = [google_project_service.api]
}
