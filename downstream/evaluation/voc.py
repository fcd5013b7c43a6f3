"""PASCAL VOC's average precision, as detectron2 computes it for the papers' tables (evaluation/pascal_voc_evaluation.py).

It is not COCO's. Detections go through text there, so a score is rounded to 3 decimals and a box, moved to VOC's 1-based
pixels, to 1; widths count pixels, so they are one more than the difference; a match needs an IoU strictly above the
threshold; a detection whose best object is "difficult" counts neither way; a second detection of an object is wrong. VOC2007
takes the mean of the best precision at 11 recalls, later years the area under the precision's envelope. AP is the mean over
the thresholds .50, .55, ..., .95 of the mean over the classes. Equal scores keep the order that numpy's unstable argsort
gives them, since detectron2 sorts by it. Pure numpy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]


def evaluate(
    predictions: Mapping[str, tuple[Any, Any, Any]], images: Sequence[Mapping[str, Any]], classes: int, year: int
) -> dict[str, float]:
    """AP, AP50 and AP75 in percent.

    predictions: image id -> (boxes [K, 4] x1, y1, x2, y2 in pixels from 0, scores [K], class numbers [K]); the order of the
                 images is the order of equal scores
    images:      the test set's records (`downstream.datasets.records`), whose annotations are XYXY from 0
    """
    ids = np.repeat(np.arange(len(predictions)), [len(scores) for _, scores, _ in predictions.values()])
    names = list(predictions)
    boxes, scores, labels = (
        np.concatenate(
            [np.asarray(p[i]).reshape(shape) for p in predictions.values()] or [np.empty(shape).reshape(0, 4)]
        )
        for i, shape in ((0, (-1, 4)), (1, (-1,)), (2, (-1,)))
    )
    boxes = _as_text(boxes + np.array([1, 1, 0, 0], boxes.dtype), 1)
    scores = _as_text(scores, 3)
    aps = []
    for c in range(classes):
        truth = {r["image_id"]: _truth(r, c) for r in images}
        mine = np.flatnonzero(labels == c)
        aps.append(
            class_aps(
                [truth[names[i]] for i in ids[mine]],
                boxes[mine],
                scores[mine],
                sum(int((~difficult).sum()) for _, difficult in truth.values()),
                year == 2007,
            )
        )
    table = np.ascontiguousarray(100 * np.array(aps).T)  # thresholds x classes, in the order in which detectron2 adds
    means = table.mean(axis=1)
    return {"AP": float(means.mean()), "AP50": float(means[0]), "AP75": float(means[5])}


THRESHOLDS = [t / 100 for t in range(50, 100, 5)]


def class_aps(
    truth: Sequence[tuple[Floats, Floats]], boxes: Floats, scores: Floats, positives: int, eleven_points: bool
) -> Floats:
    """AP of one class at each of THRESHOLDS, in [0, 1]; a class without objects has 0 by 11 points, as detectron2 has it.

    truth: for each detection, its image's objects of the class: boxes [G, 4], difficult [G]. Detections of one image share
           one pair, so that an object is found once
    """
    order = np.argsort(-scores)
    found = [set[tuple[int, int]]() for _ in THRESHOLDS]
    hit, miss = np.zeros((2, len(THRESHOLDS), len(order)))
    for d, i in enumerate(order):
        objects, difficult = truth[i]
        best, overlap = _best(boxes[i], objects)
        for t, threshold in enumerate(THRESHOLDS):
            if not overlap > threshold:
                miss[t, d] = 1
            elif not difficult[best]:
                key = (id(objects), best)
                if key in found[t]:
                    miss[t, d] = 1
                else:
                    hit[t, d] = 1
                    found[t].add(key)
    return np.array([_ap(h, m, positives, eleven_points) for h, m in zip(hit, miss, strict=True)])


def _truth(image: Mapping[str, Any], label: int) -> tuple[Floats, Any]:
    mine = [a for a in image["annotations"] if a["category_id"] == label]
    boxes = np.array([a["bbox"] for a in mine], dtype=float).reshape(-1, 4) + np.array([1.0, 1.0, 0.0, 0.0])
    return boxes, np.array([a.get("difficult", 0) for a in mine], dtype=bool)


def _best(box: Floats, objects: Floats) -> tuple[int, float]:
    """The object that a box overlaps most, and their IoU over whole pixels."""
    if len(objects) == 0:
        return -1, -np.inf
    sides = np.minimum(objects[:, 2:], box[2:]) - np.maximum(objects[:, :2], box[:2]) + 1.0
    inner = np.maximum(sides, 0.0).prod(axis=1)
    own = (box[2] - box[0] + 1.0) * (box[3] - box[1] + 1.0)
    theirs = (objects[:, 2] - objects[:, 0] + 1.0) * (objects[:, 3] - objects[:, 1] + 1.0)
    overlaps = inner / (own + theirs - inner)
    best = int(np.argmax(overlaps))
    return best, float(overlaps[best])


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
    """Values as they come back from being written with so many decimals."""
    return np.array([float(f"{v:.{decimals}f}") for v in values.ravel()]).reshape(values.shape)
