"""All that is Dagster: assets, checks, the sensor, jobs, partitions, resources, and parts of the instance.

`definitions.py` puts them together. No other room imports dagster; what an asset computes is in the rooms
below.
"""
