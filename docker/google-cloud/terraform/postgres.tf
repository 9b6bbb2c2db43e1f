resource "google_sql_database_instance" "antenna" {
  name                = "antenna"
  region              = var.region
  database_version    = "POSTGRES_18"
  deletion_protection = true

  settings {
    edition                     = "ENTERPRISE"
    tier                        = var.postgres_tier
    availability_type           = "REGIONAL"
    disk_type                   = "PD_SSD"
    disk_autoresize             = true
    deletion_protection_enabled = true

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      start_time                     = "02:00"
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.antenna.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    # The ledger is the stream's checkpoint: durability settings stay at their defaults.
    database_flags {
      name  = "max_connections"
      value = "200"
    }

    # A partition for each day of users: a statement on all of them locks each.
    database_flags {
      name  = "max_locks_per_transaction"
      value = "256"
    }
  }

  depends_on = [google_service_networking_connection.services]
}

resource "google_sql_database" "antenna" {
  name            = "antenna"
  instance        = google_sql_database_instance.antenna.name
  deletion_policy = "ABANDON"
}
