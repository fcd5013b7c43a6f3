"""What can be wrong with the images and the memory of a run, in words: before the first step, and when it has ended one."""

import contextlib
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import torch
from PIL import Image

from pretrain import log
from pretrain.data import DAMAGED, Folder

HEADERS = 10_000  # images whose first bytes are looked at before a run; of all the size
TOGETHER = 1_000  # images that a thread looks at before it is given others; one by one, millions would take gigabytes
SIGNS = ("DataLoader worker", "out of memory", "allocate memory", "Insufficient memory", "shared memory")


def preflight(folder: Folder, allowed: int, chief: bool) -> None:
    """Look for images that cannot be read, and decode a small folder into memory. ValueError names more than `allowed` of them.

    Every file has to be there and not empty, and PIL has to know the kind and the size of HEADERS of them, evenly spaced: a minute
    for millions on a network file system. Only a folder that is kept in memory is decoded whole; an image of a larger one that
    breaks off in the middle is named when its turn comes.
    """
    folder.allowed = allowed
    spacing = math.ceil(len(folder) / HEADERS)

    def faults(start: int) -> list[tuple[int, str]]:
        part = range(start, min(start + TOGETHER, len(folder)))
        return [(i, reason) for i in part if (reason := fault(folder.paths[i], i % spacing == 0))]

    with ThreadPoolExecutor(16) as pool:
        folder.bad = dict(itertools.chain.from_iterable(pool.map(faults, range(0, len(folder), TOGETHER))))
    folder.keep()
    folder.refuse(sorted(folder.bad))
    if folder.bad and chief:
        log.say(
            f"warning: bad images, {folder.named(sorted(folder.bad))}; the next image of the folder takes the place of each"
        )


def fault(path: Path, header: bool) -> str:
    """What is wrong with a file from outside, or by its header; empty if nothing."""
    try:
        if not path.stat().st_size:
            return "an empty file"
        if header:
            with Image.open(path):
                pass
    except DAMAGED as error:
        return " ".join(str(error).replace(str(path), "it").split())
    return ""


def skipped(folder: Folder, wanted: torch.Tensor, used: torch.Tensor) -> list[int]:
    """The images that were passed over, where `used` of a batch are not those that were `wanted`; both [N]."""
    found = set()
    for i, j in zip(wanted.tolist(), used.tolist(), strict=True):
        while i != j:
            found.add(i)
            i = (i + 1) % len(folder)
    return sorted(found)


@contextlib.contextmanager
def in_words(folder: Folder, batch: int, workers: int) -> Iterator[None]:
    """RuntimeError that says what to lower, where memory has run out or a process that prepares batches has died."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, cv2.error) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(s in str(error) for s in SIGNS):
            raise
        kept = 0 if folder.kept is None else folder.kept.nbytes
        raise RuntimeError(
            f"expected memory enough and every process alive, found {' '.join(str(error).split())[:300] or 'no memory left'}: lower "
            f"--batch-size (now {batch}), the number of processes that prepare batches (BENCH_WORKERS, now {workers}) or the decoded "
            f"images that are kept (BENCH_CACHE_BYTES, now {log.megabytes(kept)}); the same call with --resume goes on"
        ) from error
