"""DensePose's average precision: COCO's, with geodesic point similarity (GPS) in the place of overlap.

A detection's similarity to a person is the mean, over the person's marked points, of exp(-d^2 / 2 k^2): d is the distance on the
body's surface between the vertex that was marked and the one that the detection says is at that pixel, k the mean distance
within the part (arXiv 1802.00434, section 4.1). A person nobody marked is not looked for, and who finds it is not wrong. The
numbers and the rules are those of facebookresearch/detectron2, projects/DensePose, densepose_coco_evaluation.py, mode GPS.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_tools

from downstream.datasets import POINTS
from downstream.evaluation import matching
from downstream.surface import Body

Array = np.ndarray

NAMES = ("APdp", "APdp50", "APdp75")
DETECTIONS = 20  # an image's best
BOXED = 0.8  # overlap of boxes from which a detection that matched nobody is about the person nevertheless
# The mean distance within torso, hands, feet, upper legs, lower legs, upper arms, lower arms and head, in metres, and which of these
# each of the 24 parts is.
MEAN = np.array([0, 0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150])
LARGER = np.array([0, 1, 1, 2, 2, 3, 3, *[4] * 4, *[5] * 4, *[6] * 4, *[7] * 4, 8, 8])


def evaluate(
    found: Mapping[Any, tuple[Array, Array, Sequence[Array]]], annotations: Path, body: Body
) -> dict[str, float]:
    """APdp, APdp50 and APdp75, in percent; 0 without detections.

    found:       of an image boxes [K, 4] x, y, width, height in pixels, scores [K] and, of each box, [height, width, 3] uint8 part, U
                 and V times 255
    annotations: DensePose's densepose_minival2014.json
    """
    if not any(len(scores) for _, scores, _ in found.values()):
        return dict.fromkeys(NAMES, 0.0)
    hits, ignored, ranks, wanted = [], [], [], 0
    for image, people in _people(annotations).items():
        boxes, scores, charts = found.get(image, (np.zeros((0, 4)), np.zeros(0), []))
        if not len(people) and not len(scores):
            continue
        best = np.argsort(-np.asarray(scores), kind="stable")[:DETECTIONS]
        people = sorted(people, key=lambda person: "dp_x" not in person)
        boxes = np.asarray(boxes, float)[best]
        hit, free = _matched(_similarities(boxes, [charts[i] for i in best], people, body), boxes, people)
        hits.append(hit)
        ignored.append(free)
        ranks.append(np.asarray(scores)[best])
        wanted += sum("dp_x" in person for person in people)
    if not wanted:
        return dict.fromkeys(NAMES, -100.0)
    order = np.argsort(-np.concatenate(ranks), kind="stable")
    hit, free = (np.concatenate(parts, 1)[:, order] for parts in (hits, ignored))
    table = matching.curve(hit & ~free, ~hit & ~free, wanted)
    return dict(zip(NAMES, map(matching.mean, (table, table[0], table[5])), strict=True))


def _people(annotations: Path) -> dict[Any, list[dict[str, Any]]]:
    """The persons of each image. A few of DensePose's annotations share an id, by which pycocotools, and the official evaluation with
    it, finds the last of them each time."""
    content = json.loads(annotations.read_bytes())
    people: dict[Any, list[dict[str, Any]]] = {i: [] for i in sorted(image["id"] for image in content["images"])}
    by_id = {person["id"]: person for person in content["annotations"]}
    listed = [person for person in content["annotations"] if person["image_id"] in people]
    for person in sorted(listed, key=lambda person: person["image_id"]):
        last = by_id[person["id"]]
        people.get(last["image_id"], []).append(last)
    return people


def _similarities(boxes: Array, charts: Sequence[Array], people: Sequence[dict], body: Body) -> Array:
    """[D, G] in [0, 1]."""
    table = np.zeros((len(boxes), len(people)))
    for column, person in enumerate(people):
        if not person.get("dp_x"):
            continue
        x, y, part, u, v = (np.array(person[key], float) for key in POINTS)
        left, top, width, height = person["bbox"]
        at = np.stack([x * width / 255.0 + left, y * height / 255.0 + top], 1)
        marked = body.nearest(part, u, v)
        scale = MEAN[LARGER[body.part[marked]]]
        for row, (box, chart) in enumerate(zip(boxes, charts, strict=True)):
            pixel = (at - box[:2]).astype(int)
            inside = ((pixel >= 0) & (pixel < box[2:].astype(int))).all(1)
            if inside.any():
                said = np.zeros((len(pixel), 3))
                said[inside] = chart[pixel[inside, 1], pixel[inside, 0]]
                away = body.apart(marked, body.nearest(said[:, 0], said[:, 1] / 255.0, said[:, 2] / 255.0))
                table[row, column] = np.exp(-(away**2) / (2 * scale**2)).mean()
    return table


def _matched(similarities: Array, boxes: Array, people: Sequence[dict]) -> tuple[Array, Array]:
    """Whether each detection, in the order of the scores, finds a person at each threshold, and whether it is ignored, [T, D]."""
    steps, (detections, persons) = len(matching.THRESHOLDS), (len(boxes), len(people))
    unmarked = np.array(["dp_x" not in person for person in people], bool)
    crowds = [int(person.get("iscrowd", 0)) for person in people]
    hit, taken = np.zeros((steps, detections), bool), np.zeros((steps, persons), bool)
    ignored = np.full((steps, detections), unmarked.all())
    if not detections or not persons:
        return hit, ignored
    for step, threshold in enumerate(matching.THRESHOLDS):
        for d in range(detections):
            best, chosen = min(threshold, 1 - 1e-10), -1
            for g in range(persons):
                if taken[step, g] and not crowds[g]:
                    continue
                if chosen > -1 and not unmarked[chosen] and unmarked[g]:
                    break
                if similarities[d, g] >= best and similarities[d, g] > 0:
                    best, chosen = similarities[d, g], g
            if chosen > -1:
                ignored[step, d] = unmarked[chosen]
                hit[step, d] = people[chosen]["id"] != 0
                taken[step, chosen] = True
    overlaps = mask_tools.iou(boxes.tolist(), [person["bbox"] for person in people], crowds)
    last = steps - 1  # the official loop looks at its last threshold and decides for all of them
    for d in range(detections):
        if hit[last, d]:
            continue
        best, chosen = BOXED, -1
        for g in range(persons):
            if (not taken[last, g] or crowds[g]) and overlaps[d, g] >= best:
                best, chosen = overlaps[d, g], g
        if chosen > -1:
            ignored[:, d] = unmarked[chosen]
            if unmarked[chosen]:
                hit[last, d] = people[chosen]["id"] != 0
                taken[last, chosen] = True
    return hit, ignored
