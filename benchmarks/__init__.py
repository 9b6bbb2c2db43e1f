"""Benchmarks of this system against its peers: the same data and machine, in turns within one run.

`cases/` defines what is compared, `contenders/` has the programs, each run as its own process, and
`docs/benchmarks.md` the results. The product imports nothing of this.
"""
