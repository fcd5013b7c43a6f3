"""`bench demo`: the whole journey in minutes on two cores, on pictures it draws itself.

Draws the datasets, pretrains MoCo v2 and PixPro at mini scale, transfers both and random weights to `voc_c4@mini` and
`cityscapes_semantic@mini` with two trials each, prints both reports' tables and writes the leaderboard. Whatever is already
there is not done again. The training sets are tiny, so the numbers show the path, not the methods' worth.

Every step is a process of its own with one thread, as many at a time as there are cores: faster on small networks than one
process with many threads. What the steps say goes to OUT/log.txt.
"""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from bench import catalog, journey, preview

METHODS = ("moco", "pixpro")
TASKS = ("voc_c4", "cityscapes_semantic")
ARCH = "resnet18"
SIZES = {"voc": 12, "coco": 0, "cityscapes": 32, "imagenet": 12}  # pictures a split; of imagenet a class


def run(out: Path, seed: int, say: Callable[[str], None]) -> None:
    """Runs the journey in `out` and prints the tables on standard output. Raises what its steps raise."""
    from downstream import synthetic
    from results import leaderboard, table

    start = time.monotonic()
    data, records = out / "data", out / "transfer"
    say(f"bench demo: draw, pretrain, convert, transfer and tabulate, under 10 minutes on two cores -> {out}")

    if not (data / "imagenet").exists():  # the last one drawn
        say(f"[1/4] drawing small datasets in the authentic layouts -> {data}")
        shutil.rmtree(data, ignore_errors=True)
        synthetic.synthesize(data, seed=seed, **SIZES)

    say(f"[2/4] pretraining {' and '.join(METHODS)} at mini scale ({elapsed(start)})")
    say(f"[3/4] two trials of {' and '.join(TASKS)} from random weights, then from {' and '.join(METHODS)}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=alone, initargs=(out / "log.txt",)) as pool:
        jobs: dict[Future[str], str] = {pool.submit(pretrained, method, data, out, seed): method for method in METHODS}

        def transfer(name: str, weights: str) -> None:
            for task in TASKS:
                for trial in (seed, seed + 1):
                    jobs[pool.submit(transferred, task, weights, data, records, trial)] = f"{name} to {task}@mini"

        transfer("random", "random")
        done, total = 0, (len(METHODS) + 1) * len(TASKS) * 2 + len(METHODS)
        while jobs:
            job = next(as_completed(jobs))
            name = jobs.pop(job)
            done += 1
            say(f"  {done}/{total}  {name}: {job.result()}  ({elapsed(start)})")
            if name in METHODS:
                transfer(name, job.result())

    say(f"[4/4] tables and leaderboard ({elapsed(start)})")
    measured = journey.measured(records)
    for name in ("moco", "pixpro"):
        print(table.render(name, measured, "md"))
    written = leaderboard.write(measured, out / "leaderboard")
    print(
        f"Done in {elapsed(start)}. Leaderboard: {', '.join(map(str, written))}\n"
        "These numbers show that the path works, not what the methods are worth: the pictures are drawn and few.\n"
        "Next, with photographs of your own:\n"
        "  bench pretrain moco --data IMAGES --arch resnet18 --scale mini\n"
        "  bench transfer --task voc_c4 --checkpoint moco --scale mini --data DATASETS --trials 2\n"
        "  bench inspect FILE, to see what somebody else's checkpoint is; bench list tasks"
    )


def alone(log: Path) -> None:
    """Prepares a worker: one thread, and a log file in place of the terminal that it shares with the others."""
    import torch

    torch.set_num_threads(1)
    sys.stderr = log.open("a", buffering=1)


def pretrained(method: str, data: Path, out: Path, seed: int) -> str:
    """Pretrains and returns the file of the weights."""
    from pretrain import loop

    images = data / "imagenet" / "train"
    weights = loop.run(
        catalog.load("method", method), images, out / "pretrain" / method, ARCH, "mini", seed=seed, resume=True
    )
    return str(weights)


def transferred(task: str, checkpoint: str, data: Path, records: Path, seed: int) -> str:
    """Runs one trial and returns its metrics in words."""
    plan = journey.plan(journey.resolve(task, "mini", {}), checkpoint, data, ARCH, None, None)
    metrics = journey.transfer(plan, [seed], records, True, lambda line: print(line, file=sys.stderr))[0]["metrics"]
    return ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())


def elapsed(start: float) -> str:
    return preview.duration(time.monotonic() - start)
