"""Ten thousand views by every operation against as many by torchvision on PIL images: mean, spread and histogram of the pixels.

The draws are independent. Half a level is what rounding may move, the rest of a tolerance is 4.5 standard errors.
"""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils._python_dispatch import _disable_current_modes
from torchvision import transforms as T

from pretrain import views
from pretrain.methods import moco

COUNT, SIDE = 10_000, 24
OFF = {**moco.recipe(), "size": SIDE, "jitter_p": 0.0, "gray_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0, "flip_p": 0.0}


def pictures(side: int) -> list[np.ndarray]:
    """Smooth coloured structure with noise and edges, of four kinds of light."""
    y, x = np.mgrid[:side, :side] * 64 / side
    rng = np.random.default_rng(0)
    made = []
    for light in (60, 110, 150, 200):
        planes = [light + 70 * np.sin(x / 9 + phase + light) * np.cos(y / 13 - phase) for phase in (0, 1, 2)]
        image = np.stack(planes, axis=-1) + rng.normal(0, 8, (side, side, 3))
        image[side // 3 : side // 2, side // 4 : side // 2] = rng.uniform(0, 255, 3)
        made.append(np.clip(image, 0, 255).astype(np.uint8))
    return made


def blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def only(name: str):
    """One of the jitter's operations, as it is drawn among the others."""
    return lambda image, rng: views.jittered(
        image, [one for one in views.drawn((0.4, 0.4, 0.4, 0.1), rng) if one[0] == name]
    )


def coloured(**changes):
    return lambda image, rng: views.coloured(image, {**OFF, **changes}, rng)


def whole(**changes):
    return lambda image, rng: views.view(image, {**OFF, **changes}, 0, rng)[0]


JITTER = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)
OPERATIONS = {
    "brightness": (SIDE, only("brightness"), T.ColorJitter(0.4)),
    "contrast": (SIDE, only("contrast"), T.ColorJitter(0, 0.4)),
    "saturation": (SIDE, only("saturation"), T.ColorJitter(0, 0, 0.4)),
    "hue": (SIDE, only("hue"), T.ColorJitter(0, 0, 0, 0.1)),
    "jitter": (SIDE, coloured(jitter_p=0.8), JITTER),
    "gray": (SIDE, coloured(gray_p=0.2), T.RandomGrayscale(0.2)),
    "blur": (SIDE, coloured(blur_p=0.5), T.RandomApply([T.Lambda(blurred)], 0.5)),
    "solarize": (SIDE, coloured(solarize_p=0.2), T.RandomApply([T.Lambda(ImageOps.solarize)], 0.2)),
    "crop and flip": (
        100,
        whole(flip_p=0.5),
        T.Compose([T.RandomResizedCrop(SIDE, (0.2, 1.0)), T.RandomHorizontalFlip()]),
    ),
    "all": (
        100,
        whole(jitter_p=0.8, gray_p=0.2, blur_p=0.5, flip_p=0.5),
        T.Compose(
            [
                T.RandomResizedCrop(SIDE, (0.2, 1.0)),
                JITTER,
                T.RandomGrayscale(0.2),
                T.RandomApply([T.Lambda(blurred)], 0.5),
                T.RandomHorizontalFlip(),
            ]
        ),
    ),
}


def statistics(views: np.ndarray) -> np.ndarray:
    """[n, side, side, 3] -> [n, 22]: the mean and the standard deviation of each channel, and the shares of 16 steps of the scale."""
    flat = views.reshape(len(views), -1, 3)
    bins = (flat.reshape(len(views), -1) >> 4) + 16 * np.arange(len(views))[:, None]
    shares = np.bincount(bins.reshape(-1), minlength=16 * len(views)).reshape(-1, 16) / bins.shape[1]
    return np.concatenate([flat.mean(axis=1), flat.std(axis=1), shares], axis=1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_ten_thousand_views_are_distributed_as_torchvisions(name):
    side, ours, theirs = OPERATIONS[name]
    images = pictures(side)
    pil = [Image.fromarray(image) for image in images]
    torch.manual_seed(0)
    random.seed(0)
    rng = np.random.default_rng(0)
    mine = statistics(np.array([ours(images[i % 4], rng) for i in range(COUNT)]))
    with _disable_current_modes():  # nothing is trained here, and every draw of torch's would pass through
        other = statistics(np.array([np.asarray(theirs(pil[i % 4])) for i in range(COUNT)]))

    within = mine.reshape(-1, len(images), 22).std(axis=0)  # the four pictures come as often here as there
    error = 4.5 * np.sqrt((within**2).mean(axis=0)) * math.sqrt(2 / COUNT)
    apart = np.abs(mine.mean(axis=0) - other.mean(axis=0))
    assert (apart[:6] <= 0.5 + error[:6]).all()  # means and contrasts, in levels
    spread = np.abs(mine[:, :6].std(axis=0) - other[:, :6].std(axis=0))
    assert (spread <= 0.5 + error[:6]).all()  # how much views differ from one another
    assert apart[6:].sum() / 2 <= 0.01 + error[6:].sum() / 2  # total variation of the histograms
