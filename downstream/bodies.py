"""The surface of drawn persons, as DensePose's annotators mark it, and files of a body that has it.

A person of `scenes` is its COCO keypoints and the pixels they lie among; a pixel belongs to the nearest limb, U runs along the
limb and V across it. The body of the files is the same limbs in the plane, standing, so that distances are those of a stick
figure.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.random import Generator
from pycocotools import mask as mask_tools

from downstream.datasets import CHART, LARGER_PARTS, PARTS
from downstream.surface import CHARTS, DISTANCES, SYMMETRY, VERTICES

Point = tuple[float, float]

# Of each limb: the keypoints that it runs between (the mean of two), how far towards the second it begins and ends, its larger part,
# its part in the first and in the second half. A head's halves are its right and its left.
SHOULDERS, HIPS = (5, 6), (11, 12)
LIMBS = (
    (SHOULDERS, HIPS, 0.0, 1.0, 1, 1, 2),
    ((8,), (10,), 0.9, 1.1, 2, 3, 3),
    ((7,), (9,), 0.9, 1.1, 3, 4, 4),
    ((13,), (15,), 0.9, 1.1, 4, 5, 5),
    ((14,), (16,), 0.9, 1.1, 5, 6, 6),
    ((12,), (14,), 0.1, 1.0, 6, 7, 9),
    ((11,), (13,), 0.1, 1.0, 7, 8, 10),
    ((14,), (16,), 0.0, 0.9, 8, 11, 13),
    ((13,), (15,), 0.0, 0.9, 9, 12, 14),
    ((5,), (7,), 0.1, 1.0, 10, 15, 17),
    ((6,), (8,), 0.1, 1.0, 11, 16, 18),
    ((7,), (9,), 0.0, 0.9, 12, 19, 21),
    ((8,), (10,), 0.0, 0.9, 13, 20, 22),
    ((0,), SHOULDERS, -0.6, 0.5, 14, 23, 24),
)
# A standing body's keypoints in metres; whoever faces us has the right on our left.
STANDING: dict[int, Point] = {
    0: (0.0, 1.65), 5: (0.2, 1.4), 6: (-0.2, 1.4), 7: (0.35, 1.1), 8: (-0.35, 1.1), 9: (0.45, 0.85), 10: (-0.45, 0.85),
    11: (0.12, 0.9), 12: (-0.12, 0.9), 13: (0.14, 0.5), 14: (-0.14, 0.5), 15: (0.15, 0.08), 16: (-0.15, 0.08),
}  # fmt: skip
WIDE = 0.12  # of a standing body's limb, in metres
GRID = 12  # points a side of a part's chart; two of them a vertex
MARKED = 90  # points of a person at most


def marks(joints: Mapping[int, Point], mask: np.ndarray, rng: Generator) -> dict[str, Any]:
    """dp_x, dp_y, dp_I, dp_U, dp_V and dp_masks of a person, as DensePose writes them; nothing of one without a limb."""
    limbs = [limb for limb in LIMBS if {*limb[0], *limb[1]} <= joints.keys()]  # of a bust, the head
    if not limbs:
        return {}
    rows, columns = np.nonzero(mask)
    top, left = rows.min(), columns.min()
    height, width = rows.max() + 1 - top, columns.max() + 1 - left
    part, larger, u, v = _placed(joints, limbs, np.stack([columns, rows], 1) + 0.5)
    shown = rng.permutation(len(rows))[:MARKED]
    whole = np.zeros((height, width), np.uint8)
    whole[rows - top, columns - left] = larger
    y, x = (np.arange(CHART) * side // CHART for side in (height, width))
    masks = []
    for number in range(1, LARGER_PARTS + 1):
        own = whole[np.ix_(y, x)] == number
        code = mask_tools.encode(np.asfortranarray(own, np.uint8))
        masks.append({"size": [CHART, CHART], "counts": code["counts"].decode()} if own.any() else [])
    return {
        "dp_x": ((columns[shown] + 0.5 - left) * CHART / width).round(2).tolist(),
        "dp_y": ((rows[shown] + 0.5 - top) * CHART / height).round(2).tolist(),
        "dp_I": part[shown].astype(float).tolist(),
        "dp_U": u[shown].round(4).tolist(),
        "dp_V": v[shown].round(4).tolist(),
        "dp_masks": masks,
    }


def _placed(joints: Mapping[int, Point], limbs: Sequence[Any], pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Part, larger part, U and V of places [P, 2] in a picture, by these of `LIMBS`."""
    lengths, places = [], []
    for begin, end, *_ in limbs:
        a, b = (np.mean([joints[number] for number in ends], 0) for ends in (begin, end))
        along = b - a
        length = max(float(np.hypot(*along)), 1.0)
        at = pixels - a
        places.append((at @ along / length**2, (at[:, 0] * along[1] - at[:, 1] * along[0]) / length**2))
        lengths.append(length)
    apart = []
    for (along, across), length, (_, _, low, high, *_) in zip(places, lengths, limbs, strict=True):
        beyond = np.maximum(np.maximum(low - along, along - high), 0)
        apart.append(np.hypot(beyond, across) * length)
    limb = np.argmin(apart, 0)
    one = np.arange(len(pixels))
    along, across = (np.array([place[axis] for place in places])[limb, one] for axis in (0, 1))
    low, high, larger, first, second = (np.array(column)[limb] for column in list(zip(*limbs, strict=True))[2:])
    u, v = ((along - low) / (high - low)).clip(0, 1), (across + 0.5).clip(0, 1)
    later = np.where(larger == LARGER_PARTS, v > 0.5, u > 0.5)
    return np.where(later, second, first), larger, u, v


def write(folder: Path) -> None:
    """The files of a body that these marks lie on, in DensePose's formats: charts, vertices, mirror and distances."""
    folder.mkdir(parents=True)
    steps = np.linspace(0, 1, GRID)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    cell = (np.arange(GRID) // 2)[:, None] * (GRID // 2) + np.arange(GRID) // 2
    part = np.repeat(np.arange(1, PARTS + 1), GRID**2)
    vertex = (np.arange(PARTS)[:, None] * (GRID // 2) ** 2 + cell.ravel()).ravel() + 1
    charts = {"Part_ID_subdiv": part, "U_subdiv": np.tile(u, PARTS), "V_subdiv": np.tile(v, PARTS)}
    _matlab(folder / CHARTS, {name: values[:, None] for name, values in charts.items()})
    _matlab(folder / VERTICES, {"index": vertex[:, None]})
    row, column = np.mgrid[:CHART, :CHART] / (CHART - 1)
    mirror = {"U_transforms": column, "V_transforms": 1 - row}  # what lay left of a limb lies right of it
    _matlab(folder / SYMMETRY, {name: _cells([values] * PARTS) for name, values in mirror.items()})
    first = np.unique(vertex, return_index=True)[1]
    places = np.stack(
        [_standing(*of) for of in zip(part[first], charts["U_subdiv"][first], charts["V_subdiv"][first], strict=True)]
    )
    apart = np.hypot(*(places[:, None] - places).T).astype(np.float32)
    pairs = apart[np.tril_indices(len(places), -1)]
    (folder / DISTANCES).write_bytes(pickle.dumps({"Pdist_matrix": pairs[:, None]}, protocol=2))


def _standing(part: int, u: float, v: float) -> np.ndarray:
    begin, end, low, high, *_ = next(limb for limb in LIMBS if part in limb[5:])
    a, b = (np.mean([STANDING[number] for number in ends], 0) for ends in (begin, end))
    across = np.array([b[1] - a[1], a[0] - b[0]]) / np.hypot(*(b - a))
    return a + (low + u * (high - low)) * (b - a) + (v - 0.5) * WIDE * across


def _cells(values: list[np.ndarray]) -> np.ndarray:
    cells = np.empty((1, len(values)), object)
    cells[0, :] = values
    return cells


def _matlab(file: Path, content: Mapping[str, np.ndarray]) -> None:
    scipy.io.savemat(file, dict(content), do_compression=True)
    with file.open("r+b") as stream:  # over the date of its writing, so that the same seed gives the same bytes
        stream.write(b"MATLAB 5.0 MAT-file, drawn by transfer-bench".ljust(116))
