"""Arguments of every program of the stream. Only the standard library."""

import argparse


def arguments() -> argparse.Namespace:
    """`bootstrap` and `topic` to read to its present end, the `output` folder, and comma-separated `jars`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("output")
    parser.add_argument("--jars", default="")
    return parser.parse_args()
