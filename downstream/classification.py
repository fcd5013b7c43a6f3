"""ImageNet classification with torch alone: a linear classifier, nearest neighbours, or fine-tuning on few labels.

    linear    the backbone is frozen, BN statistics included; one linear layer learns on its pooled features
    knn       no training: a test image's nearest training images vote, each with exp(cosine / temperature)
    finetune  the whole network learns on 1 or 10 percent of the labels

    bench transfer --task imagenet_linear --checkpoint FILE

    imagenet/{train,val}/<class>/       images, the same classes in both
    imagenet/subsets/1percent.txt       (or imagenet_subsets/; likewise 10percent.txt) SimCLR's lists of the labelled training
                                        images, a file name such as n01440764_10026.JPEG a line: imagenet_subsets/ of
                                        google-research/simclr

Without a list, every class gives its share of images (at least one), drawn from a fixed seed, the same in every trial. The
record names the list, and tells SimCLR's own by its sha256.

Every training crop is a function of (seed, epoch, place in the epoch), so a resumed training sees the same ones, and the
number of processes changes none. An epoch ends with a smaller batch, filled up from its start to a multiple of the number of
processes, as torch's DistributedSampler does, unless the protocol's batches run on over the ends of epochs. After each epoch the
validation images are tested: top1 and top5 are the last epoch's, top1_best and top5_best those of the epoch with the best top1,
which is chosen on the test images.

Backbone and features run in the protocol's precision, the classifier and its loss always in float32.
"""

import contextlib
import dataclasses
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from downstream import broken, checkpoint, datasets, resnets
from downstream.interruption import Watch
from downstream.neighbours import nearest, vote
from downstream.task import TRAITS, Classification, digest, iterations, trains
from downstream.trial import (
    SAVE_SECONDS,
    Place,
    Progress,
    agreed,
    ahead,
    counted,
    effective,
    fingerprint,
    in_parts,
    order,
    place,
    share,
    share_statistics,
    unsynchronised,
    write_json,
)
from downstream.weights import land

CHECKED_IMAGES = 64  # of a split that are opened before a training
# Images that a process tests at a time, at most: a protocol's batch of 4096 is shared out in training alone.
TESTED = 256
KEPT_BYTES = 64 << 20  # image files that are smaller in all are decoded once and kept
COLDEST = 0.0125  # of nearest neighbours: the votes exp(1 / temperature) of less are infinite in float32
TRAINING = (  # what nearest neighbours do not read
    "accumulate", "area", "epochs", "lr", "head_lr", "head_std", "optimiser", "trust", "momentum", "weight_decay", "schedule", "steps", "gamma", "continuous",
)  # fmt: skip
DRAW_SEED = 0  # of the labelled images where there is no list
SIMCLR = {  # sha256 of google-research/simclr imagenet_subsets/{1,10}percent.txt: 12,811 and 128,116 names
    1: "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17",
    10: "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091",
}
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


# Data


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of a split by class and name: files, their classes as indices, their sizes in bytes."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    sizes: tuple[int, ...]

    def part(self, chosen: Sequence[int]) -> "Split":
        return Split(*(tuple(column[i] for i in chosen) for column in (self.files, self.labels, self.sizes)))


def found(task: Classification, data: Path) -> dict[str, Any]:
    """{"train", "test"}: images; "classes": their number; "digest": sha256 of names and sizes; "labels", "labels_sha256": the
    list of the labelled images, in a protocol that has only some.

    Raises FileNotFoundError for a missing folder or listed image, and ValueError for a protocol that cannot run, classes that
    differ between train and val, a class without images and, among `CHECKED_IMAGES` of a split, a broken one.
    """
    return _splits(task, data)[0]


def _splits(task: Classification, data: Path) -> tuple[dict[str, Any], Split, Split]:
    _check(task)
    root = datasets.own_folder(Path(data), "imagenet")
    (classes, train), (tested, test) = (_split(root, name) for name in ("train", "val"))
    if differing := sorted(set(classes) ^ set(tested)):
        raise ValueError(
            f"expected the same classes in {root / 'train'} and {root / 'val'}, found {len(classes)} and {len(tested)}, "
            f"{differing[0]} in only one of them: complete the one or remove the class from the other"
        )
    about: dict[str, Any] = {}
    if task.labels < 100:
        chosen, about = _labelled(task, Path(data), train, classes)
        train = train.part(chosen)
    if task.kind == "knn" and max(task.neighbours) > len(train.files):
        raise ValueError(
            f"expected at least {max(task.neighbours)} training images for as many neighbours, found {len(train.files)} in "
            f"{root / 'train'}: add images, or ask for fewer ('neighbours=[{min(20, len(train.files))}]')"
        )
    content = hashlib.sha256()
    for name, split in (("train", train), ("val", test)):
        for file, size in zip(split.files, split.sizes, strict=True):
            content.update(f"{name} {file.parent.name}/{file.name} {size}\n".encode(errors="surrogateescape"))
        tolerant = name == "train" and task.skip_bad  # then every image is decoded later
        checked = 0 if tolerant else min(len(split.files), CHECKED_IMAGES)
        for i in np.linspace(0, len(split.files) - 1, checked).round().astype(int):
            _read(split.files[i])
    counts = {"train": len(train.files), "test": len(test.files), "classes": len(classes)}
    return counts | {"digest": content.hexdigest()} | about, train, test


def _check(task: Classification) -> None:
    def wants(what: str, value: Any) -> ValueError:
        return ValueError(f"expected {what} in {task.name}, found {value!r}: correct the KEY VALUE pair")

    choices = {
        "kind": ("linear", "knn", "finetune"),
        "optimiser": ("sgd", "nesterov", "lars"),
        "schedule": ("step", "cosine"),
        "interpolation": tuple(RESAMPLING),
        "precision": ("fp32", "bf16"),
    }
    for name, known in choices.items():
        if getattr(task, name) not in known:
            raise wants(f"{name} to be {' or '.join(known)}", getattr(task, name))
    trained = task.kind != "knn"
    for name, low in {"view": 32, "batch": 1, "labels": 1, "epochs": int(trained)}.items():
        value = getattr(task, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise wants(f"{name} to be a whole number from {low}", value)
    if task.labels > 100:
        raise wants("labels to be a percentage", task.labels)
    if not isinstance(task.resize, int) or task.resize < task.view:
        raise wants(f"resize to be a whole number from {task.view}, the view", task.resize)
    if trained and not (isinstance(task.lr, int | float) and 0 < task.lr < math.inf):
        raise wants("lr to be a positive number", task.lr)
    if task.optimiser == "nesterov" and not task.momentum > 0:
        raise wants("momentum to be above 0, which nesterov needs,", task.momentum)
    if not trained:
        counts = task.neighbours if isinstance(task.neighbours, tuple) else ()
        if not counts or not all(isinstance(k, int) and k > 0 for k in counts):
            raise wants("neighbours to be a list of whole numbers from 1", task.neighbours)
        if not (isinstance(task.temperature, int | float) and task.temperature >= COLDEST):
            raise wants(f"temperature to be a number from {COLDEST}", task.temperature)
    if idle := sorted(_unread(task) & set(task.nonstandard)):
        raise ValueError(
            f"expected keys that {task.name} reads ({task.kind}, {task.schedule}, {task.optimiser}), found {', '.join(idle)}, which "
            "would change nothing: leave the KEY VALUE pair out"
        )


def _unread(task: Classification) -> set[str]:
    """The fields that a protocol of this kind, schedule and optimiser does not read."""
    if task.kind == "knn":
        return set(TRAINING)
    unread = {"neighbours", "temperature"}
    if task.optimiser != "lars":
        unread.add("trust")
    if task.schedule != "step":
        unread |= {"gamma", "steps"} if task.steps else {"gamma"}  # a cosine may say that it has no steps
    return unread


def _split(root: Path, name: str) -> tuple[list[str], Split]:
    """The classes of a split, sorted, and its images."""
    folder = root / name
    if not folder.is_dir():
        archive = root / "ILSVRC/Data/CLS-LOC" / name
        inner = f" but {archive}, which belongs there (a link will do)" if archive.is_dir() else ""
        raise FileNotFoundError(
            f"expected ImageNet as {{train,val}}/<class>/ in {root}, found no folder {folder}{inner}: give the parent of imagenet/ as "
            "--data, or draw one: bench data synthesize DIR"
        )
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not classes:
        flat = any(entry.name.lower().endswith(datasets.SUFFIXES) for entry in entries)
        raise FileNotFoundError(
            f"expected a folder a class in {folder}, found {'images without one' if flat else 'none'}: "
            + (
                "sort them into their classes (valprep.sh does it for ILSVRC's val)"
                if flat
                else "extract the images there"
            )
        )
    rows: list[tuple[Path, int, int]] = []
    for label, wnid in enumerate(classes):
        images = sorted(_images(folder / wnid))
        if not images:
            raise ValueError(f"expected images in {folder / wnid}, found none: extract them again, or remove the class")
        rows += [(Path(path), label, size) for path, size in images]
    files, labels, sizes = zip(*rows, strict=True)
    return classes, Split(files, labels, sizes)


def _images(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[str, int]]:
    """Path and size of the images in a folder and below it, as Tiny ImageNet's train/<class>/images/; `above` are the folders
    that it stands in."""
    about = folder.stat()
    if (key := (about.st_dev, about.st_ino)) in above:
        raise ValueError(f"expected folders and images, found the link {folder} to a folder above it: remove the link")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _images(Path(entry.path), (*above, key))
            elif entry.name.lower().endswith(datasets.SUFFIXES) and not entry.name.startswith("."):
                if not entry.is_file():
                    raise ValueError(
                        f"expected image files, found {entry.path}, a link that leads nowhere or no file: mend or remove it"
                    )
                yield entry.path, entry.stat().st_size


def _labelled(
    task: Classification, data: Path, train: Split, classes: Sequence[str]
) -> tuple[list[int], dict[str, Any]]:
    """Which training images have a label, and the name and sha256 of their list."""
    name = f"{task.labels}percent.txt"
    listing = next((p for p in (f"imagenet/subsets/{name}", f"imagenet_subsets/{name}") if (data / p).is_file()), None)
    if listing is None:
        labels = np.array(train.labels)
        chosen: list[int] = []
        for label in range(len(classes)):
            members = np.flatnonzero(labels == label)
            count = max(1, round(len(members) * task.labels / 100))
            drawn = np.random.default_rng((DRAW_SEED, label)).choice(members, count, replace=False)
            chosen += sorted(drawn.tolist())
        text = "".join(f"{train.files[i].name}\n" for i in chosen)
        about = f"drawn, {task.labels} percent of every class, seed {DRAW_SEED}"
        return chosen, {
            "labels": about,
            "labels_sha256": hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest(),
        }
    content = (data / listing).read_bytes()
    numbers = {file.name: i for i, file in enumerate(train.files)}
    listed = [line.strip() for line in datasets.lines(data / listing)]
    several = Counter(file.name for file in train.files)
    if twice := [line for line in listed if several[line] > 1]:
        raise ValueError(
            f"expected every name of {data / listing} once in imagenet/train, found {several[twice[0]]} images named {twice[0]}: "
            "give them names of their own, or remove the list and have a class-balanced one drawn"
        )
    if absent := [line for line in listed if line not in numbers]:
        raise FileNotFoundError(
            f"expected the {len(listed)} images of {data / listing} in imagenet/train, found {len(absent)} missing such as "
            f"{absent[0]}: complete the training set, or remove the list and have a class-balanced one drawn"
        )
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(
            f"expected file names, each once, in {data / listing}, found {len(listed)} lines with {len(set(listed))} names: "
            "fetch it again from google-research/simclr imagenet_subsets/"
        )
    sha = hashlib.sha256(content).hexdigest()
    about = f"{listing}, {'as' if sha == SIMCLR.get(task.labels) else 'not as'} SimCLR published it"
    return [numbers[line] for line in listed], {"labels": about, "labels_sha256": sha}


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            # PIL would clip 16 bits where it should scale them; those of a PGM are 32-bit integers to it
            if picture.mode.startswith("I;16") or (picture.mode, picture.format) == ("I", "PPM"):
                return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
            return picture.convert("RGB")
    except MemoryError:
        raise
    except (
        Exception
    ):  # PIL's decoders raise all sorts of things for what is no picture, cut short, damaged or too large
        raise ValueError(f"expected a readable image, found a broken or foreign file: {path}; fetch it again") from None


class Pictures:
    """The decoded images of a split by their number; kept in memory where all its files are small."""

    def __init__(self, split: Split):
        self.files = split.files
        self.keep = sum(split.sizes) <= KEPT_BYTES
        self.kept: dict[int, Image.Image] = {}

    def __getitem__(self, number: int) -> Image.Image:
        picture = self.kept.get(number) or _read(self.files[number])
        if self.keep:
            self.kept[number] = picture
        return picture


def crop_box(
    width: int, height: int, area: tuple[float, float], draw: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random crop as torchvision's RandomResizedCrop draws it: left, top, width, height in pixels.

    area: of the crop as a fraction of the image; the aspect ratio is log-uniform in [3/4, 4/3]. After ten crops that do not
    fit, the middle of the image, as much of it as the ratio allows.
    """
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        target = width * height * draw.uniform(*area)
        ratio = math.exp(draw.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1)), w, h
    w = min(width, round(height * high))
    h = min(height, round(width / low))
    return (width - w) // 2, (height - h) // 2, w, h


def training_view(picture: Image.Image, task: Classification, draw: np.random.Generator) -> np.ndarray:
    """[view, view, 3] uint8 RGB: a random crop, flipped every second time."""
    left, top, w, h = crop_box(*picture.size, task.area, draw)
    cropped = picture.crop((left, top, left + w, top + h))
    pixels = np.asarray(cropped.resize((task.view, task.view), RESAMPLING[task.interpolation]))
    return pixels[:, ::-1] if draw.random() < 0.5 else pixels


def central_view(picture: Image.Image, task: Classification) -> np.ndarray:
    """[view, view, 3] uint8 RGB: the middle of the image at `resize` pixels on its shorter side, as torchvision cuts it."""
    width, height = picture.size
    short = min(width, height)
    width, height = (task.resize if side == short else int(task.resize * side / short) for side in (width, height))
    left, top = round((width - task.view) / 2), round((height - task.view) / 2)
    resized = picture.resize((width, height), RESAMPLING[task.interpolation])
    return np.asarray(resized.crop((left, top, left + task.view, top + task.view)))


def epoch_of(task: Classification, images: int, iteration: int) -> int:
    """The epoch in which an iteration begins, counted from 0."""
    if task.continuous:
        return min(iteration * task.batch // images, task.epochs - 1)
    return iteration // -(-images // task.batch)


def places(task: Classification, images: int, iteration: int, world: int, rank: int) -> list[tuple[int, int]]:
    """This process's share of an iteration: epochs, and places in the epoch's order, where one past the end is its start again."""
    if task.continuous:
        first = iteration * task.batch
        return [divmod(place, images) for place in range(first + rank, first + task.batch, world)]
    epoch, i = divmod(iteration, -(-images // task.batch))
    start, end = i * task.batch, min(images, (i + 1) * task.batch)
    end += -(end - start) % world
    return [(epoch, place) for place in range(start + rank, end, world)]


def _batch(views: Sequence[np.ndarray], traits: Mapping[str, Any], device: torch.device) -> Tensor:
    """[N, 3, H, W] float32, channels last, in the channel order, mean and std of the weights."""
    pixels = torch.from_numpy(np.stack(views)).to(device)
    if traits["channel_order"] == "BGR":
        pixels = pixels.flip(3)
    mean, std = (torch.tensor(traits[key], dtype=torch.float32, device=device) for key in ("mean", "std"))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


# Network


class Network(nn.Module):
    """[N, 3, H, W] -> logits [N, classes] in float32; a frozen backbone has neither gradients nor running statistics."""

    def __init__(self, backbone: nn.Module, head: nn.Module, frozen: bool):
        super().__init__()
        self.backbone, self.head, self.frozen = backbone, head, frozen
        backbone.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features.float())


def pooled(arch: str, traits: Mapping[str, Any] = TRAITS) -> tuple[nn.Module, int]:
    """torchvision's ResNet up to its global average pool, [N, 3, H, W] -> [N, D], as torchvision draws it; and D."""
    plan = resnets.arch(arch)
    if plan.width > 1 or plan.deep or traits["stem"] != "7x7":
        raise ValueError(
            f"expected one of torchvision's own ResNets with its 7x7 stem, found {arch} with stem {traits['stem']}: detection and "
            "segmentation take others"
        )
    model = getattr(torchvision.models, arch)()
    width = model.fc.in_features
    model.fc = nn.Identity()
    for module in model.modules():
        if traits["stride_in_1x1"] and isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return model, width


def network(task: Classification, arch: str, classes: int, traits: Mapping[str, Any] = TRAITS) -> Network:
    """The backbone and its classifier, an identity for nearest neighbours."""
    backbone, width = pooled(arch, traits)
    if task.kind == "knn":
        return Network(backbone, nn.Identity(), frozen=True)
    head = nn.Linear(width, classes)
    if task.head_std is not None:
        nn.init.normal_(head.weight, std=task.head_std)
        nn.init.zeros_(head.bias)
    return Network(backbone, head, frozen=task.kind == "linear")


def blank(task: Classification, arch: str) -> nn.Module:
    """What of a protocol's network learns ImageNet's 1,000 classes, without numbers in its tensors."""
    with torch.device("meta"):
        model = network(task, arch, 1000)
    return model.head if model.frozen else model


def macs(task: Classification, arch: str) -> dict[str, float]:
    """Multiply-accumulates for one image, of convolutions only: "train" forward, and twice that backward where the backbone
    learns; "test" forward."""
    once = forward_macs(arch, task.view)
    return {"train": once * (3 if task.kind == "finetune" else 1), "test": once}


def forward_macs(arch: str, view: int) -> float:
    """Multiply-accumulates of the backbone's convolutions for one image of `view` x `view` pixels."""
    with torch.device("meta"), torch.no_grad():
        model = pooled(arch)[0].eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, view, view))
    return counter.get_total_flops() / 2


# Training


def learning_rate(task: Classification, epoch: float, peak: float) -> float:
    """Of an epoch, counted from 0, or, where the schedule is continuous, a fraction of it."""
    if task.schedule == "cosine":
        return peak * (1 + math.cos(math.pi * epoch / task.epochs)) / 2
    return peak * task.gamma ** sum(epoch >= step for step in task.steps)


@torch.no_grad()
def larc(parameters: Sequence[nn.Parameter], trust: float, weight_decay: float) -> None:
    """Scales the gradients in place as apex's LARC does with clip off, weight decay included; SGD without decay follows.

    g <- (g + decay * w) * trust * |w| / (|g| + decay * |w| + 1e-8); a tensor whose norm or gradient is 0 keeps its gradient,
    as the classifier's bias does in the first step.
    """
    for w in parameters:
        assert w.grad is not None
        w_norm, g_norm = w.norm(), w.grad.norm()
        if w_norm > 0 and g_norm > 0:
            w.grad.add_(w, alpha=weight_decay).mul_(trust * w_norm / (g_norm + weight_decay * w_norm + 1e-8))


def _optimiser(task: Classification, model: Network) -> torch.optim.SGD:
    """SGD over the classifier and, where it learns, the backbone; a group's "peak" is its learning rate before it falls."""
    head_lr = task.lr if task.head_lr is None else task.head_lr
    groups: list[dict[str, Any]] = [{"params": list(model.head.parameters()), "peak": head_lr}]
    if not model.frozen:
        groups.append({"params": list(model.backbone.parameters()), "peak": task.lr})
    decay = 0.0 if task.optimiser == "lars" else task.weight_decay
    nesterov = task.optimiser == "nesterov"
    return torch.optim.SGD(groups, lr=task.lr, momentum=task.momentum, weight_decay=decay, nesterov=nesterov)


@dataclasses.dataclass(frozen=True)
class Job:
    """What a trial does, on what, where."""

    task: Classification
    traits: Mapping[str, Any]
    train: Split
    test: Split
    classes: int
    seed: int
    where: Place
    out: Path

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.where.device.type, torch.bfloat16, enabled=self.task.precision == "bf16")


def run(
    task: Classification,
    tensors: Mapping[str, Tensor] | None,
    traits: Mapping[str, Any],
    arch: str,
    data: Path,
    out: Path,
    seed: int,
    resume: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """Trains and tests once: {"metrics", "loaded", "effective", "seconds": {"train", "test"}}.

    tensors: the backbone under torchvision's names, or None for a random one
    resume:  goes on from out/last.pth if there is one; otherwise a former training in `out` is overwritten
    keep:    "network", the trained network's tensors, is in the result too

    Writes out/loaded.json, out/log.jsonl, out/tensorboard/, out/last.pth and out/metrics.json (what is returned, every epoch's
    test, and "trained", the fingerprint of the trained network). Raises ValueError for weights that do not land and a
    checkpoint of another run, FloatingPointError for a loss or a feature that is not finite.
    """
    where = place()
    if trains(task):
        share(task.batch, where.world)
    about, train, test = _splits(task, data)
    if where.world > (fewest := min(len(train.files), len(test.files))):
        raise ValueError(
            f"expected a training and a test image for each process, found {fewest} for {where.world}: start fewer processes"
        )
    files, images = train.files + test.files, len(train.files)
    kept, skipped = broken.preflight(
        range(images), range(images, len(files)), lambda i: _read(files[i]), task.skip_bad, where, task.name
    )
    train = train.part(kept) if skipped else train
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = network(task, arch, about["classes"], traits)
    names = [name for name, _ in model.named_parameters()]
    matched = 0
    if tensors is not None:
        matched = land(model.backbone, tensors)
        names = [name for name in names if name.startswith("head.")]
    loaded = {"matched": matched, "missing": names, "unused": []}
    norm = "FrozenBN" if model.frozen else "BN"
    if not model.frozen and where.world > 1 and where.device.type == "cuda":
        model, norm = nn.SyncBatchNorm.convert_sync_batchnorm(model), "SyncBN"
    model = model.to(where.device).to(memory_format=torch.channels_last)
    if where.rank == 0:
        write_json(out / "loaded.json", loaded)
    job = Job(task, traits, train, test, about["classes"], seed, where, out)
    origin = {"protocol": digest(task), "seed": seed, "weights": fingerprint(tensors), "data": about["digest"]}
    before = fingerprint(model.backbone.state_dict()) if model.frozen else ""
    if task.kind == "knn":
        metrics, seconds, tests = _neighbours(model, job)
    else:
        tests, seconds = _train(model, job, origin, resume)
        best = max(tests, key=lambda each: each["top1"])
        metrics = {name: tests[-1][name] for name in ("top1", "top5")}
        metrics |= {f"{name}_best": best[name] for name in ("top1", "top5")}
    # what MoCo's main_lincls.py calls its sanity check
    assert not model.frozen or fingerprint(model.backbone.state_dict()) == before, "the frozen backbone moved"
    result = {
        "metrics": metrics,
        "loaded": loaded,
        "effective": effective(task, task.lr, iterations(task, about["train"])[0], norm, where.world, skipped)
        | {key: about[key] for key in ("labels", "labels_sha256") if key in about},
        "seconds": seconds,
    }
    if where.rank == 0:
        write_json(out / "metrics.json", result | {"tests": tests, "trained": fingerprint(model.state_dict())})
    return result | ({"network": model.state_dict()} if keep else {})


def class_names(task: Classification, data: Path) -> list[str]:
    """The names of the classes that the network tells apart, which are the folders', in its order."""
    return _split(datasets.own_folder(data, "imagenet"), "val")[0]  # has the same as train, and fewer images to look at


def predictions(
    task: Classification, about: Mapping[str, Any], tensors: Mapping[str, Tensor], images: Sequence[Path]
) -> Iterator[tuple[dict[str, Any], None]]:
    """Of each image the five likeliest classes and their probabilities.

    about: "arch", "traits" and "classes", the names of the network's classes
    tensors: the trained network's

    Raises ValueError for tensors of another network and for a file that is no image.
    """
    device = place().device
    model = network(task, about["arch"], len(about["classes"]), about["traits"])
    land(model, tensors, "the network")
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    for file in counted(images, "the photographs"):
        with torch.autocast(device.type, torch.bfloat16, enabled=task.precision == "bf16"), torch.inference_mode():
            logits = model(_batch([central_view(_read(file), task)], about["traits"], device))[0]
        best = logits.float().softmax(0).topk(min(5, len(logits)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield {"classes": [{"class": about["classes"][i], "probability": p} for i, p in pairs]}, None


def _train(
    model: Network, job: Job, origin: Mapping[str, Any], resume: bool
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Trains in place; every epoch's test, and the seconds, former parts of a resumed training included."""
    task, where = job.task, job.where
    optimiser = _optimiser(task, model)
    learning = [w for group in optimiser.param_groups for w in group["params"]]
    start, tests, seconds = 0, [], {"train": 0.0, "test": 0.0}
    if resume:
        start, tests, seconds = _resume(job.out, model, optimiser, origin)
        agreed(job.out / checkpoint.LAST, f"iteration {start}")
    elif where.rank == 0:
        checkpoint.remove(job.out)
    parallel: nn.Module = model
    if where.world > 1:
        dist.barrier()  # no process looks for a checkpoint after the first has taken it away
        parallel = nn.parallel.DistributedDataParallel(model)
    images, shown, tested = len(job.train.files), Pictures(job.train), Pictures(job.test)
    total = iterations(task, images)[0]

    def shared(iteration: int) -> list[tuple[int, int]]:
        return places(task, images, iteration, where.world, where.rank)

    def view(wanted: tuple[int, int]) -> tuple[np.ndarray, int]:
        epoch, position = wanted
        number = int(order(job.seed, epoch, images)[position % images])
        draw = np.random.default_rng((1, job.seed, epoch, position))
        return training_view(shown[number], task, draw), job.train.labels[number]

    wanted = (one for iteration in range(start, total) for one in shared(iteration))
    samples = ahead(view, wanted, depth=min(2 * len(shared(0)), 512))
    progress = Progress(task.name, total, task.batch, start, job.out / "log.jsonl", quiet=where.rank > 0)
    watch = Watch(job.out, task.batch, total, SAVE_SECONDS, where.device)
    began = time.monotonic()

    def spend(on: str) -> None:
        nonlocal began
        now = time.monotonic()
        seconds[on] += now - began
        began = now

    def save(done: int) -> None:
        spend("train")
        state = {"iteration": done, "tests": tests, "seconds": seconds, "origin": dict(origin)}
        if where.rank == 0:
            _save(job.out, model, optimiser, state)

    def test(epochs: int) -> None:
        """The test after so many epochs, unless it has been made; a checkpoint stands, so it may be interrupted."""
        if epochs > (tests[-1]["epoch"] if tests else 0):
            spend("train")
            with watch.paused():
                tests.append({"epoch": epochs} | _test(model, job, tested))
            spend("test")

    with contextlib.closing(samples), progress, watch:
        for iteration in range(start, total):
            epoch = epoch_of(task, images, iteration)
            test(epoch)
            model.train()
            gone = task.epochs * iteration / total if task.continuous else epoch
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(task, gone, group["peak"])
            views, labels = zip(*(next(samples) for _ in shared(iteration)), strict=True)
            parts, value, lr = in_parts(range(len(labels)), task.accumulate), 0.0, optimiser.param_groups[-1]["lr"]
            optimiser.zero_grad(set_to_none=True)
            for part in parts:
                low, high = part[0], part[-1] + 1
                with unsynchronised(parallel, part is parts[-1]):
                    with job.autocast():
                        logits = parallel(_batch(views[low:high], job.traits, where.device))
                    truth = torch.tensor(labels[low:high], device=where.device)
                    weight = len(part) / len(labels)
                    loss = F.cross_entropy(logits, truth) * weight
                    watch.look(loss.item() / weight, iteration, lr)
                    loss.backward()
                value += loss.item()
            if task.optimiser == "lars":
                larc(learning, task.trust, task.weight_decay)
            optimiser.step()
            progress.step(iteration + 1, {"loss": value}, lr)
            ends = iteration + 1 == total or epoch_of(task, images, iteration + 1) > epoch
            if watch.due(iteration + 1) or ends:
                save(iteration + 1)
            watch.pass_on(iteration + 1)
        test(task.epochs)
        save(total)
    return tests, seconds


def _save(out: Path, model: Network, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    learned = model.head if model.frozen else model
    checkpoint.save(out, dict(state) | {"model": learned.state_dict(), "optimiser": optimiser.state_dict()})


def _resume(
    out: Path, model: Network, optimiser: torch.optim.Optimizer, origin: Mapping[str, Any]
) -> tuple[int, list[dict[str, float]], dict[str, float]]:
    """Iterations done, tests and seconds, none where nothing was left; ValueError if the checkpoint belongs to another run."""
    state = checkpoint.load(out, origin)
    if state is None:
        return 0, [], {"train": 0.0, "test": 0.0}
    (model.head if model.frozen else model).load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["iteration"], state["tests"], state["seconds"]


# Test


def _outputs(model: Network, job: Job, pictures: Pictures, name: str = "") -> Iterator[tuple[Tensor, slice]]:
    """What the network says of the test view of this process's images, batch by batch, and which of them it was."""
    rank, world, size = job.where.rank, job.where.world, min(job.task.batch, TESTED)
    mine = range(rank, len(pictures.files), world)
    views = ahead(lambda i: central_view(pictures[i], job.task), mine, depth=2 * size)
    progress = Progress(name, len(mine), quiet=rank > 0 or not name)
    model.eval()
    with contextlib.closing(views), progress:
        for start in range(0, len(mine), size):
            stop = min(start + size, len(mine))
            batch = _batch([next(views) for _ in range(start, stop)], job.traits, job.where.device)
            with job.autocast(), torch.no_grad():
                answer = model(batch)
            progress.step(stop)
            yield answer, slice(start, stop)


def _own(labels: Sequence[int], where: Place) -> Tensor:
    """The labels of this process's share of a split."""
    return torch.tensor(labels[where.rank :: where.world], device=where.device)


def _summed(counts: Sequence[int], where: Place) -> list[int]:
    summed = torch.tensor(counts, device=where.device)
    if where.world > 1:
        dist.all_reduce(summed)
    return summed.tolist()


def _test(model: Network, job: Job, pictures: Pictures) -> dict[str, float]:
    """{"top1", "top5"} of the validation images, in percent."""
    labels = _own(job.test.labels, job.where)
    share_statistics(model, job.where)
    right = [0, 0]
    for logits, part in _outputs(model, job, pictures):
        hits = logits.topk(min(5, job.classes)).indices == labels[part, None]
        right = [right[0] + int(hits[:, 0].sum()), right[1] + int(hits.sum())]
    top1, top5 = (100 * count / len(job.test.files) for count in _summed(right, job.where))
    return {"top1": top1, "top5": top5}


def _features(model: Network, job: Job, split: Split, name: str) -> Tensor:
    """[N, D] float32 of unit length, of this process's share of a split."""
    whole = torch.empty(0)
    for features, part in _outputs(model, job, Pictures(split), name):
        if not features.isfinite().all():
            raise FloatingPointError(
                "expected finite features, found infinity or NaN: look at the checkpoint's weights"
            )
        if not part.start:  # room for all of them, once: ImageNet's are 10 GB
            whole = features.new_empty(len(_own(split.labels, job.where)), features.shape[1])
        whole[part] = F.normalize(features, dim=1)
    return whole


def _neighbours(model: Network, job: Job) -> tuple[dict[str, float], dict[str, float], list[dict[str, float]]]:
    """Top-1 for every k; the seconds, of the training features and of the rest; no epochs."""
    task, where = job.task, job.where
    began = time.monotonic()
    keys = _features(model, job, job.train, f"{task.name} training features")
    featured = time.monotonic()
    queries = _features(model, job, job.test, f"{task.name} test features")
    most = max(task.neighbours)
    labels, truth = _own(job.train.labels, where), _own(job.test.labels, where)
    if where.world == 1:
        cosines, voters = nearest(queries, keys, labels, most)
    else:
        cosines, voters = _shared(queries, keys, labels, most, where)
    right = [
        int((vote(cosines, voters, k, task.temperature, job.classes).argmax(1) == truth).sum()) for k in task.neighbours
    ]
    percent = [100 * count / len(job.test.files) for count in _summed(right, where)]
    metrics = {f"top1_k{k}": value for k, value in zip(task.neighbours, percent, strict=True)}
    return metrics, {"train": featured - began, "test": time.monotonic() - featured}, []


def _shared(queries: Tensor, keys: Tensor, labels: Tensor, k: int, where: Place) -> tuple[Tensor, Tensor]:
    """`nearest` for this process's queries among every process's keys: each asks its own keys for all, and the k best of what
    comes back stand.
    """
    everyones: list[Any] = [None] * where.world
    dist.all_gather_object(everyones, queries.cpu())
    answers = [nearest(theirs.to(where.device), keys, labels, k) for theirs in everyones]
    gathered: list[Any] = [None] * where.world
    dist.all_gather_object(gathered, [(cosines.cpu(), voters.cpu()) for cosines, voters in answers])
    cosines, voters = (torch.cat([other[where.rank][i] for other in gathered], 1).to(where.device) for i in (0, 1))
    best = cosines.topk(k)
    return best.values, voters.gather(1, best.indices)
