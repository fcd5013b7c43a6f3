"""Random views of an image, and where each lies in it.

The operations and their random parameters are torchvision's on PIL images (RandomResizedCrop, ColorJitter, RandomGrayscale,
RandomHorizontalFlip) and PIL's own (GaussianBlur, solarize), computed with OpenCV on uint8 arrays because that is several
times faster; tests/pretrain/test_views.py compares them one by one. A view stays uint8: the training loop subtracts the mean
and divides by the standard deviation on the device.

What a recipe says about its views: `size` in pixels, `crop_area` as a range of fractions, `jitter` as the half-ranges of
brightness, contrast, saturation and hue, the probabilities `jitter_p`, `gray_p`, `flip_p`, and with one entry a view `blur_p`
and `solarize_p`; `blur_sigma` is a range in pixels, `gray_first` moves the grey conversion before the jitter (MoCo v1).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

cv2.setNumThreads(0)  # OpenCV's thread pool does not survive the fork of a loader's worker


def crop(height: int, width: int, area: Sequence[float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop: a fraction of the area, aspect 3/4 to 4/3, the centre after 10 failures."""
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, 3] by PIL's bilinear filter, which averages when it shrinks."""
    if image.shape[0] <= size and image.shape[1] <= size:  # no averaging: OpenCV's filter is the same and faster
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # torch's antialiased uint8 kernel is PIL's, vectorised
    return interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return _blended(image, 0, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _blended(image, mean, factor)


def _blended(image: np.ndarray, level: int, factor: float) -> np.ndarray:
    """level + factor * (image - level), in PIL's single precision and cut, not rounded, as PIL's blend does."""
    table = np.float32(level) + np.float32(factor) * (np.arange(256, dtype=np.float32) - np.float32(level))
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.addWeighted(image, factor, gray(image), 1 - factor, 0)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Hues turned by `shift` of a full circle, -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)  # uint8 wraps, as the circle does
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def jittered(image: np.ndarray, strength: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue changed in a random order."""
    for operation in rng.permutation(4):
        amount = rng.uniform(-1, 1) * strength[operation]
        if operation == 3:
            image = hue(image, amount)
        else:
            image = (brightness, contrast, saturation)[operation](image, max(0.0, 1 + amount))
    return image


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def solarized(image: np.ndarray) -> np.ndarray:
    """The upper half of the scale inverted."""
    return np.where(image < 128, image, 255 - image)


def view(
    image: np.ndarray, recipe: Mapping[str, Any], index: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The view number `index` of an image: uint8 [size, size, 3] RGB, and its box x0, y0, x1, y1.

    image: uint8 [H, W, 3], RGB
    box:   first and last pixel as fractions of W - 1 and H - 1 (PixPro contrast/data/transform_coord.py); x0 > x1 in a
           mirrored view, and nothing may sort the two
    """
    height, width = image.shape[:2]
    i, j, h, w = crop(height, width, recipe["crop_area"], rng)
    x0, y0 = j / max(width - 1, 1), i / max(height - 1, 1)
    x1, y1 = (j + w - 1) / max(width - 1, 1), (i + h - 1) / max(height - 1, 1)
    out = resized(image[i : i + h, j : j + w], recipe["size"])
    if recipe["gray_first"] and rng.random() < recipe["gray_p"]:
        out = gray(out)
    if rng.random() < recipe["jitter_p"]:
        out = jittered(out, recipe["jitter"], rng)
    if not recipe["gray_first"] and rng.random() < recipe["gray_p"]:
        out = gray(out)
    if rng.random() < recipe["blur_p"][index]:
        out = blurred(out, rng.uniform(*recipe["blur_sigma"]))
    if rng.random() < recipe["solarize_p"][index]:
        out = solarized(out)
    if rng.random() < recipe["flip_p"]:
        out, x0, x1 = out[:, ::-1], x1, x0
    return out, (x0, y0, x1, y1)
