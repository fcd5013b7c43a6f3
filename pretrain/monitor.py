"""Watching a backbone while it is trained: nearest neighbours on labelled images, and how far its features scatter.

The features are those of the backbone in evaluation mode, after global pooling, of the images' centres, of unit length; the outputs
are what the method's head or projector makes of them, where a collapse shows first; a classifier's answers are not looked at: of two
classes they lie on a line, and upright images have one turn. Looking changes nothing: no weight, no statistic of batch norm, no
random number; a watched run ends in the same weights.

kNN as in InstDisc (arXiv 1805.01978, section 3.4) and SimSiam: the 200 nearest training images vote with weight exp(cos / 0.07).
It is a thermometer, not a benchmark: at most 10,000 training and 2,500 validation images, evenly spaced over the classes.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pretrain import dist
from pretrain.data import Folder, Survey, batches

NEIGHBOURS, TEMPERATURE = 200, 0.07
TRAIN, VAL, SCATTER = 10_000, 2_500, 512  # images looked at
# below these a run is warned of; at the mini scale SimSiam has 0.78, 0.93 and ranks of 70 and more, random weights 0.2 to 0.4
LEAST = {"feature_std": 0.1, "output_std": 0.2, "feature_rank": 2, "output_rank": 2}
MATURE = 50  # steps after which the running statistics of batch norm no longer hold what they began with

# batches uint8 [N, S, S, 3] of this process -> features [N, C] and outputs [N, C'] of all, or no outputs
Look = Callable[[list[torch.Tensor]], tuple[torch.Tensor, torch.Tensor | None]]


def knn(train: torch.Tensor, train_labels: torch.Tensor, val: torch.Tensor, val_labels: torch.Tensor) -> float:
    """Percent of the validation features whose nearest neighbours vote for their class.

    train, val: [N, C] and [M, C], unit length along C; labels [N], [M]
    """
    classes, k = int(max(train_labels.max(), val_labels.max())) + 1, min(NEIGHBOURS, len(train))
    right = 0
    for x, labels in zip(val.split(512), val_labels.split(512), strict=True):
        cosine, near = (x @ train.T).topk(k, dim=1)  # [m, k]
        votes = torch.zeros(len(x), classes, device=x.device)
        votes.scatter_add_(1, train_labels[near], (cosine / TEMPERATURE).exp())
        right += int((votes.argmax(dim=1) == labels).sum())
    return 100 * right / len(val)


def scatter(z: torch.Tensor, what: str) -> dict[str, float]:
    """How far features spread, of [N, C], unit length along C.

    {what}_std:  the standard deviation over the images, in the mean of the C channels, as a share of 1 / sqrt(C), which it is where
                 the features point anywhere; 0 when all images look alike
    {what}_rank: the effective rank, exp of the entropy of the centred features' singular values, 1 to min(N - 1, C); 1 when all lie
                 on a line
    """
    z = z.double()
    values = torch.linalg.svdvals(z - z.mean(dim=0))
    p = values / values.sum().clamp(min=1e-12)
    rank = torch.exp(-(p * p.clamp(min=1e-12).log()).sum())
    return {f"{what}_std": float(z.std(dim=0).mean()) * math.sqrt(z.shape[1]), f"{what}_rank": float(rank)}


def collapsed(seen: dict[str, float]) -> str:
    """What of the features and outputs no longer tells the images apart, in words; empty if nothing."""
    return ", ".join(f"{key} {seen[key]:.2g}" for key, least in LEAST.items() if seen.get(key, least) < least)


def spaced(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the numbers, evenly spaced."""
    return numbers[np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(np.int64)]


def split(root: Path) -> tuple[Folder, np.ndarray, np.ndarray]:
    """A labelled folder, and which of its images are for training and for validation.

    root: has train/ and val/ with class folders of the same names, or class folders, of whose images every fifth is for validation.
    FileNotFoundError, ValueError: it has not.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"expected a folder of labelled images, found no folder {root}: check --monitor")
    if (root / "train").is_dir() and (root / "val").is_dir():
        folder = Folder(root)
        parts = [path.relative_to(root).parts for path in folder.paths]
        part = np.array([names[0] for names in parts])
        classes = sorted({names[1] for names in parts if names[0] == "train" and len(names) > 2})
        number = {name: label for label, name in enumerate(classes)}
        folder.labels = np.array([number.get(names[1], -1) if len(names) > 2 else -1 for names in parts])
        train, val = (np.flatnonzero(part == name) for name in ("train", "val"))
    else:
        folder = Folder(root)
        classes = folder.classes
        place = np.arange(len(folder)) - np.searchsorted(folder.labels, folder.labels)
        train, val = np.flatnonzero(place % 5 != 4), np.flatnonzero(place % 5 == 4)
    stray = np.concatenate([train, val])[folder.labels[np.concatenate([train, val])] < 0]
    if len(classes) < 2 or not len(train) or not len(val) or len(stray):
        raise ValueError(
            f"expected --monitor {root} to have train/ and val/ with the same class folders, or at least two class folders of at "
            f"least five images, found {len(classes)} classes, {len(train)} training and {len(val)} validation images, "
            f"{len(stray)} of no known class"
        )
    return folder, train, val


class Monitor:
    """What is looked at: a sample of the training images, or the labelled images of `labelled`; decoded once."""

    def __init__(
        self, folder: Folder, labelled: Path | None, recipe: dict, process: dist.Process, workers: int
    ) -> None:
        def pixels(folder: Folder, images: np.ndarray) -> list[torch.Tensor]:
            look = Survey(folder, recipe, 0, process.rank, process.world_size, images=images)
            # copies: what a loader's process gives stays in shared memory, of which a container has little
            return [views[0].clone() for views, _ in batches(look, 0, len(look), workers, False)]

        self.labels: tuple[torch.Tensor, torch.Tensor] | None = None
        if labelled is None:
            self.count = min(SCATTER, len(folder))
            self.val = pixels(folder, spaced(np.arange(len(folder)), SCATTER))
            return
        folder, train, val = split(labelled)
        train, val = spaced(train, TRAIN), spaced(val, VAL)
        self.labels = tuple(torch.from_numpy(folder.labels[part]).to(process.device) for part in (train, val))
        self.count, self.train, self.val = len(val), pixels(folder, train), pixels(folder, val)

    def look(self, features: Look) -> dict[str, float]:
        """scatter's numbers, and knn where there are labels."""
        val, outputs = (None if x is None else F.normalize(x[: self.count].float(), dim=1) for x in features(self.val))
        some = torch.from_numpy(spaced(np.arange(self.count), SCATTER)).to(val.device)
        seen = scatter(val[some], "feature")
        if outputs is not None:
            seen |= scatter(outputs[some], "output")
        if self.labels is not None:
            train = F.normalize(features(self.train)[0][: len(self.labels[0])].float(), dim=1)
            seen["knn"] = knn(train, self.labels[0], val, self.labels[1])
        return seen
