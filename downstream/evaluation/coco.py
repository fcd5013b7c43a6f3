"""COCO's average precision for boxes, masks and keypoints, by faster-coco-eval, or pycocotools where that is not installed.

Both compute the same numbers (tests/downstream/test_evaluation_coco.py); faster-coco-eval takes a tenth of the time.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("AP", "AP50", "AP75")  # the first three of COCO's summary
KINDS = {"bbox": "bb", "segm": "mk", "keypoints": "kp"}


def evaluate(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> dict[str, float]:
    """APbb, APbb50, APbb75 for kind "bbox", APmk, ... for "segm", APkp, ... for "keypoints", in percent; 0 without detections.

    detections:  COCO's results format: image_id, category_id (COCO's), bbox x, y, width, height, score, segmentation (RLE),
                 keypoints x, y, score, ...
    annotations: COCO's instances_*.json or person_keypoints_*.json of the whole test split
    """
    name = KINDS[kind]
    if not detections:
        return {f"AP{name}{n[2:]}": 0.0 for n in NAMES}
    COCO, COCOeval = api()
    results = [{k: v for k, v in d.items() if kind != "segm" or k != "bbox"} for d in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        if kind == "keypoints":
            for person in truth.dataset["annotations"]:  # crowds come without them, and both would stumble
                person["keypoints"] = person.get("keypoints") or [0] * 51
                person.setdefault("num_keypoints", sum(v > 0 for v in person["keypoints"][2::3]))
        run = COCOeval(truth, truth.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {f"AP{name}{n[2:]}": 100 * float(run.stats[i]) for i, n in enumerate(NAMES)}


def api() -> tuple[Any, Any]:
    """The classes COCO and COCOeval, the fast ones if they are there."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    return COCO, COCOeval_faster
