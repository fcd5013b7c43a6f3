"""Semantic segmentation with mmsegmentation: MoCo's FCN-16s (arXiv 1911.05722, appendix A.5) on a pretrained ResNet.

The backbone is mmsegmentation's plain `ResNet` whose last stage has stride 1 and dilation 2 in every 3x3 convolution, so the
map is 1/16 of the image; the head is two 3x3 convolutions of dilation 6 with BN and ReLU, and a 1x1 classifier. Nothing is
frozen. This is the only file in downstream/ that imports mmseg, mmcv or mmengine.

    bench transfer --task cityscapes_semantic --checkpoint FILE

    cityscapes/                          leftImg8bit/{train,val}/<city>, gtFine/{train,val}/<city> with labelTrainIds
    VOC2012/ or VOCdevkit/VOC2012/       JPEGImages, ImageSets/Segmentation/{train,val,trainaug or train_aug}.txt,
                                         SegmentationClass, SegmentationClassAug

VOC trains on the list trainaug (VOC's train and SBD's images) and tests on val. As in mmsegmentation's VOC12aug, an image of
VOC's train has VOC's label map (SegmentationClass), any other image of trainaug SBD's (SegmentationClassAug), and val VOC's.
So what an archive's SegmentationClassAug has for VOC's own images (VOC's map, SBD's drawing, which knows no 255, or none)
does not matter. No map takes the place of a missing one. As in mmsegmentation, an image is turned as its EXIF orientation
says and a label map is not: it must have the size of the turned image.

What the paper leaves open, and what is done here: weight decay also on norm parameters and biases, momentum 0.9, constant
learning rate between the two steps without warm-up, cross-entropy averaged over the labelled pixels of a process's batch,
bilinear interpolation without aligned corners, a crop larger than the image filled with the mean colour and label 255, the
backbone without weights as torchvision draws it. A protocol of precision "bf16" trains and tests under autocast, with
float32 weights, losses and interpolation.

Every crop is a function of (seed, its number in the training), so a resumed training and one on another number of processes
see the same crops, and nothing else draws random numbers after the network is built.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import math
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from downstream import broken, checkpoint, resnets
from downstream.datasets import VOC_CLASSES, lines, once, own_folder, segmented, turned
from downstream.evaluation.miou import confusion, iou, miou
from downstream.interruption import Watch
from downstream.task import IMAGE, TRAITS, Segmentation, digest, iterations
from downstream.train_ids import IGNORE, LABELS, TRAIN_IDS
from downstream.trial import (
    SAVE_SECONDS,
    Place,
    Progress,
    agreed,
    ahead,
    counted,
    cpus,
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
from downstream.weights import land, mmseg_backbone, to_mmseg

CLASSES = {
    "cityscapes": tuple(name for name, label in LABELS.items() if label in TRAIN_IDS),
    "voc": ("background", *VOC_CLASSES),
}
# VOC's palette: the bits of an index, three at a time, are the high bits of red, green and blue. Black, class 0, is left out:
# it fills unused places of a palette too.
VOC_COLOURS = {
    tuple(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)): index
    for index in (*range(1, 21), IGNORE)
}
CHECKED_MAPS = 256  # label maps of a split that are read before a training; all of them in a smaller split

Pair = tuple[Path, Path]  # image, label map
_BROKEN = "expected a readable image, found a broken or foreign file: {}; fetch it again"


# Data


def found(task: Segmentation, data: Path) -> dict[str, Any]:
    """{"train", "test"}: image counts; "digest": sha256 of the data; "classes_present": names seen in the checked label maps.

    The digest covers every image's name and size in bytes, and the content of the label maps that were read: all of them,
    or `CHECKED_MAPS` evenly spread over a larger split. Raises FileNotFoundError for a missing folder, split, image or label
    map, ValueError for another number of classes than the dataset's or an unknown precision, for a VOC image in both splits and for a
    label map, of those that were read, that does not fit its image or holds an unknown class. Any other such map ends the training or
    the test when its turn comes.
    """
    if task.precision not in ("fp32", "bf16"):
        raise ValueError(
            f"expected precision fp32 or bf16 in {task.name}, found {task.precision!r}: correct the KEY VALUE pair"
        )
    names = CLASSES[task.dataset]
    if task.classes != len(names):
        raise ValueError(
            f"expected the {len(names)} classes of {task.dataset}, found {task.classes}: leave classes, or take another task"
        )
    content = hashlib.sha256()
    present: set[int] = set()
    splits = {split: _pairs(task, data, split) for split in ("train", "val")}
    for split, pairs in splits.items():
        for image, _ in pairs:
            try:
                size = image.stat().st_size
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"expected the image {image}, found a link that leads nowhere: mend it, or extract the archive again"
                ) from None
            content.update(f"{split} {image.name} {size}\n".encode(errors="surrogateescape"))  # names may be no UTF-8
        spread = np.linspace(0, len(pairs) - 1, min(len(pairs), CHECKED_MAPS)).round().astype(int)
        checked, may_be_broken = [pairs[i] for i in spread], split == "train" and task.skip_bad > 0
        with ThreadPoolExecutor(cpus()) as pool:
            for classes, sha in pool.map(_checked, checked, repeat(task), repeat(may_be_broken)):
                present |= classes
                content.update(sha)
    return {
        "train": len(splits["train"]),
        "test": len(splits["val"]),
        "digest": content.hexdigest(),
        "classes_present": [names[c] for c in sorted(present)],
    }


def _pairs(task: Segmentation, data: Path, split: str) -> list[Pair]:
    """Every image of a split, "train" or "val", with its label map, by name."""
    layouts = {"cityscapes": _cityscapes, "voc": _voc}
    return layouts[task.dataset](Path(data), split)


def _cityscapes(data: Path, split: str) -> list[Pair]:
    root = own_folder(data, "cityscapes")
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    for folder in (root, images, labels):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"expected Cityscapes as leftImg8bit/{{train,val}}/<city> and gtFine/{{train,val}}/<city> in {root}, "
                f"found no folder {folder}: give its parent as --data"
            )
    pairs = []
    for image in sorted(images.glob("[!.]*/[!.]*_leftImg8bit.png")):  # macOS leaves a ._ beside each file
        stem = labels / image.parent.name / image.name.removesuffix("_leftImg8bit.png")
        label = stem.with_name(f"{stem.name}_gtFine_labelTrainIds.png")
        if not label.is_file():
            made = stem.with_name(f"{stem.name}_gtFine_labelIds.png").is_file()
            way_out = (
                "its labelIds are there: make the others with cityscapesscripts "
                f"(CITYSCAPES_DATASET={root} csCreateTrainIdLabelImgs), or: bench data check cityscapes_semantic --data {data} "
                "--make-label-train-ids"
                if made
                else "take both archives, leftImg8bit_trainvaltest and gtFine_trainvaltest"
            )
            raise FileNotFoundError(f"expected {label} as the label map of {image.name}, found none; {way_out}")
        pairs.append((image, label))
    if not pairs:
        raise FileNotFoundError(f"expected images {images}/<city>/*_leftImg8bit.png, found none")
    return pairs


def _voc(data: Path, split: str) -> list[Pair]:
    places = (data / "VOC2012", data / "VOCdevkit" / "VOC2012")
    root = next((place for place in places if place.is_dir()), None)
    if root is None:
        raise FileNotFoundError(
            f"expected VOC2012/ or VOCdevkit/VOC2012/ in {data}, found neither: "
            "extract VOCtrainval_11-May-2012.tar there, or give the folder that has it as --data"
        )
    listed, own, tested = (_listed(root, *names) for names in (("trainaug", "train_aug"), ("train",), ("val",)))
    if both := sorted(set(listed) & set(tested)):
        raise ValueError(
            f"expected no image of val in trainaug, found {len(both)} such as {both[0]} in {root / 'ImageSets/Segmentation'}: "
            "take trainaug without val (10,582 names), not SBD's own split of 8,498 and 2,857, which crosses VOC's"
        )
    official = {*own, *tested}
    pairs = []
    for name in sorted(listed if split == "train" else tested):
        image = root / "JPEGImages" / f"{name}.jpg"
        label = root / ("SegmentationClass" if name in official else "SegmentationClassAug") / f"{name}.png"
        if not image.is_file():
            raise FileNotFoundError(
                f"expected {image}, which the split {split} lists, found none: extract VOCtrainval_11-May-2012.tar again"
            )
        if not label.is_file():
            way_out = (
                "extract VOCtrainval_11-May-2012.tar again"
                if name in official
                else "it is SBD's: extract SegmentationClassAug there, or make it with mmsegmentation's voc_aug.py"
            )
            raise FileNotFoundError(f"expected {label} as the label map of {image.name}, found none: {way_out}")
        pairs.append((image, label))
    return pairs


def _listed(root: Path, *names: str) -> list[str]:
    """The image names of the first of these lists that is there; a line is a name, or DeepLab's two paths, image and map."""
    folder = root / "ImageSets" / "Segmentation"
    file = next((f for name in names if (f := folder / f"{name}.txt").is_file()), None)
    if file is None:
        way_out = (
            "VOC's own archive does not have it: add the list of 10,582 names and SegmentationClassAug, or make both from SBD "
            "with mmsegmentation's voc_aug.py"
            if "trainaug" in names
            else "extract VOCtrainval_11-May-2012.tar again"
        )
        raise FileNotFoundError(f"expected the list {folder / names[0]}.txt, found none: {way_out}")
    listed = [segmented(line) for line in lines(file)]
    if not listed:
        raise ValueError(f"expected image names in {file}, found an empty list")
    once(listed, file)
    return listed


def _checked(pair: Pair, task: Segmentation, may_be_broken: bool) -> tuple[set[int], bytes]:
    """The classes in a label map and the sha256 of its pixels; ValueError where it does not fit."""
    image, label = pair
    truth = _label(label, task.dataset)
    try:
        with Image.open(image) as header:
            width, height = turned(header)
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError, NotImplementedError):
        if not may_be_broken:
            raise ValueError(_BROKEN.format(image)) from None
        height, width = truth.shape
    _fits(truth, height, width, label, task)
    values = np.flatnonzero(np.bincount(truth.ravel(), minlength=256))
    return {int(v) for v in values if v != IGNORE}, hashlib.sha256(truth.tobytes()).digest()


def _fits(truth: np.ndarray, height: int, width: int, label: Path, task: Segmentation) -> None:
    """Raises ValueError for a label map of another size than its image, or with an unknown class."""
    if truth.shape != (height, width):
        raise ValueError(
            f"expected a label map of {width}x{height} pixels like its image, found {truth.shape[1]}x{truth.shape[0]} in {label}"
        )
    wrong = truth[(truth >= task.classes) & (truth != IGNORE)]
    if wrong.size:
        other = "labelIds" if task.dataset == "cityscapes" else "other classes than VOC's, or of objects,"
        raise ValueError(
            f"expected train ids 0..{task.classes - 1} and {IGNORE}, found {wrong.min()} in {label}: "
            f"is it a map of {other} under another name?"
        )


def _read(path: Path, flag: int) -> np.ndarray:
    content = path.read_bytes()
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag) if content else None
    except cv2.error as error:  # for more pixels than 2**30, say
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from None
        pixels = None
    cut = content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    if pixels is None or cut:  # OpenCV fills up a JPEG that ends before its end marker
        raise ValueError(_BROKEN.format(path))
    return pixels


def _label(path: Path, dataset: str) -> np.ndarray:
    """[H, W] uint8 train ids."""
    if dataset == "voc":
        return _indices(path)
    pixels = _read(path, cv2.IMREAD_UNCHANGED)
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise ValueError(
            f"expected one 8-bit channel of train ids, found {pixels.dtype} {pixels.shape} in {path}: take the file that "
            "cityscapesscripts makes, not a copy in colour"
        )
    return pixels


def _indices(path: Path) -> np.ndarray:
    """[H, W] uint8 of a palette PNG, whose colours OpenCV would give, or of a plain one.

    Raises ValueError for colours, and for a palette with VOC's colours in another order, as a recompressed file may have.
    """
    try:
        with Image.open(path) as picture:
            mode, palette, pixels = picture.mode, picture.getpalette(), np.asarray(picture)
    except MemoryError:
        raise
    except Exception:  # PIL's of all sorts, for what is no picture, and for one that is cut short or damaged
        raise ValueError(_BROKEN.format(path)) from None
    mend = "take the file from its archive, not a copy in colour or a recompressed one"
    if mode not in ("P", "L"):
        raise ValueError(
            f"expected a PNG of class indices, with a palette or one 8-bit channel, found mode {mode} in {path}: {mend}"
        )
    if palette:
        colours = list(zip(palette[0::3], palette[1::3], palette[2::3], strict=True))
        for index in np.flatnonzero(np.bincount(pixels.ravel())).tolist():
            meant = VOC_COLOURS.get(colours[index] if index < len(colours) else (), index)
            if meant != index:
                raise ValueError(
                    f"expected index {meant} for VOC's colour of class {meant}, found {index} in {path}: {mend}"
                )
    return pixels


def _image(path: Path) -> np.ndarray:
    """[H, W, 3] uint8 BGR, turned as its EXIF orientation says."""
    return _read(path, cv2.IMREAD_COLOR)


def _loaded(pair: Pair, task: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """An image, [h, w, 3] uint8 BGR, shrunk with its aspect ratio kept until it fits in `task.resize` (width, height), and its
    label map in its original size, [H, W] uint8. Raises ValueError for a broken file, and for a map that does not fit."""
    image, truth = _image(pair[0]), _label(pair[1], task.dataset)
    height, width = image.shape[:2]
    _fits(truth, height, width, pair[1], task)
    return _shrunk(image, task), truth


def _shrunk(image: np.ndarray, task: Segmentation) -> np.ndarray:
    if not task.resize:
        return image
    height, width = image.shape[:2]
    return cv2.resize(image, _bounded(width, height, task.resize), interpolation=cv2.INTER_AREA)


def _bounded(width: int, height: int, bound: tuple[int, int] | None) -> tuple[int, int]:
    scale = min(1.0, bound[0] / width, bound[1] / height) if bound else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def _normalised(image: np.ndarray, traits: Mapping[str, Any]) -> np.ndarray:
    """[H, W, 3] float32 in the channel order, mean and std of the weights, from uint8 BGR."""
    ordered = image[:, :, ::-1] if traits["channel_order"] == "RGB" else image
    return (ordered - np.float32(traits["mean"])) / np.float32(traits["std"])


@dataclasses.dataclass(frozen=True)
class Crops:
    """The training crops, by their number from 0: image [3, crop, crop] float32, labels [crop, crop] uint8."""

    task: Segmentation
    traits: Mapping[str, Any]
    pairs: Sequence[Pair]
    seed: int

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(number, len(self.pairs))
        image, label = _loaded(self.pairs[order(self.seed, epoch, len(self.pairs))[position]], self.task)
        draw = np.random.default_rng((1, self.seed, number))
        scale = draw.uniform(*self.task.ratio)
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
        side = self.task.crop
        top, left = (int(draw.integers(max(0, length - side) + 1)) for length in (height, width))
        image, label = (pixels[top : top + side, left : left + side] for pixels in (image, label))
        if draw.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        pixels = np.zeros((side, side, 3), np.float32)  # 0 is the mean colour
        labels = np.full((side, side), IGNORE, np.uint8)
        pixels[: image.shape[0], : image.shape[1]] = _normalised(image, self.traits)
        labels[: label.shape[0], : label.shape[1]] = label
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)


# Network


class _Absent(types.ModuleType):
    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"expected mmcv's compiled operator {name}, found mmcv-lite: install the full mmcv")

        return operator


def _mmseg() -> types.ModuleType:
    """mmseg.models; with mmcv-lite, mmcv's compiled operators, which nothing here calls, are replaced by ones that raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv warns of its own moved classes while it is imported
        try:
            importlib.import_module("mmcv._ext")
        except ImportError:
            sys.modules["mmcv._ext"] = _Absent("mmcv._ext")
            # mmengine's Runner asks who would load it
            sys.modules["mmcv._ext"].__spec__ = ModuleSpec("mmcv._ext", None)
        return importlib.import_module("mmseg.models")


models = _mmseg()


def _backbone(arch: str, traits: Mapping[str, Any]) -> dict[str, Any]:
    """mmsegmentation's configuration of a ResNet. Raises ValueError for one that it cannot build."""
    plan = resnets.arch(arch)
    if plan.inner > 1:
        raise ValueError(
            f"expected a ResNet that mmsegmentation has, found {arch}: its ResNet widens every convolution or none"
        )
    if traits["stem"] != plan.stem:
        raise ValueError(
            f"expected the stem of a {arch}, which is {plan.stem}, found stem {traits['stem']!r} in the traits"
        )
    return {**mmseg_backbone(plan, traits), "norm_cfg": {"type": "BN"}}


def network(task: Segmentation, arch: str, traits: Mapping[str, Any] = TRAITS) -> nn.Module:
    """mmsegmentation's EncoderDecoder; forward: [N, 3, H, W] -> logits [N, classes, H/16, W/16]."""
    backbone = {
        **_backbone(arch, traits),
        "strides": (1, 2, 2, 1),
        "dilations": (1, 1, 1, 2),
        "zero_init_residual": False,
    }
    head = {
        "type": "FCNHead",
        "in_channels": resnets.arch(arch).channels,
        "channels": task.channels,
        "num_convs": 2,
        "kernel_size": 3,
        "dilation": task.dilation,
        "concat_input": False,
        "dropout_ratio": 0,
        "num_classes": task.classes,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
    }
    with warnings.catch_warnings():
        # mmseg 1.2.2 calls it itself
        warnings.filterwarnings("ignore", message="``build_loss`` would be deprecated soon")
        model = models.EncoderDecoder(backbone=backbone, decode_head=head)
    for conv in _convolutions(model.backbone.layer4):
        if conv.kernel_size == (3, 3):  # mmseg's BasicBlock dilates only the first of its two
            conv.dilation = conv.padding = (2, 2)
    for conv in _convolutions(model.backbone):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as torchvision
    nn.init.normal_(model.decode_head.conv_seg.weight, std=0.01)
    nn.init.zeros_(model.decode_head.conv_seg.bias)
    return model


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def features(
    tensors: Mapping[str, Tensor], arch: str, image: Tensor, traits: Mapping[str, Any] = TRAITS
) -> list[Tensor]:
    """The four stage maps of mmsegmentation's ResNet without dilation, [N, C, H/4, W/4] to [N, C, H/32, W/32].

    image: [N, 3, H, W], normalised
    """
    config = _backbone(arch, traits)
    with torch.device("meta"):  # no random numbers for weights that are replaced at once
        backbone = getattr(models, config.pop("type"))(**config)
    backbone.to_empty(device="cpu").eval()
    land(backbone, to_mmseg(tensors))
    with torch.no_grad():
        return list(backbone(image))


def blank(task: Segmentation, arch: str) -> nn.Module:
    """The network of a protocol without numbers in its tensors."""
    with torch.device("meta"):
        return network(task, arch, {**TRAITS, "stem": resnets.arch(arch).stem})


def macs(task: Segmentation, arch: str) -> dict[str, float]:
    """Multiply-accumulates for one image: "train" forward and backward of a crop, "test" forward of a bounded image.

    Of convolutions only; the backward pass is taken as two forward ones, the test image as the dataset's usual one.
    """
    width, height = _bounded(*IMAGE[task.dataset], task.resize)
    model = blank(task, arch).eval()
    return {"train": 3 * _forward_macs(model, task.crop, task.crop), "test": _forward_macs(model, height, width)}


def _forward_macs(model: nn.Module, height: int, width: int) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops() / 2


# Training and test


def run(
    task: Segmentation,
    tensors: Mapping[str, Tensor] | None,
    traits: Mapping[str, Any],
    arch: str,
    data: Path,
    out: Path,
    seed: int,
    resume: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """Trains and tests once: {"metrics": {"mIoU": percent}, "loaded", "effective", "seconds": {"train", "test"}}.

    tensors: the backbone under torchvision's names, or None for a random one
    resume:  goes on from out/last.pth if there is one; otherwise a former training in `out` is overwritten
    keep:    "network", the trained network's tensors, is in the result too

    Writes out/loaded.json, out/log.jsonl, out/tensorboard/, out/last.pth and out/metrics.json (what is returned, "IoU" per
    class, and "trained", the fingerprint of the trained network). Raises ValueError for weights that do not land and a
    checkpoint of another run, FloatingPointError for a loss that is not finite.
    """
    here = place()
    share(task.batch, here.world)
    about = found(task, data)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = network(task, arch, traits)
    names = [name for name, _ in model.named_parameters()]
    matched = 0
    if tensors is not None:
        matched = land(model.backbone, to_mmseg(tensors))
        names = [name for name in names if name.startswith("decode_head.")]
    loaded = {"matched": matched, "missing": names, "unused": []}
    norm = "BN"
    if here.world > 1 and here.device.type == "cuda":
        model, norm = nn.SyncBatchNorm.convert_sync_batchnorm(model), "SyncBN"
    model = model.to(here.device).to(memory_format=torch.channels_last)
    total, steps = iterations(task, about["train"])
    if here.rank == 0:
        write_json(out / "loaded.json", loaded)
    origin = {"protocol": digest(task), "seed": seed, "weights": fingerprint(tensors), "data": about["digest"]}
    train, test = (_pairs(task, data, split) for split in ("train", "val"))
    pairs, skipped = broken.preflight(train, test, lambda pair: _image(pair[0]), task.skip_bad, here, task.name)
    crops = Crops(task, traits, pairs, seed)
    trained = _train(model, crops, total, steps, here, out, origin, resume)
    started = time.monotonic()
    counts = _test(model, task, traits, test, here)
    result = {
        "metrics": {"mIoU": miou(counts)},
        "loaded": loaded,
        "effective": effective(task, task.lr, total, norm, here.world, skipped),
        "seconds": {"train": trained, "test": time.monotonic() - started},
    }
    if here.rank == 0:
        per_class = zip(CLASSES[task.dataset], iou(counts).tolist(), strict=True)
        more = {
            "IoU": {c: None if math.isnan(v) else v for c, v in per_class},
            "trained": fingerprint(model.state_dict()),
        }
        write_json(out / "metrics.json", result | more)
    return result | ({"network": model.state_dict()} if keep else {})


def class_names(task: Segmentation, data: Path) -> list[str]:
    """The names of the classes that the network tells apart, in its order."""
    return list(CLASSES[task.dataset])


def predictions(
    task: Segmentation, about: Mapping[str, Any], tensors: Mapping[str, Tensor], images: Sequence[Path]
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Of each image the percent of it that each class found there takes, and its map: a PNG of class indices with VOC's palette.

    about: "arch" and "traits"
    tensors: the trained network's

    Raises ValueError for tensors of another network and for a file that is no image.
    """
    here = place()
    model = network(task, about["arch"], about["traits"])
    land(model, tensors, "the network")
    model = model.to(here.device).to(memory_format=torch.channels_last).eval()
    palette = [0, 0, 0, *(value for colour, index in VOC_COLOURS.items() if index != IGNORE for value in colour)]
    names = dict(enumerate(class_names(task, Path())))
    for file in counted(images, "the photographs"):
        pixels = _image(file)
        image = _input(_shrunk(pixels, task), about["traits"]).to(here.device, memory_format=torch.channels_last)
        found = _classified(model, image, pixels.shape[:2], task)
        picture = Image.fromarray(found.astype(np.uint8), "P")
        picture.putpalette(palette)
        shares = np.bincount(found.ravel(), minlength=task.classes) * (100 / found.size)
        yield {"percent": {names.get(int(i), str(i)): float(shares[i]) for i in np.flatnonzero(shares)}}, picture


def learning_rate(task: Segmentation, steps: Sequence[int], iteration: int) -> float:
    """Of one iteration, counted from 0."""
    warm = min(1.0, (iteration + 1) / task.warmup) if task.warmup else 1.0
    return task.lr * warm * 0.1 ** sum(iteration >= step for step in steps)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy per labelled pixel, a scalar >= 0; 0 where nothing is labelled.

    logits: [N, C, h, w], resized to the labels; labels: [N, H, W] uint8, 255 where there is none
    """
    logits = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def _batch_loss(
    model: nn.Module, crops: Sequence[tuple[Tensor, Tensor]], device: torch.device, precision: str
) -> Tensor:
    """Cross-entropy of a batch of crops, a scalar."""
    images, labels = (torch.stack(part) for part in zip(*crops, strict=True))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(images.to(device, memory_format=torch.channels_last))
    return loss_of(logits, labels.to(device))


def _train(
    model: nn.Module,
    crops: Crops,
    total: int,
    steps: Sequence[int],
    place: Place,
    out: Path,
    origin: Mapping[str, Any],
    resume: bool,
) -> float:
    """Trains in place and returns the seconds it took, former parts of a resumed training included."""
    task = crops.task
    # norm parameters and biases decay too
    optimiser = torch.optim.SGD(model.parameters(), lr=task.lr, momentum=task.momentum, weight_decay=task.weight_decay)
    start, seconds = 0, 0.0
    if resume:
        start, seconds = _resume(out, model, optimiser, origin)
        agreed(out / checkpoint.LAST, f"iteration {start}")
    elif place.rank == 0:
        checkpoint.remove(out)
    parallel = model
    if place.world > 1:
        dist.barrier()  # no process looks for a checkpoint after the first has taken it away
        parallel = nn.parallel.DistributedDataParallel(model)
    mine = share(task.batch, place.world)
    wanted = (iteration * task.batch + place.rank * mine + i for iteration in range(start, total) for i in range(mine))
    samples = ahead(crops, wanted, depth=2 * mine)
    progress = Progress(task.name, total, task.batch, start, out / "log.jsonl", quiet=place.rank > 0)
    watch = Watch(out, task.batch, total, SAVE_SECONDS, place.device)
    model.train()
    began = time.monotonic()
    with contextlib.closing(samples), progress, watch:
        for iteration in range(start, total):
            lr = learning_rate(task, steps, iteration)
            for group in optimiser.param_groups:
                group["lr"] = lr
            parts, value = in_parts([next(samples) for _ in range(mine)], task.accumulate), 0.0
            optimiser.zero_grad(set_to_none=True)
            for part in parts:
                with unsynchronised(parallel, part is parts[-1]):
                    weight = len(part) / mine
                    loss = _batch_loss(parallel, part, place.device, task.precision) * weight
                    watch.look(loss.item() / weight, iteration, lr)
                    loss.backward()
                value += loss.item()
            optimiser.step()
            progress.step(iteration + 1, {"loss": value}, lr)
            if watch.due(iteration + 1) and place.rank == 0:
                _save(out, model, optimiser, iteration + 1, seconds + time.monotonic() - began, origin)
            watch.pass_on(iteration + 1)
    return seconds + time.monotonic() - began


def _save(
    out: Path, model: nn.Module, optimiser: torch.optim.Optimizer, done: int, seconds: float, origin: Mapping[str, Any]
) -> None:
    state = {"origin": dict(origin), "iteration": done, "seconds": seconds}
    checkpoint.save(out, state | {"model": model.state_dict(), "optimiser": optimiser.state_dict()})


def _resume(
    out: Path, model: nn.Module, optimiser: torch.optim.Optimizer, origin: Mapping[str, Any]
) -> tuple[int, float]:
    """Iterations done and seconds spent, none where nothing was left; ValueError if the checkpoint belongs to another run."""
    state = checkpoint.load(out, origin)
    if state is None:
        return 0, 0.0
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return state["iteration"], state["seconds"]


def _input(pixels: np.ndarray, traits: Mapping[str, Any]) -> Tensor:
    """[1, 3, H, W] of an image [H, W, 3] uint8 BGR, as the weights want it."""
    return torch.from_numpy(np.ascontiguousarray(_normalised(pixels, traits).transpose(2, 0, 1)))[None]


def _classified(model: nn.Module, image: Tensor, shape: tuple[int, ...], task: Segmentation) -> np.ndarray:
    """The likeliest class of each pixel, [H, W] of `shape`; image: [1, 3, h, w]"""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=task.precision == "bf16"), torch.inference_mode():
        logits = model(image)
        return F.interpolate(logits.float(), shape, mode="bilinear", align_corners=False).argmax(1)[0].cpu().numpy()


def _test(
    model: nn.Module, task: Segmentation, traits: Mapping[str, Any], pairs: Sequence[Pair], place: Place
) -> np.ndarray:
    """The confusion matrix of whole images at one scale, against labels in their original size."""

    def load(pair: Pair) -> tuple[Tensor, np.ndarray]:
        pixels, truth = _loaded(pair, task)
        return _input(pixels, traits), truth

    counts = np.zeros((task.classes, task.classes), np.int64)
    share_statistics(model, place)
    model.eval()
    mine = pairs[place.rank :: place.world]
    with contextlib.closing(ahead(load, iter(mine), depth=4)) as images:
        for image, truth in images:
            found = _classified(model, image.to(place.device, memory_format=torch.channels_last), truth.shape, task)
            counts += confusion(found, truth, task.classes, IGNORE)
    if place.world > 1:
        summed = torch.from_numpy(counts).to(place.device)
        dist.all_reduce(summed)
        counts = summed.cpu().numpy()
    return counts
