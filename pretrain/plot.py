"""A run's loss and nearest-neighbour accuracy over its epochs, as a picture, from its log alone.

python -m pretrain.plot runs/moco/log.jsonl            writes runs/moco/log.png
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from pretrain import log


def draw(path: Path, out: Path) -> Path:
    """Draw the log `path` into the PNG `out`. FileNotFoundError: there is no log. ValueError: it has no line."""
    found = log.lines(path)
    if not found:
        raise ValueError(f"expected lines in {path}, found none: the run has not begun")
    watched = "knn" if any("knn" in line for line in found) else "feature_rank"
    labels = {"loss": "loss", "knn": "kNN accuracy, %", "feature_rank": "effective rank of the features"}
    figure = Figure(figsize=(8, 6), layout="constrained")
    for axes, key in zip(figure.subplots(2, 1, sharex=True), ("loss", watched), strict=True):
        points = [(line["epoch"], line[key]) for line in found if key in line]
        axes.plot(*zip(*points, strict=True), marker="" if key == "loss" else "o") if points else None
        axes.set_ylabel(labels[key])
        axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    figure.savefig(out, dpi=120)
    return out


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            print(draw(Path(name), Path(name).with_suffix(".png")))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
