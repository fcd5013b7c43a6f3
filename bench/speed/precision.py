"""Whether bfloat16 changes what is learned, in a sentence of README each: loss curves, and detectors of one model in both.

    python -m bench.speed.precision datasets/VOC2007/JPEGImages

MoCo v2 with ResNet-50 at 224 pixels, batch 16, for one epoch of 3,200 photographs: three runs with the published recipe but for
the batch and the one epoch. float32 and bfloat16 have the same seed, so the same weights, order and views; bfloat16 with another
seed is what noise is. Each run has a process with one thread. It takes 40 minutes on two cores and goes on after an interruption.
The curves go into results/measured/precision.json; without a folder, the sentences of what is there are printed.
"""

import datetime
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from bench import catalog, cli, journey, workers
from results import record, stats

FILE = catalog.ROOT / "results" / "measured" / "precision.json"
RUNS = Path("runs/precision")
BATCH = 16
CURVES = (("fp32", 0), ("bf16", 0), ("bf16", 1))


def curve(precision: str, seed: int, images: Path, runs: Path = RUNS, arch: str = "resnet50") -> dict[str, Any]:
    """The loss of an epoch, a mean for each tenth of it, and what it came from; what is done already is not done again."""
    from bench import provenance
    from pretrain import loop
    from pretrain.methods import moco

    out, about = runs / f"{precision}-{seed}", {"commit": provenance.commit(), "machine": provenance.machine()}
    changed = {"precision": precision}
    loop.run(
        moco, images, out, arch, epochs=1, batch_size=BATCH, seed=seed, resume=True, overrides=changed, about=about
    )
    said, began = (json.loads((out / name).read_text()) for name in ("backbone.json", "run.json"))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {
        "precision": precision,
        "seed": seed,
        "steps": said["images_seen"] // BATCH,
        "loss": [line["loss"] for line in lines if "loss" in line],
        **{key: said[key] for key in ("arch", "sha256", "seconds", "data", "versions")},
        **{key: began["starts"][0][key] for key in ("commit", "machine")},
    }


def compared(file: Path = FILE) -> str:
    """The curves in a sentence: how far bfloat16's is from float32's, and from that of another seed."""
    full, half, other = json.loads(file.read_text())["curves"]
    near, noise = ([abs(a - b) for a, b in zip(half["loss"], c["loss"], strict=True)] for c in (full, other))
    return (
        f"Over {full['steps']} steps of MoCo v2 with ResNet-50 at 224 pixels, batch {BATCH}, the loss (means of {full['steps'] // 10} "
        f"steps, {full['loss'][0]:.2f} at first, {full['loss'][-1]:.2f} at last) differs between bfloat16 and float32 by "
        f"{fmean(near):.3f} on average and {max(near):.3f} at most; between two seeds by {fmean(noise):.3f} and {max(noise):.3f}."
    )


def transferred(trials: Iterable[Mapping[str, Any]], protocol: str = "voc_c4@mini") -> str:
    """The trials of the first model that has several in both precisions, in a sentence: AP, and the difference seed by seed.

    The mini protocol is bfloat16's; float32's trials are those that have nothing but their precision nonstandard.
    """
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for trial in trials:
        if trial["protocol"]["name"] == protocol and set(trial["nonstandard"]) <= {"precision"}:
            by = found.setdefault((trial["model"]["name"], trial["model"]["sha256"] or ""), {})
            by.setdefault("fp32" if trial["nonstandard"] else "bf16", {})[trial["seed"]] = trial["metrics"]["AP"]
    (name, sha256), by = next((model, by) for model, by in found.items() if len(by) == 2 and len(by["fp32"]) > 1)
    half, full = (stats.summary(list(by[precision].values())) for precision in ("bf16", "fp32"))
    apart = stats.difference(by["bf16"], by["fp32"])
    return (
        f"`{protocol}` from {name} {sha256[:8]} gives an AP of {half.mean:.2f} ± {half.std:.2f} in bfloat16 ({half.n} trials) and "
        f"{full.mean:.2f} ± {full.std:.2f} in float32 ({full.n}); the difference is {apart.mean:+.2f}, its 95 % interval "
        f"{apart.low:+.2f} to {apart.high:+.2f}."
    )


def main(images: Path, runs: Path = RUNS, file: Path = FILE) -> None:
    """Makes the curves, and writes them down."""
    runs.mkdir(parents=True, exist_ok=True)
    with workers.pool(runs / "log.txt", tasks=1) as pool:
        jobs = [pool.submit(curve, precision, seed, images, runs) for precision, seed in CURVES]
        curves = [job.result() for job in jobs]
    found = {"date": datetime.date.today().isoformat(), "curves": curves}
    record.replaced(file, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        cli.answered(lambda: main(Path(sys.argv[1])))
    print(f"- {compared()}\n- {transferred(journey.measured(catalog.ROOT / 'results' / 'measured'))}")
