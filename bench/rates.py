"""A search of the pretraining's learning rate, of equal size for every method of the mini track.

`python -m bench.rates DATA [METHODS]`, ten hours of one core: three epochs at `FACTORS` of the mini rule's rate (those of the rule
itself are the track's, made where they are missing). All are judged by nearest neighbours among the training images, a fifth of which
is looked for in the others; the test images are not touched. The rule's rate stays unless another is better by more than two standard
errors. What is finished is not done again, and what was interrupted goes on.

The weights are made in runs/mini/rates/, their records in results/measured/rates/. `python -m bench.rates` alone prints them.
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from bench import catalog, cli, demo, journey, track
from results import record

FACTORS = (0.3, 1.0, 3.0)


def scaled(method: str, train: Path, factor: float) -> dict[str, str]:
    """What is to be asked for to have that many times the mini rule's rates, that of biases too."""
    from pretrain import recipes
    from pretrain.data import Folder

    module, variant = catalog.load("method", method), track.VARIANTS.get(method)
    recipe = recipes.resolved(module, Folder(train), "mini", variant, track.EPOCHS)
    return {key: repr(recipe[key] * factor) for key in ("base_lr", "bias_lr") if key in recipe}


def held_out(weights: Path, about: dict[str, Any], train: Path) -> tuple[float, int]:
    """Percent of the held-out training images that their neighbours among the others get right, and how many these are."""
    from pretrain import dist, heads, monitor
    from pretrain.data import Folder

    net = heads.backbone(demo.ARCH)[0]
    found = torch.load(weights, weights_only=True)
    net.load_state_dict({key: value for key, value in found.items() if not key.startswith("detectron2/")})
    net = net.eval().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(about["traits"][key]).view(-1, 1, 1) for key in ("mean", "std"))

    @torch.no_grad()
    def features(pixels: list[torch.Tensor]) -> tuple[torch.Tensor, None]:
        return torch.cat([net((x.movedim(-1, -3).float() - mean) / std) for x in pixels]), None

    watch = monitor.Monitor(Folder(train), train, about["recipe"], dist.process(), 1)
    return watch.look(features)["knn"], watch.count


def searched(name: str, data: Path, runs: Path, records: Path) -> dict[str, Any]:
    """Pretrains METHOD-xFACTOR, unless that is done, judges it, and writes and returns the record."""
    method, _, factor = name.rpartition("-x")
    train, out = data / "imagenet" / "train", runs / "rates" / name
    if float(factor) == 1:
        out = runs / f"{method}-{track.EPOCHS}"
        found = track.pretrained(out.name, data, runs, records)
    else:
        found = track.run(method, track.EPOCHS, out, train, train, scaled(method, train, float(factor)))
    knn, images = held_out(out / "backbone.pth", found, train)
    found["held_out"] = {"knn": knn, "images": images}
    record.replaced(records / "rates" / f"{name}.json", json.dumps(found, indent=1) + "\n")
    return found


def better(one: dict[str, Any], rule: dict[str, Any]) -> bool:
    """Whether it is better than the rule's by more than two standard errors of the difference."""
    p, q = (found["held_out"]["knn"] for found in (one, rule))
    variance = sum(x * (100 - x) / found["held_out"]["images"] for x, found in ((p, one), (q, rule)))
    return p - q > 2 * math.sqrt(variance)


def measured(records: Path = track.RECORDS) -> dict[str, dict[float, dict[str, Any]]]:
    """The records by method and factor, where that of the rule's rate is there."""
    found: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
    for file in sorted((records / "rates").glob("*.json")):
        method, _, factor = file.stem.rpartition("-x")
        found[method][float(factor)] = json.loads(file.read_text())
    return {method: runs for method, runs in found.items() if 1 in runs}


def taken(runs: dict[float, dict[str, Any]]) -> float:
    """The factor that a method's search ends with."""
    best = max(runs, key=lambda factor: runs[factor]["held_out"]["knn"])
    return best if better(runs[best], runs[1]) else 1.0


def table(records: Path = track.RECORDS) -> str:
    """What each rate gives, and which is taken."""
    lines = [
        f"| method | rule's lr | {' | '.join(f'kNN at {factor:g} x' for factor in FACTORS)} | taken |",
        f"|---|{'--:|' * (len(FACTORS) + 2)}",
    ]
    for method, runs in measured(records).items():
        cells = [f"{runs[factor]['held_out']['knn']:.2f}" if factor in runs else "–" for factor in FACTORS]
        ends = f"{taken(runs):g} x" if len(runs) == len(FACTORS) else "–"
        lines.append(f"| {method} | {runs[1]['recipe']['lr']:.4g} | {' | '.join(cells)} | {ends} |")
    return "\n".join(lines)


def main(data: Path, wanted: Iterable[str] = (), runs: Path = track.RUNS, records: Path = track.RECORDS) -> None:
    """Runs what is left of the search, or of that of these methods. Raises ValueError for a method that is none of the track's."""
    asked = list(wanted) or track.methods()
    if unknown := [name for name in asked if name not in track.methods()]:
        raise ValueError(catalog.unknown("method", unknown[0], track.methods()))
    journey.datasets(data)
    names = [f"{method}-x{factor:g}" for method in asked for factor in FACTORS]
    track.pretrain(names, data, runs, records, searched)
    print(table(records))


if __name__ == "__main__":
    if sys.argv[1:]:
        cli.answered(lambda: main(Path(sys.argv[1]), sys.argv[2:]))
    else:
        print(table())
