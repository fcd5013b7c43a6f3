"""Any folder of images as batches of views.

The images may lie flat, in class folders or deeper; the class of an image is the first folder below the root. Whatever PIL
reads is converted to RGB. A folder that fits is decoded once and kept in memory. Everything random about a batch follows from
the seed and the number of the step, so neither the number of worker processes nor an interruption changes it.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pretrain import views

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MEMORY = 2**30  # bytes of decoded images that are kept


def decoded(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], RGB; ValueError names a file that cannot be read."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # PIL would clip 16 bits where it should scale them
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            # a palette with transparency has to pass through RGBA, or PIL warns
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"expected an image that can be decoded, found {path} ({error}): repair or remove it"
        ) from error


class Folder:
    """The images below a folder: paths, labels (-1 where an image lies in no class folder) and class names, in sorted order."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"expected a folder of images, found no folder {root}: check --data")
        self.root = root
        parts = root.resolve().parts
        self.name = (
            "/".join(parts[-2:]) if parts[-1] == "train" else parts[-1]
        )  # never the whole path: it tells of a machine
        self.paths = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(root, followlinks=True)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        )
        if not self.paths:
            raise FileNotFoundError(
                f"expected images ({' '.join(sorted(SUFFIXES))}) below {root}, found none: check --data, "
                "for ImageNet it is imagenet/train"
            )
        tops = [path.relative_to(root).parts[:-1][:1] for path in self.paths]
        self.classes = sorted({top[0] for top in tops if top})
        number = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([number[top[0]] if top else -1 for top in tops])
        self.kept: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self) -> bool:
        """Decode every image into memory if together they take less than MEMORY bytes, judged by at most 64 of them."""
        sample = self.paths[:: max(1, len(self.paths) // 64)]
        size = sum(decoded(path).nbytes for path in sample) / len(sample) * len(self.paths)
        if size < MEMORY:
            self.kept = [decoded(path) for path in self.paths]
        return bool(self.kept)

    def image(self, index: int) -> np.ndarray:
        return self.kept[index] if self.kept else decoded(self.paths[index])


Batch = tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]  # pixels, boxes, labels, indices


class Steps(torch.utils.data.Dataset):
    """steps[s] is this process's share of the batch of step s.

    Gives a list of V tensors uint8 [N, S_v, S_v, 3] (a jigsaw's is [N, 9, P, P, 3]), boxes float32 [V, N, 4], labels [N] and the
    images' numbers in the folder [N]; or the exception that stopped it, because a loader wraps one that is raised in a worker into
    pages of traceback.

    An epoch is len(folder) // batch_size steps. Its images are a random order of the folder; with recipe["window"] = (size, stride)
    they are those of windows over one order of the folder, each in a random order of its own, the next window `stride` further
    (PIC): an image comes back after a few windows and not only after an epoch.
    """

    def __init__(
        self, folder: Folder, recipe: Mapping[str, Any], seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.folder, self.recipe, self.seed = folder, recipe, seed
        self.rank, self.size = rank, recipe["batch_size"] // world_size
        self.per_epoch = len(folder) // recipe["batch_size"]  # the last, incomplete batch is dropped
        self.window, self.stride = recipe.get("window", (len(folder), 0))
        self.visit, self.order = -1, np.empty(0, np.int64)

    def __getitem__(self, step: int) -> Batch | Exception:
        try:
            return self.batch(step)
        except Exception as error:
            return error

    def batch(self, step: int) -> Batch:
        visit, position = divmod(step, self.window // self.recipe["batch_size"])
        if visit != self.visit:
            self.visit, self.order = visit, self.visited(visit)
        start = position * self.recipe["batch_size"] + self.rank * self.size
        indices = self.order[start : start + self.size]
        pixels: list[list[np.ndarray]] = [[] for _ in range(self.recipe["views"])]
        boxes = np.empty((len(pixels), self.size, 4), np.float32)
        for n, index in enumerate(indices):
            image = self.folder.image(index)
            rng = np.random.default_rng((self.seed, visit, int(index)))
            for v, made in enumerate(pixels):
                out, boxes[v, n] = views.view(image, self.recipe, v, rng)
                made.append(out)
        labels = torch.from_numpy(self.folder.labels[indices])
        return _stacked(pixels), torch.from_numpy(boxes), labels, torch.from_numpy(indices)

    def visited(self, visit: int) -> np.ndarray:
        """The images of an epoch, or of a window, in the order in which they come."""
        images = np.arange(len(self.folder))
        if self.stride:
            images = np.random.default_rng(self.seed).permutation(images)
            images = images[(visit * self.stride + np.arange(self.window)) % len(images)]
        return np.random.default_rng((self.seed, visit)).permutation(images)


class Survey(torch.utils.data.Dataset):
    """survey[i] is this process's share of the i-th batch of a look at images of the folder, in order.

    Gives a list of tensors uint8 [N, S_v, S_v, 3] and the images' numbers [N]. Where the images are no multiple of the batch, the
    first ones come again, so that all processes have as many.

    number: how many random views, drawn as `Steps` draws them; None: one view, the image's centre
    images: which, by their numbers; None: all
    """

    def __init__(
        self,
        folder: Folder,
        recipe: Mapping[str, Any],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        number: int | None = None,
        images: np.ndarray | None = None,
    ) -> None:
        self.folder, self.recipe, self.seed, self.number = folder, recipe, seed, number
        self.images = np.arange(len(folder)) if images is None else images
        self.rank, self.size, self.world_size = rank, recipe["batch_size"] // world_size, world_size

    def __len__(self) -> int:
        return -(-len(self.images) // (self.size * self.world_size))

    def __getitem__(self, i: int) -> tuple[list[torch.Tensor], torch.Tensor] | Exception:
        try:
            start = (i * self.world_size + self.rank) * self.size
            indices = self.images[np.arange(start, start + self.size) % len(self.images)]
            pixels: list[list[np.ndarray]] = [[] for _ in range(self.number or 1)]
            for index in indices:
                image = self.folder.image(index)
                rng = np.random.default_rng((self.seed, int(index)))
                for v, made in enumerate(pixels):
                    if self.number is None:
                        made.append(views.centre(image, views.side(self.recipe)))
                    else:
                        made.append(views.view(image, self.recipe, v, rng)[0])
            return _stacked(pixels), torch.from_numpy(indices)
        except Exception as error:
            return error


def _stacked(pixels: list[list[np.ndarray]]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.stack(made)) for made in pixels]


def batches(steps: torch.utils.data.Dataset, start: int, stop: int, workers: int, pin: bool) -> Iterator[Any]:
    """steps[start] .. steps[stop - 1] in order, prepared by `workers` processes (0: by this one)."""
    loader = torch.utils.data.DataLoader(
        steps,
        sampler=range(start, stop),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # or it would draw from the one that the methods draw from
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch
