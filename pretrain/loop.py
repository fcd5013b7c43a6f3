"""The training loop of every method: recipe, data, optimiser, resume, log.

    from pretrain.methods import moco
    run(moco, Path("imagenet/train"), Path("runs/moco"), arch="resnet18", scale="mini")

Writes into `out`: log.jsonl (a line every few steps), last.pth (everything needed to go on), and at the end backbone.pth
(torchvision's names, without fc, and nothing else) with backbone.json beside it (method, recipe, traits, sha256, seconds).
"""

import contextlib
import difflib
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy
import torch
import torchvision
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain import dist, optim
from pretrain.data import Folder, Steps, batches

TRAITS = {
    "channel_order": "RGB",
    "mean": [123.675, 116.28, 103.53],  # ImageNet's, 0..255
    "std": [58.395, 57.12, 57.375],
    "stem": "7x7",
    "stride_in_1x1": False,
}
SAVE_SECONDS = 180  # last.pth is written at every epoch's end and at least this often
LINE_SECONDS = 10  # between two lines of progress where there is no terminal


def mini(recipe: Mapping[str, Any], images: int, batch_size: int | None) -> dict[str, Any]:
    """The mini scale, by one rule for every method; what is not named here stays as published.

    views     64 pixels a side; crop areas unchanged, blur radius in proportion to the side
    batch     128, halved until an epoch has 8 steps, but not below 32; at most the folder
    length    10 epochs
    lr        base_lr doubled (the linear rule then gives twice the published rate at this batch), linear warm-up over the first
              tenth of the epochs, cosine to end_lr by the step
    BN        groups of a quarter of the batch (or the next smaller divisor) where the method has per-GPU batch norm
    queue     4096, at most half the folder, a multiple of the batch
    momentum  0.99 where it is 0.999: ten epochs of 20,000 images are 1,560 steps
    numbers   bfloat16 autocast
    """
    if batch_size is None:
        batch_size = 128
        while batch_size > 32 and images // batch_size < 8:
            batch_size //= 2
        while batch_size > max(images, 2):
            batch_size //= 2
    small = {
        **recipe,
        "size": 64,
        "blur_sigma": tuple(sigma * 64 / recipe["size"] for sigma in recipe["blur_sigma"]),
        "batch_size": batch_size,
        "epochs": 10,
        "base_lr": recipe["base_lr"] * 2,
        "warmup_epochs": 1.0,
        "warmup_start": 0.01,
        "schedule": "cosine",
        "schedule_unit": "step",
        "precision": "bf16",
    }
    if "bn_group" in recipe:
        quarter = max(2, batch_size // 4)
        small["bn_group"] = next((size for size in range(quarter, 1, -1) if batch_size % size == 0), batch_size)
    if "queue" in recipe:
        small["queue"] = max(1, min(4096, images // 2) // batch_size) * batch_size
    if recipe.get("ema") == 0.999:
        small["ema"] = 0.99
    return small


def parsed(key: str, text: str, default: Any) -> Any:
    """The value of KEY=VALUE in the type of the recipe's own; commas separate the parts of a range."""
    kind = type(default[0]) if isinstance(default, tuple) else type(default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            value = tuple(kind(part) for part in text.strip("()[] ").split(","))
            if len(value) == len(default) or key == "milestones":
                return value
            raise ValueError
        return kind(text)
    except (KeyError, ValueError):
        example = ",".join(map(str, default)) if isinstance(default, tuple) else default
        raise ValueError(f"expected {key} to look like {example}, found {text!r}") from None


def resolved(
    method: ModuleType,
    folder: Folder,
    scale: str,
    variant: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every number of the run: the published recipe, the mini rule, what was asked for, and the learning rate that follows."""
    if scale not in ("paper", "mini"):
        raise ValueError(f"expected scale paper or mini, found {scale!r}")
    asked = dict(overrides or {})
    recipe = method.recipe(variant)
    for key in asked:
        if key not in recipe and key != "lr":
            near = difflib.get_close_matches(key, [*recipe, "lr"], 1, 0)[0]
            raise ValueError(
                f"expected a field of the recipe, found {key!r}: did you mean {near}? All: {' '.join(recipe)} lr"
            )
        if key in ("variant", "views", "classes"):
            raise ValueError(
                f"expected a field that can be changed, found {key}: it follows from the method and the data"
            )
    if "batch_size" in asked:
        batch_size = parsed("batch_size", asked["batch_size"], 1)
    if "epochs" in asked:
        epochs = parsed("epochs", asked["epochs"], 1)
    if scale == "mini":
        recipe = mini(recipe, len(folder), batch_size)
    elif batch_size is not None:
        recipe["batch_size"] = batch_size
    if epochs is not None:
        # the milestones keep their place in the training; the mini rule's warm-up keeps its tenth
        recipe["milestones"] = tuple(round(m * epochs / recipe["epochs"]) for m in recipe["milestones"])
        if scale == "mini":
            recipe["warmup_epochs"] = epochs / 10
        recipe["epochs"] = epochs
    recipe.update({key: parsed(key, text, recipe[key]) for key, text in asked.items() if key != "lr"})
    recipe["lr"] = recipe["base_lr"] * recipe["batch_size"] / 256
    if "lr" in asked:
        recipe["lr"] = parsed("lr", asked["lr"], 0.1)
    if "classes" in recipe:
        recipe["classes"] = len(folder.classes)
    check(recipe, folder)
    return recipe


def check(recipe: Mapping[str, Any], folder: Folder) -> None:
    """ValueError where the recipe, the data and the number of processes do not fit."""
    batch, processes = recipe["batch_size"], int(os.environ.get("WORLD_SIZE", 1))
    if batch < 2:
        raise ValueError(
            f"expected a batch of at least 2 images (batch norm), found {batch}: more images or --batch-size"
        )
    if len(folder) < batch:
        raise ValueError(
            f"expected at least one batch of {batch} images in {folder.root}, found {len(folder)}: "
            f"--batch-size {len(folder)} or less, or --scale mini"
        )
    if batch % processes:
        raise ValueError(f"expected a batch divisible by the {processes} processes, found {batch}: change --batch-size")
    if recipe["epochs"] < 1:
        raise ValueError(f"expected at least 1 epoch, found {recipe['epochs']}")
    if recipe["warmup_epochs"] >= recipe["epochs"]:
        raise ValueError(
            f"expected more epochs than the warm-up's {recipe['warmup_epochs']}, found {recipe['epochs']}: "
            f"more --epochs or warmup_epochs={recipe['epochs'] / 10}"
        )
    if recipe["precision"] not in ("fp32", "bf16", "fp16"):
        raise ValueError(f"expected precision=fp32, bf16 or fp16, found {recipe['precision']!r}")
    local = batch // processes
    if "bn_group" in recipe and (recipe["bn_group"] < 2 or local % min(recipe["bn_group"], local)):
        raise ValueError(
            f"expected bn_group of at least 2 to divide the {local} images of each process, found {recipe['bn_group']}: "
            "change bn_group or --batch-size"
        )
    if recipe.get("queue", 0) % batch:
        raise ValueError(
            f"expected a queue that is a multiple of the batch {batch}, found {recipe['queue']}: "
            f"queue={max(1, recipe['queue'] // batch) * batch} or another --batch-size"
        )
    if "classes" in recipe and (recipe["classes"] < 2 or (folder.labels < 0).any()):
        raise ValueError(
            f"expected every image of {folder.root} in one of at least two class folders, found {recipe['classes']} class "
            f"folders and {int((folder.labels < 0).sum())} images outside: supervised pretraining needs labels"
        )
    if "classes" in recipe and set(folder.classes) <= {"train", "val", "test"}:
        raise ValueError(
            f"expected class folders in {folder.root}, found the splits {folder.classes}: --data {folder.root}/train"
        )


def run(
    method: ModuleType,
    data: Path,
    out: Path,
    arch: str = "resnet50",
    scale: str = "paper",
    variant: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    resume: bool = False,
    overrides: Mapping[str, str] | None = None,
) -> Path:
    """Pretrain and give the path of backbone.pth.

    method:     a module of pretrain.methods
    batch_size: of all processes together
    resume:     go on from out/last.pth if it is there; a finished run is not repeated
    overrides:  fields of the recipe by name, as text

    ValueError: the call and the data do not fit. FileNotFoundError: there are no images. FloatingPointError: the loss is no
    longer finite.
    """
    name = method.__name__.rpartition(".")[2]
    folder = Folder(Path(data))
    recipe = resolved(method, folder, scale, variant, epochs, batch_size, overrides)
    process = dist.process()
    if process.device.type != "cuda" and recipe["precision"] == "fp16":
        raise ValueError("expected CUDA for precision=fp16, found the CPU: precision=bf16 or precision=fp32")
    if process.device.type != "cuda" and recipe["sync_bn"] and process.world_size > 1:
        raise ValueError(
            "expected CUDA for synchronised batch norm in several processes, found the CPU: run one process"
        )
    torch.manual_seed(seed)
    model = method.METHOD(arch, recipe).to(process.device, memory_format=torch.channels_last)
    run_of = {
        "method": name,
        "arch": arch,
        "scale": scale,
        "seed": seed,
        "recipe": recipe,
        "data": {"folder": folder.name, "images": len(folder)},
    }
    last = out / "last.pth"
    state = None
    if last.exists():
        if not resume:
            raise ValueError(
                f"expected no earlier run in {out}, found last.pth: --resume goes on with it, or choose another --out"
            )
        state = _state(last, run_of)
        if state["step"] == state["steps"] and (out / "backbone.json").exists():
            print(f"{out / 'backbone.pth'} is finished already", file=sys.stderr)
            return out / "backbone.pth"
    folder.keep()
    if process.rank == 0:
        print(
            f"{' '.join(filter(None, (name, recipe['variant'], arch)))}, {scale} scale: {len(folder)} images, {recipe['epochs']} epochs of "
            f"{len(folder) // recipe['batch_size']} batches of {recipe['batch_size']}, lr {recipe['lr']:.4g}, "
            f"{recipe['precision']}, {process.world_size} x {process.device.type}",
            file=sys.stderr,
        )
    _train(model, folder, run_of, state, out, process, dict(overrides or {}))
    dist.leave()
    return out / "backbone.pth"


def _state(last: Path, run_of: Mapping[str, Any]) -> dict[str, Any]:
    """The content of last.pth; ValueError where it is damaged or belongs to another run."""
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)
        found = state["run"]
    except Exception as error:
        raise ValueError(
            f"expected a checkpoint of this project in {last}, found {error}: remove it to start again"
        ) from error
    old, new = ({**part, **part["recipe"], "images": part["data"]["images"]} for part in (found, run_of))
    del old["data"], new["data"]  # the folder may have moved
    if old != new:
        changed = [
            f"{key} {old.get(key)} -> {new.get(key)}" for key in new if key != "recipe" and old.get(key) != new[key]
        ]
        raise ValueError(
            f"expected the call that began {last}, found changes ({', '.join(changed)}): call as before, or choose another --out"
        )
    return state


def _train(
    model: nn.Module,
    folder: Folder,
    run_of: dict[str, Any],
    state: dict[str, Any] | None,
    out: Path,
    process: dist.Process,
    overrides: dict[str, str],
) -> None:
    recipe, seed, device = run_of["recipe"], run_of["seed"], process.device
    source = Steps(folder, recipe, seed, process.rank, process.world_size)
    steps = source.per_epoch * recipe["epochs"]
    # PixPro counts the fraction of an epoch that drop-last leaves out (contrast/models/PixPro.py, self.K)
    horizon = int(len(folder) / recipe["batch_size"] * recipe["epochs"])
    if recipe["sync_bn"] and process.world_size > 1:
        if device.type != "cuda":
            raise ValueError(
                "expected CUDA for synchronised batch norm in several processes, found the CPU: run one process"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimiser = optim.optimiser(model, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe["precision"] == "fp16")
    step, seconds = 0, 0.0
    if state is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        scaler.load_state_dict(state["scaler"])
        step, seconds = state["step"], state["seconds"]
    net: nn.Module = model
    if process.world_size > 1:
        net = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    autocast = torch.autocast(
        device.type, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe["precision"]],
        enabled=recipe["precision"] != "fp32",
    )  # fmt: skip
    mean, std = (torch.tensor(TRAITS[key], device=device).view(1, 3, 1, 1) for key in ("mean", "std"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = min(16, max(1, cores // local)) if device.type == "cuda" else 1
    chief = process.rank == 0
    if chief:
        out.mkdir(parents=True, exist_ok=True)
        _cut(out / "log.jsonl", step)
    began, saved, first = time.monotonic() - seconds, time.monotonic(), step
    every = max(1, min(50, source.per_epoch // 10))
    sums: dict[str, float] = {}
    mark, counted = time.monotonic(), 0
    model.train()
    with _progress(run_of, steps, step, chief) as show:
        for pixels, boxes, labels in batches(source, step, steps, workers, device.type == "cuda"):
            lr = optim.learning_rate(step, source.per_epoch, recipe)
            for group in optimiser.param_groups:
                group["lr"] = recipe["lr"] if group["constant"] else lr
            # NHWC uint8 seen as NCHW is channels-last
            views = [(x.to(device, non_blocking=True).permute(0, 3, 1, 2).float() - mean) / std for x in pixels]
            torch.manual_seed(seed * 1_000_003 + step)  # what the method draws depends on the step alone
            with autocast:
                loss = net(views, boxes.to(device), labels.to(device), step / horizon)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            step += 1
            values = {"loss": loss.item(), **{key: float(value) for key, value in model.statistics.items()}}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"expected a finite loss, found {values['loss']} at lr {lr:.6g}, batch {recipe['batch_size']}, step "
                    f"{step} of {steps}: lower the learning rate (lr={lr / 2:.3g}) or lengthen the warm-up"
                )
            counted += 1
            sums = {key: sums.get(key, 0.0) + value for key, value in values.items()}
            now = time.monotonic()
            if step % every == 0 or step == steps:
                speed = counted * recipe["batch_size"] / max(now - mark, 1e-9)
                line = {
                    "epoch": round(step / source.per_epoch, 4),
                    "step": step,
                    "lr": lr,
                    **{key: value / counted for key, value in sums.items()},
                    "images_per_second": round(speed, 1),
                }
                if chief:
                    with (out / "log.jsonl").open("a") as log:
                        log.write(json.dumps(line) + "\n")
                sums, mark, counted = {}, now, 0
            show(step, values["loss"], (step - first) * recipe["batch_size"] / (now - began - seconds))
            if chief and (step % source.per_epoch == 0 or now - saved > SAVE_SECONDS or step == steps):
                content = {
                    "run": run_of,
                    "step": step,
                    "steps": steps,
                    "seconds": now - began,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "scaler": scaler.state_dict(),
                }
                _replace(out / "last.pth", lambda path, content=content: torch.save(content, path))
                saved = now
    if chief:
        _write_backbone(model, run_of, overrides, out, steps, time.monotonic() - began)


def _write_backbone(
    model: nn.Module, run_of: Mapping[str, Any], overrides: dict[str, str], out: Path, steps: int, seconds: float
) -> None:
    recipe = dict(run_of["recipe"])
    tensors = {
        key: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in model.backbone.state_dict().items()
    }
    _replace(out / "backbone.pth", lambda path: torch.save(tensors, path))
    about = {
        "method": run_of["method"],
        "variant": recipe.pop("variant"),
        "arch": run_of["arch"],
        "scale": run_of["scale"],
        "seed": run_of["seed"],
        "epochs": recipe["epochs"],
        "images_seen": steps * recipe["batch_size"],
        "seconds": round(seconds, 1),
        "data": run_of["data"],
        "recipe": recipe,
        "overrides": overrides,
        "traits": TRAITS,
        "sha256": hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
    }
    _replace(out / "backbone.json", lambda path: path.write_text(json.dumps(about, indent=2) + "\n"))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path`, then take its place in one move: a killed process leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _cut(log: Path, step: int) -> None:
    """Drop the lines of steps that will be done again."""
    if log.exists():
        lines = [
            line for line in log.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= step
        ]
        _replace(log, lambda path: path.write_text("".join(line + "\n" for line in lines)))


@contextlib.contextmanager
def _progress(
    run_of: Mapping[str, Any], steps: int, step: int, chief: bool
) -> Iterator[Callable[[int, float, float], None]]:
    """A bar on a terminal, a line every LINE_SECONDS elsewhere, nothing in the other processes."""
    title = f"{run_of['method']} {run_of['arch']}"
    if not chief:
        yield lambda step, loss, speed: None
    elif sys.stderr.isatty():
        from rich.console import Console

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=steps, completed=step, loss=math.nan, speed=0.0)
            yield lambda step, loss, speed: bar.update(task, completed=step, loss=loss, speed=speed)
    else:
        batch, printed = run_of["recipe"]["batch_size"], [0.0]

        def line(step: int, loss: float, speed: float) -> None:
            if time.monotonic() - printed[0] >= LINE_SECONDS or step == steps:
                printed[0] = time.monotonic()
                left = (steps - step) * batch / speed
                print(
                    f"{title}: step {step} of {steps}, loss {loss:.4f}, {speed:.0f} images/s, {left / 60:.1f} minutes left",
                    file=sys.stderr,
                    flush=True,
                )

        yield line
