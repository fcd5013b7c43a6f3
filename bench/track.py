"""The mini track: every method under one budget. `make mini-track DATA=datasets`, a day on two cores.

Pretrains every method that begins from images for three epochs (and some for twelve) with ResNet-18 at mini scale on
DATA/imagenet/train, a process with one thread each, as many at a time as there are cores. Then for each task of `TASKS`, at
mini scale, a `bench sweep` of random weights and one of the pretrainings it is for. What stands already is not done again, and
what was interrupted goes on.

`python -m bench.track` alone prints the tables of the records that are there.

Of a pretraining, named METHOD-EPOCHS, runs/mini/NAME/ has the weights and results/measured/pretraining/NAME.json the record
(NAME-SHA256.json, eight letters of it, where NAME.json is of other weights: another processor sums in another order); the trials are
made in runs/mini/transfer, and their records are copied to results/measured. Trials go on when this process is ended: `bench sweep
--watch --out runs/mini/transfer`, or `--cancel`.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import catalog, cli, demo, journey, sweep, workers
from downstream import task as protocols
from results import groups, plots, record
from results import table as tables
from results.sheet import Column

STAGES = ("simclr_distill", "simclr_finetune")  # begin from another method's weights
EPOCHS, LONG = 3, 12  # of 20,000 images: the one budget of all, and the one of these:
# Supervised, those that three epochs leave below random weights by nearest neighbours (but DINO and the pretext tasks), two more.
LONGER = ("supervised", "clsa", "deepcluster", "infomin", "instdisc", "pic", "pirl", "simsiam", "swav")
# Large crops only: the small ones of 64-pixel photographs are 14 to 24 pixels of them.
VARIANTS = {"swav": "400ep_2x224", "deepcluster": "v2_2x224", "pic": "single"}
# and their trials
TASKS = {
    "imagenet_knn": 1,  # nothing in it is drawn but random weights
    "imagenet_linear": 3,
    "imagenet_semi_10": 3,
    "voc_semantic": 3,
    "cityscapes_semantic": 3,
    "voc_c4": 5,
    "coco_fpn_1x": 1,
}
GROWTH = ("imagenet_knn", "imagenet_linear")  # show what the second budget adds
CHECKS = ("coco_fpn_1x",)  # that it runs: 160 images teach nobody 80 classes
TABLE = tables.Table(
    name="mini-track",
    title="The mini track",
    source="measured",
    leads=("pretraining",),
    columns=(
        Column("kNN", "imagenet_knn", "top1_k200"),
        Column("linear", "imagenet_linear", "top1"),
        Column("10 % labels", "imagenet_semi_10", "top1"),
        Column("VOC mIoU", "voc_semantic", "mIoU"),
        Column("street mIoU", "cityscapes_semantic", "mIoU"),
        Column("VOC AP", "voc_c4", "AP"),
        Column("VOC AP50", "voc_c4", "AP50"),
    ),
    rows=(),
)
DRAWS = 3  # trials of random weights at least: each draws its own
RUNS, RECORDS = Path("runs/mini"), catalog.ROOT / "results" / "measured"


def methods() -> list[str]:
    """Those that begin from images."""
    return [name for name in catalog.names("method") if name not in STAGES]


def names() -> list[str]:
    """Of all pretrainings, METHOD-EPOCHS."""
    return [*(f"{name}-{EPOCHS}" for name in methods()), *(f"{name}-{LONG}" for name in LONGER)]


def belongs(task: str, name: str) -> bool:
    """Whether the task is for this pretraining. Supervised weights are measured on all: the mini protocols are tuned on them."""
    method, _, epochs = name.rpartition("-")
    return method == "supervised" or task in GROWTH or (int(epochs) == EPOCHS and task not in CHECKS)


def pretrained(name: str, data: Path, runs: Path = RUNS, records: Path = RECORDS) -> dict[str, Any]:
    """Pretrains, unless that is done, and writes and returns the record."""
    method, _, epochs = name.rpartition("-")
    folder = data / "imagenet"
    found = run(method, int(epochs), runs / name, folder / "train", folder)
    file = records / "pretraining" / f"{name}.json"
    if file.is_file() and json.loads(file.read_text())["sha256"] != found["sha256"]:
        file = file.with_name(f"{name}-{found['sha256'][:8]}.json")
    record.replaced(file, json.dumps(found, indent=1) + "\n")
    return found


def run(
    method: str, epochs: int, out: Path, train: Path, labelled: Path, overrides: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A pretraining, unless it is done: what backbone.json says of it, and when and by which commit and machine it was started."""
    from bench import provenance
    from pretrain import loop, outputs

    loop.run(
        catalog.load("method", method),
        train,
        out,
        demo.ARCH,
        "mini",
        variant=VARIANTS.get(method),
        epochs=epochs,
        resume=True,
        overrides=overrides,
        labelled=labelled,
        about={"commit": provenance.commit(), "machine": provenance.machine()},
    )
    found = json.loads((out / "backbone.json").read_text())
    starts = outputs.starts(out / "run.json")
    found["starts"] = [{key: start[key] for key in ("at", "step", "commit", "machine")} for start in starts]
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


def measured(records: Path = RECORDS, epochs: Sequence[int] = (EPOCHS, LONG)) -> dict[str, groups.Group]:
    """The track's trials by task: of random weights and its pretrainings of so many epochs, under today's mini protocols."""
    wanted = [name for name in names() if int(name.rpartition("-")[2]) in epochs]
    files = [
        file for name in wanted for end in ("", "-*") for file in (records / "pretraining").glob(f"{name}{end}.json")
    ]
    own = {json.loads(file.read_text())["sha256"] for file in files}
    hashes = {protocols.digest(journey.resolve(column.task, "mini", {})) for column in TABLE.columns}
    trials = [
        trial
        for trial in journey.measured(records)
        if trial["protocol"]["hash"] in hashes
        and trial["model"]["arch"] == demo.ARCH
        and trial["model"]["sha256"] in {None, *own}
    ]
    # of several sets of data the one that most weights were measured on
    return {group.task: group for group in sorted(groups.grouped(trials), key=lambda group: len(group.trials))}


def transfers(records: Path = RECORDS) -> str:
    """What the pretrainings are worth, a table a budget: mean and deviation over trials, n, difference from supervised."""
    return tables.WRITERS["md"](
        [tables.measured(TABLE, measured(records, [epochs]), f"{epochs} epochs") for epochs in (EPOCHS, LONG)]
    )


def plot(records: Path = RECORDS) -> None:
    """Linear accuracy against VOC AP, as records/mini-track.svg, where both were measured."""
    join = measured(records)
    if {"imagenet_linear", "voc_c4"} <= set(join):
        record.replaced(records / "mini-track.svg", plots.svg(plots.measured_agreement(join)))


def main(
    data: Path,
    wanted: Iterable[str] = (),
    tasks: Mapping[str, int] = TASKS,
    runs: Path = RUNS,
    records: Path = RECORDS,
) -> None:
    """Runs what is left of the track, or of these pretrainings; says what each has given, and what is left to wait.

    Raises ValueError for a pretraining that is none and RuntimeError where a trial failed, after all others have ended.
    """
    chosen = list(wanted) or names()
    if unknown := [name for name in chosen if name not in names()]:
        raise ValueError(catalog.unknown("pretraining", unknown[0], names()))
    journey.datasets(data)
    pretrain(chosen, data, runs, records)
    failed = []
    for task, trials in tasks.items():
        files = [str(runs / name / "backbone.pth") for name in chosen if belongs(task, name)]
        for weights, least in ((["random"], max(trials, DRAWS)), (files, trials)):
            if weights and not transfer(task, weights, least, data, runs, records):
                failed.append(task)
    plot(records)
    print(f"{table(records)}\n\n{transfers(records)}")
    if failed:
        raise RuntimeError(
            f"expected a record of every trial, found some missing of {', '.join(dict.fromkeys(failed))}"
        )


def pretrain(
    chosen: Sequence[str],
    data: Path,
    runs: Path,
    records: Path,
    work: Callable[[str, Path, Path, Path], dict[str, Any]] = pretrained,
) -> None:
    """All of these pretrainings, as many at a time as there are cores. Raises RuntimeError where one failed, after all others."""
    runs.mkdir(parents=True, exist_ok=True)
    with workers.pool(runs / "log.txt", tasks=1) as pool:
        jobs = {pool.submit(work, name, data, runs, records): name for name in chosen}
        made = workers.followed(jobs, lambda one: f"kNN {one['knn']['first']:.2f} -> {one['knn']['last']:.2f}", cli.say)
    if failed := [name for name in chosen if name not in made]:
        raise RuntimeError(
            f"expected every pretraining to end, found some that failed: {', '.join(failed)}; see {runs}/log.txt"
        )


def transfer(task: str, checkpoints: Sequence[str], trials: int, data: Path, runs: Path, records: Path) -> bool:
    """Sweeps a task and copies the records; whether every trial has its own. A record that stands is not replaced."""
    out = runs / "transfer"
    plan = sweep.plan([task], checkpoints, trials, "mini", {}, data, out, arch=demo.ARCH)
    for line in sweep.described(plan)[1]:
        cli.say(line)
    complete = sweep.watch(sweep.begin(out, plan, cli.say), cli.say)
    for row in plan["trials"]:
        made = Path(row["record"])
        kept = records / made.relative_to(out.absolute())
        if made.is_file() and not kept.exists():
            record.replaced(kept, made.read_bytes())
    return complete


if __name__ == "__main__":
    if sys.argv[1:]:
        cli.answered(lambda: main(Path(sys.argv[1]).expanduser(), sys.argv[2:]))
    else:
        print(f"{table()}\n\n{transfers()}")
