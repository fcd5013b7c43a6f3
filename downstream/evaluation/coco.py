"""COCO's average precision for boxes and masks, by faster-coco-eval, or pycocotools where that is not installed.

Both compute the same twelve numbers (tests/downstream/test_evaluation_coco.py); faster-coco-eval takes a tenth of the time.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = ("AP", "AP50", "AP75")  # the first three of COCO's summary
KINDS = {"bbox": "bb", "segm": "mk"}


def evaluate(detections: Sequence[dict[str, Any]], annotations: Path, kind: str) -> dict[str, float]:
    """APbb, APbb50, APbb75 for kind "bbox", APmk, APmk50, APmk75 for "segm", in percent; 0 without any detection.

    detections:  COCO's results format: image_id, category_id (COCO's), bbox x, y, width, height, score, segmentation (RLE)
    annotations: COCO's instances_*.json of the whole test split
    """
    name = KINDS[kind]
    if not detections:
        return {f"AP{name}{n[2:]}": 0.0 for n in NAMES}
    COCO, COCOeval = api()
    results = [{k: v for k, v in d.items() if kind == "bbox" or k != "bbox"} for d in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
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
