"""Detections matched with objects as COCO and LVIS do it, and the precision that follows, all classes and images at once.

The rules are pycocotools' (cocoeval.py) and lvis-api's (lvis/eval.py), for objects of any size. In each image and class, the
detection with the highest score chooses first: of the objects that it overlaps by at least the threshold and that nobody
chose, the one that it overlaps most, and of equal ones the last; crowds may be chosen again. An object that is ignored is
chosen only when no other can be, and such a choice counts neither way. Precision is then read at 101 recalls from the
envelope over the detections of all images, of which equal scores keep their order.

Only what overlaps by half or more can be chosen, so few of the pairs of a detection and an object are kept. The first choices
of all images and classes are made together, then the second ones, for the ten thresholds at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from downstream import datasets

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
LARGEST = 1e5**2  # pixels; what is larger is ignored, as negative sizes are (pycocotools, the areaRng of "all")
PAIRS = 2**19  # of detections and objects at a time: bounds the memory

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Objects:
    """O objects, in the file's order."""

    entries: Sequence[Mapping[str, Any]]  # COCO's annotations
    groups: Array  # [O] class number * number of images + image number
    ignored: Array  # [O] True for what need not be found
    crowds: Array  # [O] True for what may be found again and again


@dataclass(frozen=True)
class Detections:
    """D detections, by group and then by score, as `ranked` orders them."""

    entries: Sequence[Mapping[str, Any]]  # COCO's results
    groups: Array  # [D] as those of the objects
    scores: Array  # [D]
    free: Array  # [D] True for what costs nothing if it finds nothing


@dataclass(frozen=True)
class Blocks:
    """B pairs of several detections and several objects of one image and class."""

    detections: Array  # numbers, block after block
    objects: Array  # numbers, block after block
    shapes: Array  # [B, 2] how many of each


def groups(entries: Sequence[Mapping[str, Any]], images: Array, classes: Array) -> Array:
    """[N], class number * number of images + image number of each annotation or detection; -1 if the class is not listed.

    images, classes: the ids, sorted

    Raises ValueError for an image that is not listed.
    """
    image, listed = _places([e["image_id"] for e in entries], images)
    if not listed.all():
        wrong = entries[int(np.argmin(listed))]["image_id"]
        raise ValueError(f"expected every image_id to be one of the annotation file's {len(images)}, found {wrong!r}")
    label, listed = _places([e["category_id"] for e in entries], classes)
    return np.where(listed, label * len(images) + image, -1)


def scores(detections: Sequence[Mapping[str, Any]], kind: str) -> Array:
    """[N]. Raises ValueError for a score, or for boxes a box, that is not finite: the official code takes NaN for a match."""
    found = np.array([d["score"] for d in detections], float)
    for what, values in (
        ("score", found),
        ("bbox", np.array([d["bbox"] for d in detections] if kind == "bbox" else [], float)),
    ):
        if len(wrong := np.argwhere(~np.isfinite(values))):
            entry = detections[wrong[0][0]]
            raise ValueError(f"expected finite detections, found {what} {entry[what]} in image {entry['image_id']!r}")
    return found


def objects(annotations: Sequence[dict[str, Any]], images: Array, classes: Array) -> tuple[list[dict[str, Any]], Array]:
    """The annotations whose image and class are listed, and their groups."""
    listed = _places([a["image_id"] for a in annotations], images)[1].tolist()
    inside = [a for a, known in zip(annotations, listed, strict=True) if known]
    places = groups(inside, images, classes)
    return [a for a, place in zip(inside, places.tolist(), strict=True) if place >= 0], places[places >= 0]


def ranked(groups: Array, scores: Array, most: int) -> Array:
    """Numbers of the `most` detections of each group that have the highest scores, by group and then by score."""
    order = np.lexsort((-scores, groups))
    return order[_ranks(groups[order]) < most]


def precision(found: Detections, truth: Objects, kind: str, images: Sequence[Mapping[str, Any]], classes: int) -> Array:
    """[T, R, classes], the precision in [0, 1] at each of THRESHOLDS and RECALLS; -1 for a class without objects to find.

    kind:   "bbox" for boxes x, y, width, height, "segm" for masks
    images: those of the annotation file
    """
    hit, ignored = _matched(found, truth, kind, images)
    wrong = ~hit & ~ignored
    hit &= ~ignored
    count = len({image["id"] for image in images})
    wanted = np.bincount(truth.groups[~truth.ignored] // count, minlength=classes)
    edges = np.searchsorted(found.groups, np.arange(classes + 1) * count)
    table = np.full((len(THRESHOLDS), len(RECALLS), classes), -1.0)
    for label in np.flatnonzero(wanted):
        mine = slice(edges[label], edges[label + 1])
        order = np.argsort(-found.scores[mine], kind="stable")
        table[:, :, label] = curve(hit[:, mine][:, order], wrong[:, mine][:, order], wanted[label])
    return table


def outside(areas: Sequence[float]) -> Array:
    """[N], whether sizes in pixels are so small or large that what has them is ignored."""
    sizes = np.array(areas, float)
    return (sizes < 0) | (sizes > LARGEST)


def mean(table: Array) -> float:
    """Percent: the mean over what is not -1; -100 if everything is."""
    known = table[table > -1]
    return 100 * float(known.mean()) if known.size else -100.0


def curve(hit: Array, wrong: Array, wanted: int) -> Array:
    """[T, R] precision of one class's detections [T, N] in the order of their scores, of which so many could be found."""
    hits, misses = np.cumsum(hit, 1, dtype=float), np.cumsum(wrong, 1, dtype=float)
    recall, exact = hits / wanted, hits / (misses + hits + np.spacing(1))
    envelope = np.maximum.accumulate(exact[:, ::-1], 1)[:, ::-1]
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], 1)  # no precision where a recall is not reached
    return np.stack([row[np.searchsorted(r, RECALLS)] for r, row in zip(recall, padded, strict=True)])


def _matched(found: Detections, truth: Objects, kind: str, images: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    """Whether each detection finds an object, and whether it is ignored, both [T, D]."""
    steps, detections, objects = len(THRESHOLDS), len(found.groups), len(truth.groups)
    # pycocotools and lvis-api write down which annotation was found, by an id where 0 means none
    named = np.array([a["id"] != 0 for a in truth.entries], bool)
    hit, ignored = np.zeros((2, steps, detections), bool)
    ignored[:] = found.free
    taken = np.zeros((steps, objects), bool)
    d, o, iou = _candidates(found, truth, _overlaps(found, truth, kind, images))
    owners, first, count = np.unique(d, return_index=True, return_counts=True)
    turns = _ranks(found.groups[owners])
    order = np.argsort(turns, kind="stable")
    for turn in np.split(order, np.flatnonzero(np.diff(turns[order])) + 1) if len(order) else ():
        pairs, starts = _ranges(first[turn], count[turn])
        mine = o[pairs]
        able = (iou[pairs] >= THRESHOLDS[:, None]) & (truth.crowds[mine] | ~taken[:, mine])
        choice = np.maximum.reduceat(np.where(able, pairs + 1, 0), starts, 1) - 1  # the last is the best
        t, column = np.nonzero(choice >= 0)
        chosen, owner = o[choice[t, column]], owners[turn[column]]
        taken[t, chosen] = True
        hit[t, owner] = named[chosen]
        ignored[t, owner] = truth.ignored[chosen] | (~named[chosen] & found.free[owner])
    return hit, ignored


def _candidates(found: Detections, truth: Objects, overlaps: Callable[[Blocks], Array]) -> tuple[Array, Array, Array]:
    """Detection, object and overlap of all pairs that can be chosen: by detection, the best choice last."""
    by_group = np.argsort(truth.groups, kind="stable")
    d_names, d_first, d_count = np.unique(found.groups, return_index=True, return_counts=True)
    o_names, o_first, o_count = np.unique(truth.groups[by_group], return_index=True, return_counts=True)
    _, d_at, o_at = np.intersect1d(d_names, o_names, assume_unique=True, return_indices=True)
    shapes = np.stack([d_count[d_at], o_count[o_at]], 1)
    part = np.cumsum(shapes.prod(1)) // PAIRS
    kept = [(np.empty(0, int), np.empty(0, int), np.empty(0))]
    for groups in np.split(np.arange(len(shapes)), np.flatnonzero(np.diff(part)) + 1):
        rows = _ranges(d_first[d_at[groups]], d_count[d_at[groups]])[0]
        columns = by_group[_ranges(o_first[o_at[groups]], o_count[o_at[groups]])[0]]
        blocks = Blocks(rows, columns, shapes[groups])
        iou = overlaps(blocks)
        near = np.flatnonzero(iou >= THRESHOLDS[0])
        d, o = _pairs(blocks)
        kept.append((d[near], o[near], iou[near]))
    d, o, iou = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    best_last = np.lexsort((o, iou, ~truth.ignored[o], d))
    return d[best_last], o[best_last], iou[best_last]


def _pairs(blocks: Blocks) -> tuple[Array, Array]:
    """Detection and object of each pair of each block, flat."""
    count = np.repeat(blocks.shapes[:, 1], blocks.shapes[:, 0])
    first = np.cumsum(blocks.shapes[:, 1]) - blocks.shapes[:, 1]
    return np.repeat(blocks.detections, count), blocks.objects[_ranges(np.repeat(first, blocks.shapes[:, 0]), count)[0]]


def _overlaps(
    found: Detections, truth: Objects, kind: str, images: Sequence[Mapping[str, Any]]
) -> Callable[[Blocks], Array]:
    """The intersections over unions of blocks, flat: for each block its detections' with each of its objects.

    Over a crowd, the union is the detection's own area.
    """
    if kind == "segm":
        sizes = {image["id"]: (image["height"], image["width"]) for image in images}
        return lambda blocks: _mask_overlaps(blocks, found.entries, truth.entries, sizes, truth.crowds)
    boxes = [np.array([e["bbox"] for e in entries], float).reshape(-1, 4) for entries in (found.entries, truth.entries)]
    return lambda blocks: _box_overlaps(blocks, *boxes, truth.crowds)


def _box_overlaps(blocks: Blocks, found: Array, truth: Array, crowds: Array) -> Array:
    d, o = _pairs(blocks)
    (x, y, w, h), (left, top, width, height) = found[d].T, truth[o].T
    wide = np.minimum(w + x, width + left) - np.maximum(x, left)
    high = np.minimum(h + y, height + top) - np.maximum(y, top)
    both = np.where((wide > 0) & (high > 0), wide * high, 0.0)
    union = np.where(crowds[o], w * h, w * h + width * height - both)
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def _mask_overlaps(
    blocks: Blocks,
    found: Sequence[Mapping[str, Any]],
    truth: Sequence[Mapping[str, Any]],
    sizes: Mapping[Any, tuple[int, int]],
    crowds: Array,
) -> Array:
    flat, d, o = [np.empty(0)], 0, 0
    for rows, columns in blocks.shapes.tolist():
        mine, theirs = blocks.detections[d : d + rows].tolist(), blocks.objects[o : o + columns]
        masks = [_mask(truth[i]["segmentation"], *sizes[truth[i]["image_id"]]) for i in theirs.tolist()]
        flat.append(mask_tools.iou([found[i]["segmentation"] for i in mine], masks, crowds[theirs].tolist()).ravel())
        d, o = d + rows, o + columns
    return np.concatenate(flat)


def _mask(segmentation: Any, height: int, width: int) -> Any:
    """An object's run lengths, from its polygons, from plain run lengths or as they are."""
    if isinstance(segmentation, list):
        # pycocotools takes two points for a box, and all others with them
        return mask_tools.merge(mask_tools.frPyObjects(datasets.polygons(segmentation), height, width))
    if isinstance(segmentation["counts"], list):
        return mask_tools.frPyObjects(segmentation, height, width)
    return segmentation


def _places(values: Sequence[Any], known: Array) -> tuple[Array, Array]:
    """Places of values among known, sorted ones, and whether they are there at all."""
    if not len(values) or not len(known):
        return np.zeros(len(values), int), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return at, known[at] == values


def _ranks(groups: Array) -> Array:
    """0, 1, 2, ... within each run of equal values."""
    if not len(groups):
        return np.zeros(0, int)
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def _ranges(first: Array, count: Array) -> tuple[Array, Array]:
    """first[0], first[0] + 1, ..., count[0] of them, then those of first[1], ...; and where each begins."""
    starts = np.cumsum(count) - count
    return np.arange(count.sum()) + np.repeat(first - starts, count), starts
