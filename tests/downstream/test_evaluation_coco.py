"""faster-coco-eval and pycocotools give the same numbers, and the names are ours."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from downstream.evaluation import coco

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11


def rle(mask):
    encoded = mask_tools.encode(np.asfortranarray(mask, np.uint8))
    return encoded | {"counts": encoded["counts"].decode()}


def scene(folder, seed, images=30, crowded=0):
    """A json file of images of boxes, some of them crowds, of two of three classes, and detections near and far from them.

    A fifth of the images has no objects, a fifth no detections; scores are of 20 values; some masks are empty, some boxes
    have no size; crowded: further detections an image, of which 100 a class count
    """
    rng = np.random.default_rng(seed)
    pictures = [{"id": i, "height": 80, "width": 100, "file_name": f"{i}.jpg"} for i in range(1, images + 1)]
    annotations, detections = [], []
    for image in pictures:
        shown, searched = rng.random(2) < 0.8
        mine = []
        for _ in range(rng.integers(1, 6) if shown else 0):
            x, y, w, h = *rng.integers(0, 50, 2).tolist(), *rng.integers(4, 50, 2).tolist()
            w, h = min(w, 100 - x), min(h, 80 - y)
            mask = np.zeros((80, 100), bool)
            mask[y : y + h, x : x + w] = True
            crowd = int(rng.random() < 0.15)
            mine.append((int(rng.integers(1, 3)), x, y, w, h))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": mine[-1][0],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": rle(mask) if crowd else [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        for number in range(rng.integers(0, 10) + crowded if searched else 0):
            label, x, y, w, h = mine[rng.integers(len(mine))] if mine else (3, 10, 10, 20, 20)
            spread = rng.choice([0, 0, 1, 4, 30])
            x, y = (max(0.0, float(v + rng.normal() * spread)) for v in (x, y))
            mask = np.zeros((80, 100), bool)
            mask[int(y) : int(y + h), int(x) : int(x + w)] = rng.random() < 0.95
            detections.append(
                {
                    "image_id": image["id"],
                    "category_id": label if rng.random() < 0.9 else int(rng.integers(1, 4)),
                    "bbox": [x, y, float(w), float(h) if number % 30 else 0.0],
                    "score": float(rng.integers(1, 21) / 20),
                    "segmentation": rle(mask),
                }
            )
    file = folder / f"instances_{seed}.json"
    categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    file.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": categories, "info": {}}))
    return file, detections


def official(file, detections, kind):
    """AP, AP50, AP75 in percent by pycocotools; of masks without the boxes, as detectron2 has it."""
    results = [{k: v for k, v in d.items() if kind != "segm" or k != "bbox"} for d in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        run = COCOeval(truth, truth.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return (100 * run.stats[:3]).tolist()


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_boxes_and_masks_are_equal_to_pycocotools(kind, tmp_path):
    """40 scenes, 320 images with 725 objects and 2,189 detections."""
    pytest.importorskip("faster_coco_eval")
    values = []
    for seed in range(40):
        file, detections = scene(tmp_path, seed, images=8, crowded=150 * (seed == 7))
        values.append(official(file, detections, kind))
        assert list(coco.evaluate(detections, file, kind).values()) == pytest.approx(values[-1], abs=1e-10)
    assert sum(0 < ap < ap50 < 100 for ap, ap50, _ in values) > 30


REAL = Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data") / "coco"


def near(file, kind, seed=0):
    """Detections near the objects of a genuine file, with tied scores, some of another class."""
    rng = np.random.default_rng(seed)
    truth = COCO(str(file))
    labels = truth.getCatIds()
    for a in truth.dataset["annotations"]:
        size = truth.imgs[a["image_id"]]
        for _ in range(rng.integers(0, 3)):
            shift = rng.normal(size=2) * rng.choice([0, 2, 10])
            entry = {"image_id": a["image_id"], "score": float(rng.integers(1, 50) / 50)}
            entry["category_id"] = a["category_id"] if rng.random() < 0.9 else int(rng.choice(labels))
            entry["bbox"] = [float(v) for v in (*np.maximum(a["bbox"][:2] + shift, 0), *a["bbox"][2:])]
            if kind == "segm":
                mask = np.roll(truth.annToMask(a), shift.astype(int)[::-1], (0, 1))
                entry["segmentation"] = rle(mask[: size["height"], : size["width"]])
            if kind == "keypoints":
                points = np.array(a["keypoints"], float).reshape(17, 3)
                points[:, :2] += rng.normal(size=(17, 2)) * np.sqrt(a["area"]) * rng.choice([0, 0.02, 0.2])
                entry["keypoints"] = points.ravel().tolist()
            yield entry


@pytest.mark.parametrize(
    ("kind", "name"),
    [("bbox", "instances_val2017"), ("segm", "instances_val2017"), ("keypoints", "person_keypoints_val2017")],
)
def test_genuine_annotations_are_equal_to_pycocotools(kind, name):
    pytest.importorskip("faster_coco_eval")
    file = REAL / "annotations" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"needs coco/annotations/{name}.json")
    detections = list(near(file, kind))
    theirs = official(file, detections, kind)
    assert len(detections) > 100 and 0 < theirs[0] < theirs[1] < 100
    assert list(coco.evaluate(detections, file, kind).values()) == pytest.approx(theirs, abs=1e-10)


def people(folder, seed):
    """A keypoints file of 40 images: persons with some, none or no list of keypoints, crowds; detections with tied scores."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "height": 200, "width": 300, "file_name": f"{i}.jpg"} for i in range(1, 41)]
    annotations, detections = [], []
    for image in images:
        for _ in range(rng.integers(0, 5)):
            x, y, w, h = *rng.integers(0, 150, 2), *rng.integers(15, 100, 2)
            seen = rng.choice([0, 1, 2], 17, p=[0.3, 0.2, 0.5]) if rng.random() < 0.8 else np.zeros(17, int)
            points = np.stack([rng.integers(x, x + w, 17), rng.integers(y, y + h, 17), seen], 1)
            points[seen == 0] = 0
            crowd = int(rng.random() < 0.1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "bbox": [int(x), int(y), int(w), int(h)],
                    "area": float(w * h * 0.6),
                    "iscrowd": crowd,
                    "num_keypoints": int((seen > 0).sum()),
                    "keypoints": points.ravel().tolist(),
                }
            )
            for _ in range(rng.integers(0, 12)):
                moved = points[:, :2] + rng.normal(0, rng.uniform(0.5, 8), (17, 2))
                guess = np.column_stack([moved, rng.random(17)])
                detections.append(
                    {
                        "image_id": image["id"],
                        "category_id": 1,
                        "bbox": [float(x), float(y), float(w), float(h)],
                        "score": float(rng.integers(1, 20) / 20),
                        "keypoints": guess.ravel().tolist(),
                    }
                )
    file = folder / "person_keypoints.json"
    categories = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    file.write_text(json.dumps(content))
    return file, detections, content


@pytest.mark.parametrize("seed", range(8))
def test_keypoints_are_equal_to_pycocotools(seed, tmp_path, monkeypatch):
    pytest.importorskip("faster_coco_eval")
    file, detections, content = people(tmp_path, seed)
    fast = coco.evaluate(detections, file, "keypoints")
    assert list(fast) == ["APkp", "APkp50", "APkp75"]
    with_crowds = tmp_path / "crowds_with_lists.json"
    for annotation in content["annotations"]:  # pycocotools stumbles over one without
        annotation.setdefault("keypoints", [0] * 51)
    with_crowds.write_text(json.dumps(content))
    assert list(fast.values()) == pytest.approx(official(with_crowds, detections, "keypoints"), abs=1e-10)
    assert 0 < fast["APkp"] < fast["APkp50"] < 100
    # a crowd without the list is a crowd whose list is all zeros
    for annotation in content["annotations"]:
        if annotation["iscrowd"]:
            annotation |= {"keypoints": [0] * 51, "num_keypoints": 0}
    file.write_text(json.dumps(content))
    zeros = coco.evaluate(detections, file, "keypoints")
    for annotation in content["annotations"]:
        if annotation["iscrowd"]:
            del annotation["keypoints"], annotation["num_keypoints"]
    file.write_text(json.dumps(content))
    assert coco.evaluate(detections, file, "keypoints") == zeros


@pytest.mark.parametrize("ids", [lambda i: i + 2**31, lambda i: i + 2**53 + 1, lambda i: -i, lambda i: f"photo {i:03}"])
@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
def test_ids_of_any_kind_are_equal_to_pycocotools(kind, ids, tmp_path):
    """faster-coco-eval takes images for numbers of 53 bits and would mistake, refuse or lose those of other ids."""
    file, detections, content = people(tmp_path, 3)
    if kind != "keypoints":
        file, detections = scene(tmp_path, 3, images=8)
        content = json.loads(file.read_text())
    for entry in content["images"]:
        entry["id"] = ids(entry["id"])
    for entry in (*content["annotations"], *detections):
        entry["image_id"] = ids(entry["image_id"])
    for annotation in content["annotations"]:
        annotation["id"] += 2**53
    file.write_text(json.dumps(content))
    values = list(coco.evaluate(detections, file, kind).values())
    assert values == pytest.approx(official(file, detections, kind), abs=1e-10) and 0 < values[0] < 100
    strange = detections[0] | {"image_id": ids(10**6)}
    with pytest.raises(ValueError, match="every image_id to be one of the annotation file's"):
        coco.evaluate([*detections, strange], file, kind)


def test_names_are_the_papers(tmp_path):
    file, detections = scene(tmp_path, 1)
    assert list(coco.evaluate(detections, file, "bbox")) == ["APbb", "APbb50", "APbb75"]
    assert list(coco.evaluate(detections, file, "segm")) == ["APmk", "APmk50", "APmk75"]


def test_no_detections_are_0_not_an_error(tmp_path):
    file, _ = scene(tmp_path, 2)
    assert coco.evaluate([], file, "segm") == {"APmk": 0.0, "APmk50": 0.0, "APmk75": 0.0}
