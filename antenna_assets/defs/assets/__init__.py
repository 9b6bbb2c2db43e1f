"""The assets, in the order of the data: sources, raw, usage, aggregates, quota.

An asset's body reads, transforms, writes and reports; how each is done lives in the modules beside this folder.
"""
