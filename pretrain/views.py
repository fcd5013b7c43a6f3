"""Random views of an image, and where each lies in it.

The operations and their random parameters are torchvision's on PIL images (RandomResizedCrop, ColorJitter, RandomGrayscale,
RandomHorizontalFlip) and PIL's own (GaussianBlur, solarize), computed with OpenCV on uint8 arrays because that is several
times faster; tests/pretrain/test_views.py compares them one by one. A view stays uint8: the training loop subtracts the mean
and divides by the standard deviation on the device.

What a recipe says about its views: `size` in pixels, `crop_area` as a range of fractions, `interpolation` (bilinear unless it
says bicubic), `jitter` as the half-ranges of brightness, contrast, saturation and hue, the probabilities `jitter_p`, `gray_p`,
`blur_p`, `solarize_p`, `photometric_p`, `flip_p`; `blur_sigma` is a range in pixels, `blur_kernel` the side of a kernel that is cut
there (absent: as far as the Gaussian reaches), `gray_first` moves the grey conversion before the jitter (MoCo v1). `randaugment`
is (n, m, mstd) or None, and the grey conversion then comes behind it (InfoMin); `strong` says which views get CLSA's five
operations. The view number `jigsaw` is nine patches of `jigsaw_patch` pixels, each from a random place in a cell of a crop of
`jigsaw_size` pixels, which covers `jigsaw_area` of the image; with `jigsaw_colours` each patch has colours and flip drawn for itself.
Where the recipe has `jigsaw_side` in their place, the crop is a square of so much of the image's shorter side, coloured as a whole.
SINGLE and RANGES name what may be a tuple with one entry a view.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

from pretrain import randaugment

COLOURS = ("brightness", "contrast", "saturation", "hue")
LUMA = (0.299, 0.587, 0.114)  # red, green and blue in PIL's grey

cv2.setNumThreads(0)  # OpenCV's thread pool does not survive the fork of a loader's worker


def crop(height: int, width: int, area: Sequence[float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop: a fraction of the area, aspect 3/4 to 4/3, the centre after 10 failures."""
    low, high = area
    for _ in range(10):
        target = height * width * (low + (high - low) * rng.random())
        aspect = math.exp((2 * rng.random() - 1) * math.log(4 / 3))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def square(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random square whose side is a share of the shorter one."""
    side = round(min(height, width) * share)
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side, side


def resized(image: np.ndarray, height: int, width: int, interpolation: str = "bilinear") -> np.ndarray:
    """[height, width, 3] by PIL's bilinear or bicubic filter, which average when they shrink."""
    if interpolation == "bilinear" and image.shape[0] <= height and image.shape[1] <= width:
        # no averaging: OpenCV's filter is the same and faster
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    # torch's antialiased uint8 kernel is PIL's, vectorised; it is fast, and its result lies as OpenCV wants it, where even the
    # stride of the batch's one entry is that of channels-last, as reshape makes it and [None] does not
    pixels = torch.from_numpy(np.ascontiguousarray(image).reshape(1, *image.shape)).permute(0, 3, 1, 2)
    return interpolate(pixels, (height, width), mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()


def gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Hues turned by `shift` of a full circle, -0.5 to 0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turn = np.zeros(hsv[0].size, np.uint8)
    turn[::3] = int(shift * 255) % 256
    lines = hsv.reshape(len(hsv), -1)
    # uint8 wraps, as the circle does; whole lines are added faster than every third byte
    np.add(lines, turn, out=lines)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def drawn(strength: Sequence[float], rng: np.random.Generator) -> list[tuple[str, float]]:
    """Brightness, contrast and saturation with their factors and hue with its shift, in a random order."""
    found = []
    for number in rng.permutation(4):
        amount = (2 * rng.random() - 1) * strength[number]
        found.append((COLOURS[number], amount if number == 3 else max(0.0, 1 + amount)))
    return found


def jittered(image: np.ndarray, operations: Sequence[tuple[str, float]]) -> np.ndarray:
    """The operations done in turn, by their names in COLOURS.

    Those that wait make a x + g l + c of a pixel x, where l is its grey. That goes over the image before hue, and before the next
    operation where the last may have gone beyond 0..255, which it does by a factor above 1 only.
    """
    a, g, c, waiting, last = 1.0, 0.0, 0.0, False, 1.0
    for operation, f in operations:
        if waiting and (last > 1 or operation == "hue"):
            image = linear(image, a, g, c)
            a, g, c, waiting = 1.0, 0.0, 0.0, False
        if operation == "hue":
            image = hue(image, f)
            continue
        if operation == "saturation":
            g = f * g + (1 - f) * (a + g)
        else:
            level = int((a + g) * luma(image) + c + 0.5) if operation == "contrast" else 0
            g, c = f * g, f * c + (1 - f) * level
        # PIL cuts what cv2.transform rounds: half a level, less a little for what is whole already
        a, c, waiting, last = f * a, c - 0.498, True, f
    return linear(image, a, g, c) if waiting else image


def luma(image: np.ndarray) -> float:
    """The mean of the image in PIL's grey."""
    return sum(weight * mean for weight, mean in zip(LUMA, cv2.mean(image), strict=False))


def linear(image: np.ndarray, a: float, g: float, c: float) -> np.ndarray:
    """Of every pixel x with the grey l, a x + g l + c, rounded and cut to 0..255."""
    red, green, blue = (g * weight for weight in LUMA)
    matrix = ((a + red, green, blue, c), (red, a + green, blue, c), (red, green, a + blue, c))
    return cv2.transform(image, np.array(matrix))


def blurred(image: np.ndarray, sigma: float, kernel: int | None = None) -> np.ndarray:
    """PIL's Gaussian blur with radius sigma, or a kernel of `kernel` pixels a side with mirrored borders, torchvision's.

    The kernel is cut at three sigma: what lies beyond weighs less than half a level.
    """
    if kernel is None:
        return boxed(image, sigma) if sigma**2 >= 2 else tapped(image, sigma)
    kernel = min(kernel, 2 * math.ceil(3 * sigma) + 1)
    return cv2.GaussianBlur(image, (kernel, kernel), sigma, borderType=cv2.BORDER_REFLECT_101)


def tapped(image: np.ndarray, sigma: float) -> np.ndarray:
    """Three box filters whose variances add up to sigma squared, which is what PIL calls a Gaussian blur, in one of seven taps.

    A box has three pixels, of which the outer ones count in part, up to a variance of 2/3; three times a border's pixel beside it is
    a mirror.
    """
    part = sigma**2 / 6
    box = (part, 1 - 2 * part, part)
    taps = np.convolve(np.convolve(box, box), box)
    return cv2.sepFilter2D(image, -1, taps, taps, borderType=cv2.BORDER_REFLECT)


def boxed(image: np.ndarray, sigma: float) -> np.ndarray:
    """The same for larger ones. PIL's three have one radius, whole or not; here they have whole ones, and one of them is a mixture
    of two."""
    radius = int((math.sqrt(4 * sigma**2 + 1) - 1) / 2)  # a box of 2 r + 1 pixels has the variance r (r + 1) / 3
    larger = (sigma**2 - radius * (radius + 1)) / (2 * (radius + 1) / 3)  # how many of the three have the next radius
    for _ in range(int(larger)):
        image = box(image, radius + 1)
    image = cv2.addWeighted(box(image, radius + 1), larger % 1, box(image, radius), 1 - larger % 1, 0)
    for _ in range(2 - int(larger)):
        image = box(image, radius)
    return image


def box(image: np.ndarray, radius: int) -> np.ndarray:
    side = 2 * radius + 1
    return cv2.blur(image, (side, side), borderType=cv2.BORDER_REPLICATE)


def solarized(image: np.ndarray) -> np.ndarray:
    """The upper half of the scale inverted."""
    return cv2.min(image, cv2.bitwise_not(image))


def side(recipe: Mapping[str, Any]) -> int:
    """The pixels a side of the largest view."""
    return recipe["size"] if isinstance(recipe["size"], int) else max(recipe["size"])


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, 3] uint8, the middle of the image, its shorter side resized to 8/7 of `size` (256 for 224)."""
    shorter, least = round(size * 8 / 7), min(image.shape[:2])
    image = resized(image, *(int(shorter * length / least) for length in image.shape[:2]))
    top, left = (round((length - size) / 2) for length in image.shape[:2])
    return image[top : top + size, left : left + size]


# What may have one entry a view: one value, or several.
SINGLE = (
    "size", "jitter_p", "gray_p", "blur_p", "blur_kernel", "solarize_p", "photometric_p", "randaugment", "strong", "flip_p",
)  # fmt: skip
RANGES = ("crop_area", "jitter")


def own(recipe: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What the recipe says of the view number `index`: where it has one entry a view, that entry."""
    said = {"interpolation": "bilinear", **recipe}
    for key in SINGLE:
        if isinstance(said.get(key), tuple):
            said[key] = said[key][index]
    for key in RANGES:
        if isinstance(said[key][0], tuple):
            said[key] = said[key][index]
    return said


def view(
    image: np.ndarray,
    recipe: Mapping[str, Any],
    index: int,
    rng: np.random.Generator,
    later: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The view number `index` of an image: uint8 [size, size, 3] RGB, and its box x0, y0, x1, y1; a jigsaw is [9, P, P, 3].

    image: uint8 [H, W, 3], RGB
    box:   first and last pixel as fractions of W - 1 and H - 1 (PixPro contrast/data/transform_coord.py); x0 > x1 in a
           mirrored view, and nothing may sort the two
    later: float32 [len(SLOTS), 2] that takes down what is to be done to the colours, as numbers in OPERATIONS and amounts, in the
           place of doing it; for views of which `deferrable` holds
    """
    said = own(recipe, index)
    jigsaw = recipe.get("jigsaw") == index
    whole = jigsaw and "jigsaw_side" in recipe
    size = recipe["jigsaw_size"] if jigsaw else said["size"]
    height, width = image.shape[:2]
    if whole:
        i, j, h, w = square(height, width, recipe["jigsaw_side"], rng)
    else:
        i, j, h, w = crop(height, width, recipe["jigsaw_area"] if jigsaw else said["crop_area"], rng)
    x0, y0 = j / max(width - 1, 1), i / max(height - 1, 1)
    x1, y1 = (j + w - 1) / max(width - 1, 1), (i + h - 1) / max(height - 1, 1)
    out = resized(image[i : i + h, j : j + w], size, size, said["interpolation"])
    if later is not None:
        later[:] = [(OPERATIONS.index(name), amount) for name, amount in planned(said, rng)]
    elif whole or not jigsaw:
        out = coloured(out, said, rng)
    apart = jigsaw and not whole and recipe["jigsaw_colours"]
    if not apart and rng.random() < said["flip_p"]:
        out, x0, x1 = cv2.flip(out, 1), x1, x0
    if jigsaw:
        cut = patches(out, recipe["jigsaw_patch"], rng)
        out = np.stack([_alone(patch, said, rng) for patch in cut] if apart else cut)
    return out, (x0, y0, x1, y1)


def _alone(patch: np.ndarray, said: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """A patch with colours and a mirroring of its own, which are drawn behind the cutting (VISSL)."""
    out = coloured(patch, said, rng)
    return cv2.flip(out, 1) if rng.random() < said["flip_p"] else out


def deferrable(recipe: Mapping[str, Any], index: int) -> bool:
    """Whether all that is done to the colours of this view is in OPERATIONS: no pool of PIL's operations, no jigsaw."""
    said = own(recipe, index)
    pools = said.get("randaugment") is not None or "photometric_p" in said or said.get("strong")
    return not pools and recipe.get("jigsaw") != index


NOTHING = ("", 0.0)
OPERATIONS = ("", *COLOURS, "gray", "blur", "solarize")
SLOTS = ("gray first", "jitter", "jitter", "jitter", "jitter", "gray", "blur", "solarize")


def planned(said: Mapping[str, Any], rng: np.random.Generator) -> list[tuple[str, float]]:
    """One of OPERATIONS, with its amount, for each of SLOTS, drawn in the recipe's order; the grey conversion of `_grey_last` is not
    among them."""
    plan = [NOTHING] * len(SLOTS)
    if said["gray_first"] and rng.random() < said["gray_p"]:
        plan[0] = ("gray", 0.0)
    if rng.random() < said["jitter_p"]:
        plan[1:5] = drawn(said["jitter"], rng)
    if not said["gray_first"] and not _grey_last(said) and rng.random() < said["gray_p"]:
        plan[5] = ("gray", 0.0)
    if rng.random() < said["blur_p"]:
        plan[6] = ("blur", rng.uniform(*said["blur_sigma"]))
    if rng.random() < said["solarize_p"]:
        plan[7] = ("solarize", 0.0)
    return plan


def _grey_last(said: Mapping[str, Any]) -> bool:
    """Whether the grey conversion comes behind RandAugment (InfoMin) or the photometric step (VISSL's PIRL)."""
    return said.get("randaugment") is not None or bool(said.get("photometric_p"))


def coloured(out: np.ndarray, said: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Everything between crop and flip, in the recipe's order."""
    first, *jitter, grey, blur, solarize = planned(said, rng)
    if first != NOTHING:
        out = gray(out)
    if jitter[0] != NOTHING:
        out = jittered(out, jitter)
    if grey != NOTHING:
        out = gray(out)
    if blur != NOTHING:
        out = blurred(out, blur[1], said.get("blur_kernel"))
    if solarize != NOTHING:
        out = solarized(out)
    if said.get("randaugment") is not None:
        out = randaugment.augmented(out, *said["randaugment"], rng)
    if "photometric_p" in said and rng.random() < said["photometric_p"]:
        out = randaugment.photometric(out, rng)
    if _grey_last(said) and rng.random() < said["gray_p"]:
        out = gray(out)
    return randaugment.strengthened(out, rng) if said.get("strong") else out


def patches(image: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Nine patches [size, size, 3], row by row, each from a random place in its cell of a 3 x 3 grid."""
    cell = image.shape[0] // 3
    found = []
    for row in range(3):
        for column in range(3):
            top, left = (int(start * cell + rng.integers(cell - size + 1)) for start in (row, column))
            found.append(image[top : top + size, left : left + size])
    return found
