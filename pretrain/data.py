"""Any folder of images as batches of views.

The images may lie flat, in class folders or deeper; the class of an image is the first folder below the root. Whatever PIL
reads is converted to RGB. A folder that fits is decoded once and kept in memory. Everything random about a batch follows from
the seed and the number of the step, so neither the number of worker processes nor an interruption changes it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from pretrain import checkpoint, views

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MEMORY = int(os.environ.get("BENCH_CACHE_BYTES", 2**30))  # of decoded images that are kept


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
        self.kept: list[np.ndarray | None] = []
        self.allowed = 0  # so many images may be bad; the next image of the folder takes the place of each
        self.bad: dict[int, str] = {}  # those that are known, and what is wrong with them

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self) -> bool:
        """Decode every image into memory if together they take less than MEMORY bytes, judged by at most 64 of them."""
        sample = range(0, len(self), max(1, len(self) // 64))
        sizes = [image.nbytes for i in sample if (image := self.decoded_or_bad(i)) is not None]
        size = sum(sizes) / max(1, len(sizes)) * len(self)
        if size < MEMORY:
            self.kept = [self.decoded_or_bad(index) for index in range(len(self))]
            self.refuse(sorted(self.bad))
        return bool(self.kept)

    def decoded_or_bad(self, index: int) -> np.ndarray | None:
        try:
            return decoded(self.paths[index])
        except ValueError as error:
            self.bad[index] = str(error.__cause__)
            return None

    def image(self, index: int) -> np.ndarray:
        if not self.kept:
            return decoded(self.paths[index])
        image = self.kept[index]
        return decoded(self.paths[index]) if image is None else image

    def usable(self, index: int) -> tuple[int, np.ndarray]:
        """The image and its number; where it is bad and bad ones are allowed, the next one that is not."""
        for other in range(index, index + self.allowed):
            with contextlib.suppress(ValueError):
                return other % len(self), self.image(other % len(self))
        last = (index + self.allowed) % len(self)
        return last, self.image(last)

    def refuse(self, bad: Sequence[int]) -> None:
        """ValueError where more images are bad than may be."""
        if len(bad) > self.allowed:
            raise ValueError(
                f"expected at most {self.allowed} images that cannot be decoded, found {self.named(bad)}: repair or remove them; "
                f"--skip-bad {len(bad)} takes the next image of the folder in the place of each"
            )

    def named(self, bad: Sequence[int]) -> str:
        """How many they are, and the first with what is wrong."""
        first = ", ".join(f"{self.paths[i]} ({self.bad.get(i, 'it cannot be decoded')})" for i in bad[:5])
        return f"{len(bad)} of {len(self)}: {first}{', ...' if len(bad) > 5 else ''}"


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

    def indices(self, step: int) -> np.ndarray:
        """The numbers of the images of a step, [N]."""
        visit, position = divmod(step, self.window // self.recipe["batch_size"])
        if visit != self.visit:
            self.visit, self.order = visit, self.visited(visit)
        start = position * self.recipe["batch_size"] + self.rank * self.size
        return self.order[start : start + self.size].copy()

    def batch(self, step: int) -> Batch:
        indices = self.indices(step)
        pixels: list[list[np.ndarray]] = [[] for _ in range(self.recipe["views"])]
        boxes = np.empty((len(pixels), self.size, 4), np.float32)
        for n, index in enumerate(indices):
            rng = np.random.default_rng((self.seed, self.visit, int(index)))
            indices[n], image = self.folder.usable(int(index))
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
                _, image = self.folder.usable(int(index))
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
    """steps[start] .. steps[stop - 1] in order, prepared by `workers` processes (0: by this one).

    A signal to the whole group does not end these processes under the step that is finished; they end with this one.
    """
    loader = torch.utils.data.DataLoader(
        steps,
        sampler=range(start, stop),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=checkpoint.deaf,
        generator=torch.Generator(),  # or it would draw from the one that the methods draw from
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch
