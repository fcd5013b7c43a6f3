"""A checkpoint's journey through one task: recognise it, prove it, fine-tune it, record it.

plan      everything that can go wrong without training is found here: data, weights, protocol
transfer  one trial a seed; a trial that has its record is skipped
"""

import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench import allocator, catalog, provenance, records
from downstream import task as protocols

ENGINES = {
    "detectron2": "downstream.detection",
    "mmsegmentation": "downstream.segmentation",
    "torch": "downstream.classification",
    "scikit-learn": "downstream.svm",
}


@dataclass(frozen=True)
class Plan:
    """What a transfer will do, before anything is started."""

    task: protocols.Task
    engine: ModuleType
    data: Path
    found: dict[str, Any]  # counts per split and the data's digest
    model: dict[str, Any]  # the record's `model`
    tensors: dict[str, Any] | None  # under torchvision's names; None trains from scratch
    proof: dict[str, float]

    @property
    def reduced(self) -> bool:
        """Whether the data are not the papers' whole sets."""
        from results import groups

        return not groups.whole(self.task.name.partition("@")[0], self.found)


def resolve(name: str, scale: str, changes: Mapping[str, str], precision: str | None = None) -> protocols.Task:
    """The task of that name, at that scale, with a user's changes, in the protocol's precision or another."""
    task = catalog.load("task", name).TASK
    if scale not in ("paper", "mini"):
        raise ValueError(catalog.unknown("scale", scale, ("paper", "mini")))
    task = protocols.second(protocols.mini(task)) if scale == "mini" else task
    task = protocols.overridden(task, changes) if changes else task
    return protocols.at(task, precision) if precision else task


def engine(task: protocols.Task) -> ModuleType:
    """The module that runs a task."""
    return importlib.import_module(ENGINES[task.engine])


def meant(data: Path | None) -> Path:
    """The folder of the datasets: --data, else DETECTRON2_DATASETS, whose ~ detectron2 reads too, else ./datasets."""
    return data or Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def datasets(data: Path | None) -> Path:
    """The same. Raises FileNotFoundError where it is no folder and no dataset has a variable of its own."""
    from downstream.datasets import elsewhere

    root = meant(data)
    if not (root.is_dir() or elsewhere()):
        raise FileNotFoundError(
            f"expected a folder of datasets (VOC2007/, coco/, cityscapes/ ...), found no folder {root}. "
            "Say --data DIR, set DETECTRON2_DATASETS (of one alone: CITYSCAPES_DATASET, IMAGENET_DIR), or draw one: bench data "
            "synthesize DIR"
        )
    return root


def weights_file(checkpoint: str, random: bool = True) -> Path:
    """The file of a checkpoint, of TensorFlow's the one with the names. Raises FileNotFoundError where there is none.

    random: whether 'random' would have been an answer too
    """
    from bench import content, fetch

    if (path := content.files(fetch.located(checkpoint))[0]).is_file():
        return path
    more = "'random', " if random else ""
    raise FileNotFoundError(
        f"expected a checkpoint file or address, {more}or the name of a run in runs/, found neither {checkpoint} nor "
        f"{Path('runs') / checkpoint / 'backbone.pth'}. bench pretrain METHOD makes one"
    )


def opened(
    checkpoint: str,
    arch: str | None,
    scale: str,
    family: str | None = None,
    name: str | None = None,
    allow_missing: Sequence[str] = (),
) -> tuple[dict[str, Any], Any]:
    """The record's `model` and what was read (bench.sources.Backbone; None for `random`)."""
    if checkpoint == "random":
        arch = arch or ("resnet18" if scale == "mini" else "resnet50")
        return {
            "name": name or "random",
            "family": "random",
            "arch": arch,
            "sha256": None,
            "traits": dict(protocols.TRAITS),
        }, None
    from bench import fetch, sources

    fetched = fetch.fetch(checkpoint) if fetch.is_address(checkpoint) else None
    path = fetched.path if fetched else weights_file(checkpoint)
    source = sources.backbone(path, family=family, arch=arch, allow_missing=allow_missing)
    about = {k: source.about[k] for k in ("method", "variant", "epochs", "data", "scale", "seed") if k in source.about}
    if "method" in about:
        default = "_".join(str(about[k]) for k in ("method", "variant") if about.get(k))
    elif fetched:
        default = fetched.name
    else:
        default = path.name.removesuffix(".tar").removesuffix(path.suffix.replace(".tar", ".pth"))
    return {
        "name": name or default,
        "family": source.family,
        "arch": source.arch,
        "sha256": source.sha256,
        "traits": source.traits,
        **{("pretrain_data" if k == "data" else k): v for k, v in about.items()},
        **({"pretrain_nonstandard": changed} if (changed := source.about.get("nonstandard")) else {}),
        **({"equal": list(source.equal)} if source.equal else {}),
        **({"allow_missing": list(allow_missing), "missing": list(source.missing)} if source.missing else {}),
        **(fetched.provenance() if fetched else {}),
    }, source


def plan(
    task: protocols.Task,
    checkpoint: str,
    data: Path,
    arch: str | None = None,
    family: str | None = None,
    name: str | None = None,
    allow_missing: Sequence[str] = (),
) -> Plan:
    """Checks data and weights and proves the conversion. Raises ValueError or FileNotFoundError; starts nothing."""
    from bench import sources
    from downstream import weights

    runner = engine(task)
    found = runner.found(task, data)
    about, source = opened(checkpoint, arch, task.scale, family, name, allow_missing)
    if source is None:
        return Plan(task, runner, data, found, about, None, {})
    tensors, proof = source.tensors, sources.prove(source)
    if task.engine in ("detectron2", "mmsegmentation"):  # torch's networks have torchvision's names already
        proof |= weights.prove(tensors, about["arch"], about["traits"])
    if task.engine == "detectron2":  # the only one with a place for a neck and heads
        tensors = tensors | {f"{weights.DETECTOR}{part}": tensor for part, tensor in source.detector.items()}
    return Plan(task, runner, data, found, about, tensors, proof)


def transfer(
    plan: Plan, seeds: Iterable[int], out: Path, resume: bool, say: Callable[[str], None], keep: bool = False
) -> list[dict]:
    """One trial a seed; returns the records, those of trials that were already there included.

    keep: leaves the trained network in the trial's folder, for `bench predict`

    Raises FloatingPointError on a non-finite loss, OSError on a full disk, RuntimeError where another process runs the trial,
    and SystemExit on a signal; finished trials keep their records.
    """
    from bench import bfloat16, predict
    from downstream import checkpoint, interruption, trial
    from results import record as stored

    def there(path: Path) -> bool:
        if found := recorded(path, out, plan.model):
            if keep and not (path.with_suffix("") / predict.FILE).exists():
                raise ValueError(
                    f"expected no trial that ended without its network, found {path}: take another --out, or leave --keep out"
                )
            say(f"{plan.task.name} of {plan.model['name']}, seed {seed}: already done, {path}")
            done.append(found)
        return bool(found)

    allocator.keep()
    bfloat16.make_fast()
    trial.place()
    done = []
    for seed in seeds:
        record = {
            "schema": 1,
            "task": plan.task.name.partition("@")[0],
            "scale": plan.task.scale,
            "protocol": {
                "name": plan.task.name,
                "hash": protocols.digest(plan.task),
                "content": protocols.protocol(plan.task),
            },
            "model": plan.model,
            "proof": plan.proof,
            "data": plan.found,
            "seed": seed,
            "marks": (["mini"] if plan.task.scale == "mini" else [])
            + (["nonstandard"] if plan.task.nonstandard else [])
            + (["reduced"] if plan.reduced else []),
            "nonstandard": list(plan.task.nonstandard),
        }
        path = stored.path(out, record)
        trial.agreed(path, "it" if path.exists() else "none")
        if there(path):
            continue
        work = path.with_suffix("")
        left = [file for file in (checkpoint.LAST, checkpoint.PREVIOUS) if (work / file).exists()]
        if left and not resume:
            raise ValueError(
                f"expected no earlier run in {work}, found {left[0]}: --resume goes on with it, or choose another --out"
            )
        if resume and not left:
            say(f"nothing to go on with in {work}: this trial is begun")
        with alone(work), interruption.handled(interruption.at_once):
            if os.environ.get("WORLD_SIZE", "1") == "1" and there(path):  # whoever was at work here has just ended
                continue
            say(f"{plan.task.name} of {plan.model['name']}, seed {seed}")
            if int(os.environ.get("RANK", "0")) == 0:
                describe(work, record, resume)
            with interruption.explained():
                result = plan.engine.run(
                    plan.task,
                    plan.tensors,
                    plan.model["traits"],
                    plan.model["arch"],
                    plan.data,
                    work,
                    seed,
                    resume=resume,
                    **({"keep": True} if keep else {}),  # which what trains no network does not take
                )
            if int(os.environ.get("RANK", "0")) > 0:
                continue
            record |= {key: result[key] for key in ("metrics", "loaded", "effective", "seconds")}
            record |= provenance.now("finished")
            if keep:
                predict.keep(plan, result["network"], work / predict.FILE)
            with checkpoint.room(path, len(json.dumps(record, indent=1))):
                stored.write(record, out)
            checkpoint.remove(work)
            done.append(record)
        if keep:
            say(f"  bench predict {shlex.quote(str(work / predict.FILE))} IMAGE... asks the network")
        say("  " + "  ".join(f"{name} {value:.2f}" for name, value in result["metrics"].items()) + f"  -> {path}")
        whose, figures = _published(plan)
        for name, published in figures.items():
            if name not in result["metrics"]:  # a user's change may leave it out
                continue
            if abs(result["metrics"][name] - published) > plan.task.tolerance:
                changed = ", ".join(plan.task.nonstandard)
                say(
                    f"  expected {name} {published} +- {plan.task.tolerance} as published of {whose}, found "
                    f"{result['metrics'][name]:.1f}: look at {f'what was changed ({changed}), ' * bool(changed)}the data's counts, "
                    "the traits and the batch before believing it"
                )
    return done


def _published(plan: Plan) -> tuple[str, Mapping[str, float]]:
    """What was published of this model, all of ResNet-50: whose figures, and these by metric; none where several fit.

    A variant that is no more than a length (`1000ep`) is no part of a published name, nor is `v1` where the paper has no other.
    Epochs must agree where both are known; a name without them is of weights that do not say any (MSRA's).
    """
    model = plan.model
    if model["arch"] != "resnet50":
        return "", {}
    name, epochs = re.sub(r"_\d+ep$", "", model["name"]), model.get("epochs")
    found = []
    for whose, figures in plan.task.expected.items():
        published, _, length = whose.removesuffix(" epochs)").partition(" (")
        fits = epochs is None or length == str(epochs)
        if fits and (whose == model["name"] or published in (name, name.removesuffix("_v1"))):
            found.append((whose, figures))
    return found[0] if len(found) == 1 else ("", {})


def recorded(path: Path, out: Path, model: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a trial, None where there is none. Raises ValueError where its model was shown the images in another way."""
    from results import record as stored

    if not path.exists():
        return None
    found = stored.read(path, out)
    same_traits(path, found["model"], model)
    return found


def same_traits(path: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ValueError where one model's traits (mean, colours, strides ...) differ from those that `path` was begun with."""
    old, new = (json.loads(json.dumps(model["traits"])) for model in (was, now))
    if changed := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
        both = ", ".join(f"{key} {old.get(key)} there and {new.get(key)} now" for key in changed)
        raise ValueError(
            f"expected the traits that {path} was begun with, found {both}: take another --out, or in bench transfer another --name"
        )


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Makes a trial's folder and holds it against other processes. Raises RuntimeError that names the one that has it."""
    from bench import launch
    from downstream import checkpoint

    # a sweep's process holds the folder for the one that it has started, and the first process of a group for the others
    if int(os.environ.get("RANK", "0")) > 0 or os.environ.get("BENCH_TRIAL") == str(work.absolute()):
        work.mkdir(parents=True, exist_ok=True)
        yield
        return
    with ExitStack() as held:
        with checkpoint.room(work / "running", 200):
            # the processes that load data for one that was killed notice it after 5 seconds, and hold the folder until then
            lock = held.enter_context(launch.locked(work, patience=8))
        if lock is None:
            other = launch.held(work) or {}
            raise launch.Busy(
                f"expected nobody at work in {work}, found process {other.get('pid')} on {other.get('host')}: let it finish, or "
                "take another --out"
            )
        yield


def describe(work: Path, record: Mapping[str, Any], resume: bool) -> None:
    """Writes run.json: what a trial is, and for each of its starts the command, the time, the machine and the environment."""
    from downstream import trial
    from pretrain import outputs

    file = work / "run.json"
    earlier = outputs.starts(file) if resume else []
    if earlier and (was := json.loads(file.read_text()).get("model", {})).get("traits"):
        same_traits(work, was, record["model"])
    start = {"command": sys.argv, "folder": str(Path.cwd()), "environment": provenance.environment()}
    trial.write_json(file, {**record, "starts": [*earlier, start | provenance.now("started")]})


def checked(task: protocols.Task, data: Path | None, make_label_train_ids: bool) -> tuple[dict[str, Any], str]:
    """What is wrong with a task's data (`downstream.check.check`), and the same in words."""
    from downstream import check

    report = check.check(task, meant(data), engine(task).found, make_label_train_ids)
    return report, check.described(report)


def tables(task: str) -> list[str]:
    """The names of the tables that have a column of the task, whatever its scale."""
    plain = task.partition("@")[0]
    every = [(name, catalog.load("table", name).TABLES) for name in catalog.names("table")]
    return [
        name
        for name, found in every
        if any(plain in (column.task, column.recipe) for table in found for column in table.columns)
    ]


def measured(results: Path) -> list[dict[str, Any]]:
    """The trials that stand in a folder, or in the one that `records.folder` takes for it, as tables need them."""
    from results import record as stored

    return stored.trials(records.folder(results))
