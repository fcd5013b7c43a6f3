"""Reading photographs and drawing views of them, on one core.

views     from JPEG files of 500 x 375 pixels to a batch of random views, against torchvision's transforms on PIL images in
          torch's DataLoader, as the methods' own loaders have them: MoCo v2's two views at least 5 times, the views of SimCLR,
          BYOL, SwAV (2 of 224 pixels and 6 of 96) and PixPro (with their boxes) at least 4 times; and against decoding the same
          files and nothing else, by the fastest decoder that is installed: at least 35 % of its rate. And what a worker gains that
          leaves the colours to a GPU, without a target

Theirs end in normalised floats, as users write them. Ours stay bytes: the training loop normalises them on the device.
The photographs are synthesised: colours with the spectrum of natural images, saved at quality 95 with halved colour planes.
"""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed import Row, faster

COUNT = 32  # photographs, each read once a call


def views(folder: Path) -> list[Row]:
    """One row a method, and one against decoding alone."""
    import torch

    from pretrain import data
    from pretrain.methods import byol, moco, pixpro, simclr, swav

    photographs(folder, COUNT)
    files = sorted(folder.iterdir())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [_compared(name, method.recipe(), target, folder, files) for name, method, target in (
            ("MoCo v2's two views", moco, 5.0),
            ("SimCLR's two views", simclr, 4.0),
            ("BYOL's two views", byol, 4.0),
            ("SwAV's 2 + 6 views", swav, 4.0),
            ("PixPro's two views with boxes", pixpro, 4.0),
        )]  # fmt: skip

        def decoded() -> None:
            for file in files:
                data.decoded(file)

        ours = _batches(moco.recipe(), folder)
        rows.insert(1, faster("views", "the rate of decoding alone: MoCo v2's two views", 0.35, ours, decoded))
        spared, against = _batches(moco.recipe(), folder, later=True), "a worker that does the colours"
        rows.insert(2, faster("views", f"{against}: MoCo v2's two views, colours left to a GPU", None, spared, ours))
    finally:
        torch.set_num_threads(threads)
    return rows


def _batches(recipe: dict[str, Any], folder: Path, later: bool = False) -> Callable[[], Any]:
    """A call that gives the next batch of views of all the photographs, as the loader's worker makes it."""
    from pretrain.data import Folder, Steps

    steps = Steps(Folder(folder), recipe | {"batch_size": COUNT}, seed=0, later=later)
    numbers: Iterator[int] = iter(range(10**9))
    return lambda: steps.batch(next(numbers))


def _compared(name: str, recipe: dict[str, Any], target: float, folder: Path, files: list[Path]) -> Row:
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(Plain(files, recipe), COUNT)  # type: ignore[arg-type]

    def theirs() -> None:
        for _ in loader:
            pass

    ours = _batches(recipe, folder)
    return faster("views", f"torchvision on PIL: {name} (theirs normalised, ours bytes)", target, ours, theirs)


class Plain:
    """A data set as users write it: an image's views in a list."""

    def __init__(self, files: list[Path], recipe: dict[str, Any]) -> None:
        self.files, self.transforms = files, [plain(recipe, view) for view in range(recipe["views"])]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Any]:
        image = opened(self.files[index])
        return [transform(image) for transform in self.transforms]


def opened(file: Path) -> Any:
    """As torchvision's ImageFolder opens a file."""
    from PIL import Image

    with file.open("rb") as stream:
        return Image.open(stream).convert("RGB")


def plain(recipe: dict[str, Any], view: int) -> Callable[[Any], Any]:
    """A recipe's view by torchvision's transforms on a PIL image, as MoCo's loader composes them: floats [3, S, S], normalised.

    The blur is PIL's for every method: torchvision's own with SimCLR's 23 pixels a side would be slower.
    """
    from PIL import ImageFilter, ImageOps
    from torchvision import transforms as T
    from torchvision.transforms import InterpolationMode

    def blurred(image: Any) -> Any:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*recipe["blur_sigma"])))

    def own(value: Any) -> Any:
        return value[view] if isinstance(value, tuple) else value

    area = recipe["crop_area"][view] if isinstance(recipe["crop_area"][0], tuple) else recipe["crop_area"]
    steps = [
        T.RandomResizedCrop(own(recipe["size"]), area, interpolation=InterpolationMode(recipe.get("interpolation", "bilinear"))),
        T.RandomApply([T.ColorJitter(*recipe["jitter"])], own(recipe["jitter_p"])),
        T.RandomGrayscale(own(recipe["gray_p"])),
        T.RandomApply([T.Lambda(blurred)], own(recipe["blur_p"])),
    ]  # fmt: skip
    if own(recipe["solarize_p"]):
        steps.append(T.RandomApply([T.Lambda(ImageOps.solarize)], own(recipe["solarize_p"])))
    normalise = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return T.Compose([*steps, T.RandomHorizontalFlip(recipe["flip_p"]), T.ToTensor(), normalise])


def photographs(folder: Path, count: int, height: int = 375, width: int = 500) -> None:
    """Write JPEG files 0.jpg, 1.jpg, ..., always the same, of about 100 kB each, as VOC's are.

    Their amplitudes fall as frequency ** -1.4: noise with a natural image's own 1 / frequency, which has no edges and no smooth
    areas, would take half as many bytes again.
    """
    from PIL import Image

    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = math.inf
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = np.fft.rfft2(rng.standard_normal((3, height, width)))
        light, *colours = np.fft.irfft2(noise / frequency**1.4, (height, width))  # three planes of mean 0
        rgb = np.stack([light + 0.3 * colours[0], light, light + 0.3 * colours[1]], axis=-1)
        pixels = np.clip(118 + 60 * rgb / rgb.std(), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=95)
