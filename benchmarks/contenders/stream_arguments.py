"""What every program of the stream is given. Only the standard library."""

import argparse


def arguments() -> argparse.Namespace:
    """`bootstrap` and `topic` to read to their present end, the `output` folder, and `jars`, separated by commas."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("output")
    parser.add_argument("--jars", default="")
    return parser.parse_args()
