"""The cases, one module for each row of the design's table of speeds.

Each has a `TITLE` and a function `measure(context)` that returns an `Outcome`.
"""
