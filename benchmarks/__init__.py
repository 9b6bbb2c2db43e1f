"""Ours beside its peers: the same data, the same machine, in turns within one run.

`cases/` says what is compared, `contenders/` holds the programs, each a process of its own; `docs/benchmarks.md` is
what came out. Nothing here is imported by the product.
"""
