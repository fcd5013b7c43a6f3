"""A downstream task is data: a frozen dataclass that holds a protocol to the letter, and the rule that shrinks it.

`Detection` carries the detectron2 keys that differ from detectron2's defaults, `Segmentation` and `Classification` the
handful of numbers that make up such a recipe. What the checkpoint decides (channel order, mean, std, stride in the 1x1
convolution, depth) is not in a protocol: it comes with the weights.

A protocol with results is never edited: its digest stands in every record. A change is a new name.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What every protocol says."""

    name: str
    cite: str  # the paper's table or the repository's file this reproduces
    metrics: tuple[str, ...]  # in percent, in the record's order
    trials: int = 1
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # published: pretraining, metric, value
    tolerance: float = 0.5  # a trial farther than this from the published value deserves a look, in percent
    unverified: tuple[str, ...] = ()  # what no source confirms
    scale: str = "paper"
    precision: str = "fp32"
    nonstandard: tuple[str, ...] = ()  # the keys a user changed
    skip_bad: int = 0  # training images that may be broken


@dataclass(frozen=True, kw_only=True)
class Detection(Protocol):
    """A detection, instance segmentation, keypoint or DensePose protocol, run by detectron2."""

    settings: Mapping[str, Any]  # detectron2 key: value, where it differs from detectron2's default
    passes: float | None = None  # the training set is seen at most this often
    accumulate: int = 1  # parts of a batch that a process works through one after the other

    engine = "detectron2"


@dataclass(frozen=True, kw_only=True)
class Segmentation(Protocol):
    """A semantic segmentation protocol: MoCo's FCN (paper, appendix A.5), run by mmsegmentation."""

    dataset: str  # "cityscapes" or "voc"
    classes: int
    crop: int  # side of the square training crop, in pixels
    iterations: int
    lr: float
    metrics: tuple[str, ...] = ("mIoU",)
    resize: tuple[int, int] | None = None  # width, height that bound the image first; None: original size
    ratio: tuple[float, float] = (0.5, 2.0)  # random scale
    batch: int = 16
    momentum: float = 0.9
    weight_decay: float = 1e-4
    steps: tuple[float, ...] = (0.7, 0.9)  # learning rate x 0.1 at these fractions of the training
    warmup: int = 0  # iterations of linear warm-up; the paper names none
    channels: int = 256  # of the two 3x3 convolutions
    dilation: int = 6  # of the two 3x3 convolutions
    trials: int = 5
    tolerance: float = 1.0
    tuned: Mapping[str, Any] = field(default_factory=dict)  # of its second mini protocol: see `second`
    passes: float | None = None
    accumulate: int = 1

    engine = "mmsegmentation"

    def __post_init__(self) -> None:
        if self.dataset not in IMAGE:
            raise ValueError(
                f"expected a protocol on {' or '.join(map(repr, IMAGE))}, found {self.dataset!r}: another dataset first needs its "
                "size in IMAGE of downstream/task.py, its classes and files in downstream/segmentation.py, its check in "
                "downstream/check.py"
            )


@dataclass(frozen=True, kw_only=True)
class Classification(Protocol):
    """A protocol on ImageNet's classes, run by torch alone: a linear or nearest-neighbour classifier on a frozen backbone, or
    the whole network fine-tuned on a part of the labels.
    """

    kind: str  # "linear", "knn" or "finetune"
    labels: int = 100  # percent of the training images that have one
    view: int = 224  # side of what the network sees, in pixels
    resize: int = 256  # shorter side of a test image, of which the middle is seen
    interpolation: str = "bilinear"
    area: tuple[float, float] = (0.08, 1.0)  # of a training crop, a fraction of the image; sides at most 4:3, and flips
    batch: int = 256
    epochs: int = 0
    lr: float = 0.0
    head_lr: float | None = None  # of the classifier where it is not the backbone's
    optimiser: str = "sgd"  # or "nesterov": SGD that looks ahead; or "lars": apex's LARC (clip off) round SGD
    trust: float = 0.001  # of LARS
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "step"  # or "cosine", to 0; both change with the epoch
    # batches run on over the ends of epochs, all of one size, and the schedule moves with each
    continuous: bool = False
    steps: tuple[int, ...] = ()  # epochs at which the learning rate falls
    gamma: float = 0.1  # by this factor
    # of the classifier's first weights, with bias 0; None: torch's own for a linear layer
    head_std: float | None = 0.01
    neighbours: tuple[int, ...] = ()  # of kNN, the headline first
    temperature: float = 0.07  # of kNN: a neighbour's vote is exp(cosine / temperature)
    accumulate: int = 1

    engine = "torch"


@dataclass(frozen=True, kw_only=True)
class LinearSVM(Protocol):
    """One linear support vector machine a class of VOC2007, on frozen features: run by scikit-learn."""

    costs: tuple[float, ...]  # of errors, LinearSVC's C: each class takes the one with the best cross-validated AP
    metrics: tuple[str, ...] = ("mAP",)
    view: int = 224  # side of what the network sees, in pixels; the image is squashed to a square
    resize: int = 256  # its shorter side before that
    interpolation: str = "bilinear"
    grid: int = 2  # the last map's cells a side: overlapping averages, stride 1
    batch: int = 32
    folds: int = 3
    positive_weight: float = 2.0  # of an image with the class, where one without counts 1
    iterations: int = 2000  # of the solver at most
    tolerance_of_solver: float = 1e-4

    engine = "scikit-learn"


Task = Detection | Segmentation | Classification | LinearSVM

# What a checkpoint decides, for torchvision's networks and the self-supervised ones; mean and std on the scale 0..255.
TRAITS: Mapping[str, Any] = {
    "channel_order": "RGB",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "stem": "7x7",
    "stride_in_1x1": False,
}

# What describes a protocol without changing a measured number.
_DESCRIPTION = {"cite", "expected", "tolerance", "trials", "unverified", "metrics", "scale", "nonstandard", "tuned"}

# detectron2's defaults (config/defaults.py) of the keys that the mini rule touches and a protocol may leave alone.
DEFAULTS: dict[str, Any] = {
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MAX_SIZE_TEST": 1333,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [512] * 8,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM": 512,  # these three: projects/DensePose/densepose/config.py
    "MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE": 112,
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION": 28,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.WARMUP_ITERS": 1000,
    "TEST.PRECISE_BN.NUM_ITER": 200,
}

# The mini rule. One set of divisors for every task, so that a mini protocol is the paper's seen through a smaller lens.
PIXELS = 5  # image sides, anchors, crops
BOXES = 16  # proposals and sampled RoIs
GRID = 4  # of a C4 head's RoI, for 14: RoIs are PIXELS times smaller, and res5 on them is most of the work
# channels of FPN and heads, and the sides of a keypoint or DensePose head's maps; the backbone keeps its own
WIDTHS = 2
ITERATIONS = 40  # and learning-rate steps, warm-up and PreciseBN, of which at least 20 remain
BATCH = 2  # and, linearly, the learning rate
# The variables that name the folder of one dataset alone, for users of cityscapesscripts and of ImageNet's training scripts.
ELSEWHERE = {"cityscapes": "CITYSCAPES_DATASET", "imagenet": "IMAGENET_DIR"}
IMAGE = {"cityscapes": (2048, 1024), "voc": (500, 500)}  # width and height that bound an image of the original dataset
PASSES = 12  # at most this often over the training set, as COCO's 1x schedule does
VIEW = Fraction(2, 7)  # of a classifier's view and the image around it: 64 of 224 pixels, 73 of 256
COSTS = 3  # of every so many of an SVM's costs one is tried
EPOCHS = 20  # of a training on all labels, fewer where its steps need it; one on few labels keeps its own

GPUS = 8  # of the papers' runs, which share a protocol's batch

_MINI_PIXELS = (
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "MODEL.ANCHOR_GENERATOR.SIZES",
)
_MINI_BOXES = (
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "MODEL.RPN.POST_NMS_TOPK_TEST",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
)
_MINI_WIDTHS = (
    "MODEL.FPN.OUT_CHANNELS",
    "MODEL.ROI_BOX_HEAD.CONV_DIM",
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "MODEL.ROI_MASK_HEAD.CONV_DIM",
)
_MINI_KEYPOINTS = ("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION")
_MINI_DENSEPOSE = (
    "MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM",
    "MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE",
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION",
)


def mini(task: Task) -> Task:
    """The protocol for minutes on two cores, by the divisors above; another protocol with another name (`voc_c4@mini`)."""
    common: dict[str, Any] = {
        "name": f"{task.name}@mini",
        "scale": "mini",
        "precision": "bf16",
        "expected": {},
    }
    if isinstance(task, LinearSVM):
        return dataclasses.replace(
            task,
            **common,
            view=round(task.view * VIEW),
            resize=round(task.resize * VIEW),
            iterations=task.iterations // ITERATIONS,
            costs=task.costs[::COSTS],
        )
    if isinstance(task, Classification):
        by = math.gcd(EPOCHS, *task.steps) if task.labels == 100 else 1  # so that the steps stay where they are
        # A step of LARS is a fraction of the weights' norm: a few hundred of them need the full learning rate, and a batch
        # that leaves a few hundred.
        lars = task.optimiser == "lars"
        few = min(256, task.batch) // BATCH
        return dataclasses.replace(
            task,
            **common,
            view=round(task.view * VIEW),
            resize=round(task.resize * VIEW),
            epochs=task.epochs // by,
            steps=_divided(task.steps, by),
            batch=few,
            lr=task.lr if lars else task.lr * few / task.batch,
            head_lr=None if task.head_lr is None else task.head_lr * few / task.batch,
        )
    common["passes"] = PASSES
    if isinstance(task, Segmentation):
        return dataclasses.replace(
            task,
            **common,
            crop=task.crop // PIXELS,
            resize=_divided(IMAGE[task.dataset], PIXELS),
            batch=task.batch // BATCH,
            lr=task.lr / BATCH,
            iterations=task.iterations // ITERATIONS,
        )
    full = DEFAULTS | dict(task.settings)
    grid = full["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"]
    settings = dict(task.settings)
    settings |= {key: _divided(full[key], PIXELS) for key in _MINI_PIXELS}
    settings |= {key: _divided(full[key], BOXES) for key in _MINI_BOXES}
    settings |= {key: _divided(full[key], WIDTHS) for key in _MINI_WIDTHS}
    if full.get("MODEL.KEYPOINT_ON"):
        settings |= {key: _divided(full[key], WIDTHS) for key in _MINI_KEYPOINTS}
    if full.get("MODEL.DENSEPOSE_ON"):
        settings |= {key: _divided(full[key], WIDTHS) for key in _MINI_DENSEPOSE}
    settings |= {
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": GRID if grid == 14 else grid,
        "SOLVER.MAX_ITER": full["SOLVER.MAX_ITER"] // ITERATIONS,
        "SOLVER.STEPS": _divided(full["SOLVER.STEPS"], ITERATIONS),
        "SOLVER.WARMUP_ITERS": max(20, full["SOLVER.WARMUP_ITERS"] // ITERATIONS),
        "TEST.PRECISE_BN.NUM_ITER": max(20, full["TEST.PRECISE_BN.NUM_ITER"] // ITERATIONS),
        "SOLVER.IMS_PER_BATCH": full["SOLVER.IMS_PER_BATCH"] // BATCH,
        "SOLVER.BASE_LR": full["SOLVER.BASE_LR"] / BATCH,
    }
    return dataclasses.replace(task, **common, settings=settings)


def second(task: Task) -> Task:
    """The successor of a mini protocol, NAME@mini.2, with the numbers of `tuned`; the protocol itself where it has none.

    The rule's numbers do not always tell supervised weights from random ones. Those of `tuned` do: they were found with these two
    on held-out training images (`downstream.held_out`), as the task's docstring says.
    """
    if not isinstance(task, Segmentation) or not task.tuned:
        return task
    return dataclasses.replace(task, name=f"{task.name}.2", **task.tuned)


def _divided(value: Any, by: int) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_divided(v, by) for v in value)
    return max(1, value // by)


def iterations(task: Task, images: int) -> tuple[int, tuple[int, ...]]:
    """Iterations and learning-rate steps of a training on `images` images: the protocol's, or fewer by its `passes`; a schedule
    without steps has none, whatever stands beside it."""
    if isinstance(task, LinearSVM):  # no training of the network
        return 0, ()
    if isinstance(task, Classification):
        falls = task.steps if task.schedule == "step" else ()
        if task.continuous:  # one more than whole batches, as google-research/simclr model_util.py counts
            total = task.epochs * images // task.batch + 1
            return total, tuple(-(-step * total // task.epochs) for step in falls)
        epoch = -(-images // task.batch)
        return task.epochs * epoch, tuple(step * epoch for step in falls)
    if isinstance(task, Segmentation):
        total, batch = task.iterations, task.batch
        steps = [round(s * total) for s in task.steps]
    else:
        full = DEFAULTS | dict(task.settings)
        total, batch = full["SOLVER.MAX_ITER"], full["SOLVER.IMS_PER_BATCH"]
        stepped = full.get("SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR") == "WarmupMultiStepLR"
        steps = list(full["SOLVER.STEPS"]) if stepped else []
    if task.passes is None:
        return total, tuple(steps)
    short = min(total, max(1, round(task.passes * images / batch)))
    return short, tuple(max(1, round(s * short / total)) for s in steps)


def batch(task: Task) -> int:
    """Images of one iteration, over all processes."""
    return (DEFAULTS | dict(task.settings))["SOLVER.IMS_PER_BATCH"] if isinstance(task, Detection) else task.batch


def scaled(task: Task, processes: int) -> tuple[Task, list[str]]:
    """The task on fewer or more processes than the papers' 8, each with as many images as there, and every number that this
    changed, in words: batch and learning rate by the linear rule (arXiv 1706.02677, section 2.1), and the iterations, steps
    and warm-up inversely, so that as many images are seen (detectron2's DefaultTrainer.auto_scale_workers does the same).
    Those keys are nonstandard; nothing changes on 8.
    """
    detection = isinstance(task, Detection)
    before = DEFAULTS | dict(task.settings) if isinstance(task, Detection) else dict(vars(task))
    names = ("SOLVER.IMS_PER_BATCH", "SOLVER.BASE_LR") if detection else ("batch", "lr")
    if not before.get(names[1]):
        return task, []  # nothing is trained
    new = max(1, before[names[0]] // GPUS) * processes
    up = new / before[names[0]]
    more = ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS") if detection else ("iterations", "warmup")
    changed = {names[0]: new, names[1]: before[names[1]] * up}
    changed |= {"head_lr": before["head_lr"] * up} if before.get("head_lr") else {}
    changed |= {key: _longer(before[key], 1 / up) for key in more if key in before}  # a classification counts epochs
    changed = {key: value for key, value in changed.items() if value != before[key]}
    marks = tuple(sorted({*task.nonstandard, *changed}))
    if isinstance(task, Detection):
        task = dataclasses.replace(task, settings=dict(task.settings) | changed, nonstandard=marks)
    else:
        task = dataclasses.replace(task, **changed, nonstandard=marks)
    return task, [f"{key} {before[key]} -> {value}" for key, value in changed.items()]


def trains(task: Task) -> bool:
    """Whether a task trains a network, and does not only ask a frozen one."""
    return not (isinstance(task, LinearSVM) or (isinstance(task, Classification) and task.kind == "knn"))


def accumulated(task: Task, parts: int) -> Task:
    """The task with each process's share of a batch worked through in parts whose gradients are summed, for fewer GPUs than the
    papers' 8: batch and learning rate stay, and so does not what batch norm sees. Raises ValueError where nothing is trained.
    """
    if not trains(task):
        raise ValueError(f"expected a task that trains a network, found {task.name}: leave out --accumulate")
    marks = tuple(sorted({*task.nonstandard, "accumulate"} if parts > 1 else task.nonstandard))
    return dataclasses.replace(task, accumulate=parts, nonstandard=marks)


def tolerant(task: Task, images: int) -> Task:
    """The task with so many training images that may be broken: the next one of the list takes the place of each."""
    marks = tuple(sorted({*task.nonstandard, "skip_bad"} if images else task.nonstandard))
    return dataclasses.replace(task, skip_bad=images, nonstandard=marks)


def _longer(value: Any, by: float) -> Any:
    return type(value)(round(v * by) for v in value) if isinstance(value, list | tuple) else round(value * by)


def overridden(task: Task, changes: Mapping[str, str]) -> Task:
    """The task with a user's KEY VALUE changes; the keys that really differ are listed in `nonstandard`.

    Values are read as YAML. Raises ValueError for a key that the protocol does not have; detectron2 keys are checked by the
    engine, which knows them.
    """
    parsed = {key: _parsed(key, value) for key, value in changes.items()}
    if isinstance(task, Segmentation | Classification | LinearSVM):
        fields = {f.name for f in dataclasses.fields(task)} - _DESCRIPTION - {"name"}
        if unknown := sorted(set(parsed) - fields):
            raise ValueError(f"expected a field of {task.name} ({', '.join(sorted(fields))}), found {unknown[0]!r}")
        parsed = {k: tuple(v) if isinstance(v, list) else v for k, v in parsed.items()}
        hints = typing.get_type_hints(type(task))
        for key, value in parsed.items():
            present = getattr(task, key)
            if not _is(value, hints[key], 1 if isinstance(present, int) and present else 0):
                raise ValueError(
                    f"expected {key} to be a value like {task.name}'s {present!r}, found {value!r}: correct the KEY VALUE pair"
                )
        changed = {k: v for k, v in parsed.items() if v != getattr(task, k)}
        return dataclasses.replace(task, **changed, nonstandard=tuple(sorted(changed)))
    for key, value in parsed.items():
        if not _finite(value):
            raise ValueError(f"expected {key} in finite numbers, found {value!r:.80}: correct the KEY VALUE pair")
    full = DEFAULTS | dict(task.settings)
    changed = {k: v for k, v in parsed.items() if k not in full or v != full[k]}
    return dataclasses.replace(task, settings=dict(task.settings) | changed, nonstandard=tuple(sorted(changed)))


def _is(value: Any, hint: Any, least: int) -> bool:
    """Whether a value is of a field's type, its numbers finite and not below `least`."""
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        kinds = kinds[:1] * len(value) if kinds[-1] is ... and isinstance(value, tuple) else kinds
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds, [least] * len(kinds)))
        )
    if kinds:  # one of several types
        return any(_is(value, kind, least) for kind in kinds)
    if hint in (int, float):
        return type(value) in (int, hint) and least <= value < math.inf
    return isinstance(value, hint)


def _finite(value: Any) -> bool:
    """Whether all numbers in a value are finite as floats."""
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, int | float) or abs(value) <= sys.float_info.max


def _parsed(key: str, text: str) -> Any:
    """A value as YAML, 1e-3 as the number that YAML 1.1 does not see in it, and (60, 80) as the list that detectron2 does."""
    try:
        value = yaml.safe_load(f"[{text.strip()[1:-1]}]" if re.fullmatch(r"\s*\(.*\)\s*", text) else text)
    except yaml.YAMLError:
        raise ValueError(f"expected a value of {key} in YAML, found {text!r:.80}: correct the KEY VALUE pair") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def at(task: Task, precision: str) -> Task:
    """The task in "fp32" or "bf16"; another precision than the protocol's is another digest, and listed in `nonstandard`."""
    if precision == task.precision:
        return task
    return dataclasses.replace(task, precision=precision, nonstandard=tuple(sorted({*task.nonstandard, "precision"})))


def protocol(task: Task) -> dict[str, Any]:
    """All that decides the numbers, as plain JSON values; `accumulate` and `skip_bad` only where a user asked for them, and
    `continuous` only where it is so."""
    content = {"engine": task.engine} | {k: v for k, v in dataclasses.asdict(task).items() if k not in _DESCRIPTION}
    for key, usual in (("accumulate", 1), ("skip_bad", 0), ("continuous", False)):
        if content.get(key) == usual:
            del content[key]
    return json.loads(json.dumps(content, sort_keys=True))


def restored(content: Mapping[str, Any]) -> Task:
    """The task that `protocol` made this of, without what is only said of it. Raises KeyError, TypeError or ValueError for what it
    never made."""
    kinds: dict[str, type[Task]] = {kind.engine: kind for kind in typing.get_args(Task)}
    fields = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items() if key != "engine"
    }
    task = kinds[content["engine"]](**fields, cite="", metrics=())
    if protocol(task) != content:
        raise ValueError("expected all of a protocol")
    return task


def digest(task: Task) -> str:
    """sha256 of the protocol, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(protocol(task), sort_keys=True).encode()).hexdigest()
