"""LVIS's average precision for boxes and masks, by faster-coco-eval in its LVIS mode.

An image says nothing about most of the 1,203 or 1,230 classes: a detection of a class that is neither seen in an image nor
known to be absent counts neither way, nor does one that matches nothing of a class whose objects are not all marked there
(lvis-dataset/lvis-api, lvis/eval.py; tests/downstream/test_evaluation_lvis.py has the same rules in numpy).
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DETECTIONS = 300  # an image's best, all classes together


def evaluate(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> dict[str, float]:
    """APbb, APbb50, APbb75 for kind "bbox"; APmk, APmk50, APmk75 and those of rare, common and frequent classes, APr, APc, APf,
    for "segm". In percent; 0 without any detection.

    detections:  COCO's results format: image_id, category_id (LVIS's), bbox x, y, width, height, score, segmentation (RLE)
    annotations: LVIS's lvis_*_val.json of the whole test split
    """
    from faster_coco_eval import COCO, COCOeval_faster

    names = {"bbox": ("APbb", "APbb50", "APbb75"), "segm": ("APmk", "APmk50", "APmk75", "APr", "APc", "APf")}[kind]
    images = defaultdict(list)
    for d in detections:
        images[d["image_id"]].append({k: v for k, v in d.items() if kind == "bbox" or k != "bbox"})
    best = [d for found in images.values() for d in sorted(found, key=lambda d: -d["score"])[:DETECTIONS]]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        # faster-coco-eval leaves these out too, but stumbles over an image that has no others (1.8.0, masks)
        known = {(image["id"], label) for image in truth.dataset["images"] for label in image["neg_category_ids"]}
        known |= {(a["image_id"], a["category_id"]) for a in truth.dataset["annotations"]}
        best = [d for d in best if (d["image_id"], d["category_id"]) in known]
        if not best:
            return dict.fromkeys(names, 0.0)
        run = COCOeval_faster(truth, truth.loadRes(best), kind, lvis_style=True, print_function=lambda *_: None)
        run.params.maxDets = [DETECTIONS]
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = [*run.all_stats[:3], *run.all_stats[-3:]]
    return {name: 100 * float(value) for name, value in zip(names, values, strict=False)}
