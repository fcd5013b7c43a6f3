"""faster-coco-eval and pycocotools give the same numbers, and the names are ours."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from downstream.evaluation import coco


def scene(folder, seed):
    """A json file of 30 images of boxes and octagons, some crowds, and detections near them with masks."""
    rng = np.random.default_rng(seed)
    images = [{"id": i, "height": 80, "width": 100, "file_name": f"{i}.jpg"} for i in range(1, 31)]
    annotations, detections = [], []
    for image in images:
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = *rng.uniform(0, 50, 2), *rng.uniform(5, 45, 2)
            w, h = min(w, 100 - x), min(h, 80 - y)
            label = int(rng.integers(1, 4))
            crowd = int(rng.random() < 0.1)
            shape = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": label,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd,
                    "segmentation": mask_tools.merge(mask_tools.frPyObjects(shape, 80, 100)) if crowd else shape,
                }
            )
            if crowd:
                annotations[-1]["segmentation"]["counts"] = annotations[-1]["segmentation"]["counts"].decode()
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, 4, 2)
                moved = [max(0.0, x + dx), max(0.0, y + dy), w, h]
                mask = np.zeros((80, 100), np.uint8, order="F")
                mask[int(moved[1]) : int(moved[1] + h), int(moved[0]) : int(moved[0] + w)] = 1
                rle = mask_tools.encode(mask)
                detections.append(
                    {
                        "image_id": image["id"],
                        "category_id": label,
                        "bbox": moved,
                        "score": float(rng.random()),
                        "segmentation": rle | {"counts": rle["counts"].decode()},
                    }
                )
    file = folder / "instances.json"
    categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": {}}))
    return file, detections


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_faster_coco_eval_equals_pycocotools(kind, tmp_path, monkeypatch):
    pytest.importorskip("faster_coco_eval")
    file, detections = scene(tmp_path, 0)
    fast = coco.evaluate(detections, file, kind)
    monkeypatch.setattr(coco, "api", lambda: (COCO, COCOeval))
    official = coco.evaluate(detections, file, kind)
    assert fast == pytest.approx(official, abs=1e-9)
    assert 0 < official[f"AP{coco.KINDS[kind]}"] < 100
    assert official[f"AP{coco.KINDS[kind]}50"] > official[f"AP{coco.KINDS[kind]}75"]


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
    truth = COCO(str(file))
    official = COCOeval(truth, truth.loadRes([dict(d) for d in detections]), "keypoints")
    official.evaluate()
    official.accumulate()
    official.summarize()
    assert list(fast) == ["APkp", "APkp50", "APkp75"]
    assert list(fast.values()) == pytest.approx((100 * official.stats[:3]).tolist(), abs=1e-9)
    assert 0 < fast["APkp"] < fast["APkp50"] < 100
    monkeypatch.setattr(coco, "api", lambda: (COCO, COCOeval))
    assert coco.evaluate(detections, file, "keypoints") == pytest.approx(fast, abs=1e-9)
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


def test_names_are_the_papers(tmp_path):
    file, detections = scene(tmp_path, 1)
    assert list(coco.evaluate(detections, file, "bbox")) == ["APbb", "APbb50", "APbb75"]
    assert list(coco.evaluate(detections, file, "segm")) == ["APmk", "APmk50", "APmk75"]


def test_no_detections_are_0_not_an_error(tmp_path):
    file, _ = scene(tmp_path, 2)
    assert coco.evaluate([], file, "segm") == {"APmk": 0.0, "APmk50": 0.0, "APmk75": 0.0}
