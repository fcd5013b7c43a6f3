"""COCO's average precision: for boxes and masks by the rules of `matching`, for keypoints by faster-coco-eval.

The numbers are pycocotools' (tests/downstream/test_evaluation_coco.py). Only those are computed that the tables want: objects
of any size, an image's 100 best detections of a class; pycocotools computes three times four such combinations.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from downstream.evaluation import matching

NAMES = ("AP", "AP50", "AP75")  # the first three of COCO's summary
KINDS = {"bbox": "bb", "segm": "mk", "keypoints": "kp"}
DETECTIONS = 100  # an image's best of a class


def evaluate(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> dict[str, float]:
    """APbb, APbb50, APbb75 for kind "bbox", APmk, ... for "segm", APkp, ... for "keypoints", in percent; 0 without detections.

    detections:  COCO's results format: image_id, category_id (COCO's), bbox x, y, width, height, score, segmentation (RLE),
                 keypoints x, y, score, ...
    annotations: COCO's instances_*.json or person_keypoints_*.json of the whole test split

    Raises ValueError for a detection in an image that the file does not list, and for one that is not finite.
    """
    names = [f"AP{KINDS[kind]}{n[2:]}" for n in NAMES]
    if not detections:
        return dict.fromkeys(names, 0.0)
    values = _keypoints(detections, annotations) if kind == "keypoints" else _objects(detections, annotations, kind)
    return dict(zip(names, values, strict=True))


def _objects(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> list[float]:
    content = json.loads(annotations.read_bytes())
    images, labels = (np.unique([entry["id"] for entry in content[key]]) for key in ("images", "categories"))
    groups, scores = matching.groups(detections, images, labels), matching.scores(detections, kind)
    mine = np.flatnonzero(groups >= 0)
    order = mine[matching.ranked(groups[mine], scores[mine], DETECTIONS)]
    best = [detections[i] for i in order.tolist()]
    truth, places = matching.objects(content["annotations"], images, labels)
    crowds = np.array([bool(a.get("iscrowd")) for a in truth], bool)
    ignored = crowds | matching.outside([a["area"] for a in truth])
    free = matching.outside([d["bbox"][2] * d["bbox"][3] if kind == "bbox" else 0 for d in best])
    table = matching.precision(
        matching.Detections(best, groups[order], scores[order], free),
        matching.Objects(truth, places, ignored, crowds),
        kind,
        content["images"],
        len(labels),
    )
    return [matching.mean(part) for part in (table, table[0], table[5])]


def _keypoints(detections: Sequence[dict[str, Any]], annotations: Path) -> list[float]:
    from faster_coco_eval import COCO, COCOeval_faster

    content = json.loads(annotations.read_bytes())
    # faster-coco-eval takes images for numbers of 53 bits: it knows them by their places
    places = {i: place for place, i in enumerate(sorted(image["id"] for image in content["images"]), 1)}
    if unknown := {d["image_id"] for d in detections} - places.keys():
        raise ValueError(
            f"expected every image_id to be one of the annotation file's {len(places)}, found {unknown.pop()!r}"
        )
    content["images"] = [image | {"id": places[image["id"]]} for image in content["images"]]
    content["annotations"] = [
        person | {"image_id": places[person["image_id"]]}
        for person in content["annotations"]
        if person["image_id"] in places
    ]
    for person in content["annotations"]:  # crowds come without them, and both would stumble
        person["keypoints"] = person.get("keypoints") or [0] * 51
        person.setdefault("num_keypoints", sum(v > 0 for v in person["keypoints"][2::3]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        run = COCOeval_faster(
            truth, truth.loadRes([d | {"image_id": places[d["image_id"]]} for d in detections]), "keypoints"
        )
        run.evaluate()
        run.accumulate()
        run.summarize()
    return [100 * float(run.stats[i]) for i in range(len(NAMES))]
