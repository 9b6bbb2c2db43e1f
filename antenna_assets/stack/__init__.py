"""The embedded services: Java, the Maven jars, PostgreSQL and Kafka in the state directory.

The pipeline asks `services` for the addresses of PostgreSQL and Kafka, and need not know whether they are
embedded or external. What is wrong with them is found by `operations/doctor/`.
"""
