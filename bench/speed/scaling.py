"""How the cost of the images grows with their number: `bench speed --scaling`.

Folders of 1,000 to 100,000 images are listed and read, by one process that prepares batches and by two. A cost is fitted by
cost = c * images ** exponent, by least squares on the logarithms: 1 is proportional, 0 is none.
"""

import math
import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed import apart, forget_peak, peak_memory

COUNTS = (1_000, 3_000, 10_000, 30_000, 100_000)
COSTS = (
    ("listing a folder", "seconds"),
    ("listing a folder: memory at most", "bytes"),
    ("an image, by 1 process", "seconds"),
    ("an image, by 2 processes", "seconds"),
    ("a loader's process: memory at most", "bytes"),
)
BATCHES, BATCH = 32, 128  # what is read of every folder, however large


@dataclass(frozen=True)
class Growth:
    """What one cost is at every number of images."""

    what: str
    unit: str
    images: tuple[int, ...]
    values: tuple[float, ...]
    exponent: float

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def run(folder: Path, say: Callable[[str], None], counts: tuple[int, ...] = COUNTS) -> list[Growth]:
    """Every cost at every number of images, each measured in a process of its own."""
    found = []
    for count in counts:
        say(f"bench speed --scaling: {count:,} images")
        root = folder / str(count)
        _links(root, count)
        with apart(partial, _measured, root) as measured:
            found.append(measured())
        shutil.rmtree(root)
    costs = zip(COSTS, zip(*found, strict=True), strict=True)
    return [Growth(what, unit, counts, values, exponent(counts, values)) for (what, unit), values in costs]


def described(growth: Growth) -> str:
    """A growth for a person."""
    first, last = (f"{value:.3g}" for value in (growth.values[0], growth.values[-1]))
    span = f"{first} {growth.unit} at {growth.images[0]:,} images, {last} at {growth.images[-1]:,}"
    return f"{growth.what:<36} images ** {growth.exponent:.2f}: {span}"


def exponent(counts: tuple[int, ...], values: tuple[float, ...]) -> float:
    """The slope of the logarithms, by least squares."""
    return float(np.polyfit([math.log(count) for count in counts], [math.log(max(v, 1e-9)) for v in values], 1)[0])


def _links(root: Path, count: int) -> None:
    """`count` names of one small photograph, in class folders of 1,000, each with a copy: ext4 allows 65,000 links to a file."""
    from bench.speed.loading import photographs

    root.mkdir()
    photographs(root, 1, 64, 64)
    original = (root / "0.jpg").rename(root.with_suffix(".jpg"))
    for number in range(count):
        name = root / f"{number // 1_000:03}" / f"{number:08}.jpg"
        if number % 1_000 == 0:
            name.parent.mkdir()
            first = shutil.copy(original, name)
        else:
            os.link(first, name)


def _measured(root: Path) -> tuple[float, ...]:
    """The COSTS of a folder. The bytes of the loader's process include what it shares with this one."""
    seconds, peak = _listed(root)
    return (
        seconds,
        peak,
        _read(root, 1),
        _read(root, 2),
        resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024.0,
    )


def _listed(root: Path) -> tuple[float, float]:
    """Seconds and bytes that it takes to list a folder; a page where nothing is seen, or the system does not tell."""
    from pretrain.data import Folder

    forget_peak()
    before, began = peak_memory() or 0, time.perf_counter()
    Folder(root)
    return time.perf_counter() - began, max((peak_memory() or 0) - before, 4096)


def _read(root: Path, workers: int) -> float:
    """Seconds an image; a small folder comes again, as in the next epoch."""
    import torch

    from pretrain import data
    from pretrain.methods import moco

    torch.set_num_threads(1)
    recipe = moco.recipe() | {"size": 64, "batch_size": BATCH}
    source = data.batches(data.Steps(data.Folder(root), recipe, seed=0), 0, BATCHES + workers, workers, False)
    for _ in range(workers):  # the processes start
        next(source)
    began = time.perf_counter()
    for _ in source:
        pass
    return (time.perf_counter() - began) / (BATCHES * BATCH)
