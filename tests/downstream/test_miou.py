"""The mean IoU is mmsegmentation's, absent classes and ignored pixels included."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from downstream import segmentation  # noqa: F401  makes mmseg importable without mmcv's compiled operators
from downstream.evaluation.miou import confusion, iou, miou


def compared(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> None:
    """Pixel counts are mmsegmentation's, and so is the IoU, as far as its 32 bits go; of the pairs prediction and label map."""
    from mmseg.evaluation.metrics import IoUMetric

    counts, areas = np.zeros((classes, classes), np.int64), []
    for prediction, truth in pairs:
        counts += confusion(prediction, truth, classes)
        tensors = (torch.from_numpy(labels.astype(np.int64)) for labels in (prediction, truth))
        areas.append(IoUMetric.intersect_and_union(*tensors, classes, 255))
    totals = [sum(part) for part in zip(*areas, strict=True)]
    np.testing.assert_array_equal(np.diag(counts), totals[0])
    np.testing.assert_array_equal(counts.sum(0) + counts.sum(1) - np.diag(counts), totals[1])
    theirs = IoUMetric.total_area_to_metrics(*totals)["IoU"] * 100
    np.testing.assert_allclose(iou(counts), theirs, rtol=1e-6)
    assert miou(counts) == pytest.approx(np.nanmean(theirs), rel=1e-6)


def guess(draw: np.random.Generator, truth: np.ndarray, classes: list[int]) -> np.ndarray:
    """The label map with some of its pixels drawn anew from these classes; ignored ones are always."""
    wrong = (truth == 255) | (draw.random(truth.shape) < draw.random())
    return np.where(wrong, draw.choice(classes, truth.shape), truth)


def test_equals_mmsegs_iou_metric() -> None:
    """600 cases of 1 to 4 images: classes nobody labelled or predicted, ignored pixels, images without a label."""
    draw = np.random.default_rng(0)
    for _ in range(600):
        classes = int(draw.choice([2, 19, 21]))
        labelled, predicted = (draw.choice(classes, draw.integers(1, classes + 1), replace=False) for _ in range(2))
        maps = [
            draw.choice([*labelled, 255], draw.integers(1, 24, 2)).astype(np.uint8) for _ in range(draw.integers(1, 5))
        ]
        if draw.random() < 0.2:
            maps.append(np.full((8, 8), 255, np.uint8))
        maps[0][0, 0] = labelled[0]
        compared([(guess(draw, truth, predicted), truth) for truth in maps], classes)


REAL = Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data")


@pytest.mark.parametrize(
    ("place", "classes"),
    [("VOC2012/SegmentationClass/*.png", 21), ("cityscapes/gtFine/val/*/*_gtFine_labelTrainIds.png", 19)],
)
def test_equals_mmsegs_iou_metric_on_genuine_label_maps(place: str, classes: int) -> None:
    files = sorted(REAL.glob(place))
    if not files:
        pytest.skip(f"needs genuine label maps in {place}")
    draw = np.random.default_rng(0)
    maps = [np.asarray(Image.open(file)) for file in files[:60]]
    compared([(guess(draw, truth, list(range(classes))), truth) for truth in maps], classes)


def test_an_absent_class_is_left_out_and_a_class_only_predicted_counts_as_zero() -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    assert miou(confusion(np.array([[0, 0, 1, 2]]), truth, 4)) == 100
    wrong = confusion(np.array([[0, 2, 1, 2]]), truth, 4)
    np.testing.assert_allclose(iou(wrong), [50, 100, 0, np.nan])
    assert miou(wrong) == 50


def test_a_foreign_class_another_shape_and_no_label_at_all_are_errors() -> None:
    with pytest.raises(ValueError, match=r"every label in 0\.\.3 .* found 4"):
        confusion(np.array([0]), np.array([4]), 4)
    with pytest.raises(ValueError, match="one shape"):
        confusion(np.zeros((2, 2)), np.zeros((2, 3)), 4)
    with pytest.raises(ValueError, match="at least one labelled pixel"):
        miou(confusion(np.array([0]), np.array([255]), 4))


@pytest.mark.parametrize("pixels", [1, 7, 64])
def test_counting_in_parts_is_counting_at_once(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("downstream.evaluation.miou.PIXELS", pixels)
    draw = np.random.default_rng(pixels)
    truth = draw.choice([0, 1, 2, 255], (9, 11)).astype(np.uint8)
    predicted = np.where(truth == 255, draw.choice([-4, 700], truth.shape), draw.integers(0, 3, truth.shape))
    expected = np.zeros((3, 3), np.int64)
    np.add.at(expected, (truth[truth < 255], predicted[truth < 255]), 1)
    for kind in (np.int16, np.int32, np.int64):
        np.testing.assert_array_equal(confusion(predicted.astype(kind), truth, 3), expected)
    truth[-1, -1] = 3
    with pytest.raises(ValueError, match=r"every label in 0\.\.2 .* found 3"):
        confusion(predicted, truth, 3)
