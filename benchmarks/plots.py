"""Draw the cases' plots as SVG: `python -m benchmarks.plots RESULTS FOLDER`, in `.venv-bench`."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

# The same figures give the same file: no date, no random ids.
mpl.rcParams.update({"svg.hashsalt": "antenna", "svg.fonttype": "none", "font.size": 9})


def main() -> None:
    """Draw every plot of every result."""
    results, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(results.glob("*.json")):
        for number, plot in enumerate(json.loads(path.read_text(encoding="utf-8"))["plots"]):
            _draw(plot, folder / f"{path.stem}-{number}.svg")


def _draw(plot: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in plot["lines"].items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    if plot["logarithmic"]:
        axes.set(xscale="log", yscale="log")
    axes.set(title=plot["title"], xlabel=plot["x"], ylabel=plot["y"])
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
