"""What a task is and what a transfer would do, before anything starts: `bench show` and `bench transfer --dry-run`.

The time is estimated from the multiply-adds of the network and half a second's measurement of this machine; it is right to
a factor of two.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import catalog, journey
from downstream import task as protocols
from results import groups

IMAGENET = 1_281_167  # training images


def shown(task: protocols.Task) -> dict[str, Any]:
    """A task whole, as plain values: `bench show TASK --json`."""
    report = {
        "name": task.name,
        "hash": protocols.digest(task),
        "cite": task.cite,
        "metrics": list(task.metrics),
        "trials": task.trials,
        "expected": {name: dict(values) for name, values in task.expected.items()},
        "tolerance": task.tolerance,
        "unverified": list(task.unverified),
        "protocol": protocols.protocol(task),
    }
    if isinstance(task, protocols.Detection):
        report["detectron2"] = journey.engine(task).resolved(task)
    return report


def one(name: str, scale: str, variant: str | None) -> dict[str, Any]:
    """A task, or a method's recipe, whole. Raises ValueError for a name or a variant that there is not."""
    if name in catalog.names("method"):
        from pretrain import recipes

        recipe = catalog.load("method", name).recipe(variant)
        recipes.check_whole(name, recipe)
        if scale == "mini":
            recipe = recipes.mini(recipe, images=20_000, batch_size=None)  # as on any folder of a few thousand or more
        return {"name": name, "cite": catalog.citation(name), "lr": recipes.peak(recipe), **recipe}
    if catalog.ALIASES.get(name, name) not in (tasks := catalog.names("task")):
        raise ValueError(catalog.unknown("task or method", name, [*tasks, *catalog.names("method")]))
    if variant is not None:
        raise ValueError(
            f"expected --variant of a method, found {variant!r} of the task {name}, which has none: leave it out"
        )
    return shown(journey.resolve(name, scale, {}))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """{"of": the names of two tasks or two methods, "differences": of each number that decides what they do and that differs, what it
    is in the one and in the other}; None where there is none, which for detectron2's keys is its default.

    Raises ValueError for a task and a method.
    """
    both = one, other
    names = [" ".join(filter(None, (report["name"], report.get("variant")))) for report in both]
    if ("protocol" in one) != ("protocol" in other):
        raise ValueError(f"expected two tasks or two methods, found {names[0]} and {names[1]}")
    first, second = (_plain(report.get("protocol", report)) for report in both)
    keys = [key for key in {**first, **second} if key not in ("name", "cite") and first.get(key) != second.get(key)]
    return {"of": names, "differences": {key: [first.get(key), second.get(key)] for key in keys}}


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """detectron2's keys beside the protocol's own."""
    return {k: v for k, v in numbers.items() if k != "settings"} | numbers.get("settings", {})


def plan(
    task: protocols.Task,
    checkpoint: str,
    data: Path | None,
    arch: str | None,
    family: str | None,
    name: str | None,
    seeds: list[int],
    allow_missing: Sequence[str] = (),
) -> dict[str, Any]:
    """What a transfer would do, and how long it would take: `bench transfer --dry-run`.

    Without --data and without a folder of datasets the rest of the plan still stands; a folder that was named must be right.
    """
    about, _ = journey.opened(checkpoint, arch, task.scale, family, name, allow_missing)
    alone = protocols.ELSEWHERE.get(task.name.partition("_")[0], "DETECTRON2_DATASETS")
    named = data is not None or bool({alone, "DETECTRON2_DATASETS"} & os.environ.keys()) or Path("datasets").is_dir()
    found = journey.engine(task).found(task, journey.datasets(data)) if named else None
    reduced = found is not None and not groups.whole(task.name.partition("@")[0], found)
    report = shown(task) | {
        "model": about,
        "seeds": seeds,
        "data": found,
        "reduced": reduced,
        "nonstandard": list(task.nonstandard),
    }
    if isinstance(task, protocols.Detection):
        report["detectron2"] = journey.engine(task).resolved(task, about["arch"], about["traits"])
        full = protocols.DEFAULTS | dict(task.settings)
        batch, lr = full["SOLVER.IMS_PER_BATCH"], full["SOLVER.BASE_LR"]
    else:
        batch, lr = task.batch, 0.0 if isinstance(task, protocols.LinearSVM) else task.lr
    usual = IMAGENET * task.labels // 100 if isinstance(task, protocols.Classification) else 10**9
    total, steps = protocols.iterations(task, found["train"] if found else usual)
    report["effective"] = {
        "batch": batch,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "lr": lr,
        "iterations": total,
        "steps": list(steps),
        "precision": task.precision,
    }
    report["estimated_bytes"] = disk(task, about["arch"])
    if found:
        work = macs(task, about["arch"], found)
        rate = macs_per_second(task.precision) * report["effective"]["processes"]
        report["estimated_seconds"] = round(work / rate) * len(seeds)
    return report


def macs(task: protocols.Task, arch: str, found: dict[str, Any]) -> float:
    """Multiply-accumulates of one trial, training and test."""
    each = journey.engine(task).macs(task, arch)
    seen, tested = protocols.batch(task) * protocols.iterations(task, found["train"])[0], found["test"]
    if isinstance(task, protocols.Classification):  # tested after every epoch; nearest neighbours see each image once
        seen, tested = (count * max(1, task.epochs) for count in (found["train"], tested))
    elif isinstance(task, protocols.LinearSVM):  # every image is seen once
        seen = found["train"]
    return each["train"] * seen + each["test"] * tested


def disk(task: protocols.Task, arch: str) -> int:
    """The bytes of a trial's checkpoints while it runs: two, and one that is written, each with weights and momentum."""
    if isinstance(task, protocols.LinearSVM):
        return 0
    model = journey.engine(task).blank(task, arch)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return 3 * 4 * (sum(tensor.numel() for tensor in model.state_dict().values()) + learned)


def described(report: dict[str, Any]) -> str:
    """A plan for a person."""
    effective, found = report["effective"], report["data"]
    protocol, steps = report["protocol"], ", ".join(map(str, effective["steps"]))
    solver = protocol.get("settings", {})  # detectron2's
    factor = protocol.get("gamma", solver.get("SOLVER.GAMMA", 0.1))
    schedule = protocol.get("schedule", solver.get("SOLVER.LR_SCHEDULER_NAME", "constant"))
    falls = f"x{factor:g} at {steps}" if steps else schedule
    if late := [str(step) for step in effective["steps"] if step >= effective["iterations"]]:
        falls += f" ({', '.join(late)} never: after the last iteration)"
    lines = [
        f"{report['name']}, protocol {report['hash'][:12]}: {report['cite']}",
        f"model       {report['model']['name']}, {report['model']['arch']}, {report['model']['family']}",
        f"trials      seeds {', '.join(map(str, report['seeds']))}; metrics {', '.join(report['metrics'])}",
        "data        "
        + (
            f"{found['train']} training and {found['test']} test images, digest {found['digest'][:12]}"
            if found
            else "none"
        ),
        f"training    batch {effective['batch']}, learning rate {effective['lr']}, {effective['iterations']} iterations, "
        f"{falls}, {effective['precision']}"
        if effective["iterations"]
        else f"training    none, {effective['precision']}",
    ]
    if report["reduced"]:
        lines[3] += "; not all of the papers' images: the record would be marked `reduced`"
    if not found:
        lines[3] += ": no folder of datasets was named (--data DIR), so there is no estimate of the time"
    if (processes := effective["processes"]) > 1:
        lines.append(f"processes   {processes}, {effective['batch'] / processes:g} images of a batch in each")
    if report["estimated_bytes"]:
        lines.append(
            f"disk        {report['estimated_bytes'] / 1e6:,.0f} MB for the checkpoints of a trial while it runs"
        )
    if "estimated_seconds" in report:
        lines.append(
            f"time        about {duration(report['estimated_seconds'])} for all trials on this machine (from its speed)"
        )
    if report["nonstandard"]:
        lines.append(f"changed     {', '.join(report['nonstandard'])}: the record would be marked `nonstandard`")
    lines += [f"unverified  {text}" for text in report["unverified"]]
    lines.append("protocol")
    settings = report.get("detectron2") or report["protocol"]
    lines += [f"  {key}: {value}" for key, value in settings.items()]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for a person: 40 s, 12 min, 3.5 h, 40 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{amount(seconds / size, 3)} {unit}"
    return f"{seconds:.0f} s"


def amount(number: float, digits: int) -> str:
    """A number of so many digits, or whole where it has as many before the point: 0.35, 3.5, 780, 1,234."""
    return f"{number:.{digits}g}" if number < 10 ** (digits - 1) else f"{number:,.0f}"


def macs_per_second(precision: str) -> float:
    """Multiply-adds per second of 3x3 convolutions on the device a run would use."""
    import torch

    from bench import bfloat16

    bfloat16.make_fast()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    conv = torch.nn.Conv2d(128, 128, 3, padding=1).to(device).to(memory_format=torch.channels_last)
    image = torch.randn(8, 128, 28, 28, device=device).contiguous(memory_format=torch.channels_last)
    work = 8 * 28 * 28 * 128 * 128 * 9
    count = 0
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        conv(image)
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        while time.perf_counter() - start < 0.5:
            conv(image)
            if device == "cuda":
                torch.cuda.synchronize()
            count += 1
    return count * work / (time.perf_counter() - start)
