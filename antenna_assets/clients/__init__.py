"""The clients of PostgreSQL and Kafka: addresses, connections, sessions, migrations, errors, the broker.

Nothing here knows the meaning of tables and topics.
"""
