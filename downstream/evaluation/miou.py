"""Mean intersection over union from a confusion matrix, in numpy.

The definition is the PASCAL VOC challenge's and Cityscapes': per class, intersection over union of all test pixels together,
then the mean over classes. A class that occurs neither in the labels nor in the predictions has no IoU (nan) and is left out
of the mean, as mmsegmentation's IoUMetric does; a class that is predicted but never labelled counts as 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PIXELS = 2**17  # at a time: what is computed of them stays in the processor's cache


def confusion(prediction: NDArray[Any], truth: NDArray[Any], classes: int, ignore: int = 255) -> NDArray[np.int64]:
    """[classes, classes] pixel counts: row is the labelled class, column the predicted one; label `ignore` is not counted.

    Raises ValueError for different shapes and for a class outside 0..classes-1.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"expected prediction and label map of one shape, found {prediction.shape} and {truth.shape}")
    counts = np.zeros(classes**2, np.int64)
    flat = prediction.ravel(), truth.ravel()
    for start in range(0, truth.size, PIXELS):
        predicted, labelled = (labels[start : start + PIXELS].astype(np.int64) for labels in flat)
        ignored = labelled == ignore
        predicted[ignored] = labelled[ignored] = 0
        for name, values in (("label", labelled), ("prediction", predicted)):
            if values.min() < 0 or values.max() >= classes:
                wrong = values[(values < 0) | (values >= classes)][0]
                raise ValueError(
                    f"expected every {name} in 0..{classes - 1} (or {ignore} in a label map), found {wrong}"
                )
        labelled *= classes
        labelled += predicted
        counts += np.bincount(labelled, minlength=len(counts))
        counts[0] -= np.count_nonzero(ignored)
    return counts.reshape(classes, classes)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent per class from a confusion matrix; nan where a class is neither labelled nor predicted."""
    intersection = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - intersection
    return 100 * np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)


def miou(counts: NDArray[np.int64]) -> float:
    """Percent: the mean over the classes that have an IoU. Raises ValueError when no pixel was labelled."""
    if not counts.any():
        raise ValueError("expected at least one labelled pixel in the test images, found none: is every label 255?")
    return float(np.nanmean(iou(counts)))
