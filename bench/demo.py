"""`bench demo`: the whole journey in minutes on two cores, on pictures it draws itself.

Draws the datasets, pretrains MoCo v2 and PixPro at mini scale, transfers both and random weights to `voc_c4@mini` and
`cityscapes_semantic@mini` with two trials each, prints both reports' tables and writes the leaderboard. Whatever is already
there is not done again. The training sets are tiny, so the numbers show the path, not the methods' worth.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from bench import catalog, journey, preview

METHODS = ("moco", "pixpro")
TASKS = ("voc_c4", "cityscapes_semantic")
ARCH = "resnet18"
SIZES = {"voc": 12, "coco": 0, "cityscapes": 32, "imagenet": 12}  # pictures a split; of imagenet a class


def run(out: Path, seed: int, say: Callable[[str], None]) -> None:
    """Runs the journey in `out` and prints the tables on standard output. Raises what its steps raise."""
    from downstream import synthetic
    from pretrain import loop
    from results import leaderboard, table

    start = time.monotonic()
    data, records = out / "data", out / "transfer"
    say(f"bench demo: draw, pretrain, convert, transfer and tabulate, under 10 minutes on two cores -> {out}")

    say(f"[1/4] drawing small datasets in the authentic layouts -> {data}")
    if not (data / "imagenet").exists():  # the last one drawn
        shutil.rmtree(data, ignore_errors=True)
        synthetic.synthesize(data, seed=seed, **SIZES)

    checkpoints = {"random": "random"}
    for method in METHODS:
        say(f"[2/4] pretraining {method} at mini scale ({clock(start)})")
        weights = loop.run(
            catalog.load("method", method),
            data / "imagenet" / "train",
            out / "pretrain" / method,
            arch=ARCH,
            scale="mini",
            seed=seed,
            resume=True,
        )
        checkpoints[method] = str(weights)

    for name in TASKS:
        task = journey.resolve(name, "mini", {})
        for checkpoint in checkpoints.values():
            say(f"[3/4] two trials of {task.name} from {checkpoint} ({clock(start)})")
            plan = journey.plan(task, checkpoint, data, ARCH, None, None)
            journey.transfer(plan, [seed, seed + 1], records, True, say)

    say(f"[4/4] tables and leaderboard ({clock(start)})")
    measured = journey.measured(records)
    for name in ("moco", "pixpro"):
        print(table.render(name, measured, "md"))
    written = leaderboard.write(measured, out / "leaderboard")
    print(
        f"Done in {clock(start)}. Leaderboard: {', '.join(map(str, written))}\n"
        "These numbers show that the path works, not what the methods are worth: the pictures are drawn and few.\n"
        "Next, with photographs of your own:\n"
        "  bench pretrain moco --data IMAGES --arch resnet18 --scale mini\n"
        "  bench transfer --task voc_c4 --checkpoint moco --scale mini --data DATASETS --trials 2\n"
        "  bench inspect FILE, to see what somebody else's checkpoint is; bench list tasks"
    )


def clock(start: float) -> str:
    return preview.duration(time.monotonic() - start)
