"""The body's surface in DensePose's own files: charts, vertices, what becomes of a point in a mirror, and distances.

They lie in densepose/ of the folder of datasets, under the names that https://dl.fbaipublicfiles.com/densepose/data/ gives them
(facebookresearch/detectron2, projects/DensePose/densepose/data/datasets/coco.py); SMPL's licence goes with them, so each user
fetches them.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.spatial.distance import cdist

from downstream.datasets import CHART, PARTS

Array = np.ndarray

FOLDER, ADDRESS = "densepose", "https://dl.fbaipublicfiles.com/densepose/data/"
SYMMETRY = "UV_symmetry_transforms.mat"  # for training
# for the test
CHARTS, VERTICES, DISTANCES = EVALUATED = (
    "SMPL_subdiv.mat",
    "SMPL_SUBDIV_TRANSFORM.mat",
    "Pdist_matrix.pkl",
)


@dataclass(frozen=True)
class Body:
    """Of each point of the charts its part (from 1), U and V and the vertex it belongs to (from 0); and the distances between
    vertices in metres, of a pair b < a at a (a - 1) / 2 + b."""

    part: Array  # [F]
    uv: Array  # [2, F]
    vertex: Array  # [F]
    distances: Array

    def nearest(self, part: Array, u: Array, v: Array) -> Array:
        """[P], the point of the same part's chart whose U and V are nearest; -1 for part 0."""
        found = np.full(len(part), -1)
        for label in np.unique(part[part > 0]).astype(int):
            here, own = part == label, np.flatnonzero(self.part == label)
            found[here] = own[cdist(self.uv[:, own].T, np.stack([u[here], v[here]], 1)).argmin(0)]
        return found

    def apart(self, one: Array, other: Array) -> Array:
        """[P], the distances between points of the charts in metres; infinite to -1."""
        a, b = self.vertex[one], self.vertex[other]
        low, high = np.minimum(a, b), np.maximum(a, b)
        pair = np.where(low == high, 0, high * (high - 1) // 2 + low)
        return np.where(other < 0, np.inf, np.where(low == high, 0, self.distances[pair]))


def body(data: Path) -> Body:
    """Raises FileNotFoundError or ValueError for files that are not there or something else."""
    part, u, v = (values.ravel() for values in _matlab(data, CHARTS, "Part_ID_subdiv", "U_subdiv", "V_subdiv"))
    vertex = _matlab(data, VERTICES, "index")[0].ravel()
    distances = _distances(present(data, DISTANCES))
    vertices = int(vertex.max(initial=0))
    if (
        not len(part) == len(u) == len(v) == len(vertex)
        or set(np.unique(part).tolist()) - {0} != set(range(1, PARTS + 1))
        or vertex.min(initial=1) < 1
        or len(distances) < max(1, vertices * (vertices - 1) // 2)
    ):
        raise ValueError(
            f"expected the charts of {PARTS} parts, the vertex of each of their points and the distances of all pairs of vertices, found "
            f"{len(part):,} points' parts, {len(u):,} U, {len(v):,} V, {len(vertex):,} vertices up to {vertices:,} and {len(distances):,} "
            f"distances in {data / FOLDER}: fetch {CHARTS}, {VERTICES} and {DISTANCES} again"
        )
    return Body(part.astype(int), np.stack([u, v]).astype(float), vertex.astype(int) - 1, distances)


def symmetries(data: Path) -> Array:
    """[2, 24, 256, 256] float32: the U and V that a point of a part has in the mirror, by its own V and U times 255.

    Raises FileNotFoundError or ValueError for a file that is not there or something else.
    """
    content = _matlab(data, SYMMETRY, "U_transforms", "V_transforms")
    try:
        found = np.stack([np.stack(cells.ravel().tolist()) for cells in content]).astype(np.float32)
        if found.shape != (2, PARTS, CHART, CHART) or not np.isfinite(found).all():
            raise ValueError(f"shape {found.shape}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"expected U_transforms and V_transforms of {PARTS} parts, {CHART}x{CHART} finite numbers each, found {error} in "
            f"{data / FOLDER / SYMMETRY}: fetch it again"
        ) from None
    return found


def present(data: Path, name: str) -> Path:
    """A file of the surface. Raises FileNotFoundError for one that is not there."""
    file = data / FOLDER / name
    if not file.is_file():
        raise FileNotFoundError(f"expected {file}, found none: fetch {ADDRESS}{name} and put it there")
    return file


def _matlab(data: Path, name: str, *wanted: str) -> list[Array]:
    file = present(data, name)
    try:
        content = scipy.io.loadmat(file, variable_names=wanted)
        return [np.asarray(content[key]) for key in wanted]
    except MemoryError:
        raise
    except Exception as error:  # scipy's of all sorts
        raise _foreign(f"{', '.join(wanted)} in MATLAB's format", error, file) from None


def _distances(file: Path) -> Array:
    try:
        with file.open("rb") as stream:
            found = _Arrays(stream, encoding="latin1").load()["Pdist_matrix"]
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise ValueError(f"a {type(found).__name__} of another type")
    except MemoryError:
        raise
    except Exception as error:  # pickle's of all sorts
        raise _foreign("a pickled dictionary with an array Pdist_matrix of floats", error, file) from None
    return found.ravel()


def _foreign(expected: str, error: Exception, file: Path) -> ValueError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ValueError(f"expected {expected}, found {reason:.200} in {file}: fetch it again")


class _Arrays(pickle.Unpickler):
    """Reads numpy's arrays and nothing that could do anything else."""

    def find_class(self, module: str, name: str) -> Any:
        of_numpy = module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "_frombuffer")
        if not of_numpy and (module, name) != ("_codecs", "encode"):  # by which Python 3 writes bytes for Python 2
            raise pickle.UnpicklingError(f"{module}.{name}, which no array needs")
        return super().find_class(module, name)
