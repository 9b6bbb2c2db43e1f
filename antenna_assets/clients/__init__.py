"""The clients of PostgreSQL and Kafka: addresses, connections, sessions, migrations, errors, the broker.

Nothing here knows what the tables and topics mean.
"""
