"""What is compared, one module for each row of the design's table.

Each has `TITLE` and `measure(context)`, which returns an `Outcome`.
"""
