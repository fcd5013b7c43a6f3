"""Our VOC AP against detectron2's own, on random detections: the same bits."""

import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.evaluation import pascal_voc_evaluation as reference
from detectron2.structures import Boxes, Instances

from downstream import datasets
from downstream.evaluation import voc

CLASSES = ("cat", "dog", "car")


def test_a_test_set_that_nothing_was_detected_in_has_no_precision():
    images = [{"image_id": "a", "annotations": [{"bbox": [0, 0, 9, 9], "category_id": 0}]}]
    for year in (2007, 2012):
        assert set(voc.evaluate({}, images, 2, year).values()) == {0}


def scene(rng, images=12, difficult=0.3):
    """Images with 0 to 5 objects and 0 to 12 detections, many of them near an object, with tied scores."""
    records, predictions = [], {}
    for i in range(images):
        corner = rng.integers(1, 60, (rng.integers(0, 6), 2))
        objects = np.concatenate([corner, corner + rng.integers(0, 40, corner.shape)], axis=1).astype(float)
        labels = rng.integers(0, len(CLASSES), len(objects))
        records.append(
            {
                "image_id": f"{i:06d}",
                "annotations": [
                    {
                        "category_id": int(c),
                        "bbox": [b[0] - 1, b[1] - 1, b[2], b[3]],
                        "difficult": int(rng.random() < difficult),
                    }
                    for b, c in zip(objects, labels, strict=True)
                ],
            }
        )
        count = rng.integers(0, 13)
        loose = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([loose, loose + rng.uniform(1, 40, (count, 2))], axis=1)
        for k in range(count):
            if len(objects) and rng.random() < 0.7:
                boxes[k] = (
                    objects[rng.integers(len(objects))]
                    - [1, 1, 0, 0]
                    + rng.choice([0, 0.25, 1, 3]) * rng.normal(size=4)
                )
        scores = rng.integers(0, 60, count) / 61
        predictions[f"{i:06d}"] = (
            boxes.astype(np.float32),
            scores.astype(np.float32),
            rng.integers(0, len(CLASSES), count),
        )
    return records, predictions


def detectron2s(records, predictions, year, folder, names=CLASSES, annotations=None):
    """AP, AP50, AP75 through detectron2's evaluator, which wants files; `annotations` has them already."""
    (folder / "Annotations").mkdir(parents=True)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(r["image_id"] for r in records))
    for r in records if annotations is None else ():
        objects = "".join(
            f"<object><name>{CLASSES[a['category_id']]}</name><pose>Left</pose><truncated>0</truncated>"
            f"<difficult>{a['difficult']}</difficult><bndbox><xmin>{int(a['bbox'][0] + 1)}</xmin>"
            f"<ymin>{int(a['bbox'][1] + 1)}</ymin><xmax>{int(a['bbox'][2])}</xmax><ymax>{int(a['bbox'][3])}</ymax></bndbox></object>"
            for a in r["annotations"]
        )
        (folder / "Annotations" / f"{r['image_id']}.xml").write_text(f"<annotation>{objects}</annotation>")
    evaluator = object.__new__(reference.PascalVOCDetectionEvaluator)
    evaluator._dataset_name, evaluator._class_names, evaluator._is_2007 = "test", names, year == 2007
    evaluator._anno_file_template = str((annotations or folder / "Annotations") / "{}.xml")
    evaluator._image_set_path = str(folder / "ImageSets" / "Main" / "test.txt")
    evaluator._cpu_device, evaluator._logger = "cpu", reference.logging.getLogger("test")
    evaluator.reset()
    import torch

    for image_id, (boxes, scores, classes) in predictions.items():
        output = Instances((100, 100))
        output.pred_boxes, output.scores = Boxes(torch.from_numpy(boxes)), torch.from_numpy(scores)
        output.pred_classes = torch.from_numpy(classes)
        evaluator.process([{"image_id": image_id}], [{"instances": output}])
    return {k: float(v) for k, v in evaluator.evaluate()["bbox"].items()}


@pytest.mark.parametrize("year", [2007, 2012])
def test_equals_detectron2_to_the_bit_on_random_scenes(year, tmp_path):
    rng = np.random.default_rng(year)
    empty = 0
    # 150 scenes x 3 classes x 10 thresholds, both years: 9,000 average precisions of 2,100 images
    for case in range(150):
        records, predictions = scene(rng, images=rng.integers(1, 14), difficult=rng.choice([0, 0.3, 0.8]))
        counted = {a["category_id"] for r in records for a in r["annotations"] if not a["difficult"]}
        empty += len(counted) < 3 or len(set(np.concatenate([p[2] for p in predictions.values()]))) < 3
        with np.errstate(invalid="ignore"):  # detectron2 divides by the number of objects
            expected = detectron2s(records, predictions, year, tmp_path / str(case))
        np.testing.assert_equal(voc.evaluate(predictions, records, 3, year), expected)
    assert empty > 20  # scenes with a class that has no objects, or only difficult ones, or no detections


REAL = Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data")


@pytest.mark.skipif(not (REAL / "VOC2007/ImageSets/Main/test.txt").is_file(), reason="needs VOC2007's genuine test set")
def test_equals_detectron2_to_the_bit_on_genuine_annotations(tmp_path):
    records = datasets.records("voc_2007_test", REAL)[:300]
    rng, predictions = np.random.default_rng(0), {}
    for r in records:
        near = np.array([a["bbox"] for a in r["annotations"] for _ in range(3)], np.float32).reshape(-1, 4)
        near += rng.normal(size=near.shape) * rng.choice([0, 1, 5, 20], (len(near), 1))
        labels = np.array([a["category_id"] for a in r["annotations"] for _ in range(3)], int)
        wrong = rng.random(len(labels)) < 0.1
        labels[wrong] = rng.integers(0, 20, wrong.sum())
        scores = (rng.random(len(labels)) ** 3).round(2).astype(np.float32)
        predictions[r["image_id"]] = (near.astype(np.float32), scores, labels)
    expected = detectron2s(records, predictions, 2007, tmp_path, datasets.VOC_CLASSES, REAL / "VOC2007" / "Annotations")
    assert voc.evaluate(predictions, records, 20, 2007) == expected
    assert 0 < expected["AP75"] < expected["AP50"] < 100
    assert sum(a["difficult"] for r in records for a in r["annotations"]) > 50


def test_perfect_detections_of_one_class_are_100():
    records = [{"image_id": "a", "annotations": [{"category_id": 0, "bbox": [0, 0, 10, 10], "difficult": 0}]}]
    found = {"a": (np.array([[0, 0, 10, 10.0]], np.float32), np.array([0.9], np.float32), np.array([0]))}
    assert voc.evaluate(found, records, 1, 2007) == pytest.approx({"AP": 100.0, "AP50": 100.0, "AP75": 100.0})


def test_an_overlap_of_exactly_the_threshold_is_no_match():
    # 10 x 10 pixels and 10 x 5 of them: IoU 0.5
    records = [{"image_id": "a", "annotations": [{"category_id": 0, "bbox": [0, 0, 10, 10], "difficult": 0}]}]
    half = {"a": (np.array([[0, 0, 10, 5.0]], np.float32), np.array([0.9], np.float32), np.array([0]))}
    assert voc.evaluate(half, records, 1, 2007)["AP50"] == 0.0


def test_without_any_detection_ap_is_0():
    records = [{"image_id": "a", "annotations": [{"category_id": 0, "bbox": [0, 0, 10, 10], "difficult": 0}]}]
    nothing = {"a": (np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))}
    assert voc.evaluate(nothing, records, 1, 2007) == {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}


def test_the_objects_of_an_image_without_predictions_are_found_in_no_other():
    records = [{"image_id": name, "annotations": []} for name in "ab"]
    records += [{"image_id": "c", "annotations": [{"category_id": 0, "bbox": [0, 0, 10, 10], "difficult": 0}]}]
    one = (np.array([[0, 0, 10, 10.0]], np.float32), np.array([0.9], np.float32), np.array([0]))
    assert voc.evaluate({"a": one, "b": one}, records, 1, 2007)["AP50"] == 0.0


def test_a_class_without_objects_is_0_as_in_detectron2(tmp_path):
    records = [{"image_id": "a", "annotations": [{"category_id": 0, "bbox": [0, 0, 10, 10], "difficult": 0}]}]
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [1, 1, 5, 5]], np.float32)
    found = {"a": (boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 2]))}
    with np.errstate(invalid="ignore"):
        expected = detectron2s(records, found, 2007, tmp_path)
    assert voc.evaluate(found, records, 3, 2007) == expected
    assert expected["AP50"] == pytest.approx(100 / 3)


def test_boxes_inside_out_are_wrong_as_in_detectron2_and_no_warning(tmp_path):
    rng = np.random.default_rng(3)
    records, predictions = scene(rng, images=30, difficult=0.2)
    for boxes, _, _ in predictions.values():
        swapped = rng.random(len(boxes)) < 0.4
        boxes[swapped] = boxes[swapped][:, [2, 3, 0, 1]]
        boxes[rng.random(len(boxes)) < 0.1, 2:] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = detectron2s(records, predictions, 2007, tmp_path)
    assert voc.evaluate(predictions, records, 3, 2007) == expected


def test_numbers_come_back_as_from_text():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate(
        [bits[np.isfinite(bits)], rng.integers(-999, 999, 20_000).astype(np.float32) / 16, [-0.0, 0.25]]
    )
    for kind in (np.float32, np.float64):
        for decimals in (1, 3):
            found = voc._as_text(values.astype(kind), decimals)
            expected = np.array([float(f"{v:.{decimals}f}") for v in values])
            assert found.tobytes() == expected.tobytes()


def test_an_unknown_image_is_an_error():
    found = {"b": (np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, int))}
    with pytest.raises(ValueError, match="the 1 images of the test set, found image b"):
        voc.evaluate(found, [{"image_id": "a", "annotations": []}], 1, 2007)
