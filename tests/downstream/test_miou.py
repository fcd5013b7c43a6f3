"""The mean IoU is mmsegmentation's, absent classes and ignored pixels included."""

import numpy as np
import pytest
import torch

from downstream import segmentation  # noqa: F401  makes mmseg importable without mmcv's compiled operators
from downstream.evaluation.miou import confusion, iou, miou


@pytest.mark.parametrize("seed", range(6))
def test_equals_mmsegs_iou_metric(seed: int) -> None:
    from mmseg.evaluation.metrics import IoUMetric

    draw = np.random.default_rng(seed)
    classes = 19
    labelled = draw.choice(classes, 12 if seed % 2 else classes, replace=False)
    counts, areas = np.zeros((classes, classes), np.int64), []
    for _ in range(3):
        truth = draw.choice([*labelled, 255], (20, 30)).astype(np.uint8)
        prediction = np.where(
            draw.random((20, 30)) < 0.5, np.minimum(truth, classes - 1), draw.choice(labelled, (20, 30))
        )
        if seed == 5:
            prediction[0, 0], truth[0, 0] = next(c for c in range(classes) if c not in labelled), labelled[0]
        counts += confusion(prediction, truth, classes)
        tensors = torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))
        areas.append(IoUMetric.intersect_and_union(*tensors, classes, 255))
    theirs = IoUMetric.total_area_to_metrics(*(sum(part) for part in zip(*areas, strict=True)))["IoU"] * 100
    np.testing.assert_allclose(iou(counts), theirs, rtol=1e-5)
    assert miou(counts) == pytest.approx(np.nanmean(theirs), rel=1e-5)


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
