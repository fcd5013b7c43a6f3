"""The mini track: every method under one budget. `make mini-track DATA=datasets`, hours on two cores.

Pretrains every method that begins from images for three epochs (and some for twelve) with ResNet-18 at mini scale on
DATA/imagenet/train, then runs `TASKS` at mini scale on random and on all these weights. Each step is a process with one
thread, as many at a time as there are cores; what stands already is not done again, and what was interrupted goes on.

Of a pretraining, named METHOD-EPOCHS, runs/mini/NAME/ has the weights and results/measured/pretraining/NAME.json the record;
trials have theirs in results/measured/.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench import catalog, demo, journey, preview

STAGES = ("simclr_distill", "simclr_finetune")  # begin from another method's weights
EPOCHS, LONG = 3, 12  # of 20,000 images: the one budget of all, and the one of these:
LONGER = ("moco", "simsiam", "instdisc", "pirl", "pic", "swav")  # which three epochs leave near random weights
# Large crops only: the small ones of 64-pixel photographs are 14 to 24 pixels of them.
VARIANTS = {"swav": "400ep_2x224", "deepcluster": "v2_2x224", "pic": "single"}
TASKS = {"imagenet_knn": 1}  # and their trials
RUNS, RECORDS = Path("runs/mini"), catalog.ROOT / "results" / "measured"


def names() -> list[str]:
    """Of all pretrainings, METHOD-EPOCHS."""
    methods = [name for name in catalog.names("method") if name not in STAGES]
    return [*(f"{name}-{EPOCHS}" for name in methods), *(f"{name}-{LONG}" for name in LONGER)]


def pretrained(name: str, data: Path, runs: Path = RUNS, records: Path = RECORDS) -> dict[str, Any]:
    """Pretrains, unless that is done, and writes and returns the record."""
    from bench import provenance
    from pretrain import loop
    from results import record

    method, _, epochs = name.rpartition("-")
    folder, out = data / "imagenet", runs / name
    loop.run(
        catalog.load("method", method),
        folder / "train",
        out,
        demo.ARCH,
        "mini",
        variant=VARIANTS.get(method),
        epochs=int(epochs),
        resume=True,
        labelled=folder,
        about={"commit": provenance.commit(), "machine": provenance.machine()},
    )
    found = json.loads((out / "backbone.json").read_text())
    starts = json.loads((out / "run.json").read_text())["starts"]
    found["starts"] = [{key: start[key] for key in ("at", "step", "commit", "machine")} for start in starts]
    record.replaced(records / "pretraining" / f"{name}.json", json.dumps(found, indent=1) + "\n")
    return found


def table(records: Path = RECORDS) -> str:
    """The pretrainings: loss at the beginning and the end, nearest neighbours before and after, minutes."""
    lines = [
        "| pretraining | epochs | loss, first | loss, last | kNN before | kNN after | minutes |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    stand = [json.loads(file.read_text()) for file in (records / "pretraining").glob("*.json")]
    for found in sorted(stand, key=lambda found: (found["epochs"], found["method"])):
        loss, knn = ([found[key][end] for end in ("first", "last")] for key in ("loss", "knn"))
        numbers = [f"{loss[0]:.3f}", f"{loss[1]:.3f}", f"{knn[0]:.2f}", f"{knn[1]:.2f}", f"{found['seconds'] / 60:.0f}"]
        name = " ".join(filter(None, (found["method"], found["variant"], found["sha256"][:8])))
        lines.append(f"| {name} | {found['epochs']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main(data: Path, wanted: Iterable[str] = ()) -> None:
    """Runs what is left of the track, or of these pretrainings; says what each step has given, and what is left to wait."""
    chosen, began = list(wanted) or names(), time.monotonic()
    if unknown := [name for name in chosen if name not in names()]:
        raise ValueError(catalog.unknown("pretraining", unknown[0], names()))
    journey.datasets(data)
    RUNS.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, demo.alone, (RUNS / "log.txt",), max_tasks_per_child=1) as pool:
        jobs: dict[Any, tuple[str, str]] = {pool.submit(pretrained, name, data): (name, "") for name in chosen}

        def transfer(name: str, weights: str) -> None:
            for task, trials in TASKS.items():
                for seed in range(trials):
                    jobs[pool.submit(demo.transferred, task, weights, data, RECORDS, seed)] = (name, task)

        transfer("random", "random")
        done, total = 0, len(chosen) + (len(chosen) + 1) * sum(TASKS.values())
        while jobs:
            job = next(as_completed(jobs))
            name, task = jobs.pop(job)
            done += 1
            told = job.result() if task else "kNN {first:.2f} -> {last:.2f}".format(**job.result()["knn"])
            left = preview.duration((time.monotonic() - began) / done * (total - done))
            print(f"{done}/{total}  {name} {task}: {told}  ({left} left)", file=sys.stderr, flush=True)
            if not task:
                transfer(name, str(RUNS / name / "backbone.pth"))
    print(table())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
