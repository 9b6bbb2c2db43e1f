"""The streaming job: from Kafka to landed files, ledger and live tables, one transaction per micro-batch."""
