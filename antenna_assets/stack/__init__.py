"""The embedded services: Java, the Maven jars, PostgreSQL and Kafka under the state directory, and what is wrong
with them.

The pipeline asks `services` where PostgreSQL and Kafka are; it does not know whether they are embedded or external.
"""
