"""Cityscapes' average precision for instances, as cityscapesscripts computes it (evalInstanceLevelSemanticLabeling.py), from
memory and not through files.

It is not COCO's. A match needs an IoU strictly above the threshold; of several masks that match one object the one with the
best score is right, the others are wrong. Objects under 100 pixels and groups are not searched for, nor is it wrong to find
them; a mask that matches nothing counts neither way if more of it than the threshold lies on void, groups and small objects.
Each point of the precision-recall curve weighs half the distance between its neighbours' recalls; the last point is precision
1 at recall 0, and there is no envelope. Equal scores are one point, so their order does not matter. AP is the mean over the
thresholds .50, .55, ..., .95 and the classes that have objects.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from downstream.datasets import CITYSCAPES_CLASSES, CITYSCAPES_SMALLEST, instance_ids

THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # with its rounding: 0.6000000000000001 is one of them
# The labels that are ignored: unlabeled to ground, parking, rail track, guard rail, bridge, tunnel, polegroup, and groups of
# caravans and trailers, but not a single caravan or trailer (cityscapesscripts compares its id, such as 29000, with these).
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)

Array = np.ndarray[Any, Any]


def evaluate(
    predictions: Mapping[str, tuple[Sequence[Any], Any, Any]], images: Iterable[Mapping[str, Any]]
) -> dict[str, float]:
    """APmk and APmk50 in percent.

    predictions: image id -> (masks as COCO's run lengths, scores, class numbers from 0)
    images:      the test set's records (`downstream.datasets.records`)
    """
    seen = [overlaps(instance_ids(r["instance_file_name"]), *predictions[r["image_id"]]) for r in images]
    return summary([[image[c] for image in seen] for c in range(len(CITYSCAPES_CLASSES))])


@dataclass(frozen=True)
class Overlaps:
    """The objects and the predictions of one class in one image: O objects, groups among them, and P masks."""

    sizes: Array  # [O] pixels
    groups: Array  # [O] True where nobody told objects apart
    masks: Array  # [P] pixels
    scores: Array  # [P]
    void: Array  # [P] pixels on void
    both: Array  # [P, O] pixels of mask and object


def overlaps(ids: Array, masks: Sequence[Any], scores: Any, classes: Any) -> list[Overlaps]:
    """What the evaluation needs of an image, for each class.

    ids:   [H, W], Cityscapes' instanceIds
    masks: COCO's run lengths of [H, W]; an empty one is no prediction
    """
    total = np.bincount(ids.ravel())
    labels = np.arange(len(total))
    labels = np.where(labels < 1000, labels, labels // 1000)
    under = np.array([_under(ids, mask, len(total)) for mask in masks], np.int64).reshape(len(masks), len(total))
    pixels = under.sum(1)
    void = under[:, [i for i in VOID if i < len(total)]].sum(1)
    found = []
    for number, label in enumerate(CITYSCAPES_CLASSES):
        mine = np.flatnonzero((np.asarray(classes) == number) & (pixels > 0))
        objects = np.flatnonzero((labels == label) & (total > 0))
        found.append(
            Overlaps(
                total[objects],
                objects < 1000,
                pixels[mine],
                np.asarray(scores, float)[mine],
                void[mine],
                under[np.ix_(mine, objects)],
            )
        )
    return found


def _under(ids: Array, mask: Any, count: int) -> Array:
    """Pixels of a mask by the id that is under them, [count]."""
    x, y, width, height = mask_tools.toBbox(mask).astype(int)
    box = np.s_[y : y + height, x : x + width]
    return np.bincount(ids[box][mask_tools.decode(mask)[box] > 0], minlength=count)


def summary(classes: Sequence[Sequence[Overlaps]]) -> dict[str, float]:
    """APmk and APmk50 in percent of the images of each class; a class without objects is left out of the means.

    Raises ValueError if no class has any.
    """
    table = np.array([[average_precision(images, t) for t in THRESHOLDS] for images in classes])
    if np.isnan(table).all():
        raise ValueError(f"expected an object of at least {CITYSCAPES_SMALLEST} pixels to test on, found none")
    return {"APmk": 100 * float(np.nanmean(table)), "APmk50": 100 * float(np.nanmean(table[:, 0]))}


def average_precision(images: Sequence[Overlaps], threshold: float) -> float:
    """AP of one class in [0, 1]; nan without an object that counts, 0 without a prediction that does."""
    true, false, objects = [np.empty(0)], [np.empty(0)], 0
    for image in images:
        hit, wrong, wanted = _counted(image, threshold)
        true.append(hit)
        false.append(wrong)
        objects += wanted
    hits, scores = np.concatenate(true), np.concatenate([*true, *false])
    if not objects or not len(scores):
        return 0.0 if objects else float("nan")
    levels = np.unique(scores)
    above = len(scores) - np.searchsorted(np.sort(scores), levels)
    right = len(hits) - np.searchsorted(np.sort(hits), levels)
    precision, recall = np.append(right / above, 1.0), np.append(right / objects, 0.0)
    edges = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ ((edges[:-2] - edges[2:]) / 2))


def _counted(image: Overlaps, threshold: float) -> tuple[Array, Array, int]:
    """Scores of the right predictions, scores of the wrong ones, and how many objects were to be found."""
    hit = image.both / (image.sizes + image.masks[:, None] - image.both) > threshold
    small = image.sizes < CITYSCAPES_SMALLEST
    wanted = ~image.groups & ~small
    right, wrong = [], []
    for column in np.flatnonzero(wanted & hit.any(0)):
        *rest, best = sorted(image.scores[hit[:, column]])
        right.append(best)
        wrong += rest
    # a small group counts twice here, as it does there
    ignored = image.void + image.both[:, image.groups].sum(1) + image.both[:, small].sum(1)
    lost = ~hit.any(1) & (ignored / image.masks <= threshold)
    return np.array(right), np.concatenate([np.array(wrong), image.scores[lost]]), int(wanted.sum())
