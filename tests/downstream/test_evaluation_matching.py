"""COCO's and LVIS's numbers are those of their own code to the bit, in files that nobody would write on purpose."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from downstream.evaluation import coco, lvis, matching

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11

HEIGHT, WIDTH = 40, 50


def rle(x, y, w, h):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 1
    encoded = mask_tools.encode(mask)
    return encoded | {"counts": encoded["counts"].decode()}


def scene(rng, file, crowds):
    """Up to 7 images and 4 classes, ids in any order, 0 among them; crowds, objects of no, negative and huge size or of a class
    that is not listed; up to 400 detections, many of equal score and overlap, some of no size. Returns the detections."""
    images, classes = (
        rng.permutation(1000)[: rng.integers(1, 8)].tolist(),
        rng.permutation(50)[: rng.integers(1, 5)].tolist(),
    )
    pictures = [
        {"id": i, "height": HEIGHT, "width": WIDTH}
        | {
            f"{key}_category_ids": rng.choice([*classes, 99], rng.integers(0, len(classes) + 2), replace=False).tolist()
            for key in ("neg", "not_exhaustive")
        }
        for i in images
    ]
    ids = rng.permutation(40).tolist()
    annotations, detections = [], []
    for _ in range(rng.integers(1, 30)):
        x, y, w, h = rng.integers(0, 20, 2).tolist() + rng.integers(rng.choice([0, 2], p=[0.1, 0.9]), 20, 2).tolist()
        annotations.append(
            {
                "id": ids.pop(),
                "image_id": int(rng.choice(images)),
                "category_id": int(rng.choice(classes)) if rng.random() < 0.95 else 77,
                "bbox": [x, y, w, h],
                "area": float(rng.choice([w * h, 0, -3, 2e10], p=[0.85, 0.05, 0.05, 0.05])),
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]] if rng.random() < 0.8 else rle(x, y, w, h),
            }
            | ({"iscrowd": int(rng.random() < 0.3)} if crowds else {})
            | ({"ignore": int(rng.random() < 0.5)} if rng.random() < 0.2 else {})
        )
    for _ in range(rng.integers(1, 400 if rng.random() < 0.2 else 60)):
        near = annotations[rng.integers(len(annotations))]
        x, y, w, h = (np.array(near["bbox"]) + rng.integers(-1, 2, 4) * rng.integers(0, 3)).tolist()
        detections.append(
            {
                "image_id": near["image_id"] if rng.random() < 0.8 else int(rng.choice(images)),
                "category_id": near["category_id"] if rng.random() < 0.9 else int(rng.choice([*classes, 99])),
                "bbox": [float(x), float(y), float(w), float(h)],
                "score": float(rng.integers(0, 8) / 8),
                "segmentation": rle(x, y, max(w, 0), max(h, 0)),
            }
        )
    kinds = [{"id": c, "name": str(c), "frequency": "rcf"[c % 3]} for c in classes]
    pictures += pictures[: rng.integers(0, 2)]  # one is listed twice
    file.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": kinds, "info": {}}))
    return detections


def without(detections, kind):
    """The results of one kind alone, as detectron2 hands them over."""
    other = "segmentation" if kind == "bbox" else "bbox"
    return [{k: v for k, v in d.items() if k != other} for d in detections]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_coco_is_pycocotools_to_the_bit(kind, tmp_path, monkeypatch):
    file, values = tmp_path / "instances.json", []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(matching, "PAIRS", int(rng.choice([1, 7, 1000])))
        detections = scene(rng, file, crowds=True)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(file))
            run = COCOeval(truth, truth.loadRes(without(detections, kind)), kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
        values.append([100 * float(value) for value in run.stats[:3]])
        assert list(coco.evaluate(detections, file, kind).values()) == values[-1]
    assert sum(0 < ap < ap50 < 100 for ap, ap50, _ in values) > 80 and min(values)[0] == -100


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_lvis_is_its_own_api_to_the_bit(kind, tmp_path, monkeypatch):
    """Where lvis-dataset/lvis-api is installed, or its folder in PYTHONPATH; its release 0.5.3 wants a numpy with np.float."""
    monkeypatch.setattr(np, "float", float, raising=False)
    api = pytest.importorskip("lvis")
    file = tmp_path / "lvis.json"
    for seed in range(120):
        detections = scene(np.random.default_rng(seed), file, crowds=False)
        truth = api.LVIS(str(file))
        official = api.LVISEval(truth, api.LVISResults(truth, without(detections, kind)), kind)
        official.run()
        theirs = [100 * float(official.get_results()[name]) for name in ("AP", "AP50", "AP75", "APr", "APc", "APf")]
        ours = list(lvis.evaluate(detections, file, kind).values())
        assert ours == theirs[: len(ours)]


def test_a_detection_in_an_unlisted_image_is_an_error(tmp_path):
    file = tmp_path / "instances.json"
    detections = scene(np.random.default_rng(0), file, crowds=True)
    for evaluate in (coco.evaluate, lvis.evaluate):
        with pytest.raises(ValueError, match=r"every image_id to be one of .* found 5000"):
            evaluate([*detections, detections[0] | {"image_id": 5000}], file, "bbox")


@pytest.mark.parametrize("wrong", [{"score": float("nan")}, {"bbox": [1, float("inf"), 2, 3]}])
def test_a_detection_that_is_not_finite_is_an_error(wrong, tmp_path):
    """detectron2 leaves them out; pycocotools would take an overlap that is NaN for a match."""
    file = tmp_path / "instances.json"
    detections = scene(np.random.default_rng(0), file, crowds=True)
    for evaluate in (coco.evaluate, lvis.evaluate):
        with pytest.raises(ValueError, match=rf"finite detections, found {next(iter(wrong))} .* in image \d+"):
            evaluate([*detections, detections[0] | wrong], file, "bbox")
        assert "bbox" not in wrong or evaluate([*detections, detections[0] | wrong], file, "segm")


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_what_has_no_pixels_costs_nothing_in_lvis(kind, tmp_path):
    file = tmp_path / "lvis.json"
    box = {"image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10]}
    image = {"id": 1, "height": HEIGHT, "width": WIDTH, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotations = [box | {"id": 1, "area": 100, "segmentation": rle(2, 3, 10, 10)}]
    kinds = [{"id": 1, "name": "1", "frequency": "r"}]
    file.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": kinds}))
    right = box | {"score": 0.5, "segmentation": rle(2, 3, 10, 10)}
    flat = right | {"bbox": [2, 3, 0, 10], "score": 0.9, "segmentation": rle(2, 3, 0, 10)}
    wrong = right | {"bbox": [20, 3, 10, 10], "score": 0.9, "segmentation": rle(20, 3, 10, 10)}
    alone, beside_flat, beside_wrong = (
        list(lvis.evaluate([right, *other], file, kind).values())[:3] for other in ([], [flat], [wrong])
    )
    assert alone == beside_flat == pytest.approx([100] * 3) and beside_wrong == pytest.approx([50] * 3)
