"""The training loop of every method: data, optimiser, resume, log.

    from pretrain.methods import moco
    run(moco, Path("imagenet/train"), Path("runs/moco"), arch="resnet18", scale="mini")

Writes into `out`: run.json (the call, its recipe and every start with its versions), log.jsonl and tensorboard/ (pretrain/log.py),
last.pth and previous.pth (everything needed to go on, pretrain/checkpoint.py), and at the end backbone.pth (torchvision's names,
without fc; of methods that pretrain a detector's parts, those too) with backbone.json beside it (method, recipe, traits, sha256,
seconds, loss and nearest-neighbour accuracy at the beginning and at the end, and the run that this one goes on from, if any).
"""

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain import checkpoint, colours, dist, faults, log, monitor, optim, outputs
from pretrain.data import Folder, Pixels, Steps, Survey, batches
from pretrain.recipes import check_parts, leak, resolved

TRAITS = {
    "channel_order": "RGB",
    "mean": [123.675, 116.28, 103.53],  # ImageNet's, 0..255
    "std": [58.395, 57.12, 57.375],
    "stem": "7x7",
    "stride_in_1x1": False,
}
# last.pth is written at every epoch's end and at least this often
SAVE_SECONDS = float(os.environ.get("BENCH_SAVE_SECONDS", "180"))


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
    accumulate: int = 1,
    skip_bad: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Pretrain and give the path of backbone.pth.

    method:     a module of pretrain.methods
    batch_size: of all processes together
    resume:     go on from out/last.pth if it is there; a finished run is not repeated
    overrides:  fields of the recipe by name, as text
    labelled:   folders of labelled images for the nearest-neighbour accuracy in the log, see pretrain/monitor.py
    accumulate: parts in which each process takes its share of the batch, to need less memory; nonstandard
    skip_bad:   so many images may fail to decode; the next one of the folder takes the place of each
    about:      what else run.json is to say of this start

    ValueError: the call and the data do not fit, or another process runs in `out`. FileNotFoundError: there are no images.
    FloatingPointError: the loss or the weights are no longer finite. OSError: the disk is full. RuntimeError: memory has run out or
    a process that prepares batches has died. SystemExit, with a checkpoint written: a signal came (pretrain/checkpoint.py).
    """
    name = method.__name__.rpartition(".")[2]
    folder = Folder(Path(data))
    recipe = resolved(method, folder, scale, variant, epochs, batch_size, overrides)
    process = dist.process()
    if process.device.type != "cuda" and recipe["precision"] == "fp16":
        raise ValueError("expected CUDA for precision=fp16, found the CPU: precision=bf16 or precision=fp32")
    torch.manual_seed(seed)
    model = method.METHOD(arch, recipe).to(process.device, memory_format=torch.channels_last)
    check_parts(name, model, recipe, accumulate)
    run_of = {
        "method": name,
        "arch": arch,
        "scale": scale,
        "seed": seed,
        "recipe": recipe,
        "data": {"folder": folder.name, "images": len(folder)},
        "names": folder.paths.sha256(),
        "accumulate": accumulate,
    }
    if hasattr(model, "origin"):  # the run whose weights this one begins from
        run_of["origin"] = model.origin
    chief = process.rank == 0
    with checkpoint.locked(out, chief), checkpoint.signals(process) as stop:
        state = checkpoint.load(out, run_of, resume)
        checkpoint.shared(out, state, process)
        if state and state["step"] == state["steps"] and outputs.written(out):
            if chief:
                log.say(f"{out / 'backbone.pth'} is finished already")
            dist.leave()
            return out / "backbone.pth"
        with faults.in_words(folder, recipe["batch_size"], workers(process.device)):
            faults.preflight(folder, skip_bad, chief)
            if chief:
                log.say(outputs.title(run_of, process))
                if warning := leak(recipe):
                    log.say(warning)
            training = Training(model, folder, run_of, process)
            if state:
                training.restore(state)
            watch = monitor.Monitor(folder, labelled, recipe, process, workers(process.device))
            if chief:
                outputs.describe(out, run_of, overrides, state, {"data": str(Path(data).absolute()), **(about or {})})
            del state  # as large as all that is trained
            with contextlib.closing(log.Log(out, training.step, training.lines, chief)) as diary:
                _train(training, out, diary, watch, stop)
        if chief:
            outputs.write_backbone(training, dict(overrides or {}), out)
        dist.leave()
    return out / "backbone.pth"


KEPT = ("step", "seconds", "sums", "counted", "lines", "skipped")  # of Training's plain values


class Training:
    """A method in training: what a step changes, and what last.pth keeps of it."""

    def __init__(self, model: nn.Module, folder: Folder, run_of: dict[str, Any], process: dist.Process) -> None:
        self.recipe, self.seed, self.device = run_of["recipe"], run_of["seed"], process.device
        self.parts = run_of.get("accumulate", 1)
        self.run_of, self.folder, self.process = run_of, folder, process
        # a GPU does the colours; a CPU has them from the loader, which is faster there
        later = self.device.type == "cuda"
        self.source = Steps(folder, self.recipe, self.seed, process.rank, process.world_size, later)
        self.per_epoch = self.source.per_epoch
        self.steps = self.per_epoch * self.recipe["epochs"]
        # over which the momentum rises: PixPro counts the fraction of an epoch that drop-last leaves out (contrast/models/PixPro.py,
        # self.K), as BYOL does
        whole = getattr(model, "whole_epochs", False)
        self.horizon = self.steps if whole else int(len(folder) / self.recipe["batch_size"] * self.recipe["epochs"])
        if self.recipe["sync_bn"] and process.world_size > 1:
            model = dist.synchronised(model, self.device)
        self.model = model.train()
        self.optimiser = optim.optimiser(model, self.recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe["precision"] == "fp16")
        self.step, self.seconds = 0, 0.0
        # of the line that log.jsonl gets next: what was summed up over how many steps; the lines that it has
        self.sums: dict[str, torch.Tensor] = {}
        self.counted, self.lines = 0, 0
        self.skipped: list[int] = []  # bad images that were met, by their numbers
        self.losses: deque[torch.Tensor] = deque(maxlen=60)  # the last ones, of more steps than a line of the log has
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
        for key in KEPT:
            setattr(self, key, state[key])
        self.sums = {key: value.to(self.device) for key, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        """What last.pth keeps. FloatingPointError: the loss is no longer finite."""
        self.check()
        return {
            "run": self.run_of,
            "steps": self.steps,
            **{key: getattr(self, key) for key in KEPT},
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def autocast(self) -> torch.autocast:
        precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.recipe["precision"]]
        return torch.autocast(self.device.type, precision, enabled=precision is not None)

    def normalised(self, pixels: Pixels) -> torch.Tensor:
        """uint8 [..., S, S, 3] -> [..., 3, S, S] on the device; NHWC uint8 seen as NCHW is channels-last."""
        if isinstance(pixels, colours.Uncoloured):
            x = pixels.on(self.device)
        else:
            x = pixels.to(self.device, non_blocking=True).movedim(-1, -3).float()
        return x.sub_(self.mean).div_(self.std)

    def part(self, name: str) -> Any:
        """The method's part of that name, of the branch that is kept where it has two; None where it has none."""
        return getattr(self.model, getattr(self.model, "kept", "") + name, None)

    def call(self, hook: str, *arguments: Any) -> None:
        """A method's hook, where it has it."""
        getattr(self.model, hook, lambda *_: None)(*arguments)

    def begin_epoch(self) -> None:
        """What a method does before an epoch; `survey` may look at every image of the folder.

        The hook's images are batches of (views, indices): `survey_views` random views if the method says so, else the centre. They
        come in the order of a first epoch: in the folder's a batch has few classes, and batch norm takes out what its images share.
        """
        epoch = self.step // self.per_epoch
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        self.call("before_epoch", epoch)
        if hasattr(self.model, "survey"):
            number = getattr(self.model, "survey_views", None)
            order = np.random.default_rng((self.seed, 0)).permutation(len(self.folder))
            look = Survey(
                self.folder, self.recipe, self.seed, self.process.rank, self.process.world_size, number, order
            )
            with self.autocast():
                self.model.survey(epoch, self.seen(look))

    def seen(self, look: Survey) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        for pixels, indices in batches(look, 0, len(look), workers(self.device), self.device.type == "cuda"):
            yield [self.normalised(x) for x in pixels], indices.to(self.device)

    def update(self, pixels: Sequence[Pixels], boxes: Any, labels: Any, indices: Any) -> dict[str, torch.Tensor]:
        """One step on a batch; its loss and the method's statistics, means over the processes, scalars on the device.

        Nothing has waited for them. They are shared at every step, not where a line is written: a checkpoint between two lines keeps
        their sums.
        """
        if self.step % self.per_epoch == 0:
            self.begin_epoch()
        optim.set_learning_rate(self.optimiser, self.lr(), self.recipe["lr"])
        torch.manual_seed(self.seed * 1_000_003 + self.step)  # what the method draws depends on the step alone
        progress = self.step / self.horizon
        boxes, labels, indices = (x.to(self.device, non_blocking=True) for x in (boxes, labels, indices))
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.backward(pixels, boxes, labels, progress, indices)
        self.scaler.unscale_(self.optimiser)
        self.call("before_update", self.step, self.per_epoch)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.call("after_update", progress)
        values = {"loss": loss, **self.model.statistics}
        means = dist.mean(torch.stack([self.scalar(x) for x in values.values()]))
        loss = means[0]
        self.losses.append(loss)
        self.step += 1
        found = torch.stack([loss, torch.full_like(loss, self.step)])
        self.wrong = torch.where((self.wrong[1] == 0) & ~loss.isfinite(), found, self.wrong)
        return dict(zip(values, means, strict=True))

    def scalar(self, x: torch.Tensor | float) -> torch.Tensor:
        """x on the device in double precision, which nothing waits for: the device fills in a number when its turn comes."""
        return x.detach().double() if isinstance(x, torch.Tensor) else self.wrong.new_full((), x)

    def check(self) -> None:
        """FloatingPointError: a step's loss was not finite. It waits for the device, and therefore stands where the log does."""
        loss, step = self.wrong.tolist()
        if step:
            raise self.diverged(f"a finite loss, found {loss}", int(step))

    def backward(
        self, pixels: Sequence[Pixels], boxes: Any, labels: Any, progress: float, indices: Any
    ) -> torch.Tensor:
        """The loss of a batch, whose gradient is left in the parameters.

        With `accumulate`, loss, gradient and statistics are the mean over parts of the batch; the processes exchange gradients once.
        """
        total, statistics, size = torch.zeros((), device=self.device), [], len(indices) // self.parts
        for start in range(0, len(indices), size):
            part = slice(start, start + size)
            views = [self.normalised(x[part]) for x in pixels]
            more = start + size < len(indices) and self.process.world_size > 1
            with self.net.no_sync() if more else contextlib.nullcontext():
                with self.autocast():
                    loss = self.net(views, boxes[:, part], labels[part], progress, indices[part]) / self.parts
                self.scaler.scale(loss).backward()
            total, statistics = total + loss.detach(), [*statistics, self.model.statistics]
        if self.parts > 1:
            mean = {key: sum(self.scalar(s[key]) for s in statistics) / self.parts for key in statistics[0]}
            self.model.statistics = mean
        return total

    def diverged(self, what: str, step: int) -> FloatingPointError:
        """Says at which step, with which learning rate and batch, and what the last finite losses were."""
        lr = optim.learning_rate(step - 1, self.per_epoch, self.recipe)
        finite = [f"{loss:.6g}" for loss in map(float, self.losses) if math.isfinite(loss)]
        return FloatingPointError(
            f"expected {what} at lr {lr:.6g}, batch {self.recipe['batch_size']}, step {step} of {self.steps} (the last finite losses: "
            f"{', '.join(finite[-5:]) or 'none'}): what was saved before is kept; lower the learning rate "
            f"(lr={self.recipe['lr'] / 2:.3g}) or lengthen the warm-up"
        )

    def check_weights(self) -> None:
        """FloatingPointError where a weight is no longer finite: the next loss would not be, and this state is not worth keeping."""
        self.check()
        for name, parameter in self.model.named_parameters():
            if not parameter.isfinite().all():
                raise self.diverged(f"finite weights, found others in {name}", self.step)

    @torch.no_grad()
    def features(self, pixels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """[N, C] of all processes: the backbone in evaluation mode on batches of uint8 [N, S, S, 3] of this process.

        And what the method's `projector` or `head` makes of it, [N, C'], where it takes the backbone's features and is no classifier.
        """
        modes = {part: part.training for part in self.model.modules()}
        self.model.eval()
        # before the first step batch norm divides by 1: a ResNet-101's features are then beyond half precision's 65,504
        half = self.recipe["precision"] == "fp16"
        with contextlib.nullcontext() if half else self.autocast():
            found = torch.cat([dist.gathered(self.part("backbone")(self.normalised(x))) for x in pixels])
            head = None if getattr(self.model, "classifies", False) else self.part("projector") or self.part("head")
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
    if "BENCH_WORKERS" in os.environ:
        return int(os.environ["BENCH_WORKERS"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))) if device.type == "cuda" else 1


def _train(training: Training, out: Path, diary: log.Log, watch: monitor.Monitor, stop: checkpoint.Stop) -> None:
    """All steps that are left, with their log, last.pth and a look before the first and after every epoch."""
    recipe, steps, per_epoch = training.recipe, training.steps, training.per_epoch
    first, before, saved = training.step, training.seconds, time.monotonic()
    began = mark = saved
    fresh = 0  # steps since `mark`
    every = max(1, min(50, per_epoch // 10))
    pin, title = training.device.type == "cuda", f"{training.run_of['method']} {training.run_of['arch']}"
    with log.progress(title, recipe["batch_size"], steps, first, diary.chief) as show:
        for batch in batches(training.source, first, steps, workers(training.device), pin):
            if training.step % per_epoch == 0:
                looked = _look(training, watch, diary, stop)
                began, mark = began + looked, mark + looked  # the time of looking is not the training's
            stop.patient, lr = True, training.lr()
            _note_skipped(training, batch[3], diary)
            values = training.update(*batch)
            step, now = training.step, time.monotonic()
            training.seconds = before + now - began
            training.counted, fresh = training.counted + 1, fresh + 1
            sums = training.sums
            training.sums = {key: sums[key] + value if key in sums else value for key, value in values.items()}
            if step % every == 0 or step == steps:
                training.check()
                line = {"epoch": round(step / per_epoch, 4), "step": step, "lr": lr}
                line |= {key: float(value) / training.counted for key, value in training.sums.items()}
                speed = fresh * recipe["batch_size"] / max(now - mark, 1e-9)
                diary.line(line | {"images_per_second": round(speed, 1)})
                training.sums, mark, training.counted, fresh = {}, now, 0, 0
            show(step, values["loss"], (step - first) * recipe["batch_size"] / (now - began))
            ending = stop.asked()
            if step % per_epoch == 0 or now - saved > SAVE_SECONDS or ending:
                training.check_weights()
                training.lines, saved = diary.count, now
                if diary.chief:
                    checkpoint.save(out, training.state())
            if ending:
                dist.leave()
                stop.end(f"saved after step {step} of {steps} in {out / 'last.pth'}")
    _look(training, watch, diary, stop)


def _note_skipped(training: Training, used: torch.Tensor, diary: log.Log) -> None:
    """Name in the log the images of this step that are bad, the first time. ValueError: they are more than may be."""
    folder = training.folder
    if not folder.allowed:
        return
    wanted = torch.from_numpy(training.source.indices(training.step))
    wanted, used = (dist.gathered(x.to(training.device)).cpu() for x in (wanted, used))
    new = [i for i in faults.skipped(folder, wanted, used) if i not in training.skipped]
    training.skipped = training.skipped + new
    folder.refuse(training.skipped)
    for i in new:
        name = str(folder.paths[i].relative_to(folder.root))
        diary.line({"epoch": round(training.step / training.per_epoch, 4), "step": training.step + 1, "skipped": name})


def _look(training: Training, watch: monitor.Monitor, diary: log.Log, stop: checkpoint.Stop) -> float:
    """Write what the monitor sees into the log, warn of a collapse, and give the seconds that this took.

    What stands before a look is saved, so that a signal may end it.
    """
    began = time.monotonic()
    stop.hurry()
    dist.share_statistics(training.model)
    seen = watch.look(training.features)
    diary.line({"epoch": round(training.step / training.per_epoch, 4), "step": training.step, **seen})
    if diary.chief and training.step >= monitor.MATURE and (low := monitor.collapsed(seen)):
        log.say(
            f"warning: the features have collapsed after step {training.step}: {low} ({monitor.__name__} says what they are)"
        )
    return time.monotonic() - began
