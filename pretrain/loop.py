"""The training loop of every method: data, optimiser, resume, log.

    from pretrain.methods import moco
    run(moco, Path("imagenet/train"), Path("runs/moco"), arch="resnet18", scale="mini")

Writes into `out`: log.jsonl and tensorboard/ (pretrain/log.py), last.pth (everything needed to go on), and at the end backbone.pth
(torchvision's names, without fc; of methods that pretrain a detector's parts, those too) with backbone.json beside it (method,
recipe, traits, sha256, seconds, and loss and nearest-neighbour accuracy at the beginning and at the end).
"""

import contextlib
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy
import torch
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain import dist, log, monitor, optim
from pretrain.data import Folder, Steps, Survey, batches
from pretrain.recipes import resolved

TRAITS = {
    "channel_order": "RGB",
    "mean": [123.675, 116.28, 103.53],  # ImageNet's, 0..255
    "std": [58.395, 57.12, 57.375],
    "stem": "7x7",
    "stride_in_1x1": False,
}
SAVE_SECONDS = 180  # last.pth is written at every epoch's end and at least this often


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
    labelled: Path | None = None,
) -> Path:
    """Pretrain and give the path of backbone.pth.

    method:     a module of pretrain.methods
    batch_size: of all processes together
    resume:     go on from out/last.pth if it is there; a finished run is not repeated
    overrides:  fields of the recipe by name, as text
    labelled:   folders of labelled images for the nearest-neighbour accuracy in the log, see pretrain/monitor.py

    ValueError: the call and the data do not fit. FileNotFoundError: there are no images. FloatingPointError: the loss is no
    longer finite.
    """
    name = method.__name__.rpartition(".")[2]
    folder = Folder(Path(data))
    recipe = resolved(method, folder, scale, variant, epochs, batch_size, overrides)
    process = dist.process()
    if process.device.type != "cuda" and recipe["precision"] == "fp16":
        raise ValueError("expected CUDA for precision=fp16, found the CPU: precision=bf16 or precision=fp32")
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
    training = Training(model, folder, run_of, process)
    if state is not None:
        training.restore(state)
    watch = monitor.Monitor(folder, labelled, recipe, process, workers(process.device))
    with contextlib.closing(log.Log(out, training.step, process.rank == 0)) as diary:
        _train(training, out, diary, watch)
    if process.rank == 0:
        _write_backbone(training, dict(overrides or {}), out)
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


class Training:
    """A method in training: what a step changes, and what last.pth keeps of it."""

    def __init__(self, model: nn.Module, folder: Folder, run_of: dict[str, Any], process: dist.Process) -> None:
        self.recipe, self.seed, self.device = run_of["recipe"], run_of["seed"], process.device
        self.run_of, self.folder, self.process = run_of, folder, process
        self.source = Steps(folder, self.recipe, self.seed, process.rank, process.world_size)
        self.per_epoch = self.source.per_epoch
        self.steps = self.per_epoch * self.recipe["epochs"]
        # PixPro counts the fraction of an epoch that drop-last leaves out (contrast/models/PixPro.py, self.K)
        self.horizon = int(len(folder) / self.recipe["batch_size"] * self.recipe["epochs"])
        if self.recipe["sync_bn"] and process.world_size > 1:
            model = dist.synchronised(model, self.device)
        self.model = model.train()
        self.optimiser = optim.optimiser(model, self.recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe["precision"] == "fp16")
        self.step, self.seconds = 0, 0.0
        self.net: nn.Module = model
        if process.world_size > 1:
            # buffers are equal by what the methods do, but for the statistics of batch norm, of which rank 0's are kept
            on = [self.device.index] if self.device.type == "cuda" else None
            self.net = DistributedDataParallel(model, device_ids=on, broadcast_buffers=False)
        self.wrong = torch.zeros(2, dtype=torch.double, device=self.device)  # the first loss of inf or NaN, its step
        traits = self.traits()
        self.mean, self.std = (torch.tensor(traits[key], device=self.device).view(-1, 1, 1) for key in ("mean", "std"))

    def traits(self) -> dict[str, Any]:
        """What backbone.json says of the pixels that the backbone wants."""
        return TRAITS | {key: list(self.recipe[key]) for key in ("mean", "std") if key in self.recipe}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]

    def state(self) -> dict[str, Any]:
        """What last.pth keeps. FloatingPointError: the loss is no longer finite."""
        self.check()
        return {
            "run": self.run_of,
            "step": self.step,
            "steps": self.steps,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def autocast(self) -> torch.autocast:
        precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.recipe["precision"]]
        return torch.autocast(self.device.type, precision, enabled=precision is not None)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [..., S, S, 3] -> [..., 3, S, S] on the device; NHWC uint8 seen as NCHW is channels-last."""
        return pixels.to(self.device, non_blocking=True).movedim(-1, -3).float().sub_(self.mean).div_(self.std)

    def call(self, hook: str, *arguments: Any) -> None:
        """A method's hook, where it has it."""
        getattr(self.model, hook, lambda *_: None)(*arguments)

    def begin_epoch(self) -> None:
        """What a method does before an epoch; `survey` may look at every image of the folder.

        The hook's images are batches of (views, indices): `survey_views` random views if the method says so, else the centre.
        """
        epoch = self.step // self.per_epoch
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        self.call("before_epoch", epoch)
        if hasattr(self.model, "survey"):
            number = getattr(self.model, "survey_views", None)
            look = Survey(self.folder, self.recipe, self.seed, self.process.rank, self.process.world_size, number)
            with self.autocast():
                self.model.survey(epoch, self.seen(look))

    def seen(self, look: Survey) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        for pixels, indices in batches(look, 0, len(look), workers(self.device), self.device.type == "cuda"):
            yield [self.normalised(x) for x in pixels], indices.to(self.device)

    def update(self, pixels: list[torch.Tensor], boxes: Any, labels: Any, indices: Any) -> dict[str, torch.Tensor]:
        """One step on a batch; its loss and the method's statistics, scalars on the device, for which nothing has waited."""
        if self.step % self.per_epoch == 0:
            self.begin_epoch()
        optim.set_learning_rate(self.optimiser, self.lr(), self.recipe["lr"])
        views = [self.normalised(x) for x in pixels]
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # what the method draws depends on the step alone
        progress = self.step / self.horizon
        boxes, labels, indices = (x.to(self.device, non_blocking=True) for x in (boxes, labels, indices))
        with self.autocast():
            loss = self.net(views, boxes, labels, progress, indices)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.call("before_update", self.step, self.per_epoch)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.call("after_update", progress)
        loss = loss.detach().double()
        self.step += 1
        found = torch.stack([loss, torch.full_like(loss, self.step)])
        self.wrong = torch.where((self.wrong[1] == 0) & ~loss.isfinite(), found, self.wrong)
        statistics = {key: torch.as_tensor(x, device=self.device) for key, x in self.model.statistics.items()}
        return {"loss": loss, **{key: x.detach().double() for key, x in statistics.items()}}

    def check(self) -> None:
        """FloatingPointError: a step's loss was not finite. It waits for the device, and therefore stands where the log does."""
        loss, step = self.wrong.tolist()
        if step:
            lr = optim.learning_rate(int(step) - 1, self.per_epoch, self.recipe)
            raise FloatingPointError(
                f"expected a finite loss, found {loss} at lr {lr:.6g}, batch {self.recipe['batch_size']}, step "
                f"{step:.0f} of {self.steps}: lower the learning rate (lr={lr / 2:.3g}) or lengthen the warm-up"
            )

    @torch.no_grad()
    def features(self, pixels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[N, C] of all processes: the backbone in evaluation mode on batches of uint8 [N, S, S, 3] of this process.

        And what the method's `projector` or `head` makes of it, [N, C'], where it takes the backbone's features.
        """
        modes = {part: part.training for part in self.model.modules()}
        self.model.eval()
        with self.autocast():
            found = torch.cat([dist.gathered(self.model.backbone(self.normalised(x))) for x in pixels])
            head = getattr(self.model, "projector", getattr(self.model, "head", None))
            first = next(head.parameters(), None) if isinstance(head, nn.Module) else None
            outputs = None
            if first is not None and first.ndim > 1 and first.shape[1] == found.shape[1]:
                outputs = head(found.view(*found.shape, *[1] * (first.ndim - 2))).flatten(1)
        for part, mode in modes.items():
            part.training = mode
        return found, outputs

    def lr(self) -> float:
        return optim.learning_rate(self.step, self.per_epoch, self.recipe)


def workers(device: torch.device) -> int:
    """How many processes prepare batches."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))) if device.type == "cuda" else 1


def _train(training: Training, out: Path, diary: log.Log, watch: monitor.Monitor) -> None:
    """All steps that are left, with their log, last.pth and a look before the first and after every epoch."""
    recipe, steps, per_epoch = training.recipe, training.steps, training.per_epoch
    chief = training.process.rank == 0
    if training.step == 0:
        _look(training, watch, diary)
    first, before, saved = training.step, training.seconds, time.monotonic()
    began = mark = saved
    every = max(1, min(50, per_epoch // 10))
    sums: dict[str, torch.Tensor] = {}
    counted = 0
    pin, title = training.device.type == "cuda", f"{training.run_of['method']} {training.run_of['arch']}"
    with log.progress(title, recipe["batch_size"], steps, first, chief) as show:
        for batch in batches(training.source, first, steps, workers(training.device), pin):
            lr = training.lr()
            values = training.update(*batch)
            step, now = training.step, time.monotonic()
            training.seconds = before + now - began
            counted += 1
            sums = {key: sums[key] + value if key in sums else value for key, value in values.items()}
            if step % every == 0 or step == steps:
                training.check()
                line = {"epoch": round(step / per_epoch, 4), "step": step, "lr": lr}
                line |= {key: float(value) / counted for key, value in sums.items()}
                speed = counted * recipe["batch_size"] / max(now - mark, 1e-9)
                diary.line(line | {"images_per_second": round(speed, 1)})
                sums, mark, counted = {}, now, 0
            show(step, values["loss"], (step - first) * recipe["batch_size"] / (now - began))
            if step % per_epoch == 0:
                looked = _look(training, watch, diary)
                began, mark = began + looked, mark + looked  # the time of looking is not the training's
            if chief and (step % per_epoch == 0 or now - saved > SAVE_SECONDS or step == steps):
                log.replace(out / "last.pth", lambda path: torch.save(training.state(), path))
                saved = now


def _look(training: Training, watch: monitor.Monitor, diary: log.Log) -> float:
    """Write what the monitor sees into the log, warn of a collapse, and give the seconds that this took."""
    began = time.monotonic()
    seen = watch.look(training.features)
    diary.line({"epoch": round(training.step / training.per_epoch, 4), "step": training.step, **seen})
    if diary.chief and training.step >= monitor.MATURE and (low := monitor.collapsed(seen)):
        log.say(
            f"warning: the features have collapsed after step {training.step}: {low} ({monitor.__name__} says what they are)"
        )
    return time.monotonic() - began


def _write_backbone(training: Training, overrides: dict[str, str], out: Path) -> None:
    """backbone.pth and backbone.json; a detector's parts that were pretrained too stand under "detectron2/"."""
    model, run_of, recipe = training.model, training.run_of, dict(training.recipe)
    if "checkpoint" in recipe:  # the file's name, not where it lies on this machine
        recipe["checkpoint"] = Path(recipe["checkpoint"]).name
        overrides = overrides | {"checkpoint": recipe["checkpoint"]}
    found = model.backbone.state_dict()
    if hasattr(model, "detector"):
        found |= {f"detectron2/{key}": value for key, value in model.detector().items()}
    tensors = {
        key: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in found.items()
    }
    log.replace(out / "backbone.pth", lambda path: torch.save(tensors, path))
    about = {
        "method": run_of["method"],
        "variant": recipe.pop("variant"),
        "arch": run_of["arch"],
        "scale": run_of["scale"],
        "seed": run_of["seed"],
        "epochs": recipe["epochs"],
        "images_seen": training.steps * recipe["batch_size"],
        "seconds": round(training.seconds, 1),
        "data": run_of["data"],
        "recipe": recipe,
        "overrides": overrides,
        "traits": training.traits(),
        "loss": log.first_and_last(out / "log.jsonl", "loss"),
        "knn": log.first_and_last(out / "log.jsonl", "knn"),
        "sha256": hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
    }
    log.replace(out / "backbone.json", lambda path: path.write_text(json.dumps(about, indent=2) + "\n"))
