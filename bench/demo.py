"""`bench demo`: the whole journey in minutes on two cores, on pictures it draws itself. `bench demo --all-tasks`: every task.

Draws the datasets, pretrains MoCo v2 and PixPro at mini scale for three epochs, transfers both and random weights to
`voc_c4` and `cityscapes_semantic` with two trials each, prints both reports' tables and writes the leaderboard. Whatever is
already there is not done again. The training sets are tiny, so the numbers show the path, not the methods' worth.

With --all-tasks: one trial of every task at mini scale from random weights, on still smaller datasets, in about half an hour, most of it
for LVIS.

The steps are done by as many processes as there are cores, of one thread each: faster on small networks than one process with many
threads. What the steps say goes to OUT/log.txt.
"""

import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

from bench import catalog, journey, preview, workers

METHODS = ("moco", "pixpro")
TASKS = ("voc_c4", "cityscapes_semantic")
ARCH = "resnet18"
EPOCHS = 3
TRIALS = 2
SIZES = {"voc": 4, "coco": 0, "cityscapes": 8, "imagenet": 12}  # pictures a split; of imagenet a class
# Enough for 200 neighbours, and for an SVM of every class of VOC with three folds.
ALL_SIZES = {"voc": 40, "coco": 16, "cityscapes": 8, "imagenet": 12, "side": 128}
# As many iterations as COCO's tasks have there.
ALL_CHANGES = {
    "voc_c4": {"SOLVER.MAX_ITER": "24", "SOLVER.STEPS": "[18, 22]"},
    "voc_semantic": {"iterations": "24"},
}


def run(out: Path, seed: int, say: Callable[[str], None]) -> None:
    """Runs the journey in `out` and prints the tables on standard output. Raises what its steps raise."""
    from results import leaderboard, table

    start = time.monotonic()
    data, records = out / "data", out / "transfer"
    say(f"bench demo: draw, pretrain, convert, transfer and tabulate, under 10 minutes on two cores -> {out}")

    draw(data, seed, SIZES, lambda line: say(f"[1/4] {line}"))

    say(f"[2/4] pretraining {' and '.join(METHODS)} at mini scale ({elapsed(start)})")
    say(f"[3/4] {TRIALS} trials of {' and '.join(TASKS)} from random weights, then from {' and '.join(METHODS)}")
    with workers.pool(out / "log.txt") as pool:
        jobs: dict[Future[str], str] = {pool.submit(pretrained, method, data, out, seed): method for method in METHODS}

        def transfer(name: str, weights: str) -> None:
            for task in TASKS:
                for trial in range(seed, seed + TRIALS):
                    jobs[pool.submit(transferred, task, weights, data, records, trial)] = f"{name} to {task}"

        transfer("random", "random")
        done, total = 0, (len(METHODS) + 1) * len(TASKS) * TRIALS + len(METHODS)
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
        f"Done in {elapsed(start)}. Leaderboard: {', '.join(map(str, written[:3]))}\n"
        "These numbers show that the path works, not what the methods are worth: the pictures are drawn and few.\n"
        "Next, with photographs of your own:\n"
        "  bench pretrain moco --data IMAGES --arch resnet18 --scale mini\n"
        "  bench transfer --task voc_c4 --checkpoint moco --scale mini --data DATASETS --trials 2\n"
        "  bench inspect FILE, to see what somebody else's checkpoint is; bench list tasks"
    )


def run_all(out: Path, seed: int, say: Callable[[str], None]) -> None:
    """One trial of every task in `out`, and a table of what they took and measured on standard output.

    A task that has its record is not run again. Raises RuntimeError if a task failed, after all others have ended.
    """
    start = time.monotonic()
    data, records = out / "data", out / "transfer"
    longest = re.compile("lvis|_c4")
    tasks = sorted(catalog.names("task"), key=lambda name: not longest.search(name))
    say(f"bench demo: one trial of each of {len(tasks)} tasks at mini scale from random weights -> {out}")
    draw(data, seed, ALL_SIZES, say)
    with workers.pool(out / "log.txt") as pool:
        jobs = {
            pool.submit(recorded, task, "random", data, records, seed, ALL_CHANGES.get(task)): task for task in tasks
        }
        found = workers.followed(jobs, described, lambda line: say(f"  {line}"))
    rows = [(task, f"{sum(one['seconds'].values()):.0f}", described(one)) for task, one in found.items()]
    lines = [("task", "seconds", "metrics in percent, of no meaning on so few pictures"), *sorted(rows)]
    print("\n".join(f"{task:<28}{seconds:>8}  {metrics}" for task, seconds, metrics in lines))
    if failed := sorted(set(tasks) - set(found)):
        raise RuntimeError(
            f"expected every task to end, found {len(failed)} that failed: {', '.join(failed)}; see {out}/log.txt"
        )
    say(f"All {len(tasks)} tasks ended, in {elapsed(start)}.")


def draw(data: Path, seed: int, sizes: Mapping[str, int], say: Callable[[str], None]) -> None:
    """The datasets, all or none, where they are not there already. Raises ValueError where something else stands there."""
    from downstream import synthetic

    if (data / "imagenet").is_dir():
        return
    if data.exists():
        raise ValueError(f"expected drawn datasets or nothing at {data}, found something else: take another --out")
    say(f"drawing small datasets in the authentic layouts -> {data}")
    draft = data.with_name(".data.draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was stopped
    synthetic.synthesize(draft, seed=seed, **sizes)
    draft.rename(data)


def pretrained(method: str, data: Path, out: Path, seed: int) -> str:
    """Pretrains and returns the file of the weights."""
    from pretrain import loop

    images = data / "imagenet" / "train"
    weights = loop.run(
        catalog.load("method", method),
        images,
        out / "pretrain" / method,
        ARCH,
        "mini",
        epochs=EPOCHS,
        seed=seed,
        resume=True,
    )
    return str(weights)


def transferred(task: str, checkpoint: str, data: Path, records: Path, seed: int) -> str:
    """Runs one trial and returns its metrics in words."""
    return described(recorded(task, checkpoint, data, records, seed))


def recorded(
    task: str, checkpoint: str, data: Path, records: Path, seed: int, changes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs one trial, unless it has its record, and returns that."""
    plan = journey.plan(journey.resolve(task, "mini", changes or {}), checkpoint, data, ARCH)
    return journey.transfer(plan, [seed], records, True, lambda line: print(line, file=sys.stderr))[0]


def described(record: Mapping[str, Any]) -> str:
    """A record's metrics in words."""
    return ", ".join(f"{name} {value:.2f}" for name, value in record["metrics"].items())


def elapsed(start: float) -> str:
    return preview.duration(time.monotonic() - start)
