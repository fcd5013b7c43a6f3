"""Any folder of images as batches of views.

The images may lie flat, in class folders or deeper; the class of an image is the first folder below the root. Whatever PIL
reads is converted to RGB. A folder that fits is decoded once and kept in memory. Everything random about a batch follows from
the seed and the number of the step, so neither the number of worker processes nor an interruption changes it.
"""

import contextlib
import hashlib
import io
import os
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.image
from PIL import Image, UnidentifiedImageError

from pretrain import checkpoint, colours, views

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
RGB = 3  # torchvision.io.ImageReadMode's
# what PIL raises; the RuntimeError is AVIF's
DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError)
MEMORY = int(os.environ.get("BENCH_CACHE_BYTES", 2**30))  # of decoded images that are kept


def decoded(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], RGB; ValueError names a file that cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            content = bytearray(file.read())  # torch warns of memory that cannot be written
        if ordinary_jpeg(content):
            # RuntimeError: it is damaged, PIL decides and says why. AttributeError: a torchvision without the operator, whose
            # public name is deprecated since 0.29; PIL gives the same pixels
            with contextlib.suppress(RuntimeError, AttributeError):
                coded = torch.frombuffer(content, dtype=torch.uint8)
                return torch.ops.image.decode_jpeg(coded, RGB, False).permute(1, 2, 0).numpy()
        with Image.open(io.BytesIO(content)) as image:
            # PIL would clip 16 bits where it should scale them; those of a PGM are 32-bit integers to it
            if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            # a palette with transparency has to pass through RGBA, or PIL warns
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except DAMAGED as error:
        if isinstance(error, UnidentifiedImageError):  # which names a place in memory and not the file
            error = ValueError("cannot identify the kind of image" if content else "an empty file")
        raise ValueError(
            f"expected an image that can be decoded, found {path} ({error}): repair or remove it"
        ) from error


def ordinary_jpeg(content: bytearray) -> bool:
    """Whether it is a JPEG of one or three channels of 8 bits, no larger than PIL reads: torchvision gives what PIL does, sooner.

    The frame's header tells (ITU-T T.81, B.2.2); it comes after segments that say how long they are.
    """
    place = 2 if content.startswith(b"\xff\xd8") else len(content)
    while place + 9 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xC2:
            precision, height, width, channels = struct.unpack_from(">BHHB", content, place + 4)
            return precision == 8 and channels in (1, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or 0)
        place += 2 + struct.unpack_from(">H", content, place + 2)[0]
    return False


class Paths(Sequence[Path]):
    """Paths below a folder in little memory: one string and where each begins, however many there are."""

    def __init__(self, root: Path) -> None:
        self.root, self.names, self.ends = root, bytearray(), array("q", [0])

    def sha256(self) -> str:
        """Of all of them, as they are called below the root."""
        return hashlib.sha256(self.names + self.ends.tobytes()).hexdigest()

    def append(self, name: str) -> None:
        """One more, as it is called below the root."""
        self.names += os.fsencode(name)
        self.ends.append(len(self.names))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: Any) -> Any:
        """A path, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        return self.root / os.fsdecode(bytes(self.names[self.ends[number] : self.ends[number + 1]]))


def found(folder: str, below: str = "", above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """The images in and below a folder, as they are called below it, in the order of their paths; links are followed.

    At a time there is only what lies in one folder, and in those above it. ValueError: a folder must not be read, or is one above
    itself by a link.
    """
    about = Path(folder).stat()
    if (key := (about.st_dev, about.st_ino)) in above:
        raise ValueError(
            f"expected folders and images, found {folder}, which is a folder above itself by a link in its path: remove that link"
        )
    try:
        with os.scandir(folder) as entries:
            here = sorted((entry.name, entry.is_dir()) for entry in entries if image_name(entry.name) or entry.is_dir())
    except PermissionError:
        raise ValueError(
            f"expected folders that may be read, found that {folder} may not: give the right, or name a folder below for --data"
        ) from None
    for name, is_folder in here:
        if is_folder:
            yield from found(f"{folder}/{name}", f"{below}{name}/", (*above, key))
        elif image_name(name):
            yield below + name


def image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


class Folder:
    """The images below a folder: paths, labels (-1 where an image lies in no class folder) and class names, in sorted order."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"expected a folder of images, found no folder {root}: check --data")
        self.root = root
        parts = root.resolve().parts
        # never the whole path: it tells of a machine
        self.name = "/".join(parts[-2:]) if parts[-1] == "train" else parts[-1]
        self.paths, number, labels = Paths(root), dict[str, int](), array("q")
        for name in found(str(root)):
            self.paths.append(name)
            top, below, _ = name.partition("/")
            labels.append(number.setdefault(top, len(number)) if below else -1)
        if not self.paths:
            raise FileNotFoundError(
                f"expected images ({' '.join(SUFFIXES)}) below {root}, found none: check --data, "
                "for ImageNet it is imagenet/train"
            )
        self.classes, self.labels = list(number), np.array(labels)
        self.kept: np.ndarray | None = None
        self.allowed = 0  # so many images may be bad; the next image of the folder takes the place of each
        self.bad: dict[int, str] = {}  # those that are known, and what is wrong with them

    def __len__(self) -> int:
        return len(self.paths)

    def keep(self) -> bool:
        """Decode every image into memory if together they take less than MEMORY bytes, judged by at most 64 of them first."""
        sample = range(0, len(self), max(1, len(self) // 64))
        sizes = [image.nbytes for i in sample if (image := self.decoded_or_bad(i)) is not None]
        if sum(sizes) / max(1, len(sizes)) * len(self) < MEMORY:
            self._fill()
            self.refuse(sorted(self.bad))
        return self.kept is not None

    def _fill(self) -> None:
        """Every image into one piece of memory, which a loader's workers share; nothing where they are more than MEMORY after all."""
        pixels, ends, sizes = bytearray(), array("q", [0]), array("q")
        for index in range(len(self)):
            image = self.decoded_or_bad(index)
            if image is None:
                image = np.empty((0, 0, 3), np.uint8)
            if len(pixels) + image.nbytes > MEMORY:
                return
            pixels += image.data if image.size else b""
            ends.append(len(pixels))
            sizes.extend(image.shape[:2])
        self.kept, self.ends, self.sizes = np.frombuffer(pixels, np.uint8), ends, sizes

    def decoded_or_bad(self, index: int) -> np.ndarray | None:
        try:
            return decoded(self.paths[index])
        except ValueError as error:
            self.bad[index] = str(error.__cause__)
            return None

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3], RGB; ValueError names a file that cannot be read."""
        if self.kept is None or index in self.bad:
            return decoded(self.paths[index])
        shape = (self.sizes[2 * index], self.sizes[2 * index + 1], 3)
        return self.kept[self.ends[index] : self.ends[index + 1]].reshape(shape)

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
            least = "" if self.kept is not None else "at least "  # of a large folder not every image was decoded
            raise ValueError(
                f"expected at most {self.allowed} images that cannot be decoded, found {least}{self.named(bad)}: repair or remove them; "
                f"--skip-bad {len(bad)} takes the next image of the folder in the place of each"
            )

    def named(self, bad: Sequence[int]) -> str:
        """How many they are, and the first with what is wrong."""
        first = ", ".join(f"{self.paths[i]} ({self.bad.get(i, 'it cannot be decoded')})" for i in bad[:5])
        return f"{len(bad)} of {len(self)}: {first}{', ...' if len(bad) > 5 else ''}"


Pixels = torch.Tensor | colours.Uncoloured
Batch = tuple[list[Pixels], torch.Tensor, torch.Tensor, torch.Tensor]  # pixels, boxes, labels, indices


class Steps(torch.utils.data.Dataset):
    """steps[s] is this process's share of the batch of step s.

    Gives a list of V tensors uint8 [N, S_v, S_v, 3] (a jigsaw's is [N, 9, P, P, 3]), boxes float32 [V, N, 4], labels [N] and the
    images' numbers in the folder [N]; or the exception that stopped it, because a loader wraps one that is raised in a worker into
    pages of traceback.

    later: views of which views.deferrable holds are left without their colours, as colours.Uncoloured

    An epoch is len(folder) // batch_size steps. Its images are a random order of the folder; with recipe["window"] = (size, stride)
    they are those of windows over one order of the folder, each in a random order of its own, the next window `stride` further
    (PIC): an image comes back after a few windows and not only after an epoch.
    """

    def __init__(
        self,
        folder: Folder,
        recipe: Mapping[str, Any],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        later: bool = False,
    ) -> None:
        self.folder, self.recipe, self.seed = folder, recipe, seed
        self.later = [v for v in range(recipe["views"]) if later and views.deferrable(recipe, v)]
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
        pixels: list[torch.Tensor] = []
        boxes = np.empty((self.recipe["views"], self.size, 4), np.float32)
        plans = {v: np.zeros((self.size, len(views.SLOTS), 2), np.float32) for v in self.later}
        for n, index in enumerate(indices):
            rng = np.random.default_rng((self.seed, self.visit, int(index)))
            indices[n], image = self.folder.usable(int(index))
            for v in range(len(boxes)):
                plan = plans[v][n] if v in plans else None
                out, boxes[v, n] = views.view(image, self.recipe, v, rng, plan)
                _put(out, pixels, v, n, self.size)
        labels = torch.from_numpy(self.folder.labels[indices])
        made: list[Pixels] = [
            colours.Uncoloured(x, torch.from_numpy(plans[v]), views.own(self.recipe, v)) if v in plans else x
            for v, x in enumerate(pixels)
        ]
        return made, torch.from_numpy(boxes), labels, torch.from_numpy(indices)

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
    images: which, by their numbers, in this order; None: all
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
            pixels: list[torch.Tensor] = []
            for n, index in enumerate(indices):
                _, image = self.folder.usable(int(index))
                rng = np.random.default_rng((self.seed, int(index)))
                if self.number is None:
                    _put(views.centre(image, views.side(self.recipe)), pixels, 0, n, self.size)
                for v in range(self.number or 0):
                    _put(views.view(image, self.recipe, v, rng)[0], pixels, v, n, self.size)
            return pixels, torch.from_numpy(indices)
        except Exception as error:
            return error


def _put(view: np.ndarray, pixels: list[torch.Tensor], v: int, n: int, size: int) -> None:
    """A view into its place, pixels[v][n]; the first of a kind makes room for `size` of them, where other processes see it too if
    this one is a loader's worker: then nothing is copied on its way to the training."""
    if n == 0:
        room = torch.empty((size, *view.shape), dtype=torch.uint8)
        pixels.append(room if torch.utils.data.get_worker_info() is None else room.share_memory_())
    pixels[v].numpy()[n] = view


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
        prefetch_factor=max(2, 4 // workers) if workers else None,  # of each; what is ready lies in pinned memory
        worker_init_fn=checkpoint.deaf,
        generator=torch.Generator(),  # or it would draw from the one that the methods draw from
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch
