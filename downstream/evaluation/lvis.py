"""LVIS's average precision for boxes and masks, by the rules of `matching`.

An image says nothing about most of the 1,203 or 1,230 classes: a detection of a class that is neither seen in an image nor
known to be absent counts neither way, nor does one that matches nothing of a class whose objects are not all marked there.
What has no pixels is left out, detections after the best 300 were taken
(lvis-dataset/lvis-api, lvis/eval.py; tests/downstream/test_evaluation_lvis.py has the same rules in numpy).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from downstream.evaluation import matching

DETECTIONS = 300  # an image's best, all classes together


def evaluate(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> dict[str, float]:
    """APbb, APbb50, APbb75 for kind "bbox"; APmk, APmk50, APmk75 and those of rare, common and frequent classes, APr, APc, APf,
    for "segm". In percent; 0 without any detection.

    detections:  COCO's results format: image_id, category_id (LVIS's), bbox x, y, width, height, score, segmentation (RLE)
    annotations: LVIS's lvis_*_val.json of the whole test split
    """
    names = {"bbox": ("APbb", "APbb50", "APbb75"), "segm": ("APmk", "APmk50", "APmk75", "APr", "APc", "APf")}[kind]
    if not detections:
        return dict.fromkeys(names, 0.0)
    content = json.loads(annotations.read_bytes())
    images, labels = (np.unique([entry["id"] for entry in content[key]]) for key in ("images", "categories"))
    groups, scores = matching.groups(detections, images, labels), matching.scores(detections, kind)
    truth, places = matching.objects([a for a in content["annotations"] if a["area"] > 0], images, labels)
    absent, loose = (
        _listed(content["images"], images, labels, f"{key}_category_ids") for key in ("neg", "not_exhaustive")
    )
    picture = np.searchsorted(images, [d["image_id"] for d in detections])
    best = matching.ranked(picture, scores, DETECTIONS)
    mine = np.sort(best[(groups[best] >= 0) & np.isin(groups[best], np.concatenate([places, absent]))])
    sizes = _sizes([detections[i] for i in mine.tolist()], kind)
    mine, sizes = mine[sizes > 0], sizes[sizes > 0]
    order = matching.ranked(groups[mine], scores[mine], DETECTIONS)
    free = matching.outside(sizes[order]) | np.isin(groups[mine[order]], loose)
    found = [detections[i] for i in mine[order].tolist()]
    ignored = np.array([bool(a.get("ignore")) for a in truth], bool) | matching.outside([a["area"] for a in truth])
    table = matching.precision(
        matching.Detections(found, groups[mine[order]], scores[mine[order]], free),
        matching.Objects(truth, places, ignored, np.zeros(len(truth), bool)),
        kind,
        content["images"],
        len(labels),
    )
    often = {c["id"]: c["frequency"] for c in content["categories"]}
    frequency = np.array([often[label] for label in labels.tolist()])
    parts = (table, table[0], table[5], *(table[:, :, frequency == f] for f in "rcf"))
    return {name: matching.mean(part) for name, part in zip(names, parts, strict=False)}


def _sizes(found: Sequence[dict[str, Any]], kind: str) -> Any:
    """[N] pixels of each box or mask."""
    if kind == "bbox":
        return np.array([d["bbox"][2] * d["bbox"][3] for d in found], float)
    # one by one: pycocotools 2.0.11 fails with a list of more than 255
    return np.array([mask_tools.area(d["segmentation"]) for d in found], float)


def _listed(content: Sequence[dict[str, Any]], images: Any, labels: Any, key: str) -> Any:
    """The groups of the classes that images list under this key."""
    pairs = [{"image_id": image["id"], "category_id": label} for image in content for label in image[key]]
    return matching.groups(pairs, images, labels)
