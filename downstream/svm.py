"""Linear SVMs on frozen features of VOC2007, with scikit-learn: OpenSelfSup's and VISSL's protocol (arXiv 1905.01235).

    bench transfer --task voc07_svm --checkpoint FILE

An image is resized to 256 on its shorter side, squashed to 224 x 224 and passed through the frozen backbone; its last map is
averaged to 2 x 2 cells (6 x 6 windows of the 7 x 7 map) and scaled to unit length. An image has a class if one of its objects
has it that is not difficult. One with difficult objects only is a negative in training, and left out of that class's test: so
do VISSL's and OpenSelfSup's code. The cost of errors is chosen a class, by the mean average precision of 3 stratified folds
(scikit-learn's, a sum over steps); the test's AP is the area under the precision's envelope, not VOC2007's 11 points.

Features are made in the protocol's precision, SVMs in float64.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from downstream import broken, classification, datasets
from downstream.task import TRAITS, LinearSVM
from downstream.trial import Progress, ahead, cpus, effective, place, write_json
from downstream.weights import land

SPLITS = ("voc_2007_trainval", "voc_2007_test")
ABSENT, DIFFICULT, PRESENT = -1, 0, 1  # as in VOC's ImageSets/Main/<class>_<split>.txt


def found(task: LinearSVM, data: Path) -> dict[str, Any]:
    """{"train", "test"}: image counts; "digest": sha256 of the annotations.

    Raises FileNotFoundError or ValueError for data that is missing or wrong, a class that is too rare for the folds, and a
    protocol that cannot run.
    """
    train, test = _splits(task, data)
    return {"train": len(train), "test": len(test), "digest": datasets.digest(train, test)}


def _splits(task: LinearSVM, data: Path) -> list[list[datasets.Record]]:
    """The images of trainval and of test, by name."""
    if task.interpolation not in classification.RESAMPLING or task.precision not in ("fp32", "bf16"):
        raise ValueError(
            f"expected interpolation bilinear or bicubic and precision fp32 or bf16, found {task.interpolation!r} and "
            f"{task.precision!r}: correct the KEY VALUE pair"
        )
    if not (task.costs and all(isinstance(c, int | float) and 0 < c < float("inf") for c in task.costs)):
        raise ValueError(f"expected positive costs, found {task.costs!r}: correct the KEY VALUE pair")
    if task.folds < 2 or not task.tolerance_of_solver > 0:
        raise ValueError(
            f"expected folds from 2 and tolerance_of_solver above 0, found {task.folds} and {task.tolerance_of_solver}: correct the "
            "KEY VALUE pair"
        )
    train, test = (sorted(datasets.records(name, data), key=lambda r: r["image_id"]) for name in SPLITS)
    for name, counts in zip(datasets.VOC_CLASSES, (labels(train) == PRESENT).sum(0), strict=True):
        if not task.folds <= counts <= len(train) - task.folds:
            fewer = ", or ask for fewer folds (folds 2)" if task.folds > 2 and 2 <= counts <= len(train) - 2 else ""
            raise ValueError(
                f"expected at least {task.folds} images with and without each class in {SPLITS[0]} for as many folds, found "
                f"{counts} of {len(train)} with {name}: add images{fewer}"
            )
    for name, counts in zip(datasets.VOC_CLASSES, (labels(test) == PRESENT).sum(0), strict=True):
        if not counts:
            raise ValueError(
                f"expected images of each class in {SPLITS[1]}, found none of {name}: complete the test set"
            )
    return [train, test]


def labels(images: Sequence[datasets.Record]) -> np.ndarray:
    """[N, 20] of PRESENT, DIFFICULT (nothing but difficult objects) or ABSENT."""
    found = np.full((len(images), len(datasets.VOC_CLASSES)), ABSENT)
    for row, image in zip(found, images, strict=True):
        for thing in image["annotations"]:
            value = DIFFICULT if thing["difficult"] else PRESENT
            row[thing["category_id"]] = max(row[thing["category_id"]], value)
    return found


def macs(task: LinearSVM, arch: str) -> dict[str, float]:
    """Multiply-accumulates for one image, of convolutions only; the SVMs are not counted."""
    once = classification.forward_macs(arch, task.view)
    return {"train": once, "test": once}


class Cells(nn.Module):
    """[N, C, H, W] -> [N, C * grid * grid]: averages of windows that overlap, stride 1, of which `grid` fit along a side."""

    def __init__(self, grid: int):
        super().__init__()
        self.grid = grid

    def forward(self, maps: Tensor) -> Tensor:
        windows = [max(1, side - self.grid + 1) for side in maps.shape[2:]]
        return F.avg_pool2d(maps, windows, stride=1).flatten(1)


def network(task: LinearSVM, arch: str, traits: Mapping[str, Any] = TRAITS) -> nn.Module:
    """The backbone up to its last map, in cells."""
    model, _ = classification.pooled(arch, traits)
    model.avgpool = Cells(task.grid)
    return model.eval().requires_grad_(False)


def _decoded(image: datasets.Record) -> Image.Image:
    return classification._read(Path(image["file_name"]))


def squashed_view(picture: Image.Image, task: LinearSVM) -> np.ndarray:
    """[view, view, 3] uint8 RGB: the whole image at `resize` pixels on its shorter side, then squashed to a square."""
    width, height = picture.size
    short, filter_ = min(width, height), classification.RESAMPLING[task.interpolation]
    sides = tuple(task.resize if side == short else int(task.resize * side / short) for side in (width, height))
    return np.asarray(picture.resize(sides, filter_).resize((task.view, task.view), filter_))


def features(
    model: nn.Module, task: LinearSVM, traits: Mapping[str, Any], images: Sequence[datasets.Record], name: str
) -> np.ndarray:
    """[N, D] float64, of unit length."""
    device = place().device
    views = ahead(lambda r: squashed_view(_decoded(r), task), images, 4 * task.batch)
    parts = []
    with contextlib.closing(views), Progress(f"{task.name} {name}", len(images)) as progress, torch.no_grad():
        for start in range(0, len(images), task.batch):
            stop = min(start + task.batch, len(images))
            batch = classification._batch([next(views) for _ in range(start, stop)], traits, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=task.precision == "bf16"):
                parts.append(model(batch).double().cpu().numpy())
            progress.step(stop)
    whole = np.concatenate(parts)
    if not np.isfinite(whole).all():
        raise FloatingPointError("expected finite features, found infinity or NaN: look at the checkpoint's weights")
    return whole / (np.linalg.norm(whole, axis=1, keepdims=True) + 1e-5)  # as VISSL and OpenSelfSup have it


def machine(task: LinearSVM, cost: float, seed: int) -> LinearSVC:
    """L2-regularised SVM with squared hinge loss, solved in the dual; the intercept is regularised too, by liblinear."""
    return LinearSVC(
        C=cost,
        class_weight={1: task.positive_weight, -1: 1.0},
        tol=task.tolerance_of_solver,
        dual=True,
        max_iter=task.iterations,
        random_state=seed,
    )


def chosen_cost(task: LinearSVM, x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """The first cost with the best mean average precision over the folds.

    x: [N, D]; y: [N] of 1 and -1
    """
    means = []
    for cost in task.costs:
        scores = []
        for train, test in StratifiedKFold(task.folds).split(x, y):
            svm = machine(task, cost, seed).fit(x[train], y[train])
            scores.append(average_precision_score(y[test], svm.decision_function(x[test])))
        means.append(np.mean(scores))
    return task.costs[int(np.argmax(means))]


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under the envelope of precision over recall, in [0, 1].

    scores: [N]; positive: [N] of bool, of which one at least is set. Equal scores keep an order that is not defined, as in
    VISSL's vissl/utils/svm_utils/evaluate.py.
    """
    hits = positive[np.argsort(scores)[::-1]]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / hits.sum())


def fitted(
    task: LinearSVM, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int
) -> tuple[float, float, int]:
    """A class's cost, AP and the iterations of its solver.

    x: [N, D], x_test: [M, D]; y: [N], y_test: [M] of PRESENT, DIFFICULT and ABSENT
    """
    target = np.where(y == PRESENT, 1, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the protocol ends the solver; the record counts it
        cost = chosen_cost(task, x, target, seed)
        svm = machine(task, cost, seed).fit(x, target)
    counted = y_test != DIFFICULT
    scores = svm.decision_function(x_test)[counted]  # of all, as VISSL has it: fewer rows are summed in another order
    return cost, average_precision(scores, y_test[counted] == PRESENT), int(svm.n_iter_)


def run(
    task: LinearSVM,
    tensors: Mapping[str, Tensor] | None,
    traits: Mapping[str, Any],
    arch: str,
    data: Path,
    out: Path,
    seed: int,
    resume: bool = False,
) -> dict[str, Any]:
    """Fits and tests once: {"metrics", "loaded", "effective", "seconds": {"train", "test"}}.

    tensors: the backbone under torchvision's names, or None for a random one
    resume:  has nothing to go on from: features are made anew

    Writes out/loaded.json and out/metrics.json, which also has each class's cost and AP. Raises ValueError for weights that do
    not land, FloatingPointError for features that are not finite.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"expected one process for {task.name}, found {os.environ['WORLD_SIZE']}: call it without torchrun"
        )
    splits = _splits(task, data)
    splits[0], skipped = broken.preflight(*splits, _decoded, task.skip_bad, place(), task.name)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = network(task, arch, traits)
    names = [name for name, _ in model.named_parameters()]
    matched = 0 if tensors is None else land(model, tensors)
    loaded = {"matched": matched, "missing": names if tensors is None else [], "unused": []}
    write_json(out / "loaded.json", loaded)
    model = model.to(place().device).to(memory_format=torch.channels_last)
    began = time.monotonic()
    x = features(model, task, traits, splits[0], "trainval")
    middle = time.monotonic()
    x_test = features(model, task, traits, splits[1], "test")
    testing = time.monotonic() - middle
    y, y_test = map(labels, splits)
    # Processes, because liblinear's random numbers are one stream to all threads of a process.
    pool = Parallel(cpus(), return_as="generator")
    jobs = (delayed(fitted)(task, x, y[:, c], x_test, y_test[:, c], seed) for c in range(y.shape[1]))
    results = []
    try:
        with Progress(task.name, y.shape[1], unit="classes") as progress:
            for each in pool(jobs):
                results.append(each)
                progress.step(len(results))
    finally:  # the idle processes would keep the end of this one waiting
        get_reusable_executor().shutdown(wait=True)
    costs, aps, rounds = zip(*results, strict=True)
    result = {
        "metrics": {"mAP": 100 * float(np.mean(aps))},
        "loaded": loaded,
        # with the classes whose solver ran out of iterations
        "effective": effective(task, 0.0, 0, "FrozenBN", 1, skipped)
        | {"unconverged": sum(n >= task.iterations for n in rounds)},
        "seconds": {"train": time.monotonic() - began - testing, "test": testing},
    }
    classes = {
        name: {"cost": cost, "AP": 100 * ap} for name, cost, ap in zip(datasets.VOC_CLASSES, costs, aps, strict=True)
    }
    write_json(out / "metrics.json", result | {"classes": classes})
    return result
