"""The assets, in the order of the data: sources, raw, usage, aggregates, quota.

An asset's body reads, transforms, writes and reports; how each is done is in the rooms below `defs/`.
"""
