# A separate network: nothing in it has a public address.
resource "google_compute_network" "antenna" {
  name                    = "antenna"
  auto_create_subnetworks = false
  depends_on              = [google_project_service.api]
}

resource "google_compute_subnetwork" "antenna" {
  name                     = "antenna"
  region                   = var.region
  network                  = google_compute_network.antenna.id
  ip_cidr_range            = "10.10.0.0/20"
  private_ip_google_access = true

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.20.0.0/16"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.30.0.0/20"
  }
}

# The range of Cloud SQL in Google's network, peered with ours.
resource "google_compute_global_address" "services" {
  name          = "antenna-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.antenna.id
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.antenna.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}
