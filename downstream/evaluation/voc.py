"""PASCAL VOC's average precision, as detectron2 computes it for the papers' tables (evaluation/pascal_voc_evaluation.py).

It is not COCO's. Detections go through text there, so a score is rounded to 3 decimals and a box, moved to VOC's 1-based
pixels, to 1; widths count pixels, so they are one more than the difference; a match needs an IoU strictly above the
threshold; a detection whose best object is "difficult" counts neither way; a second detection of an object is wrong. VOC2007
takes the mean of the best precision at 11 recalls, later years the area under the precision's envelope. AP is the mean over
the thresholds .50, .55, ..., .95 of the mean over the classes. Equal scores keep the order that numpy's unstable argsort
gives them, since detectron2 sorts by it. Pure numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def evaluate(
    predictions: Mapping[str, tuple[Any, Any, Any]], images: Sequence[Mapping[str, Any]], classes: int, year: int
) -> dict[str, float]:
    """AP, AP50 and AP75 in percent.

    predictions: image id -> (boxes [K, 4] x1, y1, x2, y2 in pixels from 0, scores [K], class numbers [K]); the order of the
                 images is the order of equal scores
    images:      the test set's records (`downstream.datasets.records`), whose annotations are XYXY from 0

    Raises ValueError for an image that is not in the test set.
    """
    if unknown := predictions.keys() - {r["image_id"] for r in images}:
        raise ValueError(f"expected detections in the {len(images)} images of the test set, found image {min(unknown)}")
    order = {name: number for number, name in enumerate(predictions)}
    ids = np.repeat(np.arange(len(order)), [len(scores) for _, scores, _ in predictions.values()])
    boxes, scores, labels = (
        np.concatenate([np.asarray(p[i]).reshape(shape) for p in predictions.values()] or [np.empty((0, *shape[1:]))])
        for i, shape in ((0, (-1, 4)), (1, (-1,)), (2, (-1,)))
    )
    boxes, scores = _as_text(boxes + np.array([1, 1, 0, 0], boxes.dtype), 1), _as_text(scores, 3)
    found = [(order.get(r["image_id"], -1), a) for r in images for a in r["annotations"]]
    owners = np.array([image for image, _ in found], int)
    objects = np.array([a["bbox"] for _, a in found], float).reshape(-1, 4) + np.array([1.0, 1.0, 0.0, 0.0])
    kinds = np.array([a["category_id"] for _, a in found], int)
    difficult = np.array([a.get("difficult", 0) for _, a in found], bool)
    aps = []
    for c in range(classes):
        mine, theirs = np.flatnonzero(labels == c), np.flatnonzero(kinds == c)
        truth = Objects(owners[theirs], objects[theirs], difficult[theirs])
        aps.append(class_aps(truth, ids[mine], boxes[mine], scores[mine], year == 2007))
    table = np.ascontiguousarray(100 * np.array(aps).T)  # thresholds x classes, in the order in which detectron2 adds
    means = table.mean(axis=1)
    return {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[5])}


def choices(year: int) -> dict[str, str]:
    """How `evaluate` decides what VOC's evaluations decide differently, for a record."""
    return {
        "precision": "mean at 11 recalls" if year == 2007 else "area under its envelope",
        "difficult": "neither right nor wrong",
        "boxes": "rounded to 0.1 pixel, with their last pixels",
        "scores": "rounded to 0.001",
    }


THRESHOLDS = [t / 100 for t in range(50, 100, 5)]


@dataclass(frozen=True)
class Objects:
    """The G objects of one class."""

    images: Ints  # [G] numbers; those of one image have the order of its annotations
    boxes: Floats  # [G, 4] in VOC's pixels, from 1
    difficult: Any  # [G] True for what need not be found


def class_aps(truth: Objects, images: Ints, boxes: Floats, scores: Floats, eleven_points: bool) -> Floats:
    """AP of one class at each of THRESHOLDS, in [0, 1]; a class without objects has 0 by 11 points, as detectron2 has it.

    images, boxes, scores: of the D detections
    """
    order = np.argsort(-scores)
    best, overlap = _best(images[order], boxes[order], truth)
    positives, count = int((~truth.difficult).sum()), len(order)
    aps = []
    for threshold in THRESHOLDS:
        near = overlap > threshold
        counted = np.flatnonzero(near)
        counted = counted[~truth.difficult[best[counted]]]
        first = np.unique(best[counted], return_index=True)[1]  # the first detection of each object is right
        hit, miss = np.zeros((2, count))
        miss[~near] = miss[counted] = 1
        hit[counted[first]], miss[counted[first]] = 1, 0
        aps.append(_ap(hit, miss, positives, eleven_points))
    return np.array(aps)


def _best(images: Ints, boxes: Floats, truth: Objects) -> tuple[Ints, Floats]:
    """The object that each detection overlaps most, the first of equal ones, and their IoU over whole pixels.

    -1 and -inf where its image has none.
    """
    by_image = np.argsort(truth.images, kind="stable")
    owners, first, count = np.unique(truth.images[by_image], return_index=True, return_counts=True)
    best, overlap = np.full(len(images), -1), np.full(len(images), -np.inf)
    rows = np.flatnonzero(np.isin(images, owners))
    if not len(rows):
        return best, overlap
    at = np.searchsorted(owners, images[rows])
    starts = np.cumsum(count[at]) - count[at]
    objects = by_image[np.arange(count[at].sum()) + np.repeat(first[at] - starts, count[at])]
    iou = _iou(boxes[np.repeat(rows, count[at])], truth.boxes[objects])
    overlap[rows] = np.maximum.reduceat(iou, starts)
    ties = np.flatnonzero(iou == np.repeat(overlap[rows], count[at]))
    owner = np.repeat(rows, count[at])[ties]
    best[owner[::-1]] = objects[ties[::-1]]  # so that the first one stays
    return best, overlap


def _iou(boxes: Floats, objects: Floats) -> Floats:
    """[N] of N pairs of boxes [N, 4] over whole pixels; nan or infinite where a box is inside out."""
    sides = np.minimum(objects[:, 2:], boxes[:, 2:]) - np.maximum(objects[:, :2], boxes[:, :2]) + 1.0
    inner = np.maximum(sides, 0.0).prod(axis=1)
    own = (boxes[:, 2] - boxes[:, 0] + 1.0) * (boxes[:, 3] - boxes[:, 1] + 1.0)
    theirs = (objects[:, 2] - objects[:, 0] + 1.0) * (objects[:, 3] - objects[:, 1] + 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(inner / (own + theirs - inner))


def _ap(hit: Floats, miss: Floats, positives: int, eleven_points: bool) -> float:
    hits, misses = np.cumsum(hit), np.cumsum(miss)
    with np.errstate(invalid="ignore"):  # no objects: nan reaches no recall
        recall = hits / positives
    precision = hits / np.maximum(hits + misses, np.finfo(np.float64).eps)
    if eleven_points:
        return float(sum(precision[recall >= t].max(initial=0.0) / 11.0 for t in np.arange(0.0, 1.1, 0.1)))
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * envelope[steps + 1]).sum())


def _as_text(values: Any, decimals: int) -> Floats:
    """Values as they come back from being written with so many decimals.

    A number of 24 bits times 1000 is exact in 53, so that rounding it rounds as writing does, half to even; and the nearest
    number to k / 1000 is what reading the text gives.
    """
    if values.dtype.itemsize > 4:
        return np.array([float(f"{v:.{decimals}f}") for v in values.ravel()]).reshape(values.shape)
    return np.asarray(np.rint(values.astype(float) * 10**decimals) / 10**decimals)
