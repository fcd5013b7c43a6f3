"""Tiny transfers that a test or a script may disturb: each in a process of its own, forked from one that has the frameworks.

    python tests/faults/transfers.py [KILLS] [SEED]

kills transfers of all three training engines at random moments, a checkpoint after every iteration, so that many fall into its
writing; goes on with --resume, kills again, and compares what comes out in the end with undisturbed runs, bit by bit.
"""

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TASKS: Mapping[str, Mapping[str, str]] = {
    "voc_c4": {
        "SOLVER.MAX_ITER": "14",
        "SOLVER.STEPS": "[8, 11]",
        "SOLVER.WARMUP_ITERS": "3",
        "SOLVER.IMS_PER_BATCH": "2",
        "INPUT.MIN_SIZE_TRAIN": "[64, 80]",
        "INPUT.MIN_SIZE_TEST": "64",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "16",
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": "50",
        "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
        "TEST.PRECISE_BN.NUM_ITER": "2",
    },
    "cityscapes_semantic": {"iterations": "14", "crop": "64", "batch": "2", "resize": "[128, 64]"},
    "imagenet_linear": {"epochs": "2", "steps": "[1]", "batch": "24", "view": "32", "resize": "36"},
    "imagenet_semi_10": {"epochs": "3", "steps": "[1, 2]", "batch": "8", "view": "32", "resize": "36"},
}


def draw(folder: Path) -> Path:
    """Datasets of all these tasks."""
    from downstream import synthetic

    synthetic.synthesize(folder, seed=0, voc=4, coco=0, cityscapes=4, imagenet=8, side=96)
    return folder


def transfer(task: str, data: Path, out: Path, **changes: str) -> None:
    """One trial as `bench transfer --resume` runs it, from random weights."""
    from bench import journey

    resolved = journey.resolve(task, "mini", {**TASKS[task], **changes})
    journey.transfer(journey.plan(resolved, "random", data), [0], out, True, print)


def started(act: Callable[..., None], log: Path, *given: Any, **more: str) -> multiprocessing.Process:
    """act(*given, **more) in a process that says all into `log` and ends with `bench`'s exit codes."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(act, log, given, more))
    process.start()
    return process


def _child(act: Callable[..., None], log: Path, given: Any, more: dict[str, str]) -> None:
    from bench import cli

    sys.stdout = sys.stderr = log.open("a", buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    warnings.simplefilter("ignore")
    cli.answered(lambda: act(*given, **more))  # makes sentences and exit codes of what it raises


def outcome(out: Path) -> dict[str, Any]:
    """All that must not depend on a disturbance: metrics, trained network, log."""
    [record] = [json.loads(file.read_text()) for file in out.glob("*/*/*/0.json")]
    [folder] = out.glob("*/*/*/0")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    written = json.loads((folder / "metrics.json").read_text())
    return {
        "metrics": record["metrics"],
        **{key: written.get(key) for key in ("trained", "tests", "IoU")},
        "log": [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines],
        "left": sorted(file.name for file in folder.glob("*.pth*")),
    }


def disturbed(task: str, data: Path, out: Path, kills: int, chance: random.Random, span: float) -> dict[str, int]:
    """Runs a transfer to its record, killed `kills` times at moments within `span` seconds; counts what was met.

    A moment after the end of a run is none: what was written is removed, and the run begins anew.
    """
    met = {"kills": 0, "within a checkpoint": 0, "before any": 0, "after the training": 0}
    log, cut_short = out.with_suffix(".log"), set[int]()
    while met["kills"] < kills:
        process = started(transfer, log, task, data, out)
        process.join(chance.uniform(0.02, span))
        if process.exitcode is not None:
            assert process.exitcode == 0, log.read_text()
            for file in sorted(out.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            continue
        process.kill()
        process.join()
        met["kills"] += 1
        found = list(out.glob("*/*/*/0/*"))
        names = {file.name for file in found}
        parts = {file.stat().st_mtime_ns for file in found if file.name == "last.pth.part"}
        met["within a checkpoint"] += bool(parts - cut_short)  # an earlier kill's is still there
        cut_short |= parts
        met["before any"] += "last.pth" not in names
        met["after the training"] += any(f.name == "log.jsonl" and '"iteration": 14' in f.read_text() for f in found)
    process = started(transfer, log, task, data, out)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return met


def main(kills: int, seed: int) -> None:
    chance, total = random.Random(seed), dict[str, int]()
    with tempfile.TemporaryDirectory() as temporary:
        data = draw(Path(temporary) / "data")
        for task in TASKS:
            whole, out = Path(temporary) / f"{task}_whole", Path(temporary) / task
            began = time.monotonic()
            process = started(transfer, whole.with_suffix(".log"), task, data, whole)
            process.join()
            span = time.monotonic() - began
            assert process.exitcode == 0, whole.with_suffix(".log").read_text()
            met = disturbed(task, data, out, -(-kills // len(TASKS)), chance, span)
            assert outcome(out) == outcome(whole), (outcome(out), outcome(whole))
            print(f"{task}: {met}; metrics, network and log as undisturbed", flush=True)
            total = {key: total.get(key, 0) + count for key, count in met.items()}
    print(f"in all: {total}")


def load() -> None:
    """Imports what every child needs; none of it starts a thread."""
    import torch
    import torch._dynamo  # an optimiser does, in seconds
    import torch.utils.tensorboard

    from bench import journey

    torch.set_num_threads(1)
    for task in TASKS:
        journey.engine(journey.resolve(task, "mini", {}))


if __name__ == "__main__":
    os.environ["BENCH_SAVE_SECONDS"] = "0"
    load()
    main(*(int(word) for word in [*sys.argv[1:], "28", "0"][:1] + [*sys.argv[2:], "0"][:1]))
